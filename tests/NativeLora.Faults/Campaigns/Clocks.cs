using System.Globalization;
using System.Text.Json;
using NativeLora.Faults.Tasks;

namespace NativeLora.Faults.Campaigns;

/// <summary>The wall clock jumps to and fro while commands run; the result, the times and the order of checkpoints must not care.</summary>
internal static class Clocks
{
    private const double Longest = 120;

    public static IEnumerable<Tally> Run(double scale)
    {
        var tally = new Tally("the wall clock jumps to and fro by an hour to ten years");
        if (Preload.Library is null)
            tally.Skipped = "there is no C compiler";
        else
            Jump(tally, scale);
        yield return tally;
    }

    private static void Jump(Tally tally, double scale)
    {
        using var task = new TinyTask();
        var whole = task.File("whole");
        Job.Must(task.Training(whole, 60));
        foreach (var seconds in ((int[])[3600, -3600, 86_400, -86_400, 31_536_000, -315_360_000]).Take(Math.Max(1, (int)(6 * scale))))
        {
            var output = task.File($"jump{seconds}");
            var environment = new Dictionary<string, string> { ["LD_PRELOAD"] = Preload.Library!, ["CLOCK_JUMPS"] = seconds.ToString(CultureInfo.InvariantCulture) };
            using (var process = CommandLine.Start(task.Training(output, 60), environment))
            {
                while (!process.HasExited && !Directory.Exists(Path.Combine(output, "checkpoints", "step-12")))
                    Thread.Sleep(1);
                process.Kill();
                process.WaitForExit();
            }
            // The file's times are of another day than those to come.
            foreach (var path in Directory.EnumerateFiles(output, "*", SearchOption.AllDirectories))
                File.SetLastWriteTimeUtc(path, DateTime.UtcNow.AddYears(5));
            var ended = CommandLine.Run(task.Training(output, 60, "--resume"), environment);
            var wrong = ended.Code == 0 ? FileCheck.Different(whole, output) ?? Times(output) : ended.Error;
            tally.Add("the same bits, sound times", wrong is null ? null : $"{seconds} s: {wrong}");
            foreach (var job in Job.All(task, Job.Hub(task)).Where(j => j.Name is "study" or "download" or "merge"))
            {
                var (straight, turned) = (task.File($"{job.Name}{seconds}"), task.File($"{job.Name}{seconds}-jump"));
                ended = job.Run(job.Begin(straight), straight);
                var jumped = job.Run(job.Begin(turned), turned, environment);
                tally.Add($"{job.Name}: the same", ended.Code == 0 && jumped.Code == 0 ? FileCheck.Different(straight, turned) : ended.Error + jumped.Error);
            }
        }
    }

    private static string? Times(string output)
    {
        double last = 0;
        foreach (var line in File.ReadLines(Path.Combine(output, "metrics.jsonl")))
        {
            using var json = JsonDocument.Parse(line);
            var seconds = json.RootElement.GetProperty("seconds").GetDouble();
            if (seconds < last || seconds > Longest)
                return $"metrics.jsonl says {seconds} s after {last} s";
            last = seconds;
        }
        using var report = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(output, "report.json")));
        return report.RootElement.GetProperty("seconds").GetDouble() is >= 0 and < Longest ? null : "report.json has an odd time";
    }
}
