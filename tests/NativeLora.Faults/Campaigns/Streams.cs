using System.Diagnostics;
using NativeLora.Faults.Tasks;

namespace NativeLora.Faults.Campaigns;

/// <summary>Outputs that are closed, full, or read by nobody; terminals that are none; signals that come twice, or shall not count.</summary>
internal static class Streams
{
    private const int Steps = 30;

    public static IEnumerable<Tally> Run(double scale)
    {
        var tally = new Tally("standard streams and terminals");
        if (OperatingSystem.IsWindows())
        {
            tally.Skipped = "it needs a Unix shell";
            yield return tally;
            yield break;
        }
        using var task = new TinyTask();
        var whole = task.File("whole");
        Job.Must(task.Training(whole, Steps));
        Try("output to head -1", "\"$0\" \"$@\" | head -1 >/dev/null; exit ${PIPESTATUS[0]}", 0);
        Try("output to a reader that is gone", "\"$0\" \"$@\" | true; exit ${PIPESTATUS[0]}", 0);
        Try("output closed", "exec \"$0\" \"$@\" >&-", 0, 1);
        Try("all streams closed", "exec \"$0\" \"$@\" <&- >&- 2>&-", 0, 1);
        Try("input closed", "exec \"$0\" \"$@\" <&-", 0);
        Try("output full", "exec \"$0\" \"$@\" >/dev/full", 1);
        Try("errors full", "exec \"$0\" \"$@\" 2>/dev/full", 0);
        Try("no TERM", "unset TERM; exec \"$0\" \"$@\"", 0);
        Try("TERM=dumb", "TERM=dumb exec \"$0\" \"$@\"", 0);
        Try("TERM of no such terminal", "TERM=no-such-terminal exec \"$0\" \"$@\"", 0);
        if (FullDisks.Tool("script", "--version"))
        {
            Try("a terminal", "script -qec \"'$0' $(printf \"'%s' \" \"$@\")\" /dev/null", 0);
            Try("a terminal without width", "script -qec \"stty cols 0 rows 0; '$0' $(printf \"'%s' \" \"$@\")\" /dev/null", 0);
            Try("a dumb terminal", "TERM=dumb script -qec \"'$0' $(printf \"'%s' \" \"$@\")\" /dev/null", 0);
        }
        yield return tally;
        yield return Signals(task, whole);

        void Try(string what, string script, params int[] codes)
        {
            var output = task.File($"stream-{tally.Tries}");
            var arguments = task.Training(output, Steps).Where(a => a != "--json" || what.Contains("JSON", StringComparison.Ordinal));
            var ended = CommandLine.Run(arguments, new Dictionary<string, string> { ["TERM"] = "xterm" }, ["bash", "-c", script]);
            var wrong = !codes.Contains(ended.Code) ? $"exit code {ended.Code}: {ended.Error.Trim()} {ended.Output.Trim()}"
                : ended.Error.Contains("internal error", StringComparison.Ordinal) || ended.Error.Contains("   at ", StringComparison.Ordinal) ? ended.Error : null;
            tally.Add($"{what}: exit code {ended.Code}, the same files", wrong ?? FileCheck.Different(whole, output));
        }
    }

    private static Tally Signals(TinyTask task, string whole)
    {
        var tally = new Tally("signals that come twice, or shall not count");
        const int Long = 100_000;
        foreach (var signal in (string[])["INT", "TERM", "HUP"])
        {
            // The second one comes at once: whatever it hits, the files are whole and the training goes on.
            var output = task.File($"twice-{signal}");
            using var process = CommandLine.Start(task.Training(output, Long), null, CommandLine.WithSignals);
            while (!process.HasExited && !Directory.Exists(Path.Combine(output, "checkpoints", "step-6")))
                Thread.Sleep(1);
            Cancellations.Send(process, signal);
            Cancellations.Send(process, signal);
            var ended = CommandLine.End(process);
            tally.Add($"SIG{signal} twice: it ends", ended.Code is 129 or 130 or 143 ? FileCheck.Torn(output) : $"exit code {ended.Code}: {ended.Error}");
        }
        var ignoring = task.File("nohup");
        using (var process = CommandLine.Start(task.Training(ignoring, Steps * 10).Where(a => a != "--json"), null, ["nohup"]))
        {
            while (!process.HasExited && !File.Exists(Path.Combine(ignoring, "metrics.jsonl")))
                Thread.Sleep(1);
            Cancellations.Send(process, "HUP");
            var ended = CommandLine.End(process);
            tally.Add("under nohup SIGHUP does not count", ended.Code == 0 ? null : $"exit code {ended.Code}: {ended.Error}");
        }
        var stopped = task.File("stopped");
        using (var process = CommandLine.Start(task.Training(stopped, Steps)))
        {
            Thread.Sleep(300);
            Cancellations.Send(process, "STOP");
            Thread.Sleep(500);
            Cancellations.Send(process, "CONT");
            var ended = CommandLine.End(process);
            tally.Add("stopped and continued: the same files", ended.Code == 0 ? FileCheck.Different(whole, stopped) : ended.Error);
        }
        return tally;
    }
}
