using System.Diagnostics;
using System.Text.Json;
using NativeLora.Tests.Training;
using CliRun = NativeLora.Tests.Cli.CliRun;

namespace NativeLora.Tests.Hub;

/// <summary>The command line with names of the hub.</summary>
public sealed class HubCommandTests
{
    private static CliRun Run(HubCase hub, params string[] args)
    {
        using var process = Start(hub, args);
        return CliRun.Finish(process);
    }

    private static Process Start(HubCase hub, params string[] args)
    {
        var start = new ProcessStartInfo(Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet", [Path.Combine(AppContext.BaseDirectory, "NativeLora.Cli.dll"), .. args])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = Directory.CreateDirectory(hub.Place("work")).FullName,
        };
        foreach (var name in start.Environment.Keys.Where(k => k.StartsWith("HF_", StringComparison.Ordinal) || k.StartsWith("HUGGING", StringComparison.Ordinal)).ToList())
            start.Environment.Remove(name);
        start.Environment["HF_HOME"] = hub.Place("home");
        start.Environment["HF_HUB_CACHE"] = hub.Options.CacheFolder;
        start.Environment["HF_ENDPOINT"] = hub.Server.Endpoint.AbsoluteUri;
        start.Environment["HF_TOKEN"] = "hf_verySecret";
        return Process.Start(start)!;
    }

    private static HubCase WithModel()
    {
        var hub = new HubCase();
        using (TinyModel.Open(hub.Place("model"), isCausal: false))
            foreach (var name in (string[])["config.json", HubCase.Weights])
                hub.Server.Files[name] = File.ReadAllBytes(Path.Combine(hub.Place("model"), name));
        return hub;
    }

    [Fact]
    public void Info_FetchesOnce_AndKeepsTheOutputClean()
    {
        using var hub = WithModel();
        var run = Run(hub, "info", "--model", HubServer.Id, "--json").AssertDone();
        using var document = JsonDocument.Parse(run.Output);
        Assert.Equal(hub.Snapshot, document.RootElement.GetProperty("model").GetProperty("path").GetString());
        Assert.Contains($"fetching {HubServer.Id}", run.Error, StringComparison.Ordinal);
        Assert.Contains("model.safetensors", run.Error, StringComparison.Ordinal);
        Assert.Contains(hub.Snapshot, run.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("verySecret", run.Output + run.Error, StringComparison.Ordinal);

        var before = hub.Server.Requests.Count;
        run = Run(hub, "info", "--model", HubServer.Id, "--json", "--offline").AssertDone();
        Assert.Empty(run.Error);
        Assert.Equal(before, hub.Server.Requests.Count);
    }

    [Fact]
    public void TrainedAdapter_NamesItsBase_AndComesFromTheHubToo()
    {
        using var cli = new Training.CliRun();
        using var hub = new HubCase();
        foreach (var path in Directory.GetFiles(cli.File("model")))
            hub.Server.Files[Path.GetFileName(path)] = File.ReadAllBytes(path);
        hub.Server.Files.Remove("tokenizer.json");
        string[] task = ["--model", HubServer.Id, "--task", "text", "--dev", cli.File("data.tsv"), "--json"];
        Run(hub, ["train", .. task, "--data", cli.File("data.tsv"), "--max-steps", "1", "--batch-size", "8"]).AssertDone();
        var output = Path.Combine(hub.Place("work"), "nativelora-tiny.model-text");
        using var config = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(output, "adapter_config.json")));
        Assert.Equal(HubServer.Id, config.RootElement.GetProperty("base_model_name_or_path").GetString());

        foreach (var name in (string[])["adapter_config.json", "adapter_model.safetensors", "labels.json"])
            hub.Server.Files[name] = File.ReadAllBytes(Path.Combine(output, name));
        var local = Run(hub, ["eval", .. task, "--adapter", output]).AssertDone();
        var fetched = Run(hub, ["eval", .. task, "--adapter", HubServer.Id]).AssertDone();
        Assert.Equal(local.Output, fetched.Output);
        Assert.Contains("adapter_model.safetensors", fetched.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Refusals_AreOneLine()
    {
        using var hub = new HubCase();
        Run(hub, "info", "--model", HubServer.Id, "--offline").AssertRefused(hub.Repository);
        Run(hub, "info", "--model", "no/such").AssertRefused("no/such");
        Run(hub, "predict", "--model", HubServer.Id, "--adapter", "no/such", "--text", "x", "--offline").AssertRefused("no/such");
        Run(hub, "download", "../x").AssertRefused("no name on the hub");
        Directory.CreateDirectory(Path.Combine(hub.Place("work"), "some-one", "tiny.model"));
        var count = hub.Server.Requests.Count;
        Run(hub, "info", "--model", HubServer.Id).AssertRefused("some-one/tiny.model: has no weights");
        Assert.Equal(count, hub.Server.Requests.Count);
    }

    [Fact]
    public void Download_PrintsWhereItIs_AndAsksForNews()
    {
        using var hub = WithModel();
        Assert.Equal(hub.Snapshot, Run(hub, "download", HubServer.Id).AssertDone().Output.Trim());
        var run = Run(hub, "download", HubServer.Id, "--json").AssertDone();
        Assert.Equal(hub.Snapshot, JsonDocument.Parse(run.Output).RootElement.GetProperty("path").GetString());
        Assert.Empty(run.Error);
        Assert.Equal(2, hub.Server.Of("GET", hub.List).Length);
        Assert.Equal(hub.Snapshot, Run(hub, "download", HubServer.Id, "--offline").AssertDone().Output.Trim());
    }

    [Fact]
    public void Interrupted_KeepsWhatIsHere()
    {
        if (OperatingSystem.IsWindows())
            return;
        using var hub = WithModel();
        var at = hub.Content.Length / 2;
        hub.AnswerFirst(hub.Store, 1, _ => new HubReply(200, hub.Content) { StallAt = at });
        using var process = Start(hub, "download", HubServer.Id);
        var isHalfHere = SpinWait.SpinUntil(() =>
        {
            Thread.Sleep(50);
            return new FileInfo(hub.Part(HubCase.Weights)) is { Exists: true } part && part.Length == at;
        }, 60_000);
        Assert.True(isHalfHere);
        // Ctrl-C does the same, but a shell's background processes ignore it, and their children too.
        using (var kill = Process.Start("kill", ["-TERM", $"{process.Id}"]))
            kill.WaitForExit();
        var run = CliRun.Finish(process);
        Assert.Equal(143, run.ExitCode);
        Assert.Contains("goes on from there", run.Error, StringComparison.Ordinal);
        hub.AssertNothingHalf();
        Run(hub, "download", HubServer.Id).AssertDone();
        hub.AssertWhole();
        Assert.Equal([0, at], hub.Server.Of("GET", hub.Store).Select(r => r.From));
    }
}
