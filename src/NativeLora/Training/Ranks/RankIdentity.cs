using System.Globalization;
using System.Text;

namespace NativeLora.Training;

/// <summary>Which process a rank is: others of the same machine can see whether it lives.</summary>
/// <param name="Host">Name of the machine.</param>
/// <param name="Space">Where process ids mean the same: a machine since its start, and a namespace of it.</param>
/// <param name="Process">Process id.</param>
/// <param name="Started">When it began, in ticks of the machine: ids are used again.</param>
internal sealed record RankIdentity(string Host, string Space, int Process, string Started)
{
    public static RankIdentity OfThis() => new(
        Environment.MachineName, $"{Text("/proc/sys/kernel/random/boot_id")} {Namespace()}", Environment.ProcessId, Stat(Environment.ProcessId).Started);

    public byte[] ToBytes() => Encoding.UTF8.GetBytes(string.Join('\n', Host, Space, Process.ToString(CultureInfo.InvariantCulture), Started));

    public static RankIdentity Parse(ReadOnlySpan<byte> bytes)
    {
        var parts = Encoding.UTF8.GetString(bytes).Split('\n');
        return parts.Length == 4 && int.TryParse(parts[2], CultureInfo.InvariantCulture, out var process)
            ? new RankIdentity(parts[0], parts[1], process, parts[3])
            : throw new RunException("a rank introduced itself in words that are not understood; start the same program on all machines");
    }

    /// <summary>Whether the process is known to be no more; never of one on another machine.</summary>
    public bool IsDead(RankIdentity observer)
    {
        if (!OperatingSystem.IsLinux() || Space != observer.Space || Process == observer.Process || Started.Length == 0)
            return false;
        var (state, started) = Stat(Process);
        return started != Started || state is 'Z' or 'X';
    }

    // State and start are the 1st and 20th field after the name, which is in brackets and may hold anything.
    private static (char State, string Started) Stat(int process)
    {
        var text = Text($"/proc/{process.ToString(CultureInfo.InvariantCulture)}/stat");
        var fields = text[(text.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return fields.Length > 19 ? (fields[0][0], fields[19]) : ('X', "");
    }

    private static string Text(string path)
    {
        try
        {
            return File.ReadAllText(path).Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private static string Namespace()
    {
        try
        {
            return new FileInfo("/proc/self/ns/pid").LinkTarget ?? "";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
