using System.Globalization;
using NativeLora.Cli.Study;

namespace NativeLora.Cli.Report;

/// <summary>Whether a strategy beats a reference that was given the same, and what that rests on.</summary>
/// <param name="Row">The strategy.</param>
/// <param name="Against">random or last.</param>
/// <param name="Reference">The reference's row; null where the study has none of equal cost.</param>
/// <param name="Difference">Its metric less the reference's, seed by seed; null where there is nothing to compare.</param>
/// <param name="LowerIsBetter">Whether a negative difference is the better one.</param>
internal sealed record StudyVerdict(StudyRowInput Row, string Against, StudyRowInput? Reference, Difference? Difference, bool LowerIsBetter)
{
    /// <summary>As a study writes it that compares by itself.</summary>
    public StudyComparison Comparison => new(Row.Label, Against, Difference?.Mean, Difference?.Low, Difference?.High, Difference?.Over.Count, null, null, Short);

    public bool IsSame => Reference is not null && Row.SameAs(Reference);

    /// <summary>1: better, -1: worse, 0: neither was shown, null: nothing to say.</summary>
    public int? Sign => IsSame || Difference is not { IsClear: { } clear } d ? null : !clear ? 0 : (d.Mean > 0) != LowerIsBetter ? 1 : -1;

    public string Short => Reference is null ? $"no {Against} of equal cost" : IsSame ? "the same layers" : Sign switch
    {
        1 => "beats it",
        -1 => "is beaten",
        0 => "no difference shown",
        _ => "one seed: no verdict",
    };

    /// <summary>Every strategy that chooses, against random and against last.</summary>
    public static IReadOnlyList<StudyVerdict> All(StudyTaskInput task)
    {
        var verdicts = new List<StudyVerdict>();
        foreach (var row in task.Rows.Where(r => r.Strategy is not ("all" or "none" or "random") && !r.IsExhaustive))
            foreach (var against in (string[])["random", "last"])
            {
                if (row.Strategy == against)
                    continue;
                var reference = ReferenceOf(task, row, against);
                verdicts.Add(new StudyVerdict(row, against, reference, reference is null || row.SameAs(reference) ? null : row.Less(reference, task.Metric), task.LowerIsBetter));
            }
        return verdicts;
    }

    /// <summary>The row of random or last layers that was given as much; null where there is none.</summary>
    public static StudyRowInput? ReferenceOf(StudyTaskInput task, StudyRowInput row, string against) => task.Rows.FirstOrDefault(r => r.Strategy == against && Equal(row, r));

    // What was given the same: a ratio or a budget; a mask that was named, as many layers.
    private static bool Equal(StudyRowInput row, StudyRowInput other) =>
        row.Cost.Length > 0 ? row.Cost == other.Cost
        : row.Cells.Concat(other.Cells).Select(c => c.Mask.Count(d => d == '1')).Distinct().Count() == 1;

    /// <summary>A sentence a strategy, and one over all.</summary>
    public static IReadOnlyList<string> Words(StudyTaskInput task, IReadOnlyList<StudyVerdict> verdicts)
    {
        if (verdicts.Count == 0)
            return ["The study has no strategy to compare with random and last layers: give --strategies cka,random,last, say."];
        var sentences = new List<string>();
        foreach (var row in verdicts.GroupBy(v => v.Row))
            sentences.Add($"{row.Key.Label}: {string.Join("; ", row.Select(v => Sentence(v, task.Metric)))}.");
        var chosen = verdicts.Where(v => v.Row.Strategy != "last").GroupBy(v => v.Row).ToList();
        List<string> both = [.. chosen.Where(g => g.Count() == 2 && g.All(v => v.Sign == 1)).Select(g => g.Key.Label)];
        var judged = chosen.Where(g => g.Any(v => v.Sign is not null)).ToList();
        sentences.Add(judged.Count == 0 ? "Nothing can be said of random and last together: there are too few seeds, or no rows of equal cost."
            : InShort(both));
        var intervals = verdicts.Count(v => v.Difference is { IsClear: not null });
        if (intervals > 1)
            sentences.Add(string.Create(CultureInfo.InvariantCulture, $"{intervals} intervals of 95 % are looked at: of twenty such, one leaves out 0 by chance alone. Intervals are over the seeds of this study, so they say nothing of other data or models."));
        if (verdicts.Any(v => v.Reference is not null && Math.Abs(v.Row.Mean(c => c.PlannedBytes) - v.Reference.Mean(c => c.PlannedBytes)) > .005 * v.Reference.Mean(c => c.PlannedBytes)))
            sentences.Add("Equal cost is an equal ratio or budget as the study was given it. Equal numbers of layers are equal parameters, but not equal bytes: the lower a layer, the longer the backward. The table has the planned bytes of both sides.");
        return sentences;
    }

    /// <summary>The answer to the question that a study is made for.</summary>
    /// <param name="both">What was shown to beat random and last layers.</param>
    public static string InShort(IReadOnlyList<string> both) => both.Count == 0
        ? "In short: here no strategy was shown to beat both random and last layers at equal cost."
        : $"In short: {Report.Words.And(both)} {(both.Count == 1 ? "was" : "were")} shown to beat both random and last layers at equal cost.";

    private static string Sentence(StudyVerdict v, string metric)
    {
        if (v.Reference is null)
            return $"the study has no {v.Against} layers of equal cost to compare with";
        if (v.IsSame)
            return $"it chose the same layers as {v.Reference.Label}, so both are the same trainings";
        if (v.Difference is not { } d)
            return $"there is no {metric} to compare with {v.Reference.Label}";
        var seeds = d.Over.Count == 1 ? "one seed" : string.Create(CultureInfo.InvariantCulture, $"{d.Over.Count} seeds");
        var numbers = d is { Low: { } low, High: { } high } ? $"{metric} {Cells.Difference(d.Mean)}, 95 % interval {Cells.Difference(low)} to {Cells.Difference(high)}, {seeds}" : $"{metric} {Cells.Difference(d.Mean)}, {seeds}";
        return v.Sign switch
        {
            1 => $"beats {v.Reference.Label} ({numbers})",
            -1 => $"is beaten by {v.Reference.Label} ({numbers})",
            0 => $"against {v.Reference.Label} no difference is shown ({numbers})",
            _ => $"against {v.Reference.Label} one seed has no spread to compare the difference with ({numbers})",
        };
    }
}
