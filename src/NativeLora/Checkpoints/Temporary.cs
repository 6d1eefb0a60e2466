using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace NativeLora.Checkpoints;

/// <summary>
/// Temporary names beside a file or folder, which say who writes there: <c>.NAME.MACHINE-PROCESS.NUMBER.tmp</c>. What a process of this
/// machine left that runs no more is of no use to anybody; what others write is left alone.
/// </summary>
internal static class Temporary
{
    private static readonly string Here = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{Environment.MachineName} {Processes()}")).AsSpan(0, 4));

    /// <summary>A new name beside a path.</summary>
    public static string Of(string final) => Path.Combine(
        Path.GetDirectoryName(final) ?? throw new IOException("it names no file"),
        string.Create(CultureInfo.InvariantCulture, $".{Path.GetFileName(final)}.{Here}-{Environment.ProcessId}.{Guid.NewGuid():N}.tmp"));

    /// <summary>Removes what processes that were killed left of a path.</summary>
    public static void RemoveStale(string final)
    {
        try
        {
            var (folder, name) = (Path.GetDirectoryName(final), Path.GetFileName(final));
            if (folder is null || !Directory.Exists(folder))
                return;
            var begin = $".{name}.{Here}-";
            foreach (var path in Directory.EnumerateFileSystemEntries(folder, $"{begin}*.tmp").ToList())
            {
                var process = Path.GetFileName(path).AsSpan(begin.Length);
                if (process.IndexOf('.') is var end && end <= 0 || !int.TryParse(process[..end], NumberStyles.None, CultureInfo.InvariantCulture, out var id) || Runs(id))
                    continue;
                if (Directory.Exists(path))
                    Directory.Delete(path, recursive: true);
                else
                    File.Delete(path);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Tidying up is no reason to fail.
        }
    }

    private static bool Runs(int id)
    {
        try
        {
            using var process = Process.GetProcessById(id);
            return true;
        }
        catch (ArgumentException)
        {
            return false;
        }
    }

    // Containers may share a name and a disk, but not their processes.
    private static string Processes()
    {
        try
        {
            return OperatingSystem.IsLinux() ? new FileInfo("/proc/self/ns/pid").LinkTarget ?? "" : "";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
