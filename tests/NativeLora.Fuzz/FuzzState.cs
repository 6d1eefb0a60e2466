using System.Globalization;
using System.Text.Json;

namespace NativeLora.Fuzz;

/// <summary>The folder of a campaign: sums by reader, and the inputs that found something.</summary>
internal sealed class FuzzState(string folder)
{
    /// <summary>Inputs of a block.</summary>
    public const long Block = 10_000;

    private readonly string _file = Path.Combine(folder, "campaign.json");
    private readonly Dictionary<string, Sums> _sums = Load(Path.Combine(folder, "campaign.json"));

    /// <summary>Inputs that were tried.</summary>
    public long Done(string reader, ulong seed) => _sums.TryGetValue(Key(reader, seed), out var sums) ? sums.Inputs : 0;

    /// <summary>Findings.</summary>
    public int Found(string reader, ulong seed) => _sums.TryGetValue(Key(reader, seed), out var sums) ? sums.Found : 0;

    /// <summary>Adds a block.</summary>
    public void Add(FuzzResult result, ulong seed)
    {
        var sums = _sums.GetValueOrDefault(Key(result.Reader, seed)) ?? new Sums();
        _sums[Key(result.Reader, seed)] = new Sums
        {
            Inputs = sums.Inputs + result.Inputs,
            Accepted = sums.Accepted + result.Accepted,
            Refused = sums.Refused + result.Refused,
            Refusals = Math.Max(sums.Refusals, result.Refusals),
            Kept = sums.Kept + result.Kept,
            Found = sums.Found + result.Findings.Count,
            WorstAllocated = Math.Max(sums.WorstAllocated, result.WorstAllocated),
            WorstMilliseconds = Math.Max(sums.WorstMilliseconds, result.WorstMilliseconds),
            Seconds = sums.Seconds + result.Seconds,
        };
        Directory.CreateDirectory(folder);
        File.WriteAllText(_file + ".tmp", JsonSerializer.Serialize(_sums));
        File.Move(_file + ".tmp", _file, overwrite: true);
    }

    /// <summary>Keeps an input.</summary>
    /// <returns>Where.</returns>
    public string Keep(string reader, Finding finding)
    {
        for (var number = 1; ; number++)
        {
            var at = Path.Combine(folder, reader, $"{finding.Kind}-{number}");
            if (Directory.Exists(at))
                continue;
            finding.Case.Write(at);
            File.WriteAllText(at + ".txt", $"{finding.What}\n{finding.Details}\n");
            return at;
        }
    }

    /// <summary>A row of the table.</summary>
    public string Row(FuzzReader reader, ulong seed) => FuzzTable.Row(reader.Name, reader.Reads, _sums.GetValueOrDefault(Key(reader.Name, seed)) ?? new Sums());

    /// <summary>The sum of all rows.</summary>
    public string Total(ulong seed)
    {
        var all = _sums.Where(s => s.Key.EndsWith($" {seed}", StringComparison.Ordinal)).Select(s => s.Value).ToList();
        return FuzzTable.Row("**all**", "", new Sums
        {
            Inputs = all.Sum(s => s.Inputs),
            Accepted = all.Sum(s => s.Accepted),
            Refused = all.Sum(s => s.Refused),
            Refusals = all.Sum(s => s.Refusals),
            Kept = all.Sum(s => s.Kept),
            Found = all.Sum(s => s.Found),
            WorstAllocated = all.Max(s => s.WorstAllocated),
            WorstMilliseconds = all.Max(s => s.WorstMilliseconds),
            Seconds = all.Sum(s => s.Seconds),
        });
    }

    private static string Key(string reader, ulong seed) => $"{reader} {seed}";

    private static Dictionary<string, Sums> Load(string file) =>
        File.Exists(file) ? JsonSerializer.Deserialize<Dictionary<string, Sums>>(File.ReadAllText(file))! : [];

    /// <summary>What a reader's blocks came to.</summary>
    internal sealed record Sums
    {
        public long Inputs { get; init; }

        public long Accepted { get; init; }

        public long Refused { get; init; }

        public int Refusals { get; init; }

        public int Kept { get; init; }

        public int Found { get; init; }

        public long WorstAllocated { get; init; }

        public double WorstMilliseconds { get; init; }

        public double Seconds { get; init; }
    }
}

/// <summary>The table that a campaign prints, in Markdown.</summary>
internal static class FuzzTable
{
    public const string Header = """
        | reader | reads | inputs | read | refused | different refusals | kept | found | worst allocation | slowest | seconds |
        |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
        """;

    public static string Row(string name, string reads, FuzzState.Sums sums) => string.Create(CultureInfo.InvariantCulture,
        $"| {name} | {reads} | {sums.Inputs:N0} | {sums.Accepted:N0} | {sums.Refused:N0} | {sums.Refusals} | {sums.Kept} | {sums.Found} | {sums.WorstAllocated / 1024.0 / 1024.0:0.0} MiB | {sums.WorstMilliseconds:0} ms | {sums.Seconds:0} |");
}
