using System.Diagnostics;
using NativeLora.Faults.Tasks;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Faults.Campaigns;

/// <summary>Trainings that are cancelled and resumed again and again end with the same bits, and leave nothing behind in memory or on disk.</summary>
internal static class Cancellations
{
    public static IEnumerable<Tally> Run(double scale, int seed)
    {
        yield return Cycles(Math.Max(20, (int)(1000 * scale)), seed);
        yield return Signalled(Math.Max(2, (int)(30 * scale)), seed);
    }

    private static Tally Cycles(int wanted, int seed)
    {
        var tally = new Tally("cancel and resume in one process");
        using var folder = new TemporaryFolder();
        using var run = new InProcess(folder);
        run.Train("whole", null, resume: false);
        var random = new Random(seed);
        var (finished, cycles) = (0, 0);
        (long Live, int Handles, int Threads, int Files) begin = default;
        while (cycles < wanted)
        {
            // Every round ends in a whole training; a round takes some cycles of a few steps each.
            var (at, isFirst) = (0, true);
            while (at < InProcess.Steps)
            {
                at = Math.Min(InProcess.Steps, at + random.Next(0, 3));
                run.Train("pieces", at < InProcess.Steps ? at : null, resume: !isFirst, null, at == 0 ? new CancellationToken(canceled: true) : default);
                (isFirst, cycles) = (false, cycles + 1);
                tally.Add("cancelled, resumed");
            }
            finished++;
            tally.Add("to the end: the same bits", run.Different("whole", "pieces"));
            if (finished == 10)
                begin = Held(folder);
            Directory.Delete(folder.File("pieces"), recursive: true);
        }
        run.Train("pieces", null, resume: false);
        var end = Held(folder);
        if (begin.Handles > 0)
            tally.Add($"after it: {end.Live / 1024} KiB alive (after ten rounds {begin.Live / 1024}), {end.Handles} handles ({begin.Handles}), {end.Threads} threads ({begin.Threads}), {end.Files} files ({begin.Files})",
                end.Live > begin.Live + (256 << 10) || end.Handles > begin.Handles + 4 || end.Threads > begin.Threads + 4 || end.Files > begin.Files ? "it grew" : null);
        return tally;
    }

    private static (long Live, int Handles, int Threads, int Files) Held(TemporaryFolder folder)
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        using var process = Process.GetCurrentProcess();
        var files = Directory.EnumerateFiles(folder.File("pieces"), "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0 }).Count();
        return (GC.GetTotalMemory(forceFullCollection: true), process.HandleCount, process.Threads.Count, files);
    }

    private static Tally Signalled(int tries, int seed)
    {
        var tally = new Tally("Ctrl-C, SIGTERM and SIGHUP at random moments");
        if (OperatingSystem.IsWindows())
        {
            tally.Skipped = "there are no such signals";
            return tally;
        }
        const int Steps = 300;
        using var task = new TinyTask();
        var (whole, output) = (task.File("whole"), task.File("pieces"));
        Job.Must(task.Training(whole, Steps));
        var random = new Random(seed);
        for (var i = 0; i < tries; i++)
        {
            var (name, code) = (i % 3) switch { 0 => ("INT", 130), 1 => ("TERM", 143), _ => ("HUP", 129) };
            using var process = CommandLine.Start(task.Training(output, Steps, i == 0 ? [] : ["--resume"]), null, CommandLine.WithSignals);
            var metrics = Path.Combine(output, "metrics.jsonl");
            var began = DateTime.UtcNow;
            while (!process.HasExited && (!File.Exists(metrics) || File.GetLastWriteTimeUtc(metrics) < began))
                Thread.Sleep(1);
            Thread.Sleep(random.Next(60));
            Send(process, name);
            var ended = CommandLine.End(process);
            if (ended.Code == 0)
            {
                tally.Add("through before", FileCheck.Different(whole, output));
                Directory.Delete(output, recursive: true);
                continue;
            }
            tally.Add($"SIG{name}: a checkpoint, one line, exit code {code}", ended.NotOneLine(code) ?? FileCheck.Torn(output));
        }
        Job.Must(task.Training(output, Steps, "--resume"));
        tally.Add("to the end: the same bits", FileCheck.Different(whole, output));
        return tally;
    }

    public static void Send(Process process, string signal) => FullDisks.Tool("kill", "-s", signal, $"{process.Id}");
}
