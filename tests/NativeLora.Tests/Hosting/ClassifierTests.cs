using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Devices.Cpu;
using NativeLora.Hosting;
using NativeLora.Models;
using NativeLora.Tests.Cli;
using NativeLora.Tests.Serving;

namespace NativeLora.Tests.Hosting;

/// <summary>The classifier that programs embed: numbers, threads, limits, errors.</summary>
public sealed class ClassifierTests
{
    private const double Close = 1e-5;

    private static string ModelOf(string name) => Shared.Path("fixtures", "models", name, "model");

    /// <summary>The probabilities are the softmax of the logits that sessions give.</summary>
    [SharedTheory]
    [InlineData("bert-cls")]
    [InlineData("roberta-cls")]
    [InlineData("llama-cls")]
    [InlineData("bert-regression")]
    public void Batches_have_the_results_of_a_session(string name)
    {
        using var served = new ServedModel(name);
        using var classifier = Classifier.Open(ModelOf(name), new InferenceOptions { BatchTokens = 1, MaxLength = served.Batch.Width });
        var (batch, alone) = (served.Batch.Packed, served.Alone(null));
        var lengths = Lengths(served);
        var got = new float[lengths.Length * classifier.Classes];
        classifier.PredictBatch(batch.TokenIds.AsSpan(0, batch.TokenCount), lengths, got, typeIds: batch.TypeIds.AsSpan(0, batch.TokenCount));
        Assert.Equal(name == "bert-regression", classifier.IsRegression);
        Assert.InRange(ServedModel.Distance(got, classifier.IsRegression ? alone : Softmax(alone, classifier.Classes)), 0, Close);
        for (var s = 0; s < lengths.Length; s++)
        {
            var row = new float[classifier.Classes];
            var tokens = batch.CuSeqlens[s]..batch.CuSeqlens[s + 1];
            var best = classifier.Predict(batch.TokenIds[tokens], row, typeIds: batch.TypeIds[tokens]);
            Assert.Equal(row.AsSpan().IndexOf(row.Max()), best);
            Assert.InRange(ServedModel.Distance(row, got.AsSpan(s * row.Length, row.Length).ToArray()), 0, Close);
        }
    }

    [SharedFact]
    public void Adapters_act_by_name_and_the_first_by_default()
    {
        using var served = new ServedModel("bert-cls");
        string[] variants = ["lora-all", "dora-selected"];
        AdapterSource[] adapters = [.. variants.Select(v => new AdapterSource(v, served.Final(v)))];
        using var classifier = Classifier.Open(ModelOf("bert-cls"), new InferenceOptions { Adapters = adapters, MaxLength = served.Batch.Width });
        Assert.Equal(variants, classifier.Adapters);
        var results = new List<float[]>();
        foreach (var name in (string?[])[null, "lora-all", "dora-selected", AdapterSource.None])
        {
            var wanted = served.Alone(name is "" ? null : served.Load(served.Final(name ?? "lora-all")));
            var got = new float[wanted.Length];
            var batch = served.Batch.Packed;
            classifier.PredictBatch(batch.TokenIds.AsSpan(0, batch.TokenCount), Lengths(served), got, name, batch.TypeIds.AsSpan(0, batch.TokenCount));
            Assert.InRange(ServedModel.Distance(got, Softmax(wanted, classifier.Classes)), 0, Close);
            results.Add(got);
        }
        Assert.Equal(results[0], results[1]);
        Assert.True(ServedModel.Distance(results[1], results[2]) > 1e-3);
        Assert.Contains("there are lora-all, dora-selected", Assert.Throws<InputException>(() => classifier.Predict([1], new float[8], "other")).Message);
    }

    /// <summary>Callers of several threads, with other adapters and lengths, get what one caller gets.</summary>
    [SharedFact]
    public async Task Callers_at_the_same_time_get_the_same_results()
    {
        using var model = new SmallModel();
        using var served = new ServedModel("bert-cls");
        AdapterSource[] adapters = [new("a", served.Final("lora-all")), new("b", served.Final("lora-selected"))];
        using var alone = Classifier.Open(model.Path, new InferenceOptions { Adapters = adapters, Threads = 1 });
        using var shared = Classifier.Open(model.Path, new InferenceOptions { Adapters = adapters, Sessions = 3, Threads = 1 });
        string[] texts = [.. Enumerable.Range(1, 24).Select(i => string.Join(' ', Enumerable.Range(0, i).Select(j => $"{(char)('a' + ((i + j) % 3))}{(char)('a' + (j % 20))}")))];
        string?[] names = ["a", "b", AdapterSource.None, null];
        var wanted = texts.Select((t, i) => alone.Predict(t, names[i % 4])).ToList();
        var asked = texts.Select((t, i) => shared.PredictAsync(t, names[i % 4])).ToArray();
        var threads = texts.Select((t, i) => Task.Run(() => shared.Predict(t, names[i % 4]))).ToArray();
        Assert.Equal(wanted, await Task.WhenAll(asked));
        Assert.Equal(wanted, await Task.WhenAll(threads));
        // Products of whole batches are made in other blocks than those of one sequence.
        Assert.All(shared.Predict(texts, "b").Zip(texts.Select(t => alone.Predict(t, "b"))), p => Assert.Equal(p.Second.Value, p.First.Value, 1e-5));
    }

    [SharedTheory]
    [InlineData("bert-cls", false)]
    [InlineData("bert-cls", true)]
    [InlineData("llama-cls", false)]
    public void A_call_with_token_ids_allocates_nothing(string name, bool withAdapter)
    {
        using var served = new ServedModel(name);
        var options = new InferenceOptions { Threads = 2, Adapters = withAdapter ? [new("a", served.Final("lora-all"))] : [] };
        using var classifier = Classifier.Open(ModelOf(name), options);
        using var source = new CancellationTokenSource();
        int[] ids = [5, 6, 7, 8, 9, 10, 11], lengths = [3, 4];
        var values = new float[2 * classifier.Classes];
        long Allocated()
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < 20; i++)
            {
                classifier.Predict(ids, values, cancellation: source.Token);
                classifier.PredictBatch(ids, lengths, values, cancellation: source.Token);
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        Allocated();
        Assert.Equal(0, Allocated());
    }

    [SharedFact]
    public void Texts_are_classified_and_labels_named()
    {
        using var model = new SmallModel();
        using var classifier = Classifier.Open(model.Path, new InferenceOptions { MaxLength = 8 });
        var values = new float[classifier.Classes];
        var prediction = classifier.Predict("aa ab ac", "ba bb", values);
        Assert.Equal(classifier.Labels[prediction.Class], prediction.Label);
        Assert.Equal(values[prediction.Class], prediction.Value);
        Assert.Equal(1, values.Sum(), 1e-5);
        // A long text is cut to the maximum length.
        Assert.Equal(classifier.Predict("aa ab ac ad ae af"), classifier.Predict("aa ab ac ad ae af ag ah ai aj"));
        Assert.Equal(8, classifier.MaxLength);
        string[] named = [.. Enumerable.Range(0, classifier.Classes).Select(i => $"name{i}")];
        using var other = Classifier.Open(model.Path, new InferenceOptions { Labels = named });
        Assert.Equal(named, other.Labels);
    }

    [SharedFact]
    public void What_is_wrong_is_said()
    {
        using var model = new SmallModel();
        using var classifier = Classifier.Open(model.Path, new InferenceOptions { MaxLength = 8 });
        var values = new float[classifier.Classes];
        Assert.Contains("at most 8", Assert.Throws<InputException>(() => classifier.Predict(new int[9], values)).Message);
        Assert.Contains("0 tokens", Assert.Throws<InputException>(() => classifier.Predict([], values)).Message);
        Assert.Contains("outside", Assert.Throws<InputException>(() => classifier.Predict([1, 1_000_000], values)).Message);
        Assert.Contains("outside", Assert.Throws<InputException>(() => classifier.Predict([-1], values)).Message);
        Assert.Throws<ArgumentException>(() => classifier.Predict([1], []));
        Assert.Throws<ArgumentException>(() => classifier.PredictBatch([1, 2], [1], values));
        Assert.Throws<ArgumentException>(() => classifier.Predict([1, 2], values, typeIds: [0]));
        Assert.Contains("there are none", Assert.Throws<InputException>(() => classifier.Predict("aa", "x")).Message);
        Assert.Contains("sessions", Assert.Throws<InputException>(() => Classifier.Open(model.Path, new InferenceOptions { Sessions = 0 })).Message);
        Assert.Contains("no such folder", Assert.Throws<InputException>(() => Classifier.Open(model.Path, new InferenceOptions { Adapters = [new("a", model.Place("none"))] })).Message);
        Assert.Throws<InputException>(() => Classifier.Open(model.Place("missing")));
        Assert.Contains("no classifier", Assert.Throws<InputException>(() => Classifier.Open(ModelOf("gpt2"))).Message);
    }

    /// <summary>A model without a classifier needs an adapter that has one; the base itself then classifies nothing.</summary>
    [SharedFact]
    public void A_bare_encoder_needs_an_adapter_with_a_head()
    {
        Assert.Contains("there is no classifier", Assert.Throws<InputException>(() => Classifier.Open(Shared.Path("models", "minilm-l6"))).Message);
        using var folder = new Checkpoints.TemporaryFolder();
        SaveAdapter(folder.File("three"), 3);
        using var classifier = Classifier.Open(Shared.Path("models", "minilm-l6"), new InferenceOptions { Adapters = [new("three", folder.File("three"))] });
        Assert.Equal(["no", "perhaps", "yes"], classifier.Labels);
        Assert.Contains(classifier.Predict("A good film.").Label, classifier.Labels);
        Assert.Contains("no trained head", Assert.Throws<InputException>(() => classifier.Predict("A good film.", AdapterSource.None)).Message);
    }

    private static void SaveAdapter(string folder, int classes)
    {
        using var device = new CpuDevice(1);
        string[] labels = ["no", "perhaps", "yes"];
        using var pretrained = PretrainedModel.Open(Shared.Path("models", "minilm-l6"), device, new PretrainedOptions { Labels = labels });
        var config = new LoraConfig { Rank = 2, TaskType = "SEQ_CLS", TargetModules = ModuleSelector.Of("query"), ModulesToSave = ["classifier"] };
        using var model = NativeLora.Training.TrainableModel.WithAdapters(pretrained, ModelHead.SequenceClassification, config, null, seed: 1, training: false);
        AdapterFile.Save(folder, model.Config!, pretrained.Modules(ModelHead.SequenceClassification), model.Export());
        LabelsFile.Save(folder, labels);
        Assert.Equal(classes, labels.Length);
    }

    private static int[] Lengths(ServedModel served) =>
        [.. Enumerable.Range(0, served.Batch.Rows).Select(s => served.Batch.Packed.CuSeqlens[s + 1] - served.Batch.Packed.CuSeqlens[s])];

    private static float[] Softmax(float[] logits, int classes) =>
        [.. logits.Chunk(classes).SelectMany(row => row.Select(x => (float)(Math.Exp(x - row.Max()) / row.Sum(y => Math.Exp(y - row.Max())))))];
}
