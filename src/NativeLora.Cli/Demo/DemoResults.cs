using System.Globalization;
using System.Text.Json.Nodes;
using NativeLora.Cli.Show;
using NativeLora.Graphs;

namespace NativeLora.Cli.Demo;

/// <summary>One fine-tuning.</summary>
internal sealed record Tuning(
    string Mask, double Accuracy, IReadOnlyList<CurvePoint> Curve, MemoryReport Memory, long TrainableParameters, long BackwardFlops, IReadOnlyList<double> Seconds);

/// <summary>A way to choose layers, and its fine-tunings.</summary>
internal sealed record StrategyResult(string Name, string Label, IReadOnlyList<Tuning> Runs)
{
    public double Accuracy => Runs.Average(r => r.Accuracy);

    /// <summary>Sample standard deviation over the repeats.</summary>
    public double Spread
    {
        get
        {
            var mean = Accuracy;
            return Runs.Count < 2 ? 0 : Math.Sqrt(Runs.Sum(r => (r.Accuracy - mean) * (r.Accuracy - mean)) / (Runs.Count - 1));
        }
    }

    public double TrainableParameters => Runs.Average(r => r.TrainableParameters);

    /// <summary>What the choice of layers decides: adapters, gradients, optimizer and activations; weights apart.</summary>
    public double MemoryBytes => Runs.Average(r => r.Memory.Parameters + r.Memory.Gradients + r.Memory.Optimizer + r.Memory.Arena);

    public double SavedBytes => Runs.Average(r => r.Memory.Saved);

    public double BackwardFlops => Runs.Average(r => r.BackwardFlops);

    /// <summary>Median over all steps of all repeats.</summary>
    public double StepSeconds
    {
        get
        {
            double[] all = [.. Runs.SelectMany(r => r.Seconds).Order()];
            return all[all.Length / 2];
        }
    }

    /// <summary>The different masks.</summary>
    public IReadOnlyList<string> Masks => [.. Runs.Select(r => r.Mask).Distinct()];

    /// <summary>Mean of the repeats' learning curves.</summary>
    public IReadOnlyList<CurvePoint> MeanCurve =>
        [.. Enumerable.Range(0, Runs[0].Curve.Count).Select(i => new CurvePoint(Runs[0].Curve[i].Step, Runs.Average(r => r.Curve[i].Accuracy)))];
}

/// <summary>All that the demo found.</summary>
internal sealed record DemoResults(
    DemoSettings Settings, string Device, double BaseAccuracy, double ShiftedAccuracy, long WeightBytes, IReadOnlyList<StrategyResult> Strategies)
{
    public const string Cka = "cka";
    public const string All = "all";

    private StrategyResult this[string name] => Strategies.First(s => s.Name == name);

    public void Show(Ui ui)
    {
        ui.Title($"Shifted task, {Ui.Count(Settings.TestExamples)} held-out examples, {Ui.Count(Settings.Repeats, "repeat")}");
        ui.Table(["<adapters", "<layers", "trainable", "accuracy", "MiB", "kept", "MFLOP", "ms"], [.. Strategies.Select(s => (IReadOnlyList<string>)
        [
            s.Name == Cka ? $"[green]{s.Label}[/]" : s.Label,
            s.Masks.Count == 1 ? s.Masks[0] : $"{s.Masks.Count} masks",
            Ui.Count((long)Math.Round(s.TrainableParameters)),
            $"{Percent(s.Accuracy)} ± {Percent(s.Spread)}",
            Number(s.MemoryBytes / 1048576), Number(s.SavedBytes / 1048576), Ui.Count((long)(s.BackwardFlops / 1e6)), Number(1000 * s.StepSeconds),
        ])]);
        foreach (var drawn in Strategies.Where(s => s.Masks.Count > 1))
            ui.Fact(drawn.Label, $"{string.Join(", ", drawn.Runs.Select(r => r.Mask))}; its sizes are means");
        ui.Fact("accuracy", $"% of the answers' symbols, mean ± deviation; guessing {Percent(DemoLanguage.Chance)}, base {Percent(ShiftedAccuracy)}");
        ui.Fact("MiB", "peak memory as planned: adapters, gradients, optimizer, activations;");
        ui.Fact("", $"the frozen weights ({Ui.MiB(WeightBytes)}) are on top");
        ui.Fact("kept", "MiB of activations that wait for the backward pass; part of MiB");
        ui.Fact("MFLOP", "operations of a step's backward pass");
        ui.Fact("ms", $"median of {Strategies[0].Runs.Sum(r => r.Seconds.Count)} measured steps; other work on the machine shows in it");
        ui.Line();
        foreach (var line in Verdict())
            ui.Line(line);
    }

    /// <summary>What the numbers say.</summary>
    public IReadOnlyList<string> Verdict()
    {
        var (cka, all) = (this[Cka], this[All]);
        var best = Strategies.MaxBy(s => s.Accuracy)!;
        var others = Strategies.Where(s => s.Name is not (Cka or All)).OrderByDescending(s => s.Accuracy).ToList();
        return
        [
            $"Best: {best.Label} with {Percent(best.Accuracy)} %.",
            .. others.Prepend(all).Select(o => $"CKA half against {o.Label}: {Compare(cka, o)}."),
            $"Against all layers, CKA's {cka.Masks[0].Count(c => c == '1')} of {Settings.Layers} layers come to {Change(s => s.TrainableParameters)} trainable parameters, "
                + $"{Change(s => s.MemoryBytes)} memory, {Change(s => s.BackwardFlops)} backward operations and {Change(s => s.StepSeconds)} time a step.",
        ];

        string Change(Func<StrategyResult, double> of) => string.Create(CultureInfo.InvariantCulture, $"{100 * (of(cka) / of(all) - 1):+0.0;−0.0;±0.0} %");
    }

    /// <summary>A difference of means with what the spread lets one say of it. Repeats are paired: they share data and seeds.</summary>
    internal static string Compare(StrategyResult a, StrategyResult b)
    {
        var difference = a.Accuracy - b.Accuracy;
        var spread = Math.Max(a.Spread, b.Spread);
        var points = string.Create(CultureInfo.InvariantCulture, $"{100 * difference:+0.0;−0.0;0.0} points");
        if (Math.Abs(difference) <= spread)
            return $"{points}, within the spread of {Percent(spread)}";
        var always = a.Runs.Zip(b.Runs).All(p => Math.Sign(p.First.Accuracy - p.Second.Accuracy) == Math.Sign(difference));
        return $"{points}, {(difference > 0 ? "better" : "worse")}{(always ? $" in {(a.Runs.Count == 1 ? "the one repeat" : "every repeat")}" : " on average")}";
    }

    public JsonObject ToJson(double seconds) => new()
    {
        ["seed"] = Settings.Seed,
        ["device"] = Device,
        ["seconds"] = Math.Round(seconds, 2),
        ["base"] = new JsonObject
        {
            ["layers"] = Settings.Layers,
            ["hidden_size"] = Settings.Hidden,
            ["steps"] = Settings.BaseSteps,
            ["batch_size"] = Settings.BaseBatch,
            ["learning_rate"] = Settings.BaseRate,
            ["accuracy"] = BaseAccuracy,
            ["accuracy_on_shifted_task"] = ShiftedAccuracy,
            ["weight_bytes"] = WeightBytes,
        },
        ["tuning"] = new JsonObject
        {
            ["rank"] = Settings.Rank,
            ["steps"] = Settings.TuneSteps,
            ["batch_size"] = Settings.TuneBatch,
            ["learning_rate"] = Settings.TuneRate,
            ["repeats"] = Settings.Repeats,
            ["test_examples"] = Settings.TestExamples,
            ["chance"] = DemoLanguage.Chance,
        },
        ["strategies"] = new JsonArray([.. Strategies.Select(s => (JsonNode)new JsonObject
        {
            ["strategy"] = s.Name,
            ["accuracy"] = s.Accuracy,
            ["spread"] = s.Spread,
            ["trainable_parameters"] = s.TrainableParameters,
            ["memory_bytes"] = s.MemoryBytes,
            ["activations_saved_bytes"] = s.SavedBytes,
            ["backward_flops"] = s.BackwardFlops,
            ["step_seconds"] = s.StepSeconds,
            ["runs"] = new JsonArray([.. s.Runs.Select(r => (JsonNode)new JsonObject
            {
                ["mask"] = r.Mask,
                ["accuracy"] = r.Accuracy,
                ["trainable_parameters"] = r.TrainableParameters,
                ["curve"] = new JsonArray([.. r.Curve.Select(p => (JsonNode)new JsonObject { ["step"] = p.Step, ["accuracy"] = p.Accuracy })]),
            })]),
        })]),
        ["verdict"] = new JsonArray([.. Verdict().Select(v => (JsonNode)v)]),
    };

    private static string Number(double value) => value.ToString("0.0", CultureInfo.InvariantCulture);

    private static string Percent(double share) => (100 * share).ToString("0.0", CultureInfo.InvariantCulture);
}
