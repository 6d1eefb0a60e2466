using System.CommandLine;
using System.Text.Json;
using NativeLora.Cli.Commands;
using NativeLora.Cli.Study;
using NativeLora.Selection;

namespace NativeLora.Tests.Cli;

/// <summary><c>memory --compare</c>, <c>memory --suggest</c>, and the strategies that look at gradients or at all masks.</summary>
public sealed class MemoryStudyTests
{
    private static void Refused(Command command, string saying, params string[] arguments)
    {
        var error = Assert.Throws<InputException>(() => { command.Parse(arguments).Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false }); });
        Assert.Contains(saying, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [SharedFact]
    public void TwoMasksAreComparedLayerByLayer()
    {
        using var model = new SmallModel();
        string[] size = ["--batch-size", "4", "--max-length", "16", "--threads", "1"];
        using var document = JsonDocument.Parse(CliRun.Of(["memory", "--model", model.Path, .. size, "--compare", "11111", "00101", "--json"]).AssertDone().Output);
        using var columns = JsonDocument.Parse(CliRun.Of(["memory", "--model", model.Path, .. size, "--mask", "00101", "--json"]).AssertDone().Output);
        foreach (var (side, column) in new[] { ("first", 0), ("second", 1) })
            foreach (var name in (string[])["mask", "memory_bytes", "trainable_parameters", "flops_per_step"])
                Assert.Equal(columns.RootElement.GetProperty("columns")[column].GetProperty(name).GetRawText().Replace(" ", "", StringComparison.Ordinal),
                    document.RootElement.GetProperty(side).GetProperty(name).GetRawText().Replace(" ", "", StringComparison.Ordinal));
        var layers = document.RootElement.GetProperty("layers").EnumerateArray().ToList();
        Assert.Equal(["\"embeddings\"", "0", "1", "2", "3", "4", "\"head\""], layers.Select(l => l.GetProperty("layer").GetRawText()));
        foreach (var layer in layers)
            foreach (var name in (string[])["parameters", "parameter_bytes", "gradient_bytes", "optimizer_bytes", "backward_flops"])
                Assert.Equal(layer.GetProperty("saves").GetProperty(name).GetInt64(),
                    layer.GetProperty("first").GetProperty(name).GetInt64() - layer.GetProperty("second").GetProperty(name).GetInt64());
        Assert.Equal(0, layers[1].GetProperty("second").GetProperty("backward_flops").GetInt64());
        Assert.True(layers[1].GetProperty("saves").GetProperty("kept_bytes").GetInt64() > layers[4].GetProperty("saves").GetProperty("kept_bytes").GetInt64());

        var shown = CliRun.Of(["memory", "--model", model.Path, .. size, "--compare", "none", "00101"]).AssertDone().Output;
        Assert.Contains("below layer 2, the lowest adapted one: no backward, nothing is kept", shown, StringComparison.Ordinal);
        Assert.Contains("skipped, but the gradient passes to layer 2", shown, StringComparison.Ordinal);
    }

    [SharedFact]
    public void TheSuggestedMaskIsTheBestByTheScoresOfASelection()
    {
        using var model = new SmallModel();
        string[] task = ["--model", model.Path, "--task", "text", "--data", model.Data, "--threads", "1"];
        var done = CliRun.Of(["select", .. task, "--strategy", "gradient", "--ratio", "0.4", "--output", model.Place("selected"), "--json"]).AssertDone();
        var file = Path.Combine(model.Place("selected"), "selection.json");
        var report = SelectionReport.Load(file);
        Assert.Equal(done.Output.Trim(), File.ReadAllText(file).Trim());
        Assert.Equal(("gradient", 40L, 2), (report.Strategy, report.Samples, report.Selected.Count));
        Assert.Equal(report.Layers.OrderByDescending(l => l.Gradient).Take(2).Select(l => l.Layer), report.Selected);
        Assert.All(report.Layers, l => Assert.True(l is { Gradient: > 0, GradientBytes: > 0, Cka: null }));

        string[] size = ["--batch-size", "4", "--max-length", "16", "--threads", "1"];
        string[] memory = ["memory", "--model", model.Path, .. size];
        IEnumerable<string> masks = Enumerable.Range(1, 4).SelectMany(k => LayerMasks.All(5, k));
        using var planned = JsonDocument.Parse(CliRun.Of([.. memory, .. masks.SelectMany(m => (string[])["--mask", m]), "--json"]).AssertDone().Output);
        var columns = planned.RootElement.GetProperty("columns").EnumerateArray().ToDictionary(
            c => c.GetProperty("mask").GetString()!, c => (Bytes: c.GetProperty("memory_bytes").GetProperty("total").GetInt64(), Flops: c.GetProperty("flops_per_step").GetInt64()));
        Assert.Equal(31, columns.Count);
        var (bytes, flops) = (columns["00111"].Bytes, columns["00110"].Flops);
        foreach (var (budget, fits) in new (string[], Func<string, bool>)[]
        {
            (["--budget-bytes", $"{bytes}"], m => columns[m].Bytes <= bytes),
            (["--budget-flops", $"{flops}"], m => columns[m].Flops <= flops),
            (["--budget-bytes", $"{bytes}", "--budget-flops", $"{flops}", "--score", "gradient-per-byte"], m => columns[m].Bytes <= bytes && columns[m].Flops <= flops),
        })
        {
            using var found = JsonDocument.Parse(CliRun.Of([.. memory, "--suggest", "--selection", file, .. budget, "--json"]).AssertDone().Output);
            var each = budget.Contains("--score");
            double Gain(string mask) => report.Layers.Where(l => mask[l.Layer] == '1').Sum(l => each ? l.Gradient!.Value / l.GradientBytes!.Value : l.Gradient!.Value);
            var root = found.RootElement;
            Assert.True(root.GetProperty("optimal").GetBoolean());
            Assert.True(fits(root.GetProperty("mask").GetString()!));
            Assert.Equal(columns.Keys.Where(fits).Max(Gain), Gain(root.GetProperty("mask").GetString()!), 1e-9);
            Assert.Equal(root.GetProperty("gain").GetDouble(), Gain(root.GetProperty("mask").GetString()!), 1e-9);
        }
        var shown = CliRun.Of([.. memory, "--suggest", "--selection", file, "--budget-bytes", $"{bytes}"]).AssertDone().Output;
        Assert.Contains("no mask within the budget is worth more", shown, StringComparison.Ordinal);

        Refused(MemoryCommand.Create(), "measured no cka of any layer", [.. memory[1..], "--suggest", "--selection", file, "--budget-bytes", "1GiB", "--score", "cka"]);
        Refused(MemoryCommand.Create(), "give one of cka", [.. memory[1..], "--suggest", "--selection", file, "--budget-bytes", "1GiB", "--score", "luck"]);
        Refused(MemoryCommand.Create(), "no mask fits the budget of 1024 bytes", [.. memory[1..], "--suggest", "--selection", file, "--budget-bytes", "1KiB"]);
        Refused(MemoryCommand.Create(), "--budget-flops many: give operations", [.. memory[1..], "--suggest", "--selection", file, "--budget-flops", "many"]);
        Refused(MemoryCommand.Create(), "--suggest needs a budget", [.. memory[1..], "--suggest", "--selection", file]);
        Refused(MemoryCommand.Create(), "--memory-budget recomputes layers", [.. memory[1..], "--suggest", "--selection", file, "--memory-budget", "1GiB"]);
        Refused(MemoryCommand.Create(), "needs the scores of layers", [.. memory[1..], "--suggest", "--budget-bytes", "1GiB"]);
        Refused(MemoryCommand.Create(), "give one of them", [.. memory[1..], "--suggest", "--compare", "11111", "00001"]);
        Refused(MemoryCommand.Create(), "--budget-bytes says something of --suggest", [.. memory[1..], "--budget-bytes", "1GiB"]);
        Refused(SelectCommand.Create(), "give it to nativelora study", [.. task, "--strategy", "exhaustive"]);
    }

    [Theory]
    [InlineData("0.5", 20)]
    [InlineData("0.34,1", 16)]
    public void ExhaustiveIsARowForEachMask(string ratios, int rows)
    {
        var grid = StudyGrid.Rows(StudyGrid.Strategies("exhaustive"), StudyGrid.Ratios(ratios), [], 6, (options, ratio) => options with { Ratio = ratio });
        Assert.Equal(rows, grid.Count);
        Assert.Equal(rows, grid.Select(r => r.Options.Explicit).Distinct().Count());
        foreach (var row in grid)
            Assert.Equal((int)(row.Ratio!.Value * 6), LayerSelection.Select(6, null, row.Options).Selected.Count);
        Assert.Contains("12 layers have 924 masks of 6, more than 500", Assert.Throws<InputException>(() =>
            StudyGrid.Rows(StudyGrid.Strategies("exhaustive"), [0.5], [], 12, (options, ratio) => options with { Ratio = ratio })).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void AStudyTriesAllMasksAndGradientsAndGoesOn()
    {
        using var cli = new Training.CliRun();
        string[] small = ["--max-steps", "3", "--batch-size", "8", "--seeds", "1", "--output", cli.File("out")];
        JsonElement Study(string strategies)
        {
            var (code, text, error) = cli.Run("study", [.. small, "--strategies", strategies]);
            Assert.True(code == 0, error);
            return JsonDocument.Parse(text).RootElement;
        }
        var first = Study("exhaustive");
        Assert.Equal(["10", "01"], first.GetProperty("cells").EnumerateArray().Select(c => c.GetProperty("mask").GetString()));
        Assert.Equal("exhaustive 10", first.GetProperty("cells")[0].GetProperty("strategy").GetString());
        Assert.False(Path.Exists(cli.File("out/selection")));
        var stamps = Directory.GetFiles(cli.File("out/cells"), "result.json", SearchOption.AllDirectories).ToDictionary(f => f, File.GetLastWriteTimeUtc);
        Assert.Equal(2, stamps.Count);

        // One backward more, and no training: all masks of one layer are there.
        var second = Study("exhaustive,gradient,gradient-per-byte");
        Assert.All(stamps, s => Assert.Equal(s.Value, File.GetLastWriteTimeUtc(s.Key)));
        Assert.Equal(2, Directory.GetFiles(cli.File("out/cells"), "result.json", SearchOption.AllDirectories).Length);
        var report = SelectionReport.Load(cli.File("out/selection/text/gradient/selection.json"));
        var chosen = report.Layers.MaxBy(l => l.Gradient)!.Layer == 0 ? "10" : "01";
        var row = second.GetProperty("tasks")[0].GetProperty("rows").EnumerateArray().Single(r => r.GetProperty("strategy").GetString() == "gradient");
        Assert.Equal((chosen, $"exhaustive {chosen} 0.5"), (row.GetProperty("masks")[0].GetString(), row.GetProperty("same_as").GetString()));
        Assert.Contains(second.GetProperty("tasks")[0].GetProperty("findings").EnumerateArray(), f =>
            f.GetString()!.StartsWith("Of all 2 masks of ratio 0.5, ", StringComparison.Ordinal) && f.GetString()!.Contains("gradient 0.5 is ", StringComparison.Ordinal));

        // The similarities that another strategy needs are measured then; the gradients stay.
        var scores = cli.File("out/selection/text/scores.json");
        var before = JsonDocument.Parse(File.ReadAllText(scores)).RootElement.GetProperty("Gradient").GetRawText();
        Study("gradient,cka");
        var after = JsonDocument.Parse(File.ReadAllText(scores)).RootElement;
        Assert.Equal(before, after.GetProperty("Gradient").GetRawText());
        Assert.Equal(JsonValueKind.Number, after.GetProperty("Cka")[1].ValueKind);
        Assert.All(stamps, s => Assert.Equal(s.Value, File.GetLastWriteTimeUtc(s.Key)));
    }
}
