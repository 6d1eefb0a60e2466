using NativeLora.Selection;

namespace NativeLora.Cli.Study;

/// <summary>A difference of two rows over the seeds that both have.</summary>
/// <param name="Over">Its mean and spread.</param>
internal readonly record struct Difference(Spread Over)
{
    public double Mean => Over.Mean;

    /// <summary>Lower end of the 95 % interval; null with one seed.</summary>
    public double? Low => Mean - Over.HalfInterval;

    public double? High => Mean + Over.HalfInterval;

    /// <summary>Whether the interval leaves out 0; null with one seed.</summary>
    public bool? IsClear => Over.HalfInterval is { } half ? Math.Abs(Mean) > half : null;
}

/// <summary>What a row of the grid came to on a task, over the seeds.</summary>
internal sealed class RowSummary
{
    public RowSummary(StudyRow row, IReadOnlyList<StudyCell> cells, IReadOnlyList<CellResult> results, IReadOnlyList<string> metrics)
    {
        (Row, Cells, Results) = (row, cells, results);
        Metrics = metrics.ToDictionary(m => m, m => results.All(r => r.Value(m) is not null) ? Spread.Of([.. results.Select(r => r.Value(m)!.Value)]) : (Spread?)null);
        SecondsPerStep = results.All(r => r.SecondsPerStep is not null) ? results.Average(r => r.SecondsPerStep!.Value) : null;
    }

    public StudyRow Row { get; }

    /// <summary>A cell a seed.</summary>
    public IReadOnlyList<StudyCell> Cells { get; }

    public IReadOnlyList<CellResult> Results { get; }

    /// <summary>By name; null where a seed gave no number.</summary>
    public IReadOnlyDictionary<string, Spread?> Metrics { get; }

    public double? SecondsPerStep { get; }

    /// <summary>An earlier row with the same masks, which was trained with it.</summary>
    public StudyRow? SameAs { get; set; }

    /// <summary>Seconds of a step as a share of those with all layers.</summary>
    public double? RelativeSeconds { get; set; }

    /// <summary>The main metric less that of all layers.</summary>
    public Difference? VersusAll { get; set; }

    /// <summary>The main metric less that of random layers of the same ratio, or within the same budget.</summary>
    public Difference? VersusRandom { get; set; }

    /// <summary>The main metric less that of the last layers of the same ratio, or within the same budget.</summary>
    public Difference? VersusLast { get; set; }

    /// <summary>What it was chosen within; null for a row of a ratio. Its bound is the same with every seed.</summary>
    public CellBudget? Within => Cells[0].Within;

    /// <summary>Masks with how many seeds have them, in the order of the seeds.</summary>
    public IReadOnlyList<(string Mask, int Seeds)> Masks => [.. Cells.GroupBy(c => c.Mask).Select(g => (g.Key, g.Count()))];

    /// <summary>The mean of a number of the results, which random masks may make differ.</summary>
    public double Mean(Func<CellResult, double> value) => Results.Average(value);
}

/// <summary>The rows of a task.</summary>
internal sealed class TaskSummary
{
    /// <param name="task">The task.</param>
    /// <param name="metric">The metric by which rows are compared.</param>
    /// <param name="rows">The rows.</param>
    public TaskSummary(StudyTask task, string metric, IReadOnlyList<RowSummary> rows) => (Task, Metric, Rows) = (task, metric, rows);

    public StudyTask Task { get; }

    public string Metric { get; }

    public IReadOnlyList<RowSummary> Rows { get; }

    /// <summary>What the numbers say, a sentence a choice that is looked at.</summary>
    public IReadOnlyList<string> Sentences => StudyWords.Of(this);

    public static TaskSummary Of(StudyTask task, IReadOnlyList<StudyCell> cells, IReadOnlyDictionary<(string, string, ulong), CellResult> results)
    {
        var rows = cells.GroupBy(c => c.Row).Select(g => new RowSummary(g.Key, [.. g], [.. g.Select(c => results[c.Training])], task.Metrics)).ToList();
        var all = rows.FirstOrDefault(r => r.Row.Is(SelectionStrategy.All));
        for (var i = 0; i < rows.Count; i++)
        {
            var row = rows[i];
            row.SameAs = rows.Take(i).FirstOrDefault(r => r.SameAs is null && r.Cells.Select(c => c.Mask).SequenceEqual(row.Cells.Select(c => c.Mask)))?.Row;
            row.VersusAll = Less(row, all, r => r.Value(task.Metric));
            row.VersusRandom = Less(row, Beside(rows, row, SelectionStrategy.Random), r => r.Value(task.Metric));
            row.VersusLast = Less(row, Beside(rows, row, SelectionStrategy.Last), r => r.Value(task.Metric));
            row.RelativeSeconds = all is null ? null : Pairs(row, all, r => r.SecondsPerStep) is { Count: > 0 } pairs ? pairs.Average(p => p.Value / p.Other) : null;
        }
        return new TaskSummary(task, task.Metric, rows);
    }

    /// <summary>The row of a strategy with a row's ratio or budget; null if there is none.</summary>
    public static RowSummary? Beside(IEnumerable<RowSummary> rows, RowSummary row, SelectionStrategy strategy) =>
        rows.FirstOrDefault(r => r.Row.Is(strategy) && r.Row.IsBeside(row.Row));

    private static Difference? Less(RowSummary row, RowSummary? other, Func<CellResult, double?> value) =>
        other is null || ReferenceEquals(row, other) ? null
        : Pairs(row, other, value) is { Count: > 0 } pairs ? new Difference(Spread.Of([.. pairs.Select(p => p.Value - p.Other)])) : null;

    // Seed by seed: what a seed does to both rows cancels.
    private static List<(double Value, double Other)> Pairs(RowSummary row, RowSummary other, Func<CellResult, double?> value)
    {
        var others = other.Results.ToDictionary(r => r.Seed);
        return [.. row.Results
            .Select(r => (Value: value(r), Other: others.TryGetValue(r.Seed, out var paired) ? value(paired) : null))
            .Where(p => p is { Value: not null, Other: not null }).Select(p => (p.Value!.Value, p.Other!.Value))];
    }
}
