using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;

namespace NativeLora.Cli.Show;

/// <summary>What the process held, where Linux tells it; parts that are not told are 0.</summary>
/// <param name="Peak">The most that was resident.</param>
/// <param name="Anonymous">Resident now, of no file: what was allocated.</param>
/// <param name="Weights">Resident now of mapped weight files.</param>
/// <param name="OtherFiles">Resident now of other files: the runtime and the program.</param>
/// <param name="GarbageCollected">Committed now by the managed heap.</param>
internal sealed record ProcessMemory(long Peak, long Anonymous, long Weights, long OtherFiles, long GarbageCollected)
{
    /// <summary>Resident now, mapped weights left out.</summary>
    public long Own => Anonymous + OtherFiles;

    public static ProcessMemory Read()
    {
        using var process = Process.GetCurrentProcess();
        long anonymous = 0, weights = 0, others = 0;
        try
        {
            var (isFile, isWeights) = (false, false);
            foreach (var line in File.ReadLines("/proc/self/smaps"))
            {
                // A mapping's head is "from-to rights offset device inode path", its facts are "Name: n kB".
                var colon = line.IndexOf(':', StringComparison.Ordinal);
                if (line.IndexOf(' ', StringComparison.Ordinal) is var blank && (colon < 0 || blank < colon))
                {
                    var path = line.IndexOf('/', StringComparison.Ordinal);
                    (isFile, isWeights) = (path >= 0, line.EndsWith(".safetensors", StringComparison.Ordinal) || line.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase));
                    continue;
                }
                if (Value(line, "Rss:") is { } resident && isFile)
                    (weights, others) = isWeights ? (weights + resident, others) : (weights, others + resident);
                else if (Value(line, "Anonymous:") is { } own && !isFile)
                    anonymous += own;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            (anonymous, weights, others) = (0, 0, 0);
        }
        return new ProcessMemory(process.PeakWorkingSet64, anonymous, weights, others, GC.GetGCMemoryInfo(GCKind.Any).TotalCommittedBytes);
    }

    /// <summary>Beside what was planned, and what the difference is made of.</summary>
    /// <param name="planned">Bytes planned.</param>
    /// <param name="program">Bytes that the process held before.</param>
    /// <param name="allocated">Bytes that the device had allocated.</param>
    public JsonObject ToJson(long planned, long program, long allocated) => new()
    {
        ["planned"] = planned,
        ["program_before"] = program,
        ["predicted_peak"] = planned + program,
        ["measured_peak"] = Peak,
        ["difference"] = Peak - planned - program,
        ["difference_percent"] = planned == 0 ? null : Math.Round(100.0 * (Peak - planned - program) / (planned + program), 2),
        ["allocated_by_the_device"] = allocated,
        ["resident_weight_files"] = Weights,
        ["resident_other_files"] = OtherFiles,
        ["resident_anonymous"] = Anonymous,
        ["managed_heap"] = GarbageCollected,
    };

    private static long? Value(string line, string name) =>
        line.StartsWith(name, StringComparison.Ordinal)
        && long.TryParse(line[name.Length..].Replace("kB", "", StringComparison.Ordinal).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var kib)
            ? kib * 1024 : null;
}
