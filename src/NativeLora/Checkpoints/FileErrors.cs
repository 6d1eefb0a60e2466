namespace NativeLora.Checkpoints;

/// <summary>What the system means by an error of a file.</summary>
internal static class FileErrors
{
    /// <summary>Whether another process holds the file: EWOULDBLOCK of Linux and of macOS; sharing and lock violation of Windows.</summary>
    public static bool IsHeld(IOException e) =>
        OperatingSystem.IsWindows() ? (e.HResult & 0xffff) is 32 or 33 : e.HResult == (OperatingSystem.IsLinux() ? 11 : 35);

    /// <summary>Whether it comes of a file: a limit on the size of files is an ArgumentOutOfRangeException in .NET.</summary>
    public static bool IsAny(Exception e) => e is IOException or UnauthorizedAccessException or ArgumentOutOfRangeException { ParamName: "value" };

    /// <summary>Whether the disk, and not the caller, is at fault: no space, quota, input/output error.</summary>
    public static bool IsOfDisk(Exception e) => e is IOException
        && (OperatingSystem.IsWindows() ? (e.HResult & 0xffff) is 39 or 112 or 1117 : e.HResult is 5 or 27 or 28 || e.HResult == (OperatingSystem.IsLinux() ? 122 : 69));
}
