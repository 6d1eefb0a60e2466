using System.Diagnostics;
using System.Text.Json;
using NativeLora.Adapters;
using NativeLora.Cli.Demo;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Cli;

public sealed class DemoTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private string Output => _folder.File("demo");

    [Fact]
    public void Demo_ComparesAllStrategiesAndWritesALoadableAdapter()
    {
        var run = CliRun.Of("demo", "--quick", "--output", Output).AssertDone();
        foreach (var strategy in (string[])["all layers", "CKA half", "random half", "last half", "first half"])
            Assert.Contains(run.Output.Split('\n'), line => line.StartsWith(strategy, StringComparison.Ordinal) && line.Contains('±'));
        Assert.Contains("Best: ", run.Output, StringComparison.Ordinal);

        var selection = SelectionReport.Load(Path.Combine(Output, "selection.json"));
        Assert.Equal(2, selection.Selected.Count);
        using var device = new CpuDevice(1);
        using var model = PretrainedModel.Open(Path.Combine(Output, "base"), device);
        var adapter = AdapterFile.Load(Path.Combine(Output, "adapter"), model.Modules(ModelHead.LanguageModel));
        Assert.Equal(selection.Selected.Order(), adapter.Config.LayersToTransform!);
        Assert.Contains(adapter.Weights.Tensors, t => t.Key.Contains("lora_B", StringComparison.Ordinal) && t.Value.Values.Any(v => v != 0));
        Assert.Equal([".nativelora-demo", "adapter", "base", "demo.png", "results.json", "selection.json"],
            Directory.EnumerateFileSystemEntries(Output).Select(e => Path.GetFileName(e)!).Order(StringComparer.Ordinal));
        Assert.Equal([Output], Directory.EnumerateFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void SameSeed_SameAccuraciesForAnyNumberOfThreads()
    {
        var one = Accuracies("1", "3");
        Assert.Equal(one, Accuracies("2", "3"));
        Assert.NotEqual(one, Accuracies("2", "4"));
    }

    [Fact]
    public void Folder_ReplacesOnlyWhatADemoWrote()
    {
        Directory.CreateDirectory(Output);
        var letter = Path.Combine(Output, "letter.txt");
        File.WriteAllText(letter, "mine");
        CliRun.Of("demo", "--quick", "--output", Output).AssertRefused("no demo wrote it");
        File.WriteAllText(Path.Combine(Output, DemoFolder.Marker), "");
        CliRun.Of("demo", "--quick", "--output", Output).AssertRefused("letter.txt");
        CliRun.Of("demo", "--quick", "--output", letter).AssertRefused("is a file");
        Assert.Equal("mine", File.ReadAllText(letter));

        File.Move(letter, Path.Combine(Output, "results.json"));
        using (var folder = new DemoFolder(Output))
        {
            File.WriteAllText(folder.At("results.json"), "new");
            folder.Commit();
        }
        Assert.Equal("new", File.ReadAllText(Path.Combine(Output, "results.json")));
        Assert.Equal([Output], Directory.EnumerateFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void Folder_LeavesNothingIfNotPutInPlace()
    {
        using (var folder = new DemoFolder(Output))
            File.WriteAllText(folder.At("results.json"), "half");
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path));
    }

    [Fact]
    public async Task Interrupt_LeavesNothingAndSaysSo()
    {
        if (OperatingSystem.IsWindows())
            return;
        using var process = CliRun.Start("demo", "--output", Output);
        // By the first line Ctrl-C is listened to, and the temporary folder is there.
        Assert.NotNull(await process.StandardOutput.ReadLineAsync());
        Assert.NotEmpty(Directory.EnumerateFileSystemEntries(_folder.Path));
        using (var kill = Process.Start("kill", ["-INT", $"{process.Id}"]))
            await kill.WaitForExitAsync();
        var run = CliRun.Finish(process);
        Assert.Equal(130, run.ExitCode);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void Comparison_SaysWhatTheSpreadAllows()
    {
        Assert.Equal("+10.0 points, better in every repeat", DemoResults.Compare(Result(0.9, 0.8), Result(0.8, 0.7)));
        Assert.Equal("−20.0 points, worse in every repeat", DemoResults.Compare(Result(0.5, 0.6), Result(0.7, 0.8)));
        Assert.Equal("−1.0 points, within the spread of 7.1", DemoResults.Compare(Result(0.5, 0.6), Result(0.51, 0.61)));
        Assert.Equal("+5.0 points, better on average", DemoResults.Compare(Result(0.54, 0.54, 0.50), Result(0.45, 0.47, 0.51)));
    }

    private static StrategyResult Result(params double[] accuracies) =>
        new("", "", [.. accuracies.Select(a => new Tuning("1", a, [], new MemoryReport(0, 0, 0, 0, 0, 0, 0, 0, 0), 0, 0, []))]);

    private static double[] Accuracies(JsonElement results) =>
    [
        results.GetProperty("base").GetProperty("accuracy").GetDouble(),
        .. results.GetProperty("strategies").EnumerateArray().SelectMany(s => s.GetProperty("runs").EnumerateArray())
            .SelectMany(r => r.GetProperty("curve").EnumerateArray()).Select(p => p.GetProperty("accuracy").GetDouble()),
    ];

    private double[] Accuracies(string threads, string seed)
    {
        var run = CliRun.Of("demo", "--quick", "--json", "--threads", threads, "--seed", seed, "--output", Output).AssertDone();
        using var document = JsonDocument.Parse(run.Output);
        return Accuracies(document.RootElement);
    }

    public void Dispose() => _folder.Dispose();
}
