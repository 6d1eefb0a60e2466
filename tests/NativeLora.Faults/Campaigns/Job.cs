using NativeLora.Faults.Tasks;
using NativeLora.Tests.Hub;

namespace NativeLora.Faults.Campaigns;

/// <summary>A command that writes: how it is begun, gone on with after a fault, and what it leaves when nothing disturbs it.</summary>
/// <param name="Name">Of the command.</param>
/// <param name="Begin">Its arguments for an output folder.</param>
/// <param name="Again">Its arguments when it is given again.</param>
/// <param name="Before">Makes what is in the output folder beforehand.</param>
/// <param name="Environment">Of the process, for an output folder.</param>
internal sealed record Job(
    string Name, Func<string, string[]> Begin, Func<string, string[]> Again, Action<string>? Before = null, Func<string, Dictionary<string, string>>? Environment = null)
{
    /// <summary>All commands that leave files that somebody would miss.</summary>
    public static IEnumerable<Job> All(TinyTask task, HubServer hub) => Every(task, hub).Where(j => Only is null || Only.Contains(j.Name));

    /// <summary>Names of those that are tried; null for all.</summary>
    public static IReadOnlyList<string>? Only { get; set; }

    private static IEnumerable<Job> Every(TinyTask task, HubServer hub)
    {
        const int Steps = 8;
        yield return new Job("train", o => task.Training(o, Steps), o => task.Training(o, Steps, "--resume"));
        yield return new Job("train --full", o => task.Training(o, 4, "--full"), o => task.Training(o, 4, "--full", "--resume"));
        yield return new Job("train --overwrite", o => task.Training(o, 5, "--overwrite", "--alpha", "4"), o => task.Training(o, 5, "--overwrite", "--alpha", "4"),
            o => Must(task.Training(o, 4, "--alpha", "32")));
        yield return new Job("run", o => Run(task, o), o => Run(task, o, "--resume"));
        yield return new Job("select", o => task.Arguments("select", o, "--samples", "16"), o => task.Arguments("select", o, "--samples", "16"));
        yield return new Job("study", o => Study(task, o), o => Study(task, o));
        var one = task.NewAdapter("one", 1);
        string[] Merge(string o) => ["merge", "--model", task.Model, "--adapter", one, "--output", o];
        yield return new Job("merge", Merge, Merge);
        // Those without a head can be combined.
        using var texts = new TinyTask(isCausal: true);
        var (left, right) = (texts.NewAdapter("left", 1), texts.NewAdapter("right", 2));
        string[] Combine(string o) => ["combine", "--adapter", left, "--adapter", right, "--output", o];
        yield return new Job("combine", Combine, Combine);
        string[] Download(string _) => ["download", HubServer.Id];
        yield return new Job("download", Download, Download, null, o => new()
        {
            ["HF_HOME"] = Path.Combine(o, "home"),
            ["HF_HUB_CACHE"] = o,
            ["HF_ENDPOINT"] = hub.Endpoint.AbsoluteUri,
        });
    }

    /// <summary>A hub with the task's model.</summary>
    public static HubServer Hub(TinyTask task)
    {
        var hub = new HubServer();
        foreach (var path in Directory.GetFiles(task.Model))
            hub.Files[Path.GetFileName(path)] = File.ReadAllBytes(path);
        return hub;
    }

    private static string[] Run(TinyTask task, string output, params string[] more) =>
        task.Arguments("run", output, ["--samples", "16", "--ratio", "0.5", "--rule", "plain", "--max-steps", "4", "--batch-size", "4", "--save-every", "2", .. more]);

    private static string[] Study(TinyTask task, string output) =>
        task.Arguments("study", output, "--strategies", "all,last", "--ratios", "0.5", "--seeds", "1", "--max-steps", "3", "--batch-size", "4", "--save-every", "2");

    /// <summary>Runs a command that must succeed.</summary>
    public static void Must(string[] arguments)
    {
        var ended = CommandLine.Run(arguments);
        if (ended.Code != 0)
            throw new InvalidOperationException($"{string.Join(' ', arguments)}: {ended.Error}");
    }

    /// <summary>Runs it in a folder.</summary>
    public Ended Run(string[] arguments, string output, IReadOnlyDictionary<string, string>? more = null)
    {
        var environment = Environment?.Invoke(output) ?? [];
        foreach (var (name, value) in more ?? new Dictionary<string, string>())
            environment[name] = value;
        return CommandLine.Run(arguments, environment);
    }
}
