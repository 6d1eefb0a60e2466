namespace NativeLora.Checkpoints;

/// <summary>
/// A folder that appears when it is complete: it is filled beside its place under a temporary name. What a process that was killed left of
/// one is removed by the next that writes to the same place.
/// </summary>
internal sealed class StagedFolder : IDisposable
{
    private readonly string _final;
    private bool _done;

    /// <summary>Makes the temporary folder.</summary>
    /// <param name="final">Where the folder shall be.</param>
    /// <exception cref="InputException">Something is there that is no empty folder.</exception>
    /// <exception cref="RunException">It cannot be made.</exception>
    public StagedFolder(string final)
    {
        _final = System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(final));
        RequireFree(_final);
        if (System.IO.Path.GetDirectoryName(_final) is null)
            throw new InputException($"{_final} cannot be written; name a folder");
        Path = Temporary.Of(_final);
        Try(() =>
        {
            Temporary.RemoveStale(_final);
            Directory.CreateDirectory(Path);
        });
    }

    /// <summary>The temporary folder.</summary>
    public string Path { get; }

    /// <summary>Checks that a place is free.</summary>
    /// <exception cref="InputException">Something is there that is no empty folder.</exception>
    public static void RequireFree(string folder)
    {
        if (File.Exists(folder) || (Directory.Exists(folder) && Directory.EnumerateFileSystemEntries(folder).Any()))
            throw new InputException($"{folder} exists and is not an empty folder; name another, or remove it first");
    }

    /// <summary>Puts it in its place.</summary>
    /// <exception cref="RunException">It cannot be put there.</exception>
    public void Commit() => Try(() =>
    {
        if (Directory.Exists(_final))
            Directory.Delete(_final);
        Directory.Move(Path, _final);
        _done = true;
        FolderSync.Flush(System.IO.Path.GetDirectoryName(_final)!);
    });

    private void Try(Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RunException(Reject.OneLine($"{_final} cannot be written: {e.Message.Replace(Path, _final, StringComparison.Ordinal)}"), e);
        }
    }

    public void Dispose()
    {
        if (_done)
            return;
        try
        {
            Directory.Delete(Path, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The error that led here says more.
        }
    }
}
