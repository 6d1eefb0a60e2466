using System.Globalization;

namespace NativeLora.Cli.Study;

/// <summary>Says of every choice whether it beats random and last layers at the same cost.</summary>
internal static class ComparisonWords
{
    /// <summary>A sentence a choice; choices of the same cost of which the same is to be said share it.</summary>
    public static IEnumerable<string> Sentences(ComparisonTable table) => table.Rows
        .GroupBy(r => r.Row).Select(g => (Row: g.Key, Cost: g.Key.Label[g.Key.Name.Length..], Text: string.Join("; ", g.Select(c => Of(c, table.Tests)))))
        .GroupBy(s => (s.Cost, s.Text)).Select(g => $"{string.Join(", ", g.Select(s => s.Row.Name))}{g.Key.Cost}: {g.Key.Text}.");

    private static string Of(Comparison c, int tests)
    {
        var counted = tests > 1 ? Text($", {P(c.Holm)} after Holm's correction over {tests} comparisons") : "";
        var shared = c.SameMasks > 0 ? Text($"; the same layers in {c.SameMasks} of {c.Difference.Over.Count} seeds") : "";
        var numbers = Text($"{Signed(c.Difference.Mean)} (95 % interval {Signed(c.Difference.Low)} to {Signed(c.Difference.High)}, p {P(c.P)}{counted}{shared})");
        return c.Verdict switch
        {
            Verdict.Same => $"does not beat {c.Against}: it chooses the same layers with every seed",
            Verdict.Unknown => $"cannot be told from {c.Against}: {Signed(c.Difference.Mean)} with one seed, which has no spread",
            Verdict.Beats => $"beats {c.Against}: {numbers}",
            Verdict.Ahead => $"is ahead of {c.Against}, but the correction leaves it unproven: {numbers}",
            Verdict.Behind => $"is behind {c.Against}: {numbers}",
            Verdict.Trails => $"does not beat {c.Against} and rather trails it, which the correction leaves unproven: {numbers}",
            _ => $"does not beat {c.Against}: {numbers}, within the spread",
        };
    }

    /// <summary>A word for a table.</summary>
    public static string Word(Verdict verdict) => verdict switch
    {
        Verdict.Beats => "beats",
        Verdict.Ahead => "ahead, unproven",
        Verdict.WithinTheSpread => "within the spread",
        Verdict.Trails => "trails, unproven",
        Verdict.Behind => "behind",
        Verdict.Same => "same layers",
        _ => "one seed",
    };

    public static string P(double? p) => p switch
    {
        null => "–",
        < 0.001 => "below 0.001",
        { } value => value.ToString("0.000", CultureInfo.InvariantCulture),
    };

    public static string Signed(double? value) => value?.ToString("+0.0000;−0.0000;0.0000", CultureInfo.InvariantCulture) ?? "–";

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
