using NativeLora.Checkpoints;
using NativeLora.Graphs;

namespace NativeLora.Models;

/// <summary>Phi-3 (Abdin et al. 2024): Llama with q, k and v in one projection and gate and up in another, and dropout on the residuals.</summary>
public sealed class Phi3 : DecoderLayers
{
    private readonly int _window;
    private readonly float _residualDropout;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public Phi3(HfConfig config) : base(config, "Phi3")
    {
        _window = config.Has("sliding_window") ? WindowOf(config, 0) : 0;
        _residualDropout = config.GetFloat("resid_pdrop", 0);
    }

    private protected override int Window(int layer) => _window;

    private protected override (Tensor Cos, Tensor Sin) Rotation(Graph g, int layer, int positions) =>
        g.RotaryTable("rotary", RotaryFrequencies.Of(Config.Rope(), HeadDim, Config, partial: true), positions);

    private protected override Tensor Layer(Graph g, Tensor x, in Place at)
    {
        var (attention, mlp) = ($"{at.Name}.self_attn", $"{at.Name}.mlp");
        var (queries, keys) = (Heads * HeadDim, KvHeads * HeadDim);
        var h = Norm(g, $"{at.Name}.input_layernorm", x);
        var fused = g.Linear($"{attention}.qkv_proj", h, queries + 2 * keys, bias: false);
        var heads = g.Split(fused, ($"{attention}.q", queries), ($"{attention}.k", keys), ($"{attention}.v", keys));
        var mixed = Attend(g, at, (heads[0], heads[1], heads[2]));
        x = Residual(g, $"{attention}.o_proj", mixed, x, at.BaseDropout);
        h = Norm(g, $"{at.Name}.post_attention_layernorm", x);
        fused = g.Linear($"{mlp}.gate_up_proj", h, 2 * IntermediateSize, bias: false);
        var halves = g.Split(fused, ($"{mlp}.gate", IntermediateSize), ($"{mlp}.up", IntermediateSize));
        return Residual(g, $"{mlp}.down_proj", Gated(g, halves[0], halves[1]), x, at.BaseDropout);
    }

    /// <summary>residual + dropout(linear(x)); without dropout the sum is part of the product.</summary>
    private Tensor Residual(Graph g, string name, Tensor x, Tensor residual, bool dropout) =>
        g.Training && dropout && _residualDropout > 0
            ? g.Add(residual, g.Dropout(g.Linear(name, x, HiddenSize, bias: false), _residualDropout))
            : g.Linear(name, x, HiddenSize, bias: false, addend: residual);
}
