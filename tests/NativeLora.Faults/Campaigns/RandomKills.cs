using NativeLora.Faults.Tasks;

namespace NativeLora.Faults.Campaigns;

/// <summary>kill -9 at random moments, again and again, until the command is through.</summary>
internal static class RandomKills
{
    public static IEnumerable<Tally> Run(double scale, int seed)
    {
        using var task = new TinyTask();
        using var hub = Job.Hub(task);
        var random = new Random(seed);
        foreach (var job in Job.All(task, hub))
        {
            var kills = Math.Max(3, (int)Math.Round(scale * (job.Name == "train" ? 200 : 25)));
            var tally = new Tally($"{job.Name}: kill -9 at random moments");
            var name = $"{job.Name.Replace(' ', '-')}-random";
            var (whole, output) = (task.File($"{name}/whole"), task.File($"{name}/out"));
            job.Before?.Invoke(whole);
            var watch = System.Diagnostics.Stopwatch.StartNew();
            var ended = job.Run(job.Begin(whole), whole);
            var took = watch.ElapsedMilliseconds;
            job.Before?.Invoke(output);
            var isFirst = true;
            for (var kill = 0; kill < kills; kill++)
            {
                using var process = CommandLine.Start(isFirst ? job.Begin(output) : job.Again(output), job.Environment?.Invoke(output));
                isFirst = job.Name == "train --overwrite";
                // Most of a run is the runtime's beginning: later moments are likelier to hit something.
                if (!process.WaitForExit((int)(took * (0.2 + (0.8 * Math.Sqrt(random.NextDouble()))))))
                    process.Kill();
                process.WaitForExit();
                if (process.ExitCode is not (0 or 137))
                {
                    tally.Add("given again", $"exit code {process.ExitCode}: {process.StandardError.ReadToEnd()}");
                    break;
                }
                tally.Add(process.ExitCode == 0 ? "through before it was killed" : "killed", FileCheck.Torn(output));
                if (process.ExitCode != 0)
                    continue;
                End();
                if (Directory.Exists(output))
                    Directory.Delete(output, recursive: true);
                job.Before?.Invoke(output);
                isFirst = true;
            }
            ended = job.Run(isFirst ? job.Begin(output) : job.Again(output), output);
            if (ended.Code != 0)
                tally.Add("given again", ended.Error);
            else
                End();
            yield return tally;

            void End() => tally.Add("through: the same bits", FileCheck.Different(whole, output)
                ?? (Directory.EnumerateFileSystemEntries(task.File(name)).FirstOrDefault(e => e != output && e != whole) is { } beside ? $"{Path.GetFileName(beside)} is left over" : null));
        }
    }
}
