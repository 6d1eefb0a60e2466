using System.CommandLine;
using System.Globalization;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Models;
using NativeLora.Selection;

namespace NativeLora.Cli.Commands;

/// <summary>What <c>nativelora memory</c> does beyond its table: two masks layer by layer, and the best mask within a budget.</summary>
/// <param name="selection">The option that names a selection.json.</param>
internal sealed class MemoryStudy(Option<string?> selection)
{
    private static readonly string[] Scores = ["cka", "cka-debiased", "cosine", "gradient", "gradient-per-byte"];

    private readonly Option<string[]> _compare = new("--compare")
    {
        Description = "two masks (or all, or none): what the second saves against the first, layer by layer, and why the rest remains",
        HelpName = "MASK MASK",
        Arity = new ArgumentArity(2, 2),
        AllowMultipleArgumentsPerToken = true,
    };

    private readonly Option<bool> _suggest = new("--suggest") { Description = "find the mask that is worth most by the scores of --selection within --budget-bytes or --budget-flops" };
    private readonly Option<string?> _bytes = new("--budget-bytes") { Description = "for --suggest: memory that all that is planned may take, weights included, such as 900MiB", HelpName = "SIZE" };
    private readonly Option<string?> _flops = new("--budget-flops") { Description = "for --suggest: operations that a step may take, such as 250G or 2.5e11", HelpName = "N" };
    private readonly Option<string?> _score = new("--score")
    {
        Description = $"for --suggest: what a layer is worth: 1 less its {Scores[0]}, {Scores[1]} or {Scores[2]}, or its {Scores[3]} or {Scores[4]} (default: what selection.json ranked by)",
        HelpName = "NAME",
    };

    public void AddTo(Command command)
    {
        foreach (var option in (Option[])[_compare, _suggest, _bytes, _flops, _score])
            command.Options.Add(option);
    }

    /// <summary>Does what was asked for; false if nothing of it was.</summary>
    public bool Run(ParseResult parsed, Ui ui, ModelSettings settings, ModelBlueprint blueprint, CostRequest request)
    {
        var (suggest, compare) = (parsed.GetValue(_suggest), parsed.GetValue(_compare) is { Length: > 0 } pair ? pair : null);
        if (suggest && compare is not null)
            throw new InputException("both --compare and --suggest are given: give one of them");
        if (!suggest && ((Option[])[_bytes, _flops, _score]).FirstOrDefault(o => parsed.GetResult(o) is not null) is { } useless)
            throw new InputException($"{useless.Name} says something of --suggest, which is not given: add it, or leave this out");
        if (compare is not null)
            Compare(ui, settings, blueprint, request, compare);
        else if (suggest)
            Suggest(parsed, ui, settings, blueprint, request);
        return suggest || compare is not null;
    }

    private static void Compare(Ui ui, ModelSettings settings, ModelBlueprint blueprint, CostRequest request, string[] masks)
    {
        TrainingCost[] costs = [.. masks.Select(m => CostPredictor.Predict(blueprint, request, MemoryCommand.Choice(m, blueprint.Model.Layers)))];
        var comparison = MaskComparison.Of(costs[0], costs[1], request.Optimizer);
        if (ui.Json)
            Ui.WriteJson(ComparisonView.ToJson(settings, request, comparison));
        else
            ComparisonView.Show(ui, settings, blueprint, request, comparison);
    }

    private void Suggest(ParseResult parsed, Ui ui, ModelSettings settings, ModelBlueprint blueprint, CostRequest request)
    {
        var file = parsed.GetValue(selection) ?? throw new InputException("--suggest needs the scores of layers: give --selection FILE, the selection.json that nativelora select --output DIR writes");
        if (request.MemoryBudget is not null)
            throw new InputException("--memory-budget recomputes layers until a mask fits; --suggest chooses the mask: give --budget-bytes, with --recompute if layers shall be recomputed");
        var bytes = parsed.GetValue(_bytes) is { } size ? ByteSize.Parse("--budget-bytes", size) : (long?)null;
        var flops = parsed.GetValue(_flops) is { } count ? FlopCount.Parse("--budget-flops", count) : (long?)null;
        if (bytes is null && flops is null)
            throw new InputException("--suggest needs a budget: give --budget-bytes, --budget-flops, or both");
        var report = SelectionReport.Load(file);
        if (report.Layers.Count != blueprint.Model.Layers)
            throw new InputException($"{file}: a selection among {report.Layers.Count} layers, and the model has {blueprint.Model.Layers}: select layers of this model");
        var score = parsed.GetValue(_score) ?? (Scores.Contains(report.Strategy) ? report.Strategy : Scores[0]);
        var gains = Gains(report, score, file);
        var found = MaskSuggestion.Find(blueprint, new SuggestionRequest { Cost = request, Gains = gains, BudgetBytes = bytes, BudgetFlops = flops }, Shell.Cancellation);
        if (ui.Json)
            Ui.WriteJson(SuggestionView.ToJson(settings, request, found, gains, score, bytes, flops));
        else
            SuggestionView.Show(ui, settings, blueprint, request, found, gains, score, bytes, flops);
    }

    private static double?[] Gains(SelectionReport report, string score, string file)
    {
        Func<LayerReport, double?> gain = score switch
        {
            "cka" => l => 1 - l.Cka,
            "cka-debiased" => l => 1 - l.CkaDebiased,
            "cosine" => l => 1 - l.Cosine,
            "gradient" => l => l.Gradient,
            "gradient-per-byte" => l => l.Gradient / l.GradientBytes,
            _ => throw new InputException($"--score {score}: give one of {string.Join(", ", Scores)}"),
        };
        double?[] gains = [.. report.Layers.Select(gain)];
        return gains.Any(g => g is not null) ? gains
            : throw new InputException($"{file}: strategy {report.Strategy} measured no {score} of any layer: select with --strategy {score}, or give another --score");
    }
}
