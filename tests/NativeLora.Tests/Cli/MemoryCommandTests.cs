using System.Text.Json;
using NativeLora.Adapters;
using NativeLora.Data;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Tensors;
using NativeLora.Training;

namespace NativeLora.Tests.Cli;

/// <summary>What <c>memory</c> predicts without weights is what a training session allocates.</summary>
public sealed class MemoryCommandTests
{
    [SharedTheory]
    [InlineData("fixtures/models/bert-cls/model", "01010", "00111", 8, 20, false)]
    [InlineData("fixtures/models/llama-gqa/model", null, null, 4, 16, false)]
    [InlineData("models/minilm-l6", "010011", "000111", 8, 40, false)]
    [InlineData("fixtures/models/bert-cls/model", "01010", "00111", 8, 20, true)]
    [InlineData("fixtures/models/llama-gqa/model", null, null, 4, 16, true)]
    public void Prediction_IsWhatASessionAllocates(string folder, string? cka, string? topHalf, int batch, int length, bool doraAndBiases)
    {
        string[] variant = doraAndBiases ? ["--dora", "--bias", "lora_only", "--dropout", "0.1"] : [];
        var path = Shared.Path(folder.Split('/'));
        using var device = new CpuDevice(2);
        using var pretrained = PretrainedModel.Open(path, device);
        var layers = pretrained.Model.Layers;
        string[] masks = [cka ?? "01".PadRight(layers, '0'), topHalf ?? "1".PadLeft(layers, '0')];
        var run = CliRun.Of(["memory", "--model", path, "--batch-size", $"{batch}", "--max-length", $"{length}", "--threads", "2", "--json", .. variant, .. masks.SelectMany(m => (string[])["--mask", m])]).AssertDone();
        using var document = JsonDocument.Parse(run.Output);
        var columns = document.RootElement.GetProperty("columns");
        Assert.Equal([new string('1', layers), .. masks], columns.EnumerateArray().Select(c => c.GetProperty("mask").GetString()));
        foreach (var column in columns.EnumerateArray())
            AssertAllocated(path, column, batch, length, doraAndBiases);
        Assert.True(Bytes(columns[2], "activations_saved") < Bytes(columns[0], "activations_saved"));
    }

    [SharedTheory]
    [InlineData("fixtures/models/bert-cls/model", 8, 20, "--recompute", "all")]
    [InlineData("fixtures/models/llama-gqa/model", 4, 16, "--recompute", "0", "--optimizer", "adamw8bit")]
    [InlineData("models/minilm-l6", 8, 40, "--recompute", "1,3-4", "--optimizer", "adamw8bit")]
    [InlineData("models/minilm-l6", 8, 40, "--memory-budget", "64MiB")]
    public void SavingMemory_IsWhatASessionAllocates(string folder, int batch, int length, params string[] how)
    {
        var path = Shared.Path(folder.Split('/'));
        var run = CliRun.Of(["memory", "--model", path, "--batch-size", $"{batch}", "--max-length", $"{length}", "--threads", "2", "--json", .. how]).AssertDone();
        using var document = JsonDocument.Parse(run.Output);
        foreach (var column in document.RootElement.GetProperty("columns").EnumerateArray())
        {
            var recompute = column.GetProperty("recompute");
            int[] layers = [.. recompute.GetProperty("layers").EnumerateArray().Select(l => l.GetInt32())];
            AssertAllocated(path, column, batch, length, false, layers, OptimizerKinds.Parse(document.RootElement.GetProperty("optimizer").GetString()!));
            Assert.Equal(Bytes(column, "total"), recompute.GetProperty("bytes").GetInt64());
            Assert.True(recompute.GetProperty("bytes_without").GetInt64() >= Bytes(column, "total"));
            if (how[0] == "--memory-budget")
                Assert.InRange(Bytes(column, "total"), 1, 64 << 20);
        }
    }

    [SharedFact]
    public void ABudgetTakesTheFewestLayersThatFit()
    {
        var path = Shared.Path("models", "minilm-l6");
        (int Layers, long Bytes, long Operations) Plan(params string[] how)
        {
            var run = CliRun.Of(["memory", "--model", path, "--mask", "111111", "--threads", "2", "--json", .. how]).AssertDone();
            using var document = JsonDocument.Parse(run.Output);
            var column = document.RootElement.GetProperty("columns")[0];
            return (column.TryGetProperty("recompute", out var r) ? r.GetProperty("layers").GetArrayLength() : 0, Bytes(column, "total"), column.GetProperty("flops_per_step").GetInt64());
        }
        var (_, whole, operations) = Plan();
        var all = Plan("--recompute", "all");
        Assert.True(all.Bytes < 0.6 * whole);
        Assert.InRange(all.Operations / (double)operations, 1.1, 1.5);
        foreach (var share in new[] { 0.9, 0.75, 0.6 })
        {
            var budget = (long)(share * whole);
            var chosen = Plan("--memory-budget", $"{budget}");
            Assert.InRange(chosen.Layers, 1, 5);
            Assert.InRange(chosen.Bytes, 1, budget);
            // One layer less, of the same kind, is too much.
            Assert.True(chosen.Layers == 1 || Plan("--recompute", chosen.Layers == 2 ? "0" : $"0-{chosen.Layers - 2}").Bytes > budget);
        }
        Assert.Equal((0, whole, operations), Plan("--memory-budget", $"{whole}"));
    }

    [SharedTheory]
    [InlineData("fp32")]
    [InlineData("bf16")]
    public void Packed_weights_are_counted_to_the_byte_and_change_no_bit(string precision)
    {
        var path = Shared.Path("models", "minilm-l6");
        var run = CliRun.Of("memory", "--model", path, "--precision", precision, "--batch-size", "4", "--max-length", "16", "--pack-weights", "--json").AssertDone();
        using var document = JsonDocument.Parse(run.Output);
        var column = document.RootElement.GetProperty("columns")[0];
        using var device = new CpuDevice(2);
        using var pretrained = PretrainedModel.Open(path, device, new PretrainedOptions { Precision = precision == "bf16" ? ElementType.BF16 : ElementType.F32 });
        var config = new LoraConfig { Rank = 8, Alpha = 16, TaskType = "SEQ_CLS" };
        var all = TargetResolver.ForLayers(config, pretrained.Modules(ModelHead.SequenceClassification), [.. Enumerable.Range(0, pretrained.Model.Layers)]);
        var losses = new List<float>();
        foreach (var packed in new[] { false, true })
        {
            using var model = TrainableModel.WithAdapters(pretrained, ModelHead.SequenceClassification, all);
            var before = device.AllocatedBytes;
            using var training = new TrainingSession(model, BatchSize.Of(4, 16), 16, new AdamWOptions(), baseDropout: false, packWeights: packed);
            var session = training.Session;
            if (packed)
            {
                Assert.True(session.PackedBytes > 0);
                Assert.Equal(session.PackedBytes, Bytes(column, "weights_packed"));
                Assert.Equal(device.AllocatedBytes - before, session.PackedBytes + session.Bytes);
            }
            var batch = new PackedBatch(64, 4);
            List<EncodedExample> examples = [.. Enumerable.Range(0, 4).Select(s => EncodedExample.Text(new TokenizedText([.. Enumerable.Range(1000 + s, 13)], new int[13]), label: s % 2))];
            new BatchPacker().Fill(batch, examples, [0, 1, 2, 3]);
            losses.Add(training.Accumulate(batch, 0.25f, first: true));
            losses.Add((float)training.Update(0.1, 1));
            losses.Add(training.Accumulate(batch, 0.25f, first: true));
        }
        Assert.Equal(losses[..3], losses[3..]);
    }

    [SharedTheory]
    [InlineData("would fit", "--memory-budget", "130MiB", "--batch-size", "64")]
    [InlineData("no batch size fits", "--memory-budget", "20MiB")]
    [InlineData("give an amount of memory such as 4GiB", "--memory-budget", "much")]
    [InlineData("give an amount of memory such as 4GiB", "--memory-budget", "0")]
    [InlineData("give an amount of memory such as 4GiB", "--memory-budget", "99999999TiB")]
    [InlineData("give one of them", "--memory-budget", "1GiB", "--recompute", "all")]
    [InlineData("out of range", "--recompute", "6")]
    [InlineData("there are adamw and adamw8bit", "--optimizer", "sgd")]
    public void WhatCannotBeIsOneLine(string words, params string[] how) =>
        CliRun.Of(["memory", "--model", Shared.Path("models", "minilm-l6"), .. how]).AssertRefused(words);

    private static void AssertAllocated(
        string path, JsonElement column, int batch, int length, bool doraAndBiases, int[]? recompute = null, OptimizerKind optimizer = OptimizerKind.AdamW)
    {
        using var device = new CpuDevice(2);
        using var pretrained = PretrainedModel.Open(path, device);
        var encoder = pretrained.Model.IsEncoder;
        var head = encoder ? ModelHead.SequenceClassification : ModelHead.LanguageModel;
        var config = new LoraConfig { Rank = 8, Alpha = 16, TaskType = encoder ? "SEQ_CLS" : "CAUSAL_LM" };
        if (doraAndBiases)
            config = config with { UseDora = true, Bias = LoraBias.LoraOnly, Dropout = 0.1 };
        var chosen = LayerSelection.ParseLayers(column.GetProperty("mask").GetString()!, pretrained.Model.Layers);
        var forLayers = TargetResolver.ForLayers(config, pretrained.Modules(head), [.. chosen]);
        var before = device.AllocatedBytes;
        using var model = TrainableModel.WithAdapters(pretrained, head, forLayers, optimizer: optimizer);
        Assert.Equal(device.AllocatedBytes - before, Bytes(column, "trainable") + Bytes(column, "gradients") + Bytes(column, "optimizer"));
        Assert.Equal(model.Parameters.Elements, column.GetProperty("trainable_parameters").GetInt64());

        using var training = new TrainingSession(model, BatchSize.Of(batch, length), length, new AdamWOptions(), baseDropout: true, recompute);
        var plan = training.Session.Plan;
        Assert.Equal(plan.ArenaBytes, Bytes(column, "activations"));
        Assert.Equal(training.Session.ArenaBytes, Bytes(column, "activations"));
        Assert.Equal(plan.Saved.Sum(s => s.Bytes(plan.Capacity)), Bytes(column, "activations_saved"));
        Assert.Equal(device.ScratchBytes, Bytes(column, "kernels"));
        Assert.Equal(plan.Report(device.ScratchBytes, optimizer).Total, Bytes(column, "total"));
        Assert.Equal(chosen.Min(), column.GetProperty("lowest_adapted_layer").GetInt32());
    }

    [SharedFact]
    public void Prediction_NeedsTheConfigAlone()
    {
        using var model = new SmallModel();
        var args = (string path) => CliRun.Of("memory", "--model", path, "--max-length", "16", "--layers", "--json").AssertDone().Output;
        var withWeights = JsonDocument.Parse(args(model.Path)).RootElement.GetProperty("columns").GetRawText();
        File.Delete(Path.Combine(model.Path, "model.safetensors"));
        var without = JsonDocument.Parse(args(model.Path)).RootElement.GetProperty("columns").GetRawText();
        Assert.Equal(withWeights, without);
    }

    private static long Bytes(JsonElement column, string category) => column.GetProperty("memory_bytes").GetProperty(category).GetInt64();
}
