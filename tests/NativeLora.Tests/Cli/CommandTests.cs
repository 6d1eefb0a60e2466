using System.Globalization;
using System.Text.Json;
using NativeLora.Selection;

namespace NativeLora.Tests.Cli;

/// <summary>Commands that do their work, on a model of five small layers.</summary>
public sealed class CommandTests
{
    [SharedFact]
    public void Select_WritesItsFiles_AndMemoryReadsThem()
    {
        using var model = new SmallModel();
        var output = model.Place("out");
        var run = CliRun.Of("select", "--model", model.Path, "--task", "text", "--data", model.Data, "--pair-field", "other",
            "--strategy", "cka", "--bootstrap", "20", "--output", output).AssertDone();
        var report = SelectionReport.Load(Path.Combine(output, "selection.json"));
        Assert.Equal(SmallModel.Layers, report.Layers.Count);
        Assert.Equal(40, report.Samples);
        Assert.Equal(2, report.Selected.Count);
        Assert.Equal("cls", report.TokenRule);
        Assert.True(report.Layers[0].ConstantInput);
        Assert.Equal(0, report.DroppedFirst);
        Assert.True(report.Predicted!.TrainableParameters > 0);
        Assert.Contains(report.Mask, run.Output, StringComparison.Ordinal);
        Assert.Equal(report.Mask, File.ReadAllText(Path.Combine(output, "layer_selection", "layers_to_finetune_ohe_bert-small_text.txt")));
        var lines = File.ReadAllLines(Path.Combine(output, "layer_selection", "cka_layer_list_bert-small_text.txt"));
        Assert.Equal(SmallModel.Layers, lines.Length);
        Assert.Equal("0.0|0,1", lines[0]);
        Assert.Equal(report.Layers[2].Cka!.Value, double.Parse(lines[2].Split('|')[0], CultureInfo.InvariantCulture));

        var memory = Json("memory", "--model", model.Path, "--selection", Path.Combine(output, "selection.json"), "--max-length", "10", "--json");
        Assert.Equal(report.Mask, memory.GetProperty("columns")[1].GetProperty("mask").GetString());
    }

    [SharedFact]
    public void Select_Json_IsTheReportAlone_AndTheSameForAnyThreads()
    {
        using var model = new SmallModel();
        string[] args = ["select", "--model", model.Path, "--task", "text", "--data", model.Data, "--json"];
        var one = CliRun.Of([.. args, "--threads", "1"]).AssertDone();
        var three = CliRun.Of([.. args, "--threads", "3"]).AssertDone();
        var (a, b) = (SelectionReport.FromJson(one.Output), SelectionReport.FromJson(three.Output));
        Assert.Equal(a.Layers.Select(l => (l.Cka, l.CkaDebiased, l.Cosine)), b.Layers.Select(l => (l.Cka, l.CkaDebiased, l.Cosine)));
        Assert.Equal(a.Mask, b.Mask);
        Assert.Empty(one.Error);
    }

    [SharedTheory]
    [InlineData("last", "00011")]
    [InlineData("first", "11000")]
    [InlineData("all", "11111")]
    [InlineData("none", "00000")]
    [InlineData("1,3-4", "01011")]
    public void Select_WithoutLookingAtRows(string strategy, string mask)
    {
        using var model = new SmallModel();
        var output = model.Place("out");
        CliRun.Of("select", "--model", model.Path, "--task", "text", "--data", model.Data, "--strategy", strategy, "--output", output).AssertDone();
        var report = SelectionReport.Load(Path.Combine(output, "selection.json"));
        Assert.Equal((mask, 0L), (report.Mask, report.Samples));
        Assert.False(Directory.Exists(Path.Combine(output, "layer_selection")));
    }

    [SharedFact]
    public void Merge_PredictsAsTheAdapterBeside()
    {
        using var model = new SmallModel();
        var adapter = Directory.CreateDirectory(model.Place("adapter")).FullName;
        var golden = Shared.Path("fixtures", "models", "bert-cls", "adapters", "lora-selected");
        if (!Directory.Exists(golden))
            golden = Directory.GetDirectories(Shared.Path("fixtures", "models", "bert-cls", "adapters"), "lora*").Order(StringComparer.Ordinal).First();
        File.Copy(Path.Combine(golden, "init", "adapter_config.json"), Path.Combine(adapter, "adapter_config.json"));
        File.Copy(Path.Combine(golden, "final", "adapter_model.safetensors"), Path.Combine(adapter, "adapter_model.safetensors"));

        var beside = Probabilities("--model", model.Path, "--adapter", adapter);
        var merged = model.Place("merged");
        CliRun.Of("merge", "--model", model.Path, "--adapter", adapter, "--output", merged).AssertDone();
        var inside = Probabilities("--model", merged);
        var plain = Probabilities("--model", model.Path);
        Assert.Equal(40, beside.Count);
        for (var i = 0; i < beside.Count; i++)
        {
            Assert.InRange(beside[i].Sum(), 1 - 1e-5, 1 + 1e-5);
            for (var c = 0; c < beside[i].Length; c++)
                Assert.InRange(inside[i][c] - beside[i][c], -1e-5, 1e-5);
        }
        Assert.Contains(beside.Zip(plain), p => Math.Abs(p.First[0] - p.Second[0]) > 1e-3);
        // The folder is there: it is not written over.
        CliRun.Of("merge", "--model", model.Path, "--adapter", adapter, "--output", merged).AssertRefused("not an empty folder");

        List<double[]> Probabilities(params string[] which) =>
        [
            .. CliRun.Of(["predict", "--data", model.Data, "--pair-field", "other", "--json", .. which]).AssertDone().Output
                .Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(l => JsonDocument.Parse(l).RootElement.GetProperty("probabilities").EnumerateObject().Select(p => p.Value.GetDouble()).ToArray()),
        ];
    }

    [SharedTheory]
    [InlineData("llama-cls")]
    [InlineData("qwen3")]
    public void Run_ADecoderLearnsToClassify_AndPredicts(string name)
    {
        using var model = new SmallModel(name);
        // The label is the last word: what the last token is, the classifier can read off.
        var rows = model.Write("last.tsv", "text\tlabel\n" + string.Concat(Enumerable.Range(0, 48).Select(i => $"a{(char)('a' + i % 5)} ab a{"dhl"[i % 3]}\t{i % 3}\n")));
        var output = model.Place("out");
        CliRun.Of("run", "--model", model.Path, "--task", "text", "--data", rows, "--dev", rows, "--ratio", "0.5", "--r", "4", "--lr", "2e-2", "--epochs", "6",
            "--batch-size", "8", "--output", output).AssertDone();
        using var report = JsonDocument.Parse(File.ReadAllText(Path.Combine(output, "report.json")));
        Assert.Equal(1, report.RootElement.GetProperty("evaluation").GetProperty("dev").GetProperty("accuracy").GetDouble());
        var run = CliRun.Of("predict", "--model", model.Path, "--adapter", output, "--data", rows, "--json").AssertDone();
        Assert.Equal(Enumerable.Range(0, 48).Select(i => $"{i % 3}"), run.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(l => JsonDocument.Parse(l).RootElement.GetProperty("label").GetString()![^1..]));
    }

    [SharedFact]
    public void PredictNeedsAClassifier()
    {
        using var model = new SmallModel("qwen3");
        CliRun.Of("predict", "--model", model.Path, "--text", "ab").AssertRefused("is no classifier");
    }

    [SharedFact]
    public void Eval_NeedsNoRowsToTrainOn()
    {
        using var model = new SmallModel();
        var folder = Directory.CreateDirectory(model.Place("RTE")).FullName;
        File.WriteAllText(Path.Combine(folder, "dev.tsv"), "index\tsentence1\tsentence2\tlabel\n0\taa ab\tac\tentailment\n1\tba bb\tbc\tnot_entailment\n");
        // The fixture's classifier has three classes; an adapter trained here has RTE's two.
        var adapter = model.Place("adapter");
        CliRun.Of("train", "--model", model.Path, "--task", "rte", "--data", Path.Combine(folder, "dev.tsv"), "--max-steps", "1", "--output", adapter).AssertDone();
        string[] eval = ["eval", "--model", model.Path, "--adapter", adapter, "--task", "rte", "--json"];
        var fromFolder = Json([.. eval, "--data", folder]).GetProperty("dev").GetProperty("loss").GetDouble();
        Assert.Equal(fromFolder, Json([.. eval, "--dev", Path.Combine(folder, "dev.tsv")]).GetProperty("dev").GetProperty("loss").GetDouble());
        Assert.Equal(fromFolder, Json([.. eval, "--data", Path.Combine(folder, "dev.tsv")]).GetProperty("data").GetProperty("loss").GetDouble());
        CliRun.Of(eval).AssertRefused("no data is given");
    }

    [SharedFact]
    public void Info_OfAModelAndOfTheMachine()
    {
        var model = Json("info", "--model", Shared.Path("models", "smollm2-135m"), "--json").GetProperty("model");
        Assert.Equal(("llama", 30, 576), (model.GetProperty("model_type").GetString(), model.GetProperty("layers").GetInt32(), model.GetProperty("hidden_size").GetInt32()));
        Assert.Equal(7, model.GetProperty("adaptable").GetArrayLength());
        Assert.Equal(2, Json("info", "--threads", "2", "--json").GetProperty("device").GetProperty("description").GetString()!.Split(' ')
            .Select(w => int.TryParse(w, CultureInfo.InvariantCulture, out var n) ? n : 0).Max());
    }

    [SharedFact]
    public async Task CtrlC_EndsWith130_AndWritesNothing()
    {
        using var model = new SmallModel();
        var output = model.Place("out");
        using var process = CliRun.Start("select", "--model", Shared.Path("models", "minilm-l6"), "--task", "cola", "--data", Shared.Path("data", "glue"), "--output", output);
        // The line before the forward pass is out: the pass over 8,551 rows takes far longer than what follows here.
        string? line;
        do
        {
            line = await process.StandardOutput.ReadLineAsync();
        }
        while (line?.StartsWith("select", StringComparison.Ordinal) == false);
        Assert.NotNull(line);
        using (var kill = System.Diagnostics.Process.Start("kill", ["-INT", process.Id.ToString(CultureInfo.InvariantCulture)]))
            await kill.WaitForExitAsync();
        var run = CliRun.Finish(process);
        Assert.Equal(130, run.ExitCode);
        Assert.Equal("nativelora: interrupted", run.Error.Trim());
        Assert.False(Directory.Exists(output));
    }

    private static JsonElement Json(params string[] args) => JsonDocument.Parse(CliRun.Of(args).AssertDone().Output).RootElement;
}
