using System.Text.Json;
using System.Text.Json.Nodes;
using CsCheck;
using NativeLora.Selection;

namespace NativeLora.Tests.Selection;

public sealed class SelectionReportTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("selection-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static SelectionReport Sample()
    {
        var features = Fixtures.Stream(4, 24, 10, 3);
        features[0] = features[0].Map((_, _, j) => j);
        var options = new SelectionOptions { Ratio = 0.5 };
        var similarities = LayerSimilarities.Compute(features);
        return SelectionReport.Create("hub/größe", "mrpc", "token 0", options, LayerSelection.Select(similarities, options), similarities, Bootstrap.Run(features, options)) with
        {
            Predicted = new PredictedCost
            {
                MemoryBytes = new Dictionary<string, long> { ["weights"] = 1L << 40, ["saved_activations"] = 7 },
                TrainableParameters = 12345,
                FlopsPerStep = 1.5e12,
            },
        };
    }

    [Fact]
    public void ReadsBackWhatItWrote()
    {
        var report = Sample();
        var path = Path.Combine(_folder, "new", "selection.json");
        report.Save(path);
        var read = SelectionReport.Load(path);
        Assert.Equal(report.ToJson(), read.ToJson());
        Assert.Equal(report.Layers, read.Layers);
        Assert.Equal(report.Selected, read.Selected);
        Assert.Equal("hub/größe", read.Model);
        Assert.Equal([path], Directory.GetFiles(Path.GetDirectoryName(path)!));
        Assert.DoesNotContain('\r', File.ReadAllText(path));
        Assert.EndsWith("}\n", File.ReadAllText(path), StringComparison.Ordinal);
    }

    [Fact]
    public void NamesAreStable()
    {
        using var document = JsonDocument.Parse(Sample().ToJson());
        var root = document.RootElement;
        Assert.Equal(["model", "task", "rule", "strategy", "token_rule", "ratio", "samples", "layers", "order", "selected", "mask",
            "lowest_adapted_layer", "dropped_first", "left_out", "predicted"], root.EnumerateObject().Select(p => p.Name));
        var layer = root.GetProperty("layers")[1];
        Assert.Equal(["layer", "cka", "cka_debiased", "cosine", "angular", "constant_input", "selected", "bootstrap"], layer.EnumerateObject().Select(p => p.Name));
        Assert.Equal(["selected_fraction", "cka_mean", "cka_low", "cka_high", "cka_debiased_low", "cka_debiased_high"], layer.GetProperty("bootstrap").EnumerateObject().Select(p => p.Name));
        Assert.Equal(["memory_bytes", "trainable_parameters", "flops_per_step"], root.GetProperty("predicted").EnumerateObject().Select(p => p.Name));
        Assert.Equal(JsonValueKind.Null, root.GetProperty("layers")[0].GetProperty("cka").ValueKind);
        Assert.True(root.GetProperty("layers")[0].GetProperty("constant_input").GetBoolean());
        Assert.Equal(0, root.GetProperty("dropped_first").GetInt32());
        Assert.Equal(1L << 40, root.GetProperty("predicted").GetProperty("memory_bytes").GetProperty("weights").GetInt64());
    }

    [Fact]
    public void AReportNeedsNoMeasures()
    {
        foreach (var text in new[] { "none", "all", "1,3" })
        {
            var options = SelectionOptions.Parse(text);
            var report = SelectionReport.Create("m", null, null, options, LayerSelection.Select(4, null, options));
            Assert.Equal(report.ToJson(), SelectionReport.FromJson(report.ToJson()).ToJson());
        }
        Assert.Throws<InputException>(() => SelectionReport.Create("m", null, null, new SelectionOptions(), LayerSelection.Select(3, null, SelectionOptions.Parse("all")),
            LayerSimilarities.Compute(Fixtures.Stream(2, 5, 4, 1))));
    }

    public static TheoryData<string, string> Damages() => new()
    {
        { "mask", "\"1111\"" }, { "mask", "\"01\"" }, { "mask", "\"01x0\"" }, { "mask", "null" }, { "mask", "3" },
        { "order", "[0,1,2,9]" }, { "order", "[0,1,1,2]" }, { "order", "[]" }, { "order", "null" },
        { "selected", "[-1,2]" }, { "selected", "[]" }, { "selected", "[1.5]" },
        { "layers", "[]" }, { "layers", "[null,null,null,null]" }, { "layers", "{}" },
        { "rule", "\"other\"" }, { "strategy", "\"best\"" }, { "ratio", "2" }, { "samples", "-1" },
        { "lowest_adapted_layer", "null" }, { "dropped_first", "99" }, { "left_out", "[7]" }, { "left_out", "null" },
        { "predicted", "{}" }, { "predicted", "{\"memory_bytes\":null,\"trainable_parameters\":1,\"flops_per_step\":1}" },
        { "predicted", "{\"memory_bytes\":{\"weights\":-1},\"trainable_parameters\":1,\"flops_per_step\":1}" },
        { "model", "null" },
    };

    [Theory]
    [MemberData(nameof(Damages))]
    public void DamagedReportsAreRefused(string field, string value)
    {
        var json = JsonNode.Parse(Sample().ToJson())!;
        json[field] = JsonNode.Parse(value);
        var message = Assert.Throws<InputException>(() => SelectionReport.FromJson(json.ToJsonString(), "x.json")).Message;
        Assert.StartsWith("x.json", message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', message);
        json.AsObject().Remove(field);
        if (field is not ("ratio" or "dropped_first" or "predicted"))
            Assert.Throws<InputException>(() => SelectionReport.FromJson(json.ToJsonString()));
    }

    [Fact]
    public void BrokenTextIsRefusedAndNothingElseEscapes()
    {
        var text = Sample().ToJson();
        for (var length = 0; length < text.Length - 1; length += 37)
            Assert.Throws<InputException>(() => SelectionReport.FromJson(text[..length]));
        Assert.Throws<InputException>(() => SelectionReport.FromJson("null"));
        Assert.Throws<InputException>(() => SelectionReport.FromJson("{\"mask\":\"1\",\"mask\":\"1\"}"));
        Gen.Select(Gen.Int[0, text.Length - 1], Gen.Char[' ', '~']).Sample((at, with) =>
        {
            try
            {
                SelectionReport.FromJson(text[..at] + with + text[(at + 1)..]);
            }
            catch (InputException)
            {
                // Refused, as it should be where the change matters.
            }
        }, iter: 2000);
    }

    [Fact]
    public void MissingFilesAndBadPathsAreInputErrors()
    {
        Assert.Throws<InputException>(() => SelectionReport.Load(Path.Combine(_folder, "no.json")));
        Assert.Throws<InputException>(() => SelectionReport.Load(_folder));
        Assert.Throws<InputException>(() => SelectionReport.Load(""));
        File.WriteAllText(Path.Combine(_folder, "file"), "");
        Assert.Throws<RunException>(() => Sample().Save(Path.Combine(_folder, "file", "selection.json")));
    }

    [Fact]
    public void FilesOfThePapersScripts()
    {
        var selection = LayerSelection.Select(4, new LayerScores { Cka = [null, 0.25, 1, 2.5195783237563774e-09] }, new SelectionOptions { Count = 2 });
        var (list, mask) = SelectionFiles.Write(_folder, "minilm-l6_mrpc", [null, 0.25, 1, 2.5195783237563774e-09], selection);
        Assert.Equal(Path.Combine(_folder, "layer_selection", "cka_layer_list_minilm-l6_mrpc.txt"), list);
        Assert.Equal(Path.Combine(_folder, "layer_selection", "layers_to_finetune_ohe_minilm-l6_mrpc.txt"), mask);
        Assert.Equal("0.0|0,1\n0.25|1,2\n1.0|2,3\n2.5195783237563774e-09|3,4\n", File.ReadAllText(list));
        Assert.Equal("0101", File.ReadAllText(mask));
        foreach (var bad in new[] { "", "a/b", "a\\b" })
            Assert.Throws<InputException>(() => SelectionFiles.Write(_folder, bad, [null, 1, 1, 1], selection));
        Assert.Throws<InputException>(() => SelectionFiles.Write(_folder, "a", [1], selection));
    }

    [Theory]
    [InlineData(0.0001, "0.0001")]
    [InlineData(0.00001, "1e-05")]
    [InlineData(1.5e-12, "1.5e-12")]
    [InlineData(-0.25, "-0.25")]
    [InlineData(0.1, "0.1")]
    [InlineData(1e-200, "1e-200")]
    public void NumbersAreWrittenAsPythonDoes(double value, string text) => Assert.Equal(text, SelectionFiles.PythonFloat(value));
}
