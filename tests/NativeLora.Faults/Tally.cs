namespace NativeLora.Faults;

/// <summary>What a fault did over all tries.</summary>
internal sealed class Tally(string fault)
{
    private const int Shown = 5;
    private readonly SortedDictionary<string, int> _seen = new(StringComparer.Ordinal);
    private readonly List<string> _lost = [];

    public string Fault => fault;

    public int Tries { get; private set; }

    public int Lost => _lost.Count;

    /// <summary>What was lost, the first few.</summary>
    public IReadOnlyList<string> Losses => _lost;

    /// <summary>Why it could not be tried; null if it was.</summary>
    public string? Skipped { get; set; }

    /// <summary>A try ended.</summary>
    /// <param name="seen">What was seen, in a few words.</param>
    /// <param name="wrong">What should not be; null if all is as it should be.</param>
    public void Add(string seen, string? wrong = null)
    {
        Tries++;
        if (wrong is null)
        {
            _seen[seen] = _seen.GetValueOrDefault(seen) + 1;
            return;
        }
        _lost.Add($"{seen}: {wrong}");
        Console.Error.WriteLine($"LOST {fault}: {seen}: {wrong}");
    }

    public string Seen => Skipped is not null ? $"skipped: {Skipped}"
        : string.Join("; ", _seen.OrderByDescending(s => s.Value).Select(s => $"{s.Key} ({s.Value})").Concat(_lost.Take(Shown).Select(l => $"LOST {l}")));

    public FaultRow ToRow() => new(fault, Tries, Lost, Seen);
}

/// <summary>A row of the table.</summary>
/// <param name="Fault">What was done.</param>
/// <param name="Tries">How often.</param>
/// <param name="Lost">How often something was lost, or not as promised.</param>
/// <param name="Seen">What was seen, with how often.</param>
public sealed record FaultRow(string Fault, int Tries, int Lost, string Seen);
