using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Cli.Show;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli.Demo;

/// <summary>The demo from beginning to end: a base, its layers' similarities, fine-tunings of several choices of layers.</summary>
internal sealed class DemoRun(DemoSettings settings, DemoFolder folder, Device device, int? threads, Ui ui, CancellationToken cancellation)
{
    private const ModelHead Head = ModelHead.LanguageModel;
    private readonly DemoLanguage _language = new(settings.Word);
    private readonly int[] _cipher = SplitMix64.Named(settings.Seed, "cipher").Permutation(DemoLanguage.Alphabet);
    private readonly Stopwatch _clock = Stopwatch.StartNew();

    private static readonly (string Name, string Label)[] Strategies =
    [
        (DemoResults.All, "all layers"), (DemoResults.Cka, "CKA half"), ("random", "random half"), ("last", "last half"), ("first", "first half"),
    ];

    /// <summary>Adapters on every linear module of the layers that get any.</summary>
    private LoraConfig Lora => new()
    {
        Rank = settings.Rank,
        Alpha = 2 * settings.Rank,
        TargetModules = ModuleSelector.AllLinear,
        TaskType = "CAUSAL_LM",
        BaseModel = folder.FinalAt("base"),
    };

    /// <summary>Runs everything and puts the folder in place.</summary>
    /// <returns>The content of results.json.</returns>
    public JsonObject Run()
    {
        var test = Examples("test", settings.TestExamples, _cipher);
        Introduce(test[0]);
        var baseAccuracy = TrainBase();
        using var pretrained = PretrainedModel.Open(folder.At("base"), device);
        var selection = Select(pretrained);
        var shifted = Untuned(pretrained, test);
        var strategies = Tune(pretrained, selection.Selection, test);

        var results = new DemoResults(settings, device.Description, baseAccuracy, shifted, pretrained.Checkpoint.Tensors.Values.Sum(t => t.Bytes), strategies);
        var unseen = DemoPicture.TrySave(folder.At("demo.png"), results, selection.Report);
        cancellation.ThrowIfCancellationRequested();
        var document = results.ToJson(_clock.Elapsed.TotalSeconds);
        AtomicFile.WriteAllText(folder.At("results.json"), document.ToJsonString(JsonText.Indented) + "\n");
        var hasPicture = File.Exists(folder.At("demo.png"));
        folder.Commit();

        results.Show(ui);
        if (unseen is not null)
            Ui.Warn(unseen);
        Conclude(hasPicture);
        return document;
    }

    private void Introduce(EncodedExample shifted)
    {
        ui.Line("A small Llama learns a generated language, then a shifted task with LoRA adapters on several choices of layers.");
        ui.Line($"Nothing is downloaded. {(settings.IsQuick ? "--quick: trained too little to compare anything" : "About half a minute on two cores")}.");
        ui.Line();
        ui.Fact("device", $"{device.Name}: {device.Description}");
        ui.Fact("model", $"{settings.Layers} layers, {settings.Hidden} wide, {DemoLanguage.Vocabulary} tokens");
        ui.Fact("language", $"five rules, such as  {_language.Show(Examples("test", 1)[0])}");
        ui.Fact("shifted", $"answers in a cipher:  {_language.Show(shifted)}");
    }

    private EncodedExample[] Examples(string use, int count, int[]? cipher = null) =>
        _language.Examples(SplitMix64.Named(settings.Seed, use), count, cipher);

    private double TrainBase()
    {
        var start = _clock.Elapsed;
        var fresh = folder.At("fresh");
        DemoBase.WriteFresh(fresh, settings, _language);
        var accuracy = TrainBase(fresh);
        Directory.Delete(fresh, recursive: true);
        ui.Fact("base", $"{settings.BaseSteps} steps in full in {Seconds(start)}: accuracy {Percent(accuracy)} %");
        return accuracy;
    }

    private double TrainBase(string fresh)
    {
        using var random = PretrainedModel.Open(fresh, device);
        using var model = TrainableModel.InFull(random, Head);
        using var learner = new DemoLearner(model, _language, settings.BaseBatch);
        using (var progress = new DemoProgress())
        {
            learner.Train(Examples("base", settings.BaseSteps * settings.BaseBatch), settings.BaseRate, (step, loss) =>
                progress.Show("base", (double)step / settings.BaseSteps, string.Create(CultureInfo.InvariantCulture, $"loss {loss:0.000}")), cancellation);
        }
        using var tester = learner.NewTester(Examples("held out", settings.TestExamples));
        DemoBase.Write(folder.At("base"), random.Model.Config, model.Parameters);
        return tester.Accuracy();
    }

    private SelectionResult Select(PretrainedModel pretrained)
    {
        var start = _clock.Elapsed;
        var result = SelectionPipeline.Run(pretrained, Examples("select", settings.SelectionSamples, _cipher), new SelectionRequest
        {
            Model = folder.FinalAt("base"),
            Task = "demo",
            Options = new SelectionOptions { Family = ModelFamily.Decoder, Ratio = 0.5, Seed = settings.Seed },
            Features = FeatureOptions.For(ModelFamily.Decoder, SelectionRule.Paper, endOfText: DemoLanguage.EndOfText),
            Resamples = settings.Resamples,
            Cost = new CostRequest
            {
                Lora = Lora,
                Head = Head,
                Capacity = BatchSize.Of(settings.TuneBatch, _language.Length),
                MaxLength = _language.Length,
                BaseDropout = false,
                Device = device,
                Threads = threads,
            },
        }, cancellation: cancellation);
        result.Report.Save(folder.At("selection.json"));
        ui.Fact("selection", $"CKA over {Ui.Count(settings.SelectionSamples, "sample")} of the shifted task in {Seconds(start)}: "
            + string.Join(" ", result.Report.Layers.Select(l => l.Cka is { } cka ? cka.ToString("0.00", CultureInfo.InvariantCulture) : "–")));
        ui.Fact("mask", $"{result.Selection.Mask}: adapters on layers {string.Join(", ", result.Selection.Selected.Order())}");
        return result;
    }

    private double Untuned(PretrainedModel pretrained, IReadOnlyList<EncodedExample> test)
    {
        // A new adapter changes nothing yet.
        using var model = TrainableModel.WithAdapters(pretrained, Head, Lora, seed: settings.Seed, training: false);
        using var tester = new DemoTester(model, _language, test);
        return tester.Accuracy();
    }

    private List<StrategyResult> Tune(PretrainedModel pretrained, LayerSelection cka, IReadOnlyList<EncodedExample> test)
    {
        var start = _clock.Elapsed;
        var runs = Strategies.Select(_ => new List<Tuning>()).ToArray();
        for (var repeat = 0; repeat < settings.Repeats; repeat++)
        {
            // Strategies take turns, so that what else the machine does hits all of them.
            using var progress = new DemoProgress();
            var examples = Examples($"tune {repeat}", settings.TuneSteps * settings.TuneBatch, _cipher);
            for (var s = 0; s < Strategies.Length; s++)
            {
                var done = (repeat * Strategies.Length) + s;
                var label = Strategies[s].Label;
                runs[s].Add(TuneOnce(pretrained, Choose(Strategies[s].Name, cka, repeat), examples, test, repeat, Strategies[s].Name == DemoResults.Cka && repeat == 0, step =>
                    progress.Show("fine-tuning", (done + (double)step / settings.TuneSteps) / (settings.Repeats * Strategies.Length), $"{repeat + 1} of {settings.Repeats}: {label}")));
            }
            progress.Dispose();
            ui.Fact("fine-tuning", $"{repeat + 1} of {settings.Repeats}: {string.Join(", ", runs.Select((r, s) => $"{Strategies[s].Name} {Percent(r[^1].Accuracy)} %"))}");
        }
        ui.Fact("", $"{settings.Repeats * Strategies.Length} × {settings.TuneSteps} steps and their tests in {Seconds(start)}");
        return [.. Strategies.Select((s, i) => new StrategyResult(s.Name, s.Label, runs[i]))];
    }

    /// <summary>The layers of a strategy; random ones are drawn anew for each repeat.</summary>
    private LayerSelection Choose(string strategy, LayerSelection cka, int repeat) => strategy == DemoResults.Cka ? cka : LayerSelection.Select(
        settings.Layers, null, SelectionOptions.Parse(strategy) with
        {
            Family = ModelFamily.Decoder,
            Ratio = strategy == DemoResults.All ? null : 0.5,
            Seed = SplitMix64.Named(settings.Seed, $"layers {repeat}").NextUInt64(),
        });

    private Tuning TuneOnce(
        PretrainedModel pretrained, LayerSelection chosen, IReadOnlyList<EncodedExample> examples, IReadOnlyList<EncodedExample> test, int repeat, bool save, Action<int> afterStep)
    {
        var modules = pretrained.Modules(Head);
        var config = TargetResolver.ForLayers(Lora, modules, [.. chosen.Selected]);
        using var model = TrainableModel.WithAdapters(pretrained, Head, config, seed: SplitMix64.Named(settings.Seed, $"adapters {repeat}").NextUInt64());
        using var learner = new DemoLearner(model, _language, settings.TuneBatch);
        using var tester = learner.NewTester(test);
        var curve = new List<CurvePoint> { new(0, tester.Accuracy()) };
        var every = Math.Max(1, settings.TuneSteps / settings.Points);
        learner.Train(examples, settings.TuneRate, (step, _) =>
        {
            if (step % every == 0 || step == settings.TuneSteps)
                curve.Add(new CurvePoint(step, tester.Accuracy()));
            afterStep(step);
        }, cancellation);
        if (save)
            AdapterFile.Save(folder.At("adapter"), config, modules, model.Export());
        var costs = learner.Plan.Layers(learner.Plan.Capacity);
        return new Tuning(chosen.Mask, curve[^1].Accuracy, curve, learner.Plan.Report(), model.Parameters.Elements, costs.Sum(c => c.BackwardFlops), learner.Seconds);
    }

    private void Conclude(bool hasPicture)
    {
        var (name, root) = (Path.GetRelativePath(Directory.GetCurrentDirectory(), folder.Final), Path.DirectorySeparatorChar);
        name = name.StartsWith("..", StringComparison.Ordinal) ? folder.Final : name;
        ui.Title($"Written in {Seconds(TimeSpan.Zero)}");
        if (hasPicture)
            ui.Fact("picture", $"{name}{root}demo.png");
        ui.Fact("base", $"{name}{root}base{root}, a Hugging Face folder");
        ui.Fact("adapter", $"{name}{root}adapter{root}, as PEFT has it, of CKA's choice");
        ui.Fact("numbers", $"{name}{root}results.json, {name}{root}selection.json");
        ui.Title("Next");
        ui.Line($"nativelora memory --model {name}{root}base --selection {name}{root}selection.json --targets all-linear --max-length {_language.Length}");
        ui.Line($"nativelora merge --model {name}{root}base --adapter {name}{root}adapter --output demo-merged");
        ui.Line("nativelora run --help        your own model and data");
    }

    private string Seconds(TimeSpan since) => string.Create(CultureInfo.InvariantCulture, $"{(_clock.Elapsed - since).TotalSeconds:0.0} s");

    private static string Percent(double share) => (100 * share).ToString("0.0", CultureInfo.InvariantCulture);
}
