namespace NativeLora.Hub;

/// <summary>A file that is about to be fetched.</summary>
/// <param name="Name">Its name in the repository.</param>
/// <param name="Bytes">Its size.</param>
/// <param name="Present">How many of them are here from an earlier try.</param>
public sealed record HubFileToFetch(string Name, long Bytes, long Present);

/// <summary>What is about to be fetched.</summary>
/// <param name="Id">The repository.</param>
/// <param name="Endpoint">Where from.</param>
/// <param name="Commit">Which state of it.</param>
/// <param name="Folder">The folder that will hold the files.</param>
/// <param name="Files">The files that are not here yet.</param>
public sealed record HubFetch(string Id, string Endpoint, string Commit, string Folder, IReadOnlyList<HubFileToFetch> Files)
{
    /// <summary>Bytes of all files.</summary>
    public long Bytes => Sum(f => f.Bytes);

    /// <summary>Bytes that are here already.</summary>
    public long Present => Sum(f => f.Present);

    // A server may claim any size.
    private long Sum(Func<HubFileToFetch, long> bytes) => Files.Aggregate(0L, (sum, f) => bytes(f) > long.MaxValue - sum ? long.MaxValue : sum + bytes(f));
}

/// <summary>Hears how a download goes on.</summary>
public interface IHubObserver
{
    /// <summary>Before the first byte.</summary>
    void OnStart(HubFetch fetch);

    /// <summary>After some bytes: how many of all are here now.</summary>
    /// <param name="file">The file being received.</param>
    /// <param name="bytes">Bytes of all files that are here.</param>
    void OnProgress(string file, long bytes);

    /// <summary>One line: a try failed and another follows, or another process is waited for.</summary>
    void OnWait(string message);

    /// <summary>All files are here.</summary>
    void OnDone();
}
