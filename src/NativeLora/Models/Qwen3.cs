using NativeLora.Checkpoints;
using NativeLora.Graphs;

namespace NativeLora.Models;

/// <summary>Qwen3 (Yang et al. 2025): each head of q and k is normalised before it is rotated; heads have a width of their own.</summary>
public sealed class Qwen3 : DecoderLayers
{
    private readonly bool _attentionBias;
    private readonly int _window;
    private readonly bool[] _sliding;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public Qwen3(HfConfig config) : base(config, "Qwen3", headDim: 128)
    {
        _attentionBias = config.GetBool("attention_bias", false);
        _window = config.GetBool("use_sliding_window", false) ? WindowOf(config, 4096) : 0;
        var full = config.GetInt("max_window_layers", 28);
        _sliding = Sliding(layer => layer >= full);
    }

    private protected override int Window(int layer) => _sliding[layer] ? _window : 0;

    private protected override Tensor Layer(Graph g, Tensor x, in Place at)
    {
        var attention = $"{at.Name}.self_attn";
        var h = Norm(g, $"{at.Name}.input_layernorm", x);
        var (q, k, v) = Project(g, attention, h, _attentionBias);
        var mixed = Attend(g, at, (HeadNorm(g, $"{attention}.q_norm", q), HeadNorm(g, $"{attention}.k_norm", k), v));
        x = g.Linear($"{attention}.o_proj", mixed, HiddenSize, _attentionBias, addend: x);
        h = Norm(g, $"{at.Name}.post_attention_layernorm", x);
        return GatedMlp(g, $"{at.Name}.mlp", h, addend: x);
    }
}
