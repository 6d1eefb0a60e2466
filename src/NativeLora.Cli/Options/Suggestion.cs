namespace NativeLora.Cli.Options;

/// <summary>Finds the name that was meant.</summary>
internal static class Suggestion
{
    /// <summary>"; did you mean X?" without its semicolon's end, or nothing if no name is near.</summary>
    public static string Of(string given, IEnumerable<string> names)
    {
        var best = names.Select(n => (Name: n, Distance: Distance(given.ToLowerInvariant(), n))).OrderBy(n => n.Distance).FirstOrDefault();
        return best.Name is not null && best.Distance <= Math.Max(1, best.Name.Length / 2) ? $" (did you mean {best.Name}?)" : "";
    }

    /// <summary>Insertions, deletions, substitutions and swaps of neighbours (Damerau-Levenshtein, restricted).</summary>
    internal static int Distance(string a, string b)
    {
        var d = new int[a.Length + 1, b.Length + 1];
        for (var i = 0; i <= a.Length; i++)
            d[i, 0] = i;
        for (var j = 0; j <= b.Length; j++)
            d[0, j] = j;
        for (var i = 1; i <= a.Length; i++)
            for (var j = 1; j <= b.Length; j++)
            {
                d[i, j] = Math.Min(Math.Min(d[i - 1, j], d[i, j - 1]) + 1, d[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1));
                if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                    d[i, j] = Math.Min(d[i, j], d[i - 2, j - 2] + 1);
            }
        return d[a.Length, b.Length];
    }
}
