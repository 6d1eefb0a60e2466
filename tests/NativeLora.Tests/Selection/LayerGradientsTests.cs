using NativeLora.Adapters;
using NativeLora.Data;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Tests.Selection;

public sealed class LayerGradientsTests
{
    private static List<EncodedExample> Examples(Model model, bool causal)
    {
        var random = new Random(5);
        return [.. Enumerable.Range(0, 13).Select(i =>
        {
            int[] ids = [.. Enumerable.Range(0, 3 + i % 6).Select(_ => random.Next(5, 35))];
            return causal
                ? EncodedExample.Causal(new CausalExample(ids, [.. ids.Select((id, t) => t == 1 ? InstructionPrompt.IgnoredLabel : id)], 0, ids.Length - 1, ids.Length - 1))
                : EncodedExample.Text(new TokenizedText(ids, new int[ids.Length]), i % 2, null, model.ClassifiedToken(ids));
        })];
    }

    private static CostRequest Training(ModelHead head, LoraConfig config) => new() { Lora = config, Head = head, Capacity = BatchSize.Of(4, 9), MaxLength = 9, Threads = 1 };

    [SharedTheory]
    [InlineData("fixtures/models/bert-cls/model", false)]
    [InlineData("fixtures/models/llama-gqa/model", true)]
    [InlineData("models/minilm-l6", false)]
    public void NormsAreThoseOfATrainingsFirstGradients(string folder, bool causal)
    {
        using var device = new CpuDevice(2);
        using var model = PretrainedModel.Open(Shared.Path(folder.Split('/')), device, new PretrainedOptions { Labels = causal ? null : ["no", "yes"] });
        var examples = Examples(model.Model, causal);
        var head = causal ? ModelHead.LanguageModel : ModelHead.SequenceClassification;
        var config = new LoraConfig { Rank = 4, Alpha = 12, Dropout = 0.5, TaskType = causal ? "CAUSAL_LM" : "SEQ_CLS" };
        var found = LayerGradients.Measure(model, Training(head, config), examples, new GradientOptions { Seed = 7 });
        Assert.Equal(examples.Count, found.Samples);

        // All samples as one batch of a training without dropout.
        using var trainable = TrainableModel.WithAdapters(model, head, config with { Dropout = 0 }, seed: 7);
        var (tokens, longest) = (examples.Sum(e => e.Length), examples.Max(e => e.Length));
        using var training = new TrainingSession(trainable, new BatchSize(tokens, examples.Count, 0), longest, new AdamWOptions(), baseDropout: false);
        var batch = new PackedBatch(tokens, examples.Count);
        new BatchPacker().Fill(batch, examples, [.. Enumerable.Range(0, examples.Count)]);
        var loss = training.Accumulate(batch, 1f / training.LabelCount(batch), first: true);
        Assert.Equal(loss, found.Loss, 1e-5 * loss);
        for (var layer = 0; layer < model.Model.Layers; layer++)
        {
            var names = trainable.Parameters.Names.Where(n => TargetResolver.LayerOf(n) == layer && n.Contains("lora_", StringComparison.Ordinal)).ToList();
            Assert.Equal(4, names.Count);
            foreach (var a in names.Where(n => n.Contains("lora_A", StringComparison.Ordinal)))
                Assert.All(trainable.Parameters.ReadGradient(a), g => Assert.Equal(0, g));
            var norm = Math.Sqrt(names.Where(n => n.Contains("lora_B", StringComparison.Ordinal)).Sum(n => trainable.Parameters.ReadGradient(n).Sum(g => (double)g * g)));
            Assert.True(norm > 0);
            Assert.Equal(norm, found.Norms[layer]!.Value, 1e-4 * norm);
        }

        // Other batches give the same but for rounding, and other adapters of the same shape on other layers have no part in it.
        var small = LayerGradients.Measure(model, Training(head, config), examples, new GradientOptions { Seed = 7, BatchTokens = 10 });
        foreach (var (one, other) in found.Norms.Zip(small.Norms))
            Assert.Equal(one!.Value, other!.Value, 1e-3 * one.Value);
    }

    [SharedFact]
    public void BytesAreTheAdaptersAndWhatTheirLayersKeep()
    {
        using var device = new CpuDevice(1);
        using var model = PretrainedModel.Open(Shared.Path("fixtures", "models", "bert-cls", "model"), device, new PretrainedOptions { Labels = ["no", "yes"] });
        var config = new LoraConfig { Rank = 4, Alpha = 4, TaskType = "SEQ_CLS", LayersToTransform = [1, 3], UseDora = true };
        var training = Training(ModelHead.SequenceClassification, config with { LayersToTransform = null });
        var found = LayerGradients.Measure(model, training, Examples(model.Model, false), new GradientOptions());
        var whole = CostPredictor.Predict(ModelBlueprint.Of(model), training, [.. Enumerable.Range(0, model.Model.Layers)]);
        foreach (var layer in whole.Layers.Where(l => l.Layer >= 0 && l.Layer < model.Model.Layers))
        {
            Assert.Equal(layer.SavedBytes + (16 * layer.ParameterElements), found.Bytes[layer.Layer]);
            Assert.Equal(found.Norms[layer.Layer] / found.Bytes[layer.Layer], found.Scores.GradientPerByte![layer.Layer]);
        }
        Assert.Contains("no label", Assert.Throws<InputException>(() =>
            LayerGradients.Measure(model, training, [EncodedExample.Text(new TokenizedText([1, 2], [0, 0]))], new GradientOptions())).Message, StringComparison.Ordinal);
        Assert.Throws<InputException>(() => LayerGradients.Measure(model, training, [], new GradientOptions()));
    }

    [Fact]
    public void LargestGradientsAreChosenAndLayersWithoutOneNever()
    {
        var scores = new LayerScores { Cka = [null, null, null, null], Gradient = [3, null, 5, 4], GradientPerByte = [9, null, 1, 4] };
        SelectionOptions By(string name) => SelectionOptions.Parse(name) with { Count = 2 };
        Assert.Equal([2, 3], LayerSelection.Select(4, scores, By("gradient")).Selected);
        Assert.Equal([2, 3, 0], LayerSelection.Select(4, scores, By("gradient")).Order);
        Assert.Equal([0, 3], LayerSelection.Select(4, scores, By("gradient-per-byte")).Selected);
        Assert.Equal([1], LayerSelection.Select(4, scores, By("gradient")).LeftOut);
        Assert.Throws<InputException>(() => LayerSelection.Select(4, null, By("gradient")));
        Assert.Throws<InputException>(() => LayerSelection.Select(4, scores with { Gradient = null }, By("gradient")));
        Assert.Contains("study", Assert.Throws<InputException>(() => LayerSelection.Select(4, scores, By("exhaustive"))).Message, StringComparison.Ordinal);
        foreach (var name in SelectionOptions.StrategyNames)
            Assert.Equal(name, SelectionOptions.NameOf(SelectionOptions.Parse(name).Strategy));
        Assert.Equal(SelectionStrategy.Explicit, SelectionOptions.Parse("0,1").Strategy);
    }

    [Fact]
    public void MasksAreAllOfASize()
    {
        for (var layers = 1; layers <= 9; layers++)
            for (var k = 0; k <= layers + 1; k++)
            {
                var masks = LayerMasks.All(layers, k).ToList();
                var expected = Enumerable.Range(0, 1 << layers).Where(b => int.PopCount(b) == k).Select(b => new string([.. Enumerable.Range(0, layers).Select(l => (b >> l & 1) == 1 ? '1' : '0')]));
                Assert.Equal(expected.Order(StringComparer.Ordinal), masks.Order(StringComparer.Ordinal));
                Assert.Equal(masks.Count, LayerMasks.Count(layers, k));
            }
        Assert.Equal(601_080_390, LayerMasks.Count(32, 16));
        Assert.Equal(long.MaxValue, LayerMasks.Count(400, 200));
    }
}
