using System.Globalization;

namespace NativeLora.Fuzz;

/// <summary>The memory that the process really holds, at its most; only Linux tells.</summary>
internal static class Resident
{
    /// <summary>Begins anew; null where the system does not tell, or where that is not wanted.</summary>
    public static long? Begin(bool wanted)
    {
        if (!wanted || !OperatingSystem.IsLinux())
            return null;
        try
        {
            // 5: the peak becomes what is resident now.
            File.WriteAllText("/proc/self/clear_refs", "5");
            return Read("VmRSS:");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Bytes at the peak since then, beside those of then.</summary>
    public static long Grown(long before) => (Read("VmHWM:") ?? before) - before;

    private static long? Read(string key)
    {
        foreach (var line in File.ReadLines("/proc/self/status"))
            if (line.StartsWith(key, StringComparison.Ordinal))
                return long.Parse(line[key.Length..].Replace("kB", "", StringComparison.Ordinal).Trim(), CultureInfo.InvariantCulture) * 1024;
        return null;
    }
}
