using System.Text.Json.Nodes;
using NativeLora.Adapters;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Tests.Graphs;
using NativeLora.Training;

namespace NativeLora.Tests.Models;

/// <summary>Configs of DeBERTa other than the released ones, against plain loops and finite differences.</summary>
public class DebertaV2Tests
{
    private static readonly Dictionary<string, Action<JsonObject>> Configs = new()
    {
        ["v3"] = _ => { },
        ["a list of parts"] = j => j["pos_att_type"] = new JsonArray("c2p", "p2c"),
        ["c2p alone"] = j => j["pos_att_type"] = "c2p",
        ["p2c alone"] = j => j["pos_att_type"] = new JsonArray("p2c"),
        ["no parts"] = j => j.Remove("pos_att_type"),
        ["own projections"] = j => j["share_att_key"] = false,
        ["own projections by default, c2p alone"] = j => (_, j["pos_att_type"]) = (j.Remove("share_att_key"), "c2p"),
        ["own projections, p2c alone"] = j => (j["share_att_key"], j["pos_att_type"]) = (false, "p2c"),
        ["no buckets"] = j => (j["position_buckets"], j["max_relative_positions"]) = (-1, 5),
        ["buckets absent"] = j => j.Remove("position_buckets"),
        ["odd buckets"] = j => (j["position_buckets"], j["max_relative_positions"]) = (7, 9),
        ["no relative attention"] = j => j["relative_attention"] = false,
        ["relative attention absent"] = j => j.Remove("relative_attention"),
        ["absolute positions too"] = j => j["position_biased_input"] = true,
        ["absolute positions by default, with types"] = j => (_, j["type_vocab_size"]) = (j.Remove("position_biased_input"), 2),
        ["relative embeddings without norm"] = j => j["norm_rel_ebd"] = "none",
        ["norm of relative embeddings absent"] = j => j.Remove("norm_rel_ebd"),
        ["narrow embeddings"] = j => j["embedding_size"] = 6,
        ["odd head width"] = j => (j["hidden_size"], j["num_attention_heads"]) = (15, 3),
        ["one head"] = j => j["num_attention_heads"] = 1,
        ["large epsilon, other activations"] = j => (j["layer_norm_eps"], j["hidden_act"], j["pooler_hidden_act"]) = (0.05, "relu", "tanh"),
    };

    public static TheoryData<string> Names => [.. Configs.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void LogitsAreThoseOfPlainLoops(string name)
    {
        using var device = new CpuDevice(2);
        using var tiny = new TinyModel("deberta", seed: 5, Configs[name]);
        using var pretrained = tiny.Open(device);
        // The longest is past the last row of the relative embeddings on both sides.
        var batch = TinyModel.Batch(tiny.Model, 3, 7, 1, 30, 12);
        var graph = pretrained.NewGraph(Trainables.None);
        var outputs = pretrained.Model.Build(graph, new BuildOptions { Head = ModelHead.SequenceClassification, MaxLength = 30, KeepHiddenStates = true });
        using var session = new Session(device, MemoryPlan.For(graph, TinyModel.Capacity(batch)), pretrained.Weights, null);
        session.Load(batch);
        session.Run();
        var reference = new DebertaV2Reference(tiny.Model.Config, pretrained.Checkpoint);
        for (var s = 0; s < batch.SequenceCount; s++)
        {
            var (start, end) = (batch.CuSeqlens[s], batch.CuSeqlens[s + 1]);
            var (states, logits) = reference.Run(batch.TokenIds[start..end], batch.TypeIds[start..end]);
            for (var l = 0; l < states.Count; l++)
                Near(states[l].SelectMany(row => row), session.Read(outputs.HiddenStates[l]).AsSpan(start * tiny.Model.HiddenSize));
            Near(logits, session.Read(outputs.Logits!).AsSpan(s * logits.Length));
        }

        static void Near(IEnumerable<double> wanted, ReadOnlySpan<float> got)
        {
            var i = 0;
            foreach (var value in wanted)
                Assert.Equal(value, got[i++], 2e-5);
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void GradientsEqualFiniteDifferences(string name)
    {
        foreach (var full in new[] { true, false })
        {
            using var device = new CpuDevice(1);
            using var tiny = new TinyModel("deberta", seed: 2, Configs[name]);
            using var pretrained = tiny.Open(device);
            const ModelHead Head = ModelHead.SequenceClassification;
            using var model = full
                ? TrainableModel.InFull(pretrained, Head)
                : TrainableModel.WithAdapters(pretrained, Head, new LoraConfig { Rank = 2, TargetModules = ModuleSelector.AllLinear, InitLoraWeights = "false", TaskType = "SEQ_CLS" }, seed: 3);
            var batch = TinyModel.Batch(tiny.Model, 11, 5, 1, 14);
            batch.KeyVisible[3] = 0;
            batch.ClassLabels[1] = -100;
            var options = new BuildOptions { Head = Head, Loss = true, BaseDropout = false, MaxLength = 14 };
            var (backward, _) = model.Build(options, training: true, backward: true);
            var (forward, _) = model.Build(options, training: true);
            DirectionalDerivatives.Check(device, backward, forward, pretrained.Weights, model.Parameters, batch, new RunSettings(0.5f, false, 7, 5));
        }
    }

    [Theory]
    [InlineData("conv_kernel_size", 3, "conv_kernel_size")]
    [InlineData("pooler_hidden_size", 8, "pooler_hidden_size")]
    [InlineData("attention_head_size", 5, "attention_head_size")]
    [InlineData("position_buckets", 1, "position_buckets")]
    [InlineData("max_relative_positions", 3, "position_buckets")]
    [InlineData("max_relative_positions", 1 << 30, "max_relative_positions")]
    [InlineData("type_vocab_size", -1, "type_vocab_size")]
    [InlineData("hidden_act", "mish", "hidden_act")]
    [InlineData("pos_att_type", 3, "pos_att_type")]
    public void ConfigsThatAskForMoreAreRefused(string key, object value, string named)
    {
        var error = Assert.Throws<InputException>(() => ModelRegistry.Create(TinyModel.Config("deberta", j => j[key] = JsonValue.Create(value))));
        Assert.Contains(named, error.Message);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void AbsolutePositionsEndAndRelativeOnesDoNot()
    {
        Assert.Equal(32, ModelRegistry.Create(TinyModel.Config("deberta", j => j["position_biased_input"] = true)).MaxPositions);
        Assert.True(ModelRegistry.Create(TinyModel.Config("deberta")).MaxPositions > 100_000);
    }

    [Fact]
    public void ALongerSequenceThanThePlanIsRefused()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("deberta");
        using var pretrained = tiny.Open(device);
        var batch = TinyModel.Batch(tiny.Model, 1, 9);
        var graph = pretrained.NewGraph(Trainables.None);
        pretrained.Model.Build(graph, new BuildOptions { MaxLength = 8 });
        using var session = new Session(device, MemoryPlan.For(graph, TinyModel.Capacity(batch)), pretrained.Weights, null);
        Assert.Contains("position 8", Assert.Throws<InputException>(() => session.Load(batch)).Message);
    }

    [Fact]
    public void AFreshPoolerStaysFrozenAndIsNamed()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("deberta", change: t => t.Name.StartsWith("pooler", StringComparison.Ordinal) || t.Name.StartsWith("classifier", StringComparison.Ordinal) ? null : t);
        using var pretrained = tiny.Open(device);
        using var model = TrainableModel.WithAdapters(pretrained, ModelHead.SequenceClassification, new LoraConfig { Rank = 2, TaskType = "SEQ_CLS" }, seed: 3);
        Assert.Equal(["classifier.bias", "classifier.weight", "pooler.dense.bias", "pooler.dense.weight"], pretrained.Weights.FreshlyInitialised);
        Assert.Equal(["classifier.bias", "classifier.weight"], model.Parameters.Names.Where(n => !n.Contains("lora")).Order());
        // PEFT's own choice where no targets are given; each once, though the query projection runs twice.
        var adapted = model.Parameters.Names.Where(n => n.Contains("lora_A")).ToList();
        Assert.Equal(2 * tiny.Model.Layers, adapted.Count);
        Assert.All(adapted, n => Assert.True(n.Contains("query_proj") || n.Contains("value_proj")));
    }

    [Fact]
    public void RelativeProjectionsNeedGradientsOnlyWhereTheyAreTrained()
    {
        var model = ModelRegistry.Create(TinyModel.Config("deberta"));
        var graph = Plans.Training(model, Plans.Adapters(model, ["query_proj", "value_proj"], [1, 3]));
        var grads = graph.Nodes.Where(n => n.Op is NativeLora.Ops.DisentangledAttentionGradOp)
            .ToDictionary(n => n.Layer, n => (NativeLora.Ops.DisentangledAttentionGradOp)n.Op);
        Assert.Equal([3, 2, 1], grads.Keys);
        Assert.True(grads[3] is { Query: true, Key: true, Value: true, RelativeQuery: true, RelativeKey: false });
        Assert.True(grads[2] is { Query: true, Key: true, Value: true, RelativeQuery: false, RelativeKey: false });
        Assert.True(grads[1] is { Query: true, Key: false, Value: true, RelativeQuery: true, RelativeKey: false });
    }
}
