using System.Runtime.InteropServices;

namespace NativeLora.Checkpoints;

/// <summary>Brings the names in a folder to disk: a file that was renamed has its new name for good only then.</summary>
internal static partial class FolderSync
{
    private const int ReadOnly = 0;

    /// <summary>Does it where the system can; a file system that cannot keeps its own order.</summary>
    public static void Flush(string folder)
    {
        if (OperatingSystem.IsWindows())
            return;
        var file = Open(folder, ReadOnly);
        if (file < 0)
            return;
        _ = Sync(file);
        _ = Close(file);
    }

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync")]
    private static partial int Sync(int file);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int file);
}
