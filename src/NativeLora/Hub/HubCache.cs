using NativeLora.Checkpoints;

namespace NativeLora.Hub;

/// <summary>
/// The cache as huggingface_hub lays it out: <c>models--owner--name</c> with <c>blobs</c> named by ETag, <c>refs</c> that hold commits, and
/// <c>snapshots</c> by commit whose files are relative links to blobs, or plain files where there are no links.
/// </summary>
internal sealed class HubCache(HubReference reference, HubOptions options)
{
    private readonly string _repository = $"models--{reference.Owner}--{reference.Name}";

    public string Folder => Path.Combine(options.CacheFolder, _repository);

    public string Snapshot(string commit) => Path.Combine(Folder, "snapshots", commit);

    public string Pointer(string commit, string name) => Path.Combine([Snapshot(commit), .. name.Split('/')]);

    public string Blob(string etag) => Path.Combine(Folder, "blobs", etag);

    public string Incomplete(string etag) => Blob(etag) + ".incomplete";

    private string Ref => Path.Combine([Folder, "refs", .. reference.Revision.Split('/')]);

    /// <summary>The commit that the revision stands for here; null if it is not known.</summary>
    public string? Commit()
    {
        if (reference.IsPinned)
            return reference.Revision;
        try
        {
            return File.Exists(Ref) && File.ReadAllText(Ref).Trim() is var commit && HubReference.IsCommit(commit) ? commit : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException(Reject.OneLine($"{Ref}: cannot be read: {e.Message}"), e);
        }
    }

    /// <summary>Notes which commit the revision stands for. The last thing that a download does.</summary>
    public void WriteRef(string commit)
    {
        if (!reference.IsPinned && Commit() != commit)
            AtomicFile.WriteAllText(Ref, commit);
    }

    /// <summary>Makes the folders, so that a cache that cannot be written to is found before anything is fetched.</summary>
    public void Prepare()
    {
        foreach (var folder in (string[])[Path.Combine(Folder, "blobs"), LockFolder])
            Try(folder, () => Directory.CreateDirectory(folder));
    }

    /// <summary>Free bytes where the cache is; null if that is not known.</summary>
    public long? FreeBytes()
    {
        try
        {
            return new DriveInfo(Folder).AvailableFreeSpace;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return null;
        }
    }

    /// <summary>Lets a whole blob appear in the snapshot, in one step.</summary>
    public void Link(string commit, string name, string etag)
    {
        var (pointer, blob) = (Pointer(commit, name), Blob(etag));
        Try(pointer, () =>
        {
            var folder = Path.GetDirectoryName(pointer)!;
            Directory.CreateDirectory(folder);
            if (HasFile(pointer))
                return;
            var depth = name.Count(c => c == '/') + 2;
            var target = Path.Combine([.. Enumerable.Repeat("..", depth), "blobs", etag]);
            if (options.SymbolicLinks != false && TryLink(pointer, target))
                return;
            // As huggingface_hub does: a second copy of a model would be a waste.
            File.Move(blob, pointer, overwrite: true);
        });
    }

    // Under another name first: a link to a blob that is gone would be in the way.
    private static bool TryLink(string pointer, string target)
    {
        var temporary = Temporary.Of(pointer);
        try
        {
            Temporary.RemoveStale(pointer);
            File.CreateSymbolicLink(temporary, target);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or PlatformNotSupportedException)
        {
            return false;
        }
        try
        {
            File.Move(temporary, pointer, overwrite: true);
            return true;
        }
        catch
        {
            File.Delete(temporary);
            throw;
        }
    }

    private string LockFolder => Path.Combine(options.CacheFolder, ".locks", _repository);

    /// <summary>Keeps other processes, Python's too, away from a blob. The system lets go of it when the process ends, however it ends.</summary>
    public async Task<IDisposable> LockAsync(string etag, Action onWait, CancellationToken cancellation)
    {
        var path = Path.Combine(LockFolder, $"{etag}.lock");
        for (var first = true; ; first = false)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException e) when (FileErrors.IsHeld(e))
            {
                if (first)
                    onWait();
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw CannotWrite(path, e);
            }
            await Task.Delay(100, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Whether there is a file, and not only a link to one that is gone, which File.Exists takes for one.</summary>
    public static bool HasFile(string path)
    {
        try
        {
            return File.Exists(path) && File.ResolveLinkTarget(path, returnFinalTarget: true) is null or { Exists: true };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    /// <summary>Does something to a file of the cache.</summary>
    /// <exception cref="RunException">It cannot be done.</exception>
    public static void Try(string path, Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (FileErrors.IsAny(e))
        {
            throw CannotWrite(path, e);
        }
    }

    public static RunException CannotWrite(string path, Exception e) =>
        new(Reject.OneLine($"{path}: the hub's cache cannot be written: {e.Message.TrimEnd('.')}; make room, or name another folder with HF_HUB_CACHE"), e);
}
