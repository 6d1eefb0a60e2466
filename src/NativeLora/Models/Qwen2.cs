using NativeLora.Checkpoints;
using NativeLora.Graphs;

namespace NativeLora.Models;

/// <summary>Qwen2 (Yang et al. 2024): Llama with biases on q, k and v, and, if the config says so, a window in the upper layers.</summary>
public sealed class Qwen2 : DecoderLayers
{
    private readonly int _window;
    private readonly bool[] _sliding;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public Qwen2(HfConfig config) : base(config, "Qwen2")
    {
        _window = config.GetBool("use_sliding_window", false) ? WindowOf(config, 4096) : 0;
        var full = config.GetInt("max_window_layers", 28);
        _sliding = Sliding(layer => layer >= full);
    }

    private protected override int Window(int layer) => _sliding[layer] ? _window : 0;

    private protected override Tensor Layer(Graph g, Tensor x, in Place at)
    {
        var h = Norm(g, $"{at.Name}.input_layernorm", x);
        var mixed = Attend(g, at, Project(g, $"{at.Name}.self_attn", h, bias: true));
        x = g.Linear($"{at.Name}.self_attn.o_proj", mixed, HiddenSize, bias: false, addend: x);
        h = Norm(g, $"{at.Name}.post_attention_layernorm", x);
        return GatedMlp(g, $"{at.Name}.mlp", h, addend: x);
    }
}
