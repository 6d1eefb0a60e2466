using System.Globalization;
using NativeLora.Faults.Tasks;

namespace NativeLora.Faults.Campaigns;

/// <summary>
/// Each command dies, or meets an error, at each of its changes to files in turn: every open, write, flush, rename, removal. Then it is given
/// again, and must leave what it leaves undisturbed.
/// </summary>
internal static class CrashPoints
{
    private const string NoSpace = "28", InputOutput = "5";
    private const int Killed = 128 + 9;

    public static IEnumerable<Tally> Kill(double scale) => Each(scale, "dies at each change to a file", "kill");

    public static IEnumerable<Tally> Tear(double scale) => Each(scale, "dies in the middle of each change", "torn");

    public static IEnumerable<Tally> Full(double scale) => Each(scale, "no space from each change on", NoSpace);

    public static IEnumerable<Tally> Fail(double scale) => Each(scale, "one input/output error at each change", InputOutput, 1);

    private static IEnumerable<Tally> Each(double scale, string what, string with, int? changes = null)
    {
        using var task = new TinyTask();
        using var hub = Job.Hub(task);
        foreach (var job in Job.All(task, hub))
        {
            var tally = new Tally($"{job.Name} {what}");
            if (Preload.Library is null)
                tally.Skipped = "there is no C compiler";
            else
                Each(tally, job, task, scale, with, changes);
            yield return tally;
        }
    }

    private static void Each(Tally tally, Job job, TinyTask task, double scale, string with, int? changes)
    {
        var name = job.Name.Replace(' ', '-');
        var (whole, counter) = (task.File($"{name}/whole"), task.File($"{name}-count"));
        job.Before?.Invoke(whole);
        // The folder above counts too: folders are made beside the final one.
        var ended = job.Run(job.Begin(whole), whole, Preload.At(task.File(name), 0, "", counter));
        if (ended.Code != 0)
        {
            tally.Add("undisturbed", ended.Error);
            return;
        }
        var count = int.Parse(File.ReadAllText(counter), CultureInfo.InvariantCulture);
        var stride = Math.Max(1, (int)Math.Round(1 / scale));
        for (var at = 1; at <= count; at += stride)
        {
            var folder = task.File($"{name}/{at}");
            var output = Path.Combine(folder, "out");
            job.Before?.Invoke(output);
            // The counted run had a folder of another depth; what is made above is made here too.
            ended = job.Run(job.Begin(output), output, Preload.At(folder, at, with, null, changes));
            var (seen, wrong) = Judge(ended, with);
            wrong ??= FileCheck.Torn(output) is { } torn ? $"at change {at}: {torn}" : null;
            if (wrong is null && ended.Code != 0)
            {
                var again = job.Run(job.Again(output), output);
                wrong = again.Code != 0 ? $"at change {at}: given again: {again.Error.Trim()}" : null;
            }
            wrong ??= FileCheck.Different(whole, output) is { } different ? $"at change {at} of {count}: {different}" : null;
            wrong ??= Directory.EnumerateFileSystemEntries(folder).FirstOrDefault(e => e != output) is { } beside ? $"at change {at}: {Path.GetFileName(beside)} is left over" : null;
            tally.Add(seen, wrong);
            Directory.Delete(folder, recursive: true);
        }
    }

    private static (string Seen, string? Wrong) Judge(Ended ended, string with) => with switch
    {
        "kill" or "torn" => ended.Code == Killed ? ("killed, given again: the same bits", null) : ended.Code == 0 ? ("over before", null) : ("not killed", $"exit code {ended.Code}: {ended.Error}"),
        _ => ended.Code == 0 ? ("ended well in spite of it", null) : ended.NotOneLine(1, 2) is { } wrong ? ("bad message", wrong) : ("one line, given again: the same bits", null),
    };
}
