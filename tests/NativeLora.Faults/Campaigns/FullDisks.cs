using System.Diagnostics;
using System.Globalization;
using NativeLora.Faults.Tasks;

namespace NativeLora.Faults.Campaigns;

/// <summary>A small disk that is really full, at sizes that let another file fail each time; then there is room again.</summary>
internal static class FullDisks
{
    public static IEnumerable<Tally> Run(double scale)
    {
        using var task = new TinyTask();
        yield return SmallDisk(task, scale);
        yield return Limit(task, scale);
    }

    private static Tally SmallDisk(TinyTask task, double scale)
    {
        var tally = new Tally("train on a full disk (tmpfs of 60 to 300 KiB)");
        var (disk, whole) = (task.File("disk"), task.File("whole"));
        Directory.CreateDirectory(disk);
        if (!Mounts(disk, "size=64k"))
        {
            tally.Skipped = "a tmpfs cannot be mounted here";
            return tally;
        }
        Tool("umount", disk);
        Job.Must(task.Training(whole, 10));
        for (var size = 60; size <= 300; size += Math.Max(4, (int)(8 / scale)))
        {
            if (!Mounts(disk, $"size={size}k"))
                continue;
            try
            {
                var output = Path.Combine(disk, "out");
                var ended = CommandLine.Run(task.Training(output, 10));
                var wrong = ended.Code == 0 ? null : ended.NotOneLine(1);
                wrong ??= FileCheck.Torn(output);
                if (wrong is null && ended.Code != 0)
                {
                    Tool("mount", "-o", "remount,size=8m", disk);
                    var again = CommandLine.Run(task.Training(output, 10, "--resume"));
                    wrong = again.Code == 0 ? null : again.Error;
                }
                wrong ??= FileCheck.Different(whole, output);
                tally.Add(ended.Code == 0 ? "enough room" : "full: one line; room again: the same bits", wrong is null ? null : $"{size} KiB: {wrong}");
            }
            finally
            {
                Tool("umount", disk);
            }
        }
        return tally;
    }

    private static Tally Limit(TinyTask task, double scale)
    {
        var tally = new Tally("train under a limit on the size of files (ulimit -f)");
        if (OperatingSystem.IsWindows())
        {
            tally.Skipped = "there is no ulimit";
            return tally;
        }
        var whole = task.File("whole-limit");
        Job.Must(task.Training(whole, 10));
        for (var kilobytes = 1; kilobytes <= 24; kilobytes += Math.Max(1, (int)(1 / scale)))
        {
            var output = task.File($"limit-{kilobytes}");
            // The runtime maps memory through a file of its own unless it is told not to.
            var ended = CommandLine.Run(task.Training(output, 10), new Dictionary<string, string> { ["DOTNET_EnableWriteXorExecute"] = "0" },
                ["bash", "-c", string.Create(CultureInfo.InvariantCulture, $"ulimit -f {kilobytes}; exec \"$0\" \"$@\"")]);
            var wrong = ended.Code == 0 ? null : ended.NotOneLine(1);
            wrong ??= FileCheck.Torn(output);
            if (wrong is null && ended.Code != 0)
                wrong = CommandLine.Run(task.Training(output, 10, "--resume")) is { Code: not 0 } again ? again.Error : null;
            wrong ??= FileCheck.Different(whole, output);
            tally.Add(ended.Code == 0 ? "small enough" : "too large: one line; no limit: the same bits", wrong is null ? null : $"{kilobytes} KiB: {wrong}");
        }
        return tally;
    }

    public static bool Mounts(string folder, string options) => Tool("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder);

    /// <summary>Runs a program; false if it fails or is not there.</summary>
    public static bool Tool(string name, params string[] arguments)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(name, arguments) { RedirectStandardError = true, RedirectStandardOutput = true })!;
            process.StandardError.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return false;
        }
    }
}
