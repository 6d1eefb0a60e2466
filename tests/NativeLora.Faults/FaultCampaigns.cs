using NativeLora.Faults.Campaigns;

namespace NativeLora.Faults;

/// <summary>The campaigns by name.</summary>
public static class FaultCampaigns
{
    private static readonly (string Name, Func<double, int, IEnumerable<Tally>> Run)[] Known =
    [
        ("kill", RandomKills.Run),
        ("crash-points", (scale, _) => CrashPoints.Kill(scale)),
        ("torn-writes", (scale, _) => CrashPoints.Tear(scale)),
        ("no-space", (scale, _) => CrashPoints.Full(scale)),
        ("errors", (scale, _) => CrashPoints.Fail(scale)),
        ("full-disk", (scale, _) => FullDisks.Run(scale)),
        ("places", (scale, _) => Places.Run(scale)),
        ("damage", Damage.Run),
        ("locks", (scale, _) => Locks.Run(scale)),
        ("clocks", (scale, _) => Clocks.Run(scale)),
        ("cancel", Cancellations.Run),
        ("streams", (scale, _) => Streams.Run(scale)),
    ];

    /// <summary>Names of the campaigns.</summary>
    public static IReadOnlyList<string> Names => [.. Known.Select(k => k.Name)];

    /// <summary>Runs one of them.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="scale">Share of the tries of a full run.</param>
    /// <param name="seed">Seed of what is drawn.</param>
    /// <param name="told">Is told each row as it is done.</param>
    public static IReadOnlyList<FaultRow> Run(string name, double scale, int seed, Action<FaultRow>? told = null)
    {
        var rows = new List<FaultRow>();
        foreach (var tally in Known.First(k => k.Name == name).Run(scale, seed))
        {
            rows.Add(tally.ToRow());
            told?.Invoke(rows[^1]);
        }
        return rows;
    }
}
