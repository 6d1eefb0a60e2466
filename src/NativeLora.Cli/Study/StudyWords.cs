using System.Globalization;
using NativeLora.Selection;

namespace NativeLora.Cli.Study;

/// <summary>Says in plain words what the numbers of a task say, and what they do not.</summary>
internal static class StudyWords
{
    private static readonly SelectionStrategy[] References = [SelectionStrategy.All, SelectionStrategy.None, SelectionStrategy.Random];

    /// <summary>A sentence for each ratio of CKA, or, without it, for each row of a ratio that is no reference itself.</summary>
    public static IReadOnlyList<string> Of(TaskSummary summary)
    {
        // What is chosen within a budget is compared in a table of its own.
        var looked = summary.Rows.Where(r => r.Row.Is(SelectionStrategy.Cka) && r.Row.Budget is null).ToList();
        if (looked.Count == 0)
            looked = [.. summary.Rows.Where(r => r.Row.Budget is null && !r.Row.IsExhaustive && !References.Contains(r.Row.Options.Strategy))];
        return [.. looked.Select(r => Of(summary, r)).OfType<string>(), .. Exhausted(summary)];
    }

    /// <summary>Where the other choices stand among all masks of their size.</summary>
    private static IEnumerable<string> Exhausted(TaskSummary summary)
    {
        var metric = summary.Task.Metric;
        foreach (var size in summary.Rows.Where(r => r.Row.IsExhaustive && r.Metrics[metric] is not null).GroupBy(r => r.Row.Ratio))
        {
            var sign = metric == "loss" ? 1 : -1;
            RowSummary[] order = [.. size.OrderBy(r => sign * Mean(r))];
            var text = string.Create(CultureInfo.InvariantCulture,
                $"Of all {order.Length} masks of ratio {size.Key}, {order[0].Row.Options.Explicit} has the best {metric}, {Number(Mean(order[0]))}, and {order[^1].Row.Options.Explicit} the worst, {Number(Mean(order[^1]))}");
            var places = summary.Rows
                .Where(r => !r.Row.IsExhaustive && r.Row.Ratio == size.Key && r.Masks.Count == 1)
                .Select(r => (r.Row.Label, Mask: order.FirstOrDefault(o => o.Row.Options.Explicit == r.Masks[0].Mask)))
                .Where(p => p.Mask is not null)
                .Select(p => $"{p.Label} is {1 + order.Count(o => sign * Mean(o) < sign * Mean(p.Mask!))}.").ToList();
            yield return places.Count == 0 ? $"{text}." : $"{text}; among them {string.Join(", ", places).TrimEnd('.')} (equal ones share a place).";
        }

        double Mean(RowSummary row) => row.Metrics[metric]!.Value.Mean;
    }

    private static string? Of(TaskSummary summary, RowSummary row)
    {
        var metric = summary.Task.Metric;
        if (row.Metrics[metric] is not { } value)
            return null;
        var text = $"With {row.Row.Label} {metric} is {With(value)} over {Seeds(value.Count)}";
        List<(string Name, Difference Difference)> differences =
        [
            .. row.VersusAll is { } all ? [("all layers", all)] : (ReadOnlySpan<(string, Difference)>)[],
            .. row.VersusRandom is { } random ? [("random layers", random)] : (ReadOnlySpan<(string, Difference)>)[],
        ];
        if (differences.Count > 0)
            text += $": {string.Join(", ", differences.Select(d => $"{Signed(d.Difference.Mean)} against {d.Name}{Interval(d.Difference)}"))}";
        var same = summary.Rows.Where(r => !ReferenceEquals(r, row) && r.Row.Budget is null && !References.Contains(r.Row.Options.Strategy) && r.Cells.Select(c => c.Mask).SequenceEqual(row.Cells.Select(c => c.Mask))).ToList();
        if (same.Count > 0)
            text += $"; it chooses the same layers as {string.Join(" and ", same.Select(s => s.Row.Label))}, so the numbers are one training's";
        return $"{text}{Verdict(differences)}.";
    }

    private static string Verdict(List<(string Name, Difference Difference)> differences)
    {
        if (differences.Count == 0)
            return "";
        if (differences.All(d => d.Difference.IsClear is null))
            return "; one seed has no spread to compare the differences with";
        var (clear, within) = (Names(differences, true), Names(differences, false));
        if (clear.Length == 0)
            return $"; {(differences.Count == 1 ? "the difference is" : "both differences are")} within the spread over the seeds, so these runs show none";
        return within.Length == 0
            ? $"; the difference against {clear} is larger than the spread over the seeds"
            : $"; the difference against {clear} is larger than the spread over the seeds, that against {within} is within it";
    }

    private static string Names(List<(string Name, Difference Difference)> differences, bool clear) =>
        string.Join(" and ", differences.Where(d => d.Difference.IsClear == clear).Select(d => d.Name));

    /// <summary>Mean ± standard deviation of the sample.</summary>
    public static string With(Spread value) => value.Deviation is { } deviation ? $"{Number(value.Mean)} ± {Number(deviation)}" : Number(value.Mean);

    /// <summary>Difference with its interval.</summary>
    public static string With(Difference? difference) => difference is { } d ? $"{Signed(d.Mean)}{Interval(d, "")}" : "–";

    private static string Interval(Difference d, string level = "95 % interval ") =>
        d is { Low: { } low, High: { } high } ? $" ({level}{Signed(low)} to {Signed(high)})" : "";

    private static string Seeds(int count) => count == 1 ? "one seed" : $"{count} seeds";

    private static string Number(double value) => value.ToString("0.0000", CultureInfo.InvariantCulture);

    private static string Signed(double value) => value.ToString("+0.0000;−0.0000;0.0000", CultureInfo.InvariantCulture);
}
