using NativeLora.Checkpoints;

namespace NativeLora.Cli.Demo;

/// <summary>
/// The folder that the demo writes. All is written beside it under a temporary name and put in place at the end, so that an interrupted
/// demo leaves nothing, or what an earlier one wrote.
/// </summary>
internal sealed class DemoFolder : IDisposable
{
    public const string Marker = ".nativelora-demo";
    private static readonly string[] Ours = [Marker, "base", "adapter", "selection.json", "results.json", "demo.png"];
    private readonly string _temporary;
    private bool _done;

    /// <summary>Checks the place and makes the temporary folder.</summary>
    /// <param name="path">Where the demo shall be in the end.</param>
    /// <exception cref="InputException">Something else is there, or nothing can be written there.</exception>
    public DemoFolder(string path)
    {
        if (string.IsNullOrWhiteSpace(path))
            throw new InputException("--output is empty: give a folder");
        Final = Path.TrimEndingDirectorySeparator(Path.GetFullPath(path));
        if (Path.GetDirectoryName(Final) is null)
            throw new InputException($"--output {path}: is the root of the file system; give a folder of its own");
        _temporary = AtomicFile.TemporaryName(Final);
        try
        {
            CheckPlace();
            Directory.CreateDirectory(_temporary);
            File.WriteAllText(At(Marker), "Written by nativelora demo, which replaces this folder when it is run again.\n");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"--output {path}: cannot be written ({e.Message.ReplaceLineEndings(" ")}); give a folder that can", e);
        }
    }

    /// <summary>The folder as it will be called.</summary>
    public string Final { get; }

    /// <summary>A file or folder while the demo runs.</summary>
    public string At(params ReadOnlySpan<string> parts) => Path.Combine([_temporary, .. parts]);

    /// <summary>The same when it is done.</summary>
    public string FinalAt(params ReadOnlySpan<string> parts) => Path.Combine([Final, .. parts]);

    /// <summary>Puts everything in place.</summary>
    /// <exception cref="InputException">In the meantime something else came there.</exception>
    /// <exception cref="RunException">It cannot be put there.</exception>
    public void Commit()
    {
        var old = $"{_temporary}.old";
        try
        {
            CheckPlace();
            var replaces = Directory.Exists(Final);
            if (replaces)
                Directory.Move(Final, old);
            try
            {
                Directory.Move(_temporary, Final);
            }
            catch when (replaces)
            {
                Directory.Move(old, Final);
                throw;
            }
            _done = true;
            if (replaces)
                Directory.Delete(old, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RunException($"{Final}: cannot be put in place: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }

    private void CheckPlace()
    {
        if (File.Exists(Final))
            throw new InputException($"--output {Final}: is a file; give a folder");
        if (!Directory.Exists(Final))
            return;
        var here = Path.TrimEndingDirectorySeparator(Directory.GetCurrentDirectory());
        if (here == Final || here.StartsWith(Final + Path.DirectorySeparatorChar, StringComparison.Ordinal))
            throw new InputException($"--output {Final}: the working folder lies in it, and the demo replaces its folder; give another");
        var names = Directory.EnumerateFileSystemEntries(Final).Select(e => Path.GetFileName(e)!).Order(StringComparer.Ordinal).ToList();
        if (names.Count == 0)
            return;
        if (!names.Contains(Marker))
            throw new InputException($"--output {Final}: there is such a folder, and no demo wrote it; give another");
        if (names.FirstOrDefault(n => !Ours.Contains(n)) is { } other)
            throw new InputException($"--output {Final}: holds {other}, which no demo wrote; move it elsewhere, or give another folder");
    }

    public void Dispose()
    {
        if (_done)
            return;
        try
        {
            Directory.Delete(_temporary, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // What ended the demo says more.
        }
    }
}
