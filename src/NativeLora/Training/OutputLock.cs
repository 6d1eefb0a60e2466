using NativeLora.Checkpoints;

namespace NativeLora.Training;

/// <summary>
/// Keeps a second process out of an output folder. The operating system holds the lock on an open file and lets go of it when the process
/// ends, however it ends, so the file that stays behind blocks nobody.
/// </summary>
public sealed class OutputLock : IDisposable
{
    private const string Name = ".training.lock";
    private readonly FileStream _file;

    /// <summary>Makes the folder and takes the lock.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="InputException">Another process trains into the folder, or the folder cannot be made.</exception>
    /// <exception cref="RunException">The disk is full, or fails.</exception>
    public OutputLock(string folder)
    {
        try
        {
            Directory.CreateDirectory(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unusable($"{folder}: the output folder cannot be made: {e.Message}; choose another", e);
        }
        var path = Path.Combine(folder, Name);
        try
        {
            _file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException e) when (FileErrors.IsHeld(e))
        {
            throw new InputException($"{folder}: another training is writing into this folder ({e.Message}); wait for it or choose another folder", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unusable($"{path}: cannot be written: {e.Message}; choose another output folder", e);
        }
    }

    private static Exception Unusable(string why, Exception e) => FileErrors.IsOfDisk(e) ? new RunException(Reject.OneLine(why), e) : new InputException(Reject.OneLine(why), e);

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();
}
