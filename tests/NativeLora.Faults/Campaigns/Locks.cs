using System.Globalization;
using NativeLora.Faults.Tasks;

namespace NativeLora.Faults.Campaigns;

/// <summary>Two processes on one output folder, and what a process leaves of its lock.</summary>
internal static class Locks
{
    public static IEnumerable<Tally> Run(double scale)
    {
        using var task = new TinyTask();
        yield return Second(task, Math.Max(1, (int)(10 * scale)));
        yield return Stale(task);
        yield return Race(task, Math.Max(1, (int)(10 * scale)));
    }

    private static Tally Second(TinyTask task, int tries)
    {
        var tally = new Tally("a second training, or study, into the folder of one that runs");
        var whole = task.File("whole");
        Job.Must(task.Training(whole, 400));
        for (var i = 0; i < tries; i++)
        {
            var output = task.File($"shared-{i}");
            using var first = CommandLine.Start(task.Training(output, 400));
            while (!first.HasExited && !File.Exists(Path.Combine(output, "metrics.jsonl")))
                Thread.Sleep(1);
            string[] second = (i % 3) switch
            {
                0 => task.Training(output, 400),
                1 => task.Training(output, 400, "--resume"),
                _ => task.Training(output, 400, "--overwrite"),
            };
            var ended = CommandLine.Run(second);
            var isLate = first.HasExited;
            var other = CommandLine.End(first);
            // Where the first was done by then, the second had the folder for itself.
            var wrong = isLate ? null : ended.NotOneLine(2);
            wrong ??= other.Code == 0 ? FileCheck.Different(whole, output) : other.Error;
            tally.Add(isLate ? "the first was done before" : "refused in one line; the first undisturbed", wrong);
        }
        return tally;
    }

    private static Tally Stale(TinyTask task)
    {
        var tally = new Tally("a lock's file left by a killed process, or another machine");
        var whole = task.File("whole");
        // Whatever it holds: another host's name, this process's number, nothing that can be read.
        foreach (var content in (string[])["", "other-host 1", Environment.ProcessId.ToString(CultureInfo.InvariantCulture), "\0\0\0\0"])
        {
            var output = Directory.CreateDirectory(task.File($"stale-{tally.Tries}")).FullName;
            File.WriteAllText(Path.Combine(output, ".training.lock"), content);
            var ended = CommandLine.Run(task.Training(output, 400));
            tally.Add("blocks nobody", ended.Code == 0 ? FileCheck.Different(whole, output) : ended.Error);
        }
        return tally;
    }

    private static Tally Race(TinyTask task, int tries)
    {
        var tally = new Tally("two trainings begun at once into a new folder");
        var whole = task.File("whole");
        for (var i = 0; i < tries; i++)
        {
            var output = task.File($"race-{i}");
            using var one = CommandLine.Start(task.Training(output, 400));
            using var two = CommandLine.Start(task.Training(output, 400));
            var (first, second) = (CommandLine.End(one), CommandLine.End(two));
            var (good, bad) = first.Code == 0 ? (first, second) : (second, first);
            var wrong = good.Code != 0 ? $"neither went on: {first.Error} {second.Error}" : bad.NotOneLine(2) ?? FileCheck.Different(whole, output);
            tally.Add("one goes on, one is refused in one line", wrong);
        }
        return tally;
    }
}
