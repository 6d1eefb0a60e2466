using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using NativeLora.Cli.Commands;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Tests.Cli;

/// <summary><c>nativelora study</c> on a generated model of two layers.</summary>
public sealed class StudyCommandTests
{
    private static readonly string[] Small = ["--epochs", "2", "--lr", "1e-2", "--batch-size", "8", "--dropout", "0.1"];

    private static JsonElement Study(Training.CliRun cli, string output, params string[] more)
    {
        var (code, text, error) = cli.Run("study", ["--output", cli.File(output), .. more]);
        Assert.True(code == 0, error);
        return JsonDocument.Parse(text).RootElement;
    }

    private static void Refused(Training.CliRun cli, string saying, params string[] more) => Refused(
        ["--model", cli.File("model"), "--task", "text", "--data", cli.File("data.tsv"), "--dev", cli.File("data.tsv"), "--threads", "1", "--json", .. more], saying);

    private static void Refused(string[] arguments, string saying)
    {
        var error = Assert.Throws<InputException>(() => { StudyCommand.Create().Parse(arguments).Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false }); });
        Assert.Contains(saying, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void Grid_is_trained_once_a_mask_and_its_tables_are_right()
    {
        using var cli = new Training.CliRun();
        var study = Study(cli, "out", [.. Small, "--strategies", "all,first,last,random,cka,none", "--ratios", "0.5,1", "--seeds", "0,1,2"]);
        var cells = study.GetProperty("cells").EnumerateArray().ToList();
        // all and none, and the four others with two ratios each.
        Assert.Equal(10 * 3, cells.Count);
        // Two layers have four masks, and every one of them occurs with every seed.
        var folders = Directory.GetDirectories(cli.File("out/cells/text")).Select(Path.GetFileName).Order(StringComparer.Ordinal).ToArray();
        Assert.Equal(from mask in (string[])["00", "01", "10", "11"] from seed in (int[])[0, 1, 2] select $"{mask}-seed-{seed}", folders);
        Assert.Equal(12, cells.Count(c => c.GetProperty("same_training_as").ValueKind == JsonValueKind.Null));
        foreach (var folder in folders)
            Assert.False(Directory.Exists(cli.File($"out/cells/text/{folder}/checkpoints")));
        foreach (var cell in cells.Where(c => c.GetProperty("strategy").GetString() == "random" && c.GetProperty("ratio").GetDouble() == 0.5))
            Assert.Equal(LayerSelection.Select(2, null, new SelectionOptions { Strategy = SelectionStrategy.Random, Ratio = 0.5, Seed = cell.GetProperty("seed").GetUInt64() }).Mask, cell.GetProperty("mask").GetString());

        var rows = study.GetProperty("tasks")[0].GetProperty("rows").EnumerateArray().ToList();
        var all = Values(cells, "all", null);
        var random = Values(cells, "random", 0.5);
        foreach (var row in rows)
        {
            var (name, ratio) = (row.GetProperty("strategy").GetString()!, row.GetProperty("ratio") is { ValueKind: JsonValueKind.Number } r ? r.GetDouble() : (double?)null);
            var values = Values(cells, name, ratio);
            var mean = (values[0] + values[1] + values[2]) / 3;
            var std = Math.Sqrt(((values[0] - mean) * (values[0] - mean) + (values[1] - mean) * (values[1] - mean) + (values[2] - mean) * (values[2] - mean)) / 2);
            Assert.Equal(mean, row.GetProperty("metrics").GetProperty("accuracy").GetProperty("mean").GetDouble(), 1e-12);
            Assert.Equal(std, row.GetProperty("metrics").GetProperty("accuracy").GetProperty("std").GetDouble(), 1e-12);
            Check(row.GetProperty("versus_all"), name == "all" ? null : values, all);
            Check(row.GetProperty("versus_random"), name == "random" || ratio != 0.5 ? null : values, random, skip: ratio == 1);
        }
        Assert.Equal("all", rows.Single(r => Is(r, "first", 1)).GetProperty("same_as").GetString());
        // Only the classifier: 2 × 32 weights and 2 biases, whatever the adapters.
        var head = rows.Single(r => r.GetProperty("strategy").GetString() == "none");
        var first = rows.Single(r => Is(r, "first", 0.5));
        Assert.True(head.GetProperty("trainable_parameters").GetDouble() < first.GetProperty("trainable_parameters").GetDouble());
        Assert.True(head.GetProperty("planned_bytes").GetDouble() < first.GetProperty("planned_bytes").GetDouble());

        // The files say the same.
        var csv = File.ReadAllLines(cli.File("out/study.csv"));
        Assert.Equal(31, csv.Length);
        var column = Array.IndexOf(csv[0].Split(','), "accuracy");
        Assert.Equal(cells.Select(Accuracy), csv[1..].Select(l => double.Parse(l.Split(',')[column], CultureInfo.InvariantCulture)));
        Assert.Equal(11, File.ReadAllLines(cli.File("out/summary.csv")).Length);
        var markdown = File.ReadAllText(cli.File("out/study.md"));
        Assert.Contains("| first (= all) | 1 | 11 |", markdown, StringComparison.Ordinal);
        Assert.Contains("With cka 0.5 accuracy is ", markdown, StringComparison.Ordinal);
        Assert.Equal(study.GetRawText(), JsonDocument.Parse(File.ReadAllText(cli.File("out/study.json"))).RootElement.GetRawText());

        // A cell is what train gives.
        var (code, output, error) = cli.Run("train", ["--output", cli.File("alone"), .. Small, "--layers", "1", "--seed", "2"]);
        Assert.True(code == 0, error);
        var cell2 = cells.First(c => c.GetProperty("mask").GetString() == "01" && c.GetProperty("seed").GetInt32() == 2);
        Assert.Equal(JsonDocument.Parse(output).RootElement.GetProperty("evaluation").GetProperty("dev").GetProperty("loss").GetDouble(),
            cell2.GetProperty("evaluations").GetProperty("dev").GetProperty("loss").GetDouble());
        // The adapter of no layer is one that eval reads.
        (code, output, error) = cli.Run("eval", "--adapter", cli.File("out/cells/text/00-seed-1"));
        Assert.True(code == 0, error);
        var none = cells.First(c => c.GetProperty("mask").GetString() == "00" && c.GetProperty("seed").GetInt32() == 1);
        Assert.Equal(none.GetProperty("evaluations").GetProperty("dev").GetProperty("loss").GetDouble(),
            JsonDocument.Parse(output).RootElement.GetProperty("dev").GetProperty("loss").GetDouble());
    }

    [Fact]
    public void Within_a_budget_every_mask_fits_by_the_plan_that_it_is_trained_with()
    {
        using var cli = new Training.CliRun();
        string[] grid = [.. Small, "--strategies", "all,last,first,random,cka,gradient,suggest,suggest-gradient", "--budget-bytes", "mask:01,100%", "--budget-flops", "0%", "--seeds", "2"];
        var study = Study(cli, "out", grid);
        var cells = study.GetProperty("cells").EnumerateArray().ToList();
        foreach (var cell in cells.Where(c => c.GetProperty("strategy").GetString() != "all"))
        {
            var budget = cell.GetProperty("budget");
            if (budget.TryGetProperty("bytes", out var bytes))
            {
                Assert.Equal(budget.GetProperty("planned").GetInt64(), cell.GetProperty("planned_bytes").GetInt64());
                Assert.InRange(cell.GetProperty("planned_bytes").GetInt64(), 1, bytes.GetInt64());
            }
            else
            {
                Assert.InRange(budget.GetProperty("planned").GetInt64(), 1, budget.GetProperty("flops").GetInt64());
            }
            // With the cheapest mask of one layer only the upper one fits; with all of what there is both, but where the rule drops the lower one.
            var whole = budget.GetProperty("text").GetString() == "100%";
            Assert.Equal(!whole || cell.GetProperty("strategy").GetString() is "cka" or "suggest" ? "01" : "11", cell.GetProperty("mask").GetString());
        }
        // The first layer alone takes more than the last one.
        Assert.Equal(["0%", "mask:01"], study.GetProperty("left_out").EnumerateArray().Select(l => $"{l.GetProperty("budget")}").Distinct().Order(StringComparer.Ordinal));
        Assert.All(study.GetProperty("left_out").EnumerateArray(), l => Assert.Equal("first", l.GetProperty("strategy").GetString()));
        var markdown = File.ReadAllText(cli.File("out/study.md"));
        Assert.Contains("Left out: first ≤ bytes of 01, since strategy first has no layer that fits the budget of ", markdown, StringComparison.Ordinal);
        Assert.Contains("- cka, gradient, suggest, suggest-gradient ≤ bytes of 01: does not beat random: it chooses the same layers with every seed; does not beat last", markdown, StringComparison.Ordinal);
        var head = File.ReadLines(cli.File("out/summary.csv")).First().Split(',');
        Assert.Contains("budget_bytes", head);
        Assert.Contains("vs_last_holm", head);

        string[] small = ["--output", cli.File("refused"), .. Small, "--strategies"];
        Refused(cli, "strategy suggest is the best mask within a budget: give --budget-bytes", [.. small, "suggest"]);
        Refused(cli, "budget mask:011: has 3 digits, and the model has 2 layers", [.. small, "last", "--budget-bytes", "mask:011"]);
        Refused(cli, "--budget-bytes 120%: give a share", [.. small, "last", "--budget-bytes", "120%"]);
        Refused(cli, "no strategy has a layer that fits its budget", [.. small, "last", "--budget-bytes", "1KiB"]);
        Refused(cli, "--memory-budget recomputes layers until a mask fits", [.. small, "last", "--budget-bytes", "100%", "--memory-budget", "1GiB"]);
        Refused(cli, "give --ratios beside the budgets", [.. small, "exhaustive", "--budget-bytes", "100%"]);
    }

    [Fact]
    public void Again_nothing_is_trained_and_the_grid_may_grow_but_not_the_settings_change()
    {
        using var cli = new Training.CliRun();
        Study(cli, "out", [.. Small, "--strategies", "all,last", "--seeds", "1"]);
        var result = cli.File("out/cells/text/11-seed-0/result.json");
        var (before, stamp) = (File.ReadAllText(result), File.GetLastWriteTimeUtc(result));
        var grown = Study(cli, "out", [.. Small, "--strategies", "all,last,cka,first", "--seeds", "2"]);
        Assert.Equal((before, stamp), (File.ReadAllText(result), File.GetLastWriteTimeUtc(result)));
        Assert.Equal(8, grown.GetProperty("cells").GetArrayLength());

        string[] same = ["--output", cli.File("out"), .. Small, "--strategies", "all"];
        Refused(cli, "the learning rate of this study was 0.01, now it is 0.02; go on with what it was", [.. same.Select(a => a == "1e-2" ? "2e-2" : a)]);
        Refused(cli, "the rank of text in this study was 8, now it is 4", [.. same, "--r", "4"]);
        var rows = File.ReadAllText(cli.File("data.tsv"));
        File.AppendAllText(cli.File("data.tsv"), "waa\tyes\n");
        Refused(cli, "data of text in this study was 60 examples", same);
        File.WriteAllText(cli.File("data.tsv"), rows);
        File.WriteAllText(result, "{");
        Refused(cli, "remove this folder to train it anew", same);
    }

    [Fact]
    public void Overwrite_begins_anew()
    {
        using var cli = new Training.CliRun();
        Study(cli, "out", [.. Small, "--strategies", "all,last", "--seeds", "1"]);
        Study(cli, "out", [.. Small, "--strategies", "all", "--seeds", "1", "--r", "4", "--overwrite"]);
        Assert.Equal(["11-seed-0"], Directory.GetDirectories(cli.File("out/cells/text")).Select(Path.GetFileName));
        // What is no study is not taken for one.
        var (code, _, error) = cli.Run("train", ["--output", cli.File("other"), "--max-steps", "1"]);
        Assert.True(code == 0, error);
        Refused(cli, "but no study; choose another folder", "--output", cli.File("other"), "--overwrite");
    }

    [Fact]
    public void Interrupted_within_a_cell_and_killed_between_cells_the_results_are_the_same()
    {
        using var cli = new Training.CliRun();
        string[] grid = ["--epochs", "25", "--lr", "1e-2", "--batch-size", "8", "--dropout", "0.1", "--strategies", "all,last,none", "--seeds", "2", "--save-every", "30"];
        var whole = Study(cli, "whole", grid);

        // SIGTERM in the second training, as soon as it has begun.
        string[] arguments = ["--output", cli.File("pieces"), .. grid];
        using (var process = cli.Start("study", arguments))
        {
            Wait(() => File.Exists(cli.File("pieces/cells/text/01-seed-0/metrics.jsonl")));
            using var kill = System.Diagnostics.Process.Start("kill", ["-TERM", process.Id.ToString(CultureInfo.InvariantCulture)]);
            var error = process.StandardError.ReadToEnd();
            Assert.True(process.WaitForExit(60_000));
            Assert.Equal(143, process.ExitCode);
            Assert.Contains($"go on with: nativelora study --model {cli.File("model")}", error, StringComparison.Ordinal);
            Assert.Contains($"--output {cli.File("pieces")}", error, StringComparison.Ordinal);
        }
        // kill -9 after that, and a cell whose training ended but whose result was not written.
        using (var process = cli.Start("study", arguments))
        {
            Wait(() => File.Exists(cli.File("pieces/cells/text/11-seed-1/metrics.jsonl")));
            process.Kill();
            process.WaitForExit();
        }
        File.Delete(cli.File("pieces/cells/text/11-seed-0/result.json"));
        var pieces = Study(cli, "pieces", grid);
        var (expected, found) = (whole.GetProperty("cells").EnumerateArray().ToList(), pieces.GetProperty("cells").EnumerateArray().ToList());
        Assert.Equal(6, found.Count);
        foreach (var (a, b) in expected.Zip(found))
            foreach (var name in (string[])["strategy", "seed", "mask", "evaluations", "train_loss", "last_loss", "steps", "tokens", "trainable_parameters", "planned_bytes", "optimizer_bytes", "allocated_bytes"])
                Assert.Equal(a.GetProperty(name).GetRawText(), b.GetProperty(name).GetRawText());
        foreach (var file in Directory.GetFiles(cli.File("whole"), "adapter_model.safetensors", SearchOption.AllDirectories))
            Assert.Equal(File.ReadAllBytes(file), File.ReadAllBytes(file.Replace(cli.File("whole"), cli.File("pieces"), StringComparison.Ordinal)));

        static void Wait(Func<bool> isThere)
        {
            for (var i = 0; !isThere(); i++)
            {
                Assert.True(i < 6000, "it does not come so far");
                Thread.Sleep(10);
            }
        }
    }

    [Fact]
    public void Folder_is_for_one_process()
    {
        using var cli = new Training.CliRun();
        using var held = new OutputLock(cli.File("out"));
        Refused(cli, "another training is writing into this folder", "--output", cli.File("out"));
    }

    [Theory]
    [InlineData("no folder is given: use --output DIR")]
    [InlineData("\"best\" is no way to choose layers", "--output", "{out}", "--strategies", "all,best")]
    [InlineData("\"half\" is no share of the layers", "--output", "{out}", "--ratios", "0.5,half")]
    [InlineData("\"2\" is no share of the layers", "--output", "{out}", "--ratios", "2")]
    [InlineData("ratio 0.25 of 2 layers chooses none", "--output", "{out}", "--ratios", "0.25")]
    [InlineData("give how many, such as 3", "--output", "{out}", "--seeds", "three")]
    [InlineData("--seeds 0: give 1 to 1000", "--output", "{out}", "--seeds", "0")]
    [InlineData("--max-rows 0: give at least 1", "--output", "{out}", "--max-rows", "0")]
    [InlineData("layer 7", "--output", "{out}", "--strategies", "7")]
    [InlineData("number of epochs is 0", "--output", "{out}", "--epochs", "0")]
    [InlineData("did you mean text?", "--output", "{out}", "--task", "test")]
    [InlineData("--data has 3 paths for 2 tasks", "--output", "{out}", "--task", "text,mrpc", "--data", "a,b,c")]
    [InlineData("is a file", "--output", "{model}/config.json")]
    [InlineData("r (the rank) is 0", "--output", "{out}", "--r", "0")]
    [InlineData("there is no metric f2", "--output", "{out}", "--keep-best", "f2")]
    public void Bad_usage_is_named_before_anything_is_written(string message, params string[] arguments)
    {
        using var cli = new Training.CliRun();
        string[] given = [.. arguments.Select(a => a.Replace("{out}", cli.File("out"), StringComparison.Ordinal).Replace("{model}", cli.File("model"), StringComparison.Ordinal))];
        string[] task = arguments.Contains("--task") ? [] : ["--task", "text"];
        string[] data = arguments.Contains("--data") ? [] : ["--data", cli.File("data.tsv"), "--dev", cli.File("data.tsv")];
        Refused(["--model", cli.File("model"), .. task, .. data, "--json", .. given], message);
        Assert.False(Directory.Exists(cli.File("out")));
    }

    [Fact]
    public void Without_rows_to_evaluate_on_there_is_nothing_to_compare()
    {
        using var cli = new Training.CliRun();
        CliRun.Of("study", "--model", cli.File("model"), "--task", "text", "--data", cli.File("data.tsv"), "--output", cli.File("out")).AssertRefused("give --dev");
        CliRun.Of("study", "--seed", "1").AssertRefused("there is no option --seed");
        Assert.False(Directory.Exists(cli.File("out")));
    }

    private static bool Is(JsonElement row, string strategy, double ratio) =>
        row.GetProperty("strategy").GetString() == strategy && row.GetProperty("ratio") is { ValueKind: JsonValueKind.Number } r && r.GetDouble() == ratio;

    private static double Accuracy(JsonElement cell) => cell.GetProperty("evaluations").GetProperty("dev").GetProperty("accuracy").GetDouble();

    private static double[] Values(List<JsonElement> cells, string strategy, double? ratio) =>
        [.. cells.Where(c => c.GetProperty("strategy").GetString() == strategy && (ratio is not { } r ? c.GetProperty("ratio").ValueKind == JsonValueKind.Null : Is(c, strategy, r))).Select(Accuracy)];

    private static void Check(JsonElement difference, double[]? values, double[] other, bool skip = false)
    {
        if (skip)
            return;
        if (values is null)
        {
            Assert.Equal(JsonValueKind.Null, difference.ValueKind);
            return;
        }
        double[] d = [values[0] - other[0], values[1] - other[1], values[2] - other[2]];
        var mean = (d[0] + d[1] + d[2]) / 3;
        // t(0.975; 2) = 4.302652729749464, over √3 seeds.
        var half = 4.302652729749464 / Math.Sqrt(3) * Math.Sqrt(((d[0] - mean) * (d[0] - mean) + (d[1] - mean) * (d[1] - mean) + (d[2] - mean) * (d[2] - mean)) / 2);
        Assert.Equal(mean, difference.GetProperty("mean").GetDouble(), 1e-12);
        Assert.Equal(mean - half, difference.GetProperty("low").GetDouble(), 1e-9);
        Assert.Equal(mean + half, difference.GetProperty("high").GetDouble(), 1e-9);
    }
}
