using System.Text.Json.Nodes;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Tests.Models;

/// <summary>What a decoder's config asks for ends up in the graph; what is unsupported is refused.</summary>
public class DecoderConfigTests
{
    private static Graph Build(string kind, Action<JsonObject>? edit = null, Func<string, ElementType>? types = null)
    {
        var graph = new Graph(Trainables.None, weightType: types);
        var model = ModelRegistry.Create(TinyModel.Config(kind, edit));
        model.Build(graph, new BuildOptions { Head = TinyModel.Head(model), MaxLength = 4 });
        return graph;
    }

    private static int[] Windows(string kind, Action<JsonObject>? edit = null) =>
        [.. Build(kind, edit).Nodes.Select(n => n.Op).OfType<AttentionOp>().Select(a => a.Mask.Window)];

    [Theory]
    [InlineData("llama-cls", "0 0 0 0")]
    [InlineData("mistral", "3 3 3 3")]
    [InlineData("phi3", "3 3 3 3")]
    [InlineData("gemma", "0 0 0 0")]
    [InlineData("gemma2", "3 0 3 0")]
    [InlineData("gemma3_text", "3 3 0 3")]
    [InlineData("qwen2", "0 0 3 3")]
    [InlineData("qwen3", "0 0 3 3")]
    public void WindowsByTheFamilysRule(string kind, string windows) => Assert.Equal(windows, string.Join(' ', Windows(kind)));

    [Theory]
    [InlineData("mistral", 4096)]
    [InlineData("phi3", 0)]
    [InlineData("qwen2", 4096)]
    public void AnAbsentWindowIsTheFamilysAndNullIsNone(string kind, int absent)
    {
        Assert.Equal(absent, Windows(kind, c => c.Remove("sliding_window"))[3]);
        Assert.Equal(0, Windows(kind, c => c["sliding_window"] = null)[3]);
    }

    [Fact]
    public void QwenHasNoWindowUnlessItSaysSo() => Assert.Equal([0, 0, 0, 0], Windows("qwen2", c => c["use_sliding_window"] = false));

    [Theory]
    [InlineData("gemma2")]
    [InlineData("gemma3_text")]
    [InlineData("qwen3")]
    public void LayerTypesCountBeforeTheRule(string kind)
    {
        Assert.Equal([0, 0, 3, 0], Windows(kind, c => c["layer_types"] = new JsonArray("full_attention", "full_attention", "sliding_attention", "full_attention")));
        Refused(kind, c => c["layer_types"] = new JsonArray("full_attention"), "layer_types");
        Refused(kind, c => c["layer_types"] = new JsonArray("full_attention", "chunked_attention", "full_attention", "full_attention"), "chunked_attention");
    }

    [Theory]
    [InlineData("gemma2", "attn_logit_softcapping", "-1")]
    [InlineData("gemma2", "final_logit_softcapping", "0")]
    [InlineData("gemma2", "query_pre_attn_scalar", "0")]
    [InlineData("gemma3_text", "use_bidirectional_attention", "true")]
    [InlineData("gemma", "hidden_act", "\"silu\"")]
    [InlineData("gemma", "hidden_activation", "\"relu\"")]
    [InlineData("mistral", "hidden_act", "\"gelu\"")]
    [InlineData("mistral", "sliding_window", "0")]
    [InlineData("qwen3", "head_dim", "7")]
    [InlineData("phi3", "partial_rotary_factor", "0.5")]
    [InlineData("qwen2", "partial_rotary_factor", "0.5")]
    [InlineData("phi3", "rope_scaling", "{\"type\":\"longrope\",\"factor\":1}")]
    public void UnsupportedValuesAreNamed(string kind, string key, string value) =>
        Refused(kind, c => c[key] = JsonNode.Parse(value), key == "rope_scaling" ? "longrope" : key == "partial_rotary_factor" && kind == "phi3" ? "3 columns" : key);

    private static void Refused(string kind, Action<JsonObject> edit, string named)
    {
        var error = Assert.Throws<InputException>(() => Build(kind, edit));
        Assert.Contains(named, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void BoundsOfGemma2()
    {
        static (float Scores, float Logits) Caps(Action<JsonObject>? edit)
        {
            var graph = Build("gemma2", edit);
            return (graph.Nodes.Select(n => n.Op).OfType<AttentionOp>().First().Softcap, graph.Nodes.Select(n => n.Op).OfType<SoftcapOp>().FirstOrDefault()?.Cap ?? 0);
        }
        Assert.Equal((1.5f, 2f), Caps(null));
        Assert.Equal((50f, 30f), Caps(c => _ = c.Remove("attn_logit_softcapping") && c.Remove("final_logit_softcapping")));
        Assert.Equal((0f, 0f), Caps(c => c["attn_logit_softcapping"] = c["final_logit_softcapping"] = null));
    }

    /// <summary>√3072 is 55.4256; the nearest bf16 is 55.5, the nearest fp16 55.4375.</summary>
    [Theory]
    [InlineData(ElementType.F32, 55.425625f)]
    [InlineData(ElementType.BF16, 55.5f)]
    [InlineData(ElementType.F16, 55.4375f)]
    public void GemmasEmbeddingScaleIsRoundedAsItsWeights(ElementType type, float scale)
    {
        var graph = Build("gemma", c => c["hidden_size"] = 3072, _ => type);
        Assert.Equal(scale, graph.Nodes.Select(n => n.Op).OfType<EmbeddingOp>().Single().Scale, 1e-5f);
    }

    [Fact]
    public void GemmasOldNameOfTheActivationIsTheApproximation()
    {
        foreach (var edit in new Action<JsonObject>[] { c => c["hidden_act"] = "gelu", c => c.Remove("hidden_act"), c => (c["hidden_act"], c["hidden_activation"]) = ("gelu", "gelu_pytorch_tanh") })
            Assert.Equal(ActivationKind.GeluTanh, Build("gemma", edit).Nodes.Select(n => n.Op).OfType<GatedOp>().First().Kind);
    }

    [Fact]
    public void Phi3TurnsTheFirstColumnsOfAHead()
    {
        var rotary = Build("phi3").Nodes.First(n => n.Op is RotaryOp);
        Assert.Equal((6, 2), (((RotaryOp)rotary.Op).HeadDim, rotary.Inputs[2]!.Shape.Columns));
    }

    [Theory]
    [InlineData(null, 4)]
    [InlineData(2, 3)]
    [InlineData(9, 4)]
    public void AClassifierReadsTheLastTokenThatIsNotPadding(int? pad, int index)
    {
        var model = ModelRegistry.Create(TinyModel.Config("llama-cls", c => c["pad_token_id"] = pad));
        Assert.Equal(index, model.ClassifiedToken([1, 2, 7, 8, 2]));
        Assert.Equal(0, ModelRegistry.Create(TinyModel.Config("bert")).ClassifiedToken([0, 0, 5]));
    }

    [Fact]
    public void AMissingScoreIsMadeAndOtherWeightsAreNot()
    {
        using var device = new CpuDevice(1);
        foreach (var name in TinyModel.Weights(ModelRegistry.Create(TinyModel.Config("llama-cls"))).Select(w => w.Name))
        {
            using var tiny = new TinyModel("llama-cls", change: t => t.Name == name ? null : t);
            using var pretrained = tiny.Open(device);
            var graph = pretrained.NewGraph(Trainables.None);
            pretrained.Model.Build(graph, new BuildOptions { Head = ModelHead.SequenceClassification, MaxLength = 4 });
            if (name == "score.weight")
                pretrained.Weights.Check(graph);
            else
                Assert.Contains($"\"{name}\"", Assert.Throws<InputException>(() => pretrained.Weights.Check(graph)).Message, StringComparison.Ordinal);
        }
    }
}
