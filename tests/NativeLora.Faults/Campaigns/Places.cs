using NativeLora.Faults.Tasks;

namespace NativeLora.Faults.Campaigns;

/// <summary>Outputs that cannot be written to, or stop being there.</summary>
internal static class Places
{
    public static IEnumerable<Tally> Run(double scale)
    {
        using var task = new TinyTask();
        using var hub = Job.Hub(task);
        yield return Unusable(task, hub);
        yield return Deleted(task, Math.Max(1, (int)(10 * scale)));
    }

    private static Tally Unusable(TinyTask task, NativeLora.Tests.Hub.HubServer hub)
    {
        var tally = new Tally("output that is a file, below a file, read-only, or somebody else's");
        var (file, readOnly, others) = (task.File("file"), Directory.CreateDirectory(task.File("read-only")).FullName, Directory.CreateDirectory(task.File("others")).FullName);
        File.WriteAllText(file, "mine");
        var hasReadOnly = FullDisks.Mounts(readOnly, "size=64k,ro");
        var hasNobody = FullDisks.Tool("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "true");
        try
        {
            foreach (var job in Job.All(task, hub).Where(j => j.Before is null))
            {
                Try(job, file, "a file");
                Try(job, Path.Combine(file, "out"), "below a file");
                if (hasReadOnly)
                {
                    Try(job, readOnly, "read-only");
                    Try(job, Path.Combine(readOnly, "out"), "in a read-only folder");
                }
                if (hasNobody)
                    Try(job, Path.Combine(others, "out"), "in somebody else's folder", ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
            }
            tally.Add("the file is as it was", File.ReadAllText(file) == "mine" ? null : "it is not");
        }
        finally
        {
            if (hasReadOnly)
                FullDisks.Tool("umount", readOnly);
        }
        return tally;

        void Try(Job job, string output, string what, string[]? wrap = null)
        {
            // Somebody else must be able to read what it works on.
            if (wrap is not null)
                FullDisks.Tool("chmod", "-R", "a+rX,go-w", task.Place);
            var environment = job.Environment?.Invoke(output) ?? [];
            environment["DOTNET_CLI_HOME"] = environment["HOME"] = "/nonexistent";
            environment["DOTNET_EnableDiagnostics"] = "0";
            var ended = CommandLine.Run(job.Begin(output), environment, wrap);
            tally.Add($"{what}: one line", ended.NotOneLine(1, 2) is { } wrong ? $"{job.Name}: {wrong}" : null);
        }
    }

    private static Tally Deleted(TinyTask task, int tries)
    {
        var tally = new Tally("train: the output folder is deleted meanwhile");
        var whole = task.File("whole");
        Job.Must(task.Training(whole, 200));
        var random = new Random(1);
        for (var i = 0; i < tries; i++)
        {
            var output = task.File($"deleted-{i}");
            using var process = CommandLine.Start(task.Training(output, 200));
            while (!process.HasExited && !Directory.Exists(Path.Combine(output, "checkpoints", "step-3")))
                Thread.Sleep(1);
            Thread.Sleep(random.Next(50));
            for (var again = 0; again < 3 && Directory.Exists(output); again++)
                try
                {
                    Directory.Delete(output, recursive: true);
                }
                catch (IOException)
                {
                    // A file came in between.
                }
            var ended = CommandLine.End(process);
            var wrong = ended.Code == 0 ? null : ended.NotOneLine(1);
            if (wrong is null && ended.Code != 0)
                wrong = CommandLine.Run(task.Training(output, 200, "--resume")) is { Code: not 0 } next ? next.Error : null;
            wrong ??= File.ReadAllBytes(Path.Combine(whole, "adapter_model.safetensors")).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(output, "adapter_model.safetensors"))) ? null : "another result";
            tally.Add(ended.Code == 0 ? "made again: the same result" : "one line; given again: the same result", wrong);
        }
        return tally;
    }
}
