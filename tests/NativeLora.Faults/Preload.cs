using System.Diagnostics;
using System.Globalization;

namespace NativeLora.Faults;

/// <summary>The library that strikes a process at one of its changes to files; compiled where there is a C compiler.</summary>
internal static class Preload
{
    private static readonly Lazy<string?> Built = new(Build);

    /// <summary>The library; null where it cannot be made.</summary>
    public static string? Library => Built.Value;

    /// <summary>Environment of a process that is struck.</summary>
    /// <param name="root">Folder whose changes count.</param>
    /// <param name="at">Number of the change; 0 for none.</param>
    /// <param name="with">What happens: see faults.c.</param>
    /// <param name="count">File that is told the number of changes; null for none.</param>
    /// <param name="changes">Changes that fail, where they do; null for all that follow.</param>
    public static Dictionary<string, string> At(string root, int at, string with, string? count = null, int? changes = null)
    {
        var environment = new Dictionary<string, string>
        {
            ["LD_PRELOAD"] = Library!,
            ["FAULTS_ROOT"] = root,
            ["FAULTS_AT"] = at.ToString(CultureInfo.InvariantCulture),
            ["FAULTS_WITH"] = with,
        };
        if (count is not null)
            environment["FAULTS_COUNT"] = count;
        if (changes is { } number)
            environment["FAULTS_FOR"] = number.ToString(CultureInfo.InvariantCulture);
        return environment;
    }

    private static string? Build()
    {
        if (!OperatingSystem.IsLinux())
            return null;
        var library = Path.Combine(AppContext.BaseDirectory, "faults.so");
        var source = Path.Combine(AppContext.BaseDirectory, "Native", "faults.c");
        if (File.Exists(library) && File.GetLastWriteTimeUtc(library) >= File.GetLastWriteTimeUtc(source))
            return library;
        // Campaigns may run side by side.
        var made = $"{library}.{Environment.ProcessId}";
        foreach (var compiler in (string[])["cc", "gcc", "clang", "clang-19"])
        {
            try
            {
                using var process = Process.Start(new ProcessStartInfo(compiler, ["-O2", "-shared", "-fPIC", "-o", made, source, "-ldl"]) { RedirectStandardError = true })!;
                process.StandardError.ReadToEnd();
                process.WaitForExit();
                if (process.ExitCode != 0)
                    continue;
                File.Move(made, library, overwrite: true);
                return library;
            }
            catch (System.ComponentModel.Win32Exception)
            {
                // There is no such compiler.
            }
        }
        return null;
    }
}
