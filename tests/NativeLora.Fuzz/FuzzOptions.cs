using System.Globalization;

namespace NativeLora.Fuzz;

/// <summary>What the command line says.</summary>
internal sealed record FuzzOptions(IReadOnlyList<string> Readers, long Inputs, ulong Seed, string Output, string Work, string? Replay, bool Coverage)
{
    /// <summary>Null where it is wrong, after saying so.</summary>
    public static FuzzOptions? Parse(string[] args)
    {
        var given = new Dictionary<string, string>(StringComparer.Ordinal);
        for (var i = 0; i < args.Length; i++)
        {
            if (args[i] is "--no-coverage")
                given[args[i]] = "";
            else if (args[i] is "--reader" or "--inputs" or "--seed" or "--output" or "--work" or "--replay" && i + 1 < args.Length)
                given[args[i]] = args[++i];
            else
                return Usage($"{args[i]} is not known");
        }
        var readers = given.GetValueOrDefault("--reader", "all").Split(',');
        if (readers.FirstOrDefault(r => r != "all" && FuzzReaders.All.All(k => k.Name != r)) is { } unknown)
            return Usage($"there is no reader {unknown}");
        if (!long.TryParse(given.GetValueOrDefault("--inputs", "100000"), NumberStyles.None, CultureInfo.InvariantCulture, out var inputs)
            || !ulong.TryParse(given.GetValueOrDefault("--seed", "0"), NumberStyles.None, CultureInfo.InvariantCulture, out var seed))
            return Usage("--inputs and --seed are whole numbers");
        var work = given.GetValueOrDefault("--work", Path.Combine(Directory.Exists("/dev/shm") ? "/dev/shm" : Path.GetTempPath(), $"nativelora-fuzz-{Environment.ProcessId}"));
        return new FuzzOptions(readers, inputs, seed, Path.GetFullPath(given.GetValueOrDefault("--output", "fuzz-found")), work, given.GetValueOrDefault("--replay"), !given.ContainsKey("--no-coverage"));
    }

    private static FuzzOptions? Usage(string wrong)
    {
        Console.Error.WriteLine($"""
            {wrong}
            --reader NAME[,NAME]  what is fuzzed (default: all): {string.Join(", ", FuzzReaders.All.Select(r => r.Name))}
            --inputs N            inputs for each (default: 100000)
            --seed N              the same seed tries the same inputs (default: 0)
            --output DIR          keeps what is found, and how far it is, to go on from there (default: fuzz-found)
            --work DIR            where inputs are laid out (default: in memory)
            --replay DIR          reads one input again
            --no-coverage         do not count branches
            """);
        return null;
    }
}
