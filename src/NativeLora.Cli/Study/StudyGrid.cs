using System.Globalization;
using NativeLora.Cli.Options;
using NativeLora.Selection;

namespace NativeLora.Cli.Study;

/// <summary>A way to choose layers: a line of the tables.</summary>
/// <param name="Name">Name of the strategy, or the layers themselves.</param>
/// <param name="Options">The choice, without the seed.</param>
internal sealed record StudyRow(string Name, SelectionOptions Options)
{
    public double? Ratio => Options.Ratio;

    /// <summary>What its layers may cost, in place of a ratio.</summary>
    public StudyBudget? Budget { get; init; }

    /// <summary>Such as <c>cka 0.5</c>.</summary>
    public string Label => Budget is { } budget ? $"{Name} {budget.Label}" : Ratio is { } ratio ? string.Create(CultureInfo.InvariantCulture, $"{Name} {ratio}") : Name;

    public bool NeedsScores => SelectionPipeline.NeedsScores(Options.Strategy);

    public bool NeedsFeatures => SelectionPipeline.NeedsFeatures(Options.Strategy);

    public bool NeedsGradients => SelectionPipeline.NeedsGradients(Options.Strategy);

    /// <summary>One of all masks of a size.</summary>
    public bool IsExhaustive { get; init; }

    public bool Is(SelectionStrategy strategy) => Options.Strategy == strategy;

    /// <summary>Whether another row chooses with the same ratio or within the same budget, so that the two can be compared.</summary>
    public bool IsBeside(StudyRow other) => Budget is { } budget ? budget == other.Budget : other.Budget is null && Ratio is not null && Ratio == other.Ratio;
}

/// <summary>Reads what the grid is made of.</summary>
internal static class StudyGrid
{
    private const int MostSeeds = 1000;
    private const int MostMasks = 500;

    /// <summary>Strategies by name, each once.</summary>
    public static IReadOnlyList<(string Name, SelectionOptions Options)> Strategies(string text) =>
        [.. LoraOptions.Names("--strategies", text).Select(SelectionOptions.Parse)
            .Select(o => (o.Strategy == SelectionStrategy.Explicit ? o.Explicit! : SelectionOptions.NameOf(o.Strategy), o)).DistinctBy(s => s.Item1)];

    /// <summary>Shares of the layers, each once.</summary>
    public static IReadOnlyList<double> Ratios(string text) =>
        [.. LoraOptions.Names("--ratios", text).Select(part =>
            double.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture, out var ratio) && ratio is > 0 and <= 1
                ? ratio : throw new InputException($"--ratios {text}: \"{part}\" is no share of the layers: give numbers above 0 and at most 1, such as 0.25,0.5")).Distinct()];

    /// <summary>Seeds: a number says how many, from 0 on; several between commas are the seeds themselves.</summary>
    public static IReadOnlyList<ulong> Seeds(string text)
    {
        var parts = LoraOptions.Names("--seeds", text);
        ulong[] numbers = [.. parts.Select(part => ulong.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out var seed)
            ? seed : throw new InputException($"--seeds {text}: give how many, such as 3, or seeds between commas, such as 0,1,7"))];
        if (text.Contains(','))
            return [.. numbers.Distinct()];
        return numbers[0] is >= 1 and <= MostSeeds
            ? [.. Enumerable.Range(0, (int)numbers[0]).Select(s => (ulong)s)]
            : throw new InputException($"--seeds {text}: give 1 to {MostSeeds}; one seed by its number is written with a comma, such as {text},");
    }

    /// <summary>A row for each mask of the ratio's number of layers.</summary>
    /// <exception cref="InputException">They are too many to be trained.</exception>
    private static IEnumerable<StudyRow> Exhaustive(SelectionOptions options, int layers)
    {
        // As many layers as "first" chooses.
        var k = LayerSelection.Select(layers, null, options with { Strategy = SelectionStrategy.First }).Selected.Count;
        if (LayerMasks.Count(layers, k) is var count && count > MostMasks)
            throw new InputException($"strategy exhaustive: {layers} layers have {count} masks of {k}, more than {MostMasks}; give ratios nearer to 0 or 1, or name masks");
        return LayerMasks.All(layers, k).Select(mask => new StudyRow(
            string.Create(CultureInfo.InvariantCulture, $"exhaustive {mask}"), options with { Strategy = SelectionStrategy.Explicit, Explicit = mask })
        { IsExhaustive = true });
    }

    /// <summary>Every strategy with every ratio and every budget that it takes.</summary>
    public static IReadOnlyList<StudyRow> Rows(
        IReadOnlyList<(string Name, SelectionOptions Options)> strategies, IReadOnlyList<double> ratios, IReadOnlyList<StudyBudget> budgets, int layers,
        Func<SelectionOptions, double?, SelectionOptions> complete)
    {
        foreach (var budget in budgets)
            budget.Check(layers);
        var rows = new List<StudyRow>();
        foreach (var (name, options) in strategies)
        {
            if (!SelectionCliOptions.TakesRatio(options))
            {
                rows.Add(new StudyRow(name, complete(options, null)));
                continue;
            }
            if (IsSuggestion(options.Strategy) && budgets.Count == 0)
                throw new InputException($"strategy {name} is the best mask within a budget: give --budget-bytes or --budget-flops");
            if (!IsSuggestion(options.Strategy))
                foreach (var ratio in ratios)
                    rows.AddRange(options.Strategy == SelectionStrategy.Exhaustive ? Exhaustive(complete(options, ratio), layers) : [new StudyRow(name, complete(options, ratio))]);
            // Every mask of a size: a size is no budget.
            if (options.Strategy == SelectionStrategy.Exhaustive)
                continue;
            rows.AddRange(budgets.Select(budget => new StudyRow(name, complete(options, null)) { Budget = budget }));
        }
        if (strategies.Any(s => s.Options.Strategy == SelectionStrategy.Exhaustive) && ratios.Count == 0)
            throw new InputException("strategy exhaustive is every mask of a size: give --ratios beside the budgets, or leave it out");
        // What no scores are needed for is known to fit right away; the others choose as many as "first" does.
        foreach (var row in rows.Where(r => r.Budget is null))
            _ = LayerSelection.Select(layers, null, row.NeedsScores ? row.Options with { Strategy = SelectionStrategy.First } : row.Options);
        return rows;
    }

    private static bool IsSuggestion(SelectionStrategy strategy) => strategy is SelectionStrategy.Suggest or SelectionStrategy.SuggestGradient;
}
