using System.Text;

namespace NativeLora.Checkpoints;

/// <summary>Writes files so that a reader sees the old one or the whole new one, never a part.</summary>
public static class AtomicFile
{
    /// <summary>
    /// Writes under a temporary name in the same folder (made if it is not there), flushes to disk and renames. If anything
    /// fails, the temporary file is removed and the old file stays.
    /// </summary>
    /// <param name="path">The file to write or replace.</param>
    /// <param name="write">Writes the content.</param>
    /// <exception cref="RunException">The file cannot be written, for instance because the disk is full.</exception>
    public static void Write(string path, Action<Stream> write)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(write);
        string? temporary = null;
        try
        {
            var full = Path.GetFullPath(path);
            var folder = Path.GetDirectoryName(full) ?? throw new IOException("it names no file");
            Directory.CreateDirectory(folder);
            temporary = Path.Combine(folder, $".{Guid.NewGuid():N}.tmp");
            using (var stream = new FileStream(temporary, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, 1 << 16))
            {
                write(stream);
                stream.Flush(flushToDisk: true);
            }
            File.Move(temporary, full, overwrite: true);
            temporary = null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RunException(Reject.OneLine($"{path}: cannot be written: {Cause(e, temporary)}"), e);
        }
        finally
        {
            if (temporary is not null)
                Remove(temporary);
        }
    }

    /// <summary>Writes a text as UTF-8 without a byte order mark.</summary>
    /// <exception cref="RunException">The file cannot be written.</exception>
    public static void WriteAllText(string path, string text) =>
        Write(path, stream => stream.Write(Encoding.UTF8.GetBytes(text)));

    /// <summary>Checks that files can be written into a folder, which need not be there yet. Nothing of it stays.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="InputException">They cannot: a file is in its way, or it may not be written to.</exception>
    public static void CheckFolder(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        var probe = "";
        try
        {
            var parent = Path.GetFullPath(folder);
            while (!Directory.Exists(parent))
            {
                if (File.Exists(parent))
                    throw new InputException($"{folder}: cannot be written to: {parent} is a file; choose another folder");
                parent = Path.GetDirectoryName(parent) ?? throw new IOException("there is no such drive");
            }
            probe = Path.Combine(parent, $".{Guid.NewGuid():N}.tmp");
            Directory.CreateDirectory(probe);
            Directory.Delete(probe);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException(Reject.OneLine($"{folder}: cannot be written to: {e.Message.Replace($"/{Path.GetFileName(probe)}", "", StringComparison.Ordinal).TrimEnd('.')}; choose another folder"), e);
        }
    }

    // The temporary name tells nobody anything.
    private static string Cause(Exception e, string? temporary) =>
        (temporary is null ? e.Message : e.Message.Replace($" : '{temporary}'", "", StringComparison.Ordinal)).TrimEnd('.');

    private static void Remove(string temporary)
    {
        try
        {
            File.Delete(temporary);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The error that led here says more.
        }
    }
}
