using NativeLora.Checkpoints;
using NativeLora.Graphs;

namespace NativeLora.Models;

/// <summary>
/// Gemma 2 (Gemma Team 2024): Gemma with a norm after attention and MLP too, bounded scores and logits, and a window in every other layer.
/// </summary>
public sealed class Gemma2 : DecoderLayers
{
    private readonly bool _attentionBias;
    private readonly int _window;
    private readonly bool[] _sliding;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public Gemma2(HfConfig config) : base(config, "Gemma2", "gelu_pytorch_tanh", tied: true, headDim: 256)
    {
        _attentionBias = config.GetBool("attention_bias", false);
        _window = WindowOf(config, 4096);
        _sliding = Sliding(layer => layer % 2 == 0);
        AttentionScale = GemmaParts.AttentionScale(config);
        AttentionSoftcap = GemmaParts.Softcap(config, "attn_logit_softcapping", 50);
        LogitSoftcap = GemmaParts.Softcap(config, "final_logit_softcapping", 30);
    }

    private protected override bool NormAddsOne => true;

    private protected override double EmbeddingScale => Math.Sqrt(HiddenSize);

    private protected override float AttentionScale { get; }

    private protected override float AttentionSoftcap { get; }

    private protected override float LogitSoftcap { get; }

    private protected override int Window(int layer) => _sliding[layer] ? _window : 0;

    private protected override Tensor Layer(Graph g, Tensor x, in Place at)
    {
        var h = Norm(g, $"{at.Name}.input_layernorm", x);
        var mixed = Attend(g, at, Project(g, $"{at.Name}.self_attn", h, _attentionBias));
        h = g.Linear($"{at.Name}.self_attn.o_proj", mixed, HiddenSize, _attentionBias);
        x = g.Add(x, Norm(g, $"{at.Name}.post_attention_layernorm", h));
        h = Norm(g, $"{at.Name}.pre_feedforward_layernorm", x);
        h = GatedMlp(g, $"{at.Name}.mlp", h, addend: null);
        return g.Add(x, Norm(g, $"{at.Name}.post_feedforward_layernorm", h));
    }
}

/// <summary>Settings that Gemma 2 and 3 share.</summary>
internal static class GemmaParts
{
    /// <summary>1 / √query_pre_attn_scalar.</summary>
    public static float AttentionScale(HfConfig config)
    {
        var scalar = config.GetDouble("query_pre_attn_scalar", 256);
        return scalar > 0 ? (float)(1 / Math.Sqrt(scalar)) : throw config.Wrong("query_pre_attn_scalar", "a number over 0");
    }

    /// <summary>A bound; null means none.</summary>
    public static float Softcap(HfConfig config, string key, float absent)
    {
        var cap = config.IsNull(key) ? 0 : config.GetFloat(key, absent);
        return cap > 0 || !config.Has(key) ? cap : throw config.Wrong(key, "a number over 0, or null");
    }
}
