using NativeLora.Selection;

namespace NativeLora.Cli.Study;

/// <summary>Comparisons of one task, or of all together: the family over which p values are corrected.</summary>
/// <param name="Name">Of what.</param>
/// <param name="Metric">What is compared.</param>
/// <param name="Rows">The comparisons.</param>
internal sealed record ComparisonTable(string Name, string Metric, IReadOnlyList<Comparison> Rows)
{
    /// <summary>Tests that the correction counts: the same layers against the same layers are one, whichever way round.</summary>
    public int Tests => Rows.Where(r => r.P is not null).Select(r => r.Test).Distinct().Count();
}

/// <summary>A choice of layers against another with the same ratio or within the same budget, paired seed by seed.</summary>
/// <param name="Row">The choice.</param>
/// <param name="Against">random or last.</param>
/// <param name="Difference">Of the main metric.</param>
/// <param name="LargerIsBetter">Whether more of the metric is better.</param>
/// <param name="SameMasks">Seeds with which both choose the same layers.</param>
/// <param name="P">Two-sided p value of the paired t test; null with one seed, and where both always choose the same layers.</param>
/// <param name="Test">What is tested: equal ones are one test.</param>
internal sealed record Comparison(StudyRow Row, string Against, Difference Difference, bool LargerIsBetter, int SameMasks, double? P, string Test)
{
    /// <summary>The p value after Holm's correction over the family.</summary>
    public double? Holm { get; init; }

    /// <summary>Whether both choose the same layers with every seed.</summary>
    public bool AreSame => SameMasks == Difference.Over.Count;

    /// <summary>The difference, positive where it is better.</summary>
    public double Gain => LargerIsBetter ? Difference.Mean : -Difference.Mean;

    public Verdict Verdict => AreSame ? Verdict.Same
        : P is null ? Verdict.Unknown
        : Difference.IsClear != true ? Verdict.WithinTheSpread
        : Gain > 0 ? (Holm < 0.05 ? Verdict.Beats : Verdict.Ahead)
        : Holm < 0.05 ? Verdict.Behind : Verdict.Trails;
}

/// <summary>What a comparison says.</summary>
internal enum Verdict
{
    /// <summary>Better, after the correction too.</summary>
    Beats,

    /// <summary>The interval is above 0, but not after the correction.</summary>
    Ahead,

    /// <summary>The interval holds 0.</summary>
    WithinTheSpread,

    /// <summary>The interval is below 0, but not after the correction.</summary>
    Trails,

    /// <summary>Worse, after the correction too.</summary>
    Behind,

    /// <summary>The same layers with every seed.</summary>
    Same,

    /// <summary>One seed.</summary>
    Unknown,
}

/// <summary>Compares every choice with random and last layers of the same cost.</summary>
internal static class StudyComparisons
{
    private static readonly (SelectionStrategy Strategy, string Name)[] s_against = [(SelectionStrategy.Random, "random"), (SelectionStrategy.Last, "last")];

    /// <summary>The comparisons of a task.</summary>
    public static IReadOnlyList<Comparison> Of(TaskSummary task) => Corrected(
    [
        .. from row in task.Rows
           where Counts(row.Row)
           from against in s_against
           let other = TaskSummary.Beside(task.Rows, row, against.Strategy)
           where other is not null && !ReferenceEquals(row, other)
           let comparison = Compare([(task, row, other)], against.Name)
           where comparison is not null
           select comparison,
    ]);

    /// <summary>The comparisons over the mean of all tasks: a seed's differences are averaged first, since its masks and its order are alike in all of them.</summary>
    public static IReadOnlyList<Comparison> Together(IReadOnlyList<TaskSummary> tasks) => Corrected(
    [
        .. from first in tasks[0].Rows
           where Counts(first.Row)
           from against in s_against
           let pairs = tasks.Select(t => (Task: t, Row: t.Rows.FirstOrDefault(r => r.Row == first.Row)))
               .Select(p => (p.Task, p.Row, Other: p.Row is null ? null : TaskSummary.Beside(p.Task.Rows, p.Row, against.Strategy))).ToList()
           where pairs.All(p => p.Row is not null && p.Other is not null && !ReferenceEquals(p.Row, p.Other))
           let comparison = Compare([.. pairs.Select(p => (p.Task, p.Row!, p.Other!))], against.Name)
           where comparison is not null
           select comparison,
    ]);

    private static bool Counts(StudyRow row) => !row.IsExhaustive && (row.Ratio is not null || row.Budget is not null);

    private static Comparison? Compare(IReadOnlyList<(TaskSummary Task, RowSummary Row, RowSummary Other)> pairs, string against)
    {
        var isLoss = pairs.All(p => p.Task.Metric == "loss");
        var differences = new List<double>();
        var same = 0;
        foreach (var seed in pairs[0].Row.Results.Select(r => r.Seed))
        {
            var sum = 0.0;
            var (complete, alike) = (true, true);
            foreach (var (task, row, other) in pairs)
            {
                var (metric, mine, its) = (task.Metric, Of(row, seed), Of(other, seed));
                if (mine?.Value(metric) is not { } value || its?.Value(metric) is not { } reference)
                {
                    complete = false;
                    break;
                }
                // Where tasks differ in what is better, more is.
                sum += !isLoss && metric == "loss" ? reference - value : value - reference;
                alike &= mine.Mask == its.Mask;
            }
            if (!complete)
                continue;
            differences.Add(sum / pairs.Count);
            same += alike ? 1 : 0;
        }
        if (differences.Count == 0)
            return null;
        var difference = new Difference(Spread.Of(differences));
        // The other way round it is the same test.
        var test = string.Join(" | ", new[] { Trainings(p => p.Row), Trainings(p => p.Other) }.Order(StringComparer.Ordinal));
        return new Comparison(pairs[0].Row.Row, against, difference, !isLoss, same, same == differences.Count ? null : PairedT.P(difference.Over), test);

        string Trainings(Func<(TaskSummary Task, RowSummary Row, RowSummary Other), RowSummary> of) =>
            string.Join(' ', pairs.SelectMany(p => of(p).Cells.Select(c => $"{c.Task.Key}-{c.Mask}-{c.Seed}")));

        static CellResult? Of(RowSummary row, ulong seed) => row.Results.FirstOrDefault(r => r.Seed == seed);
    }

    private static IReadOnlyList<Comparison> Corrected(IReadOnlyList<Comparison> comparisons)
    {
        var tests = comparisons.Where(c => c.P is not null).DistinctBy(c => c.Test).ToList();
        var corrected = Holm.Correct([.. tests.Select(c => c.P!.Value)]);
        var byTest = tests.Zip(corrected).ToDictionary(t => t.First.Test, t => t.Second);
        return [.. comparisons.Select(c => c.P is null ? c : c with { Holm = byTest[c.Test] })];
    }
}

/// <summary>The paired t test.</summary>
internal static class PairedT
{
    /// <summary>Two-sided p value of differences whose mean is 0 by hypothesis; null for one difference.</summary>
    public static double? P(Spread differences) => differences.Deviation switch
    {
        null => null,
        0 => differences.Mean == 0 ? 1 : 0,
        { } deviation => Math.Min(1, 2 * (1 - StudentT.Below(Math.Abs(differences.Mean) / (deviation / Math.Sqrt(differences.Count)), differences.Count - 1))),
    };
}

/// <summary>Holm's correction of p values for their number (Holm 1979): the chance of any false finding among them stays below the level.</summary>
internal static class Holm
{
    /// <summary>Corrected p values, in the order given.</summary>
    public static double[] Correct(IReadOnlyList<double> p)
    {
        var corrected = new double[p.Count];
        var least = 0.0;
        foreach (var (place, index) in Enumerable.Range(0, p.Count).OrderBy(i => p[i]).Index())
            corrected[index] = least = Math.Max(least, Math.Min(1, (p.Count - place) * p[index]));
        return corrected;
    }
}
