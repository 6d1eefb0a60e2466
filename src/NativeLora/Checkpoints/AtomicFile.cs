using System.Text;
using System.Text.RegularExpressions;

namespace NativeLora.Checkpoints;

/// <summary>Writes files so that a reader sees the old one or the whole new one, never a part.</summary>
public static partial class AtomicFile
{
    /// <summary>
    /// Writes under a temporary name in the same folder (made if it is not there), flushes to disk and renames. If anything
    /// fails, the temporary file is removed and the old file stays. What a process that was killed left of the same file is removed.
    /// </summary>
    /// <param name="path">The file to write or replace.</param>
    /// <param name="write">Writes the content.</param>
    /// <exception cref="RunException">The file cannot be written, for instance because the disk is full.</exception>
    public static void Write(string path, Action<Stream> write)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(write);
        WriteTogether([new(path, write)]);
    }

    /// <summary>Writes a text as UTF-8 without a byte order mark.</summary>
    /// <exception cref="RunException">The file cannot be written.</exception>
    public static void WriteAllText(string path, string text) => Write(path, Text(text));

    /// <summary>
    /// Writes files that belong together. All are on disk under temporary names before the first is renamed, so a full disk leaves the old
    /// ones. The last is the one without which readers take nothing for whole: where anything changes, the old one is removed first, so that
    /// no moment shows new files beside old ones.
    /// </summary>
    /// <param name="files">The files.</param>
    /// <exception cref="RunException">One cannot be written.</exception>
    internal static void WriteTogether(IReadOnlyList<FileToWrite> files)
    {
        var staged = new List<Staged>();
        var path = files[0].Path;
        try
        {
            foreach (var file in files)
            {
                path = file.Path;
                staged.Add(new Staged(file.Path));
                staged[^1].Fill(file.Write);
            }
            if (staged.Count > 1 && File.Exists(staged[^1].Final) && !staged.TrueForAll(f => f.IsAsBefore()))
                File.Delete(staged[^1].Final);
            foreach (var file in staged)
            {
                path = file.Final;
                file.Commit();
            }
        }
        catch (Exception e) when (FileErrors.IsAny(e))
        {
            throw new RunException(Reject.OneLine($"{path}: cannot be written: {Cause(e, path)}"), e);
        }
        finally
        {
            foreach (var file in staged)
                file.Dispose();
        }
    }

    /// <summary>Content of a text file.</summary>
    internal static Action<Stream> Text(string text) => stream => stream.Write(Encoding.UTF8.GetBytes(text));

    /// <summary>Writes a folder that appears when it is complete. What a process that was killed left of the same folder is removed.</summary>
    /// <param name="path">The folder; nothing may be there, or an empty folder.</param>
    /// <param name="write">Fills the folder that it is given.</param>
    /// <exception cref="InputException">Something is there already.</exception>
    /// <exception cref="RunException">The folder cannot be written.</exception>
    public static void WriteFolder(string path, Action<string> write)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(write);
        using var folder = new StagedFolder(path);
        write(folder.Path);
        folder.Commit();
    }

    /// <summary>A temporary name beside a path. What processes that were killed left under such names of the same path is removed.</summary>
    /// <param name="path">The file or folder that it shall become.</param>
    public static string TemporaryName(string path)
    {
        var full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(path));
        Temporary.RemoveStale(full);
        return Temporary.Of(full);
    }

    /// <summary>Checks that files can be written into a folder, which need not be there yet. Nothing of it stays.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="InputException">They cannot: a file is in its way, or it may not be written to.</exception>
    /// <exception cref="RunException">The disk is full, or fails.</exception>
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
            probe = TemporaryName(Path.Combine(parent, "check"));
            Directory.CreateDirectory(probe);
            Directory.Delete(probe);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            var why = Reject.OneLine($"{folder}: cannot be written to: {e.Message.Replace($"/{Path.GetFileName(probe)}", "", StringComparison.Ordinal).TrimEnd('.')}; choose another folder");
            throw FileErrors.IsOfDisk(e) ? new RunException(why, e) : new InputException(why, e);
        }
    }

    // The temporary name tells nobody anything.
    private static string Cause(Exception e, string path) =>
        TemporaryPattern().Replace(e.Message, m => m.Groups[1].Success ? "" : Path.GetFileName(path)).Replace(" (Parameter 'value')", "", StringComparison.Ordinal).TrimEnd('.');

    [GeneratedRegex(@"( : '[^']*\.tmp')|\.[^/\\]*\.[0-9a-f]{8}-[0-9]+\.[0-9a-f]{32}\.tmp")]
    private static partial Regex TemporaryPattern();

    /// <summary>A file under its temporary name, held against those who tidy up.</summary>
    private sealed class Staged : IDisposable
    {
        private FileStream? _stream;
        private bool _done;

        public Staged(string path)
        {
            Final = Path.GetFullPath(path);
            var folder = Path.GetDirectoryName(Final) ?? throw new IOException("it names no file");
            Directory.CreateDirectory(folder);
            Temporary = TemporaryName(Final);
            // A file can be renamed while it is open, on Windows if that was asked for.
            _stream = new FileStream(Temporary, FileMode.CreateNew, FileAccess.ReadWrite, OperatingSystem.IsWindows() ? FileShare.Delete : FileShare.None, 1 << 16);
        }

        public string Final { get; }

        public string Temporary { get; }

        public void Fill(Action<Stream> write)
        {
            write(_stream!);
            _stream!.Flush(flushToDisk: true);
        }

        public bool IsAsBefore()
        {
            if (!File.Exists(Final))
                return false;
            using var before = File.OpenRead(Final);
            if (before.Length != _stream!.Length)
                return false;
            var (old, now) = (new byte[1 << 14], new byte[1 << 14]);
            _stream.Position = 0;
            while (before.ReadAtLeast(old, old.Length, throwOnEndOfStream: false) is > 0 and var count)
                if (_stream.ReadAtLeast(now, now.Length, throwOnEndOfStream: false) != count || !old.AsSpan(0, count).SequenceEqual(now.AsSpan(0, count)))
                    return false;
            return true;
        }

        public void Commit()
        {
            File.Move(Temporary, Final, overwrite: true);
            _done = true;
        }

        public void Dispose()
        {
            try
            {
                _stream?.Dispose();
            }
            catch (Exception e) when (FileErrors.IsAny(e))
            {
                // It could not be flushed, which led here.
            }
            _stream = null;
            try
            {
                if (!_done)
                    File.Delete(Temporary);
            }
            catch (Exception e) when (FileErrors.IsAny(e))
            {
                // The error that led here says more.
            }
        }
    }
}

/// <summary>A file with what writes its content.</summary>
/// <param name="Path">The file to write or replace.</param>
/// <param name="Write">Writes the content.</param>
internal sealed record FileToWrite(string Path, Action<Stream> Write);
