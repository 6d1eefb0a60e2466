using NativeLora.Checkpoints;
using NativeLora.Graphs;

namespace NativeLora.Models;

/// <summary>Llama (Touvron et al. 2023): pre-norm, rotary positions, grouped-query attention, SiLU-gated MLP.</summary>
public sealed class Llama : DecoderLayers
{
    private readonly bool _attentionBias;
    private readonly bool _mlpBias;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public Llama(HfConfig config) : base(config, "Llama")
    {
        _attentionBias = config.GetBool("attention_bias", false);
        _mlpBias = config.GetBool("mlp_bias", false);
    }

    private protected override Tensor Layer(Graph g, Tensor x, in Place at)
    {
        var h = Norm(g, $"{at.Name}.input_layernorm", x);
        var mixed = Attend(g, at, Project(g, $"{at.Name}.self_attn", h, _attentionBias));
        x = g.Linear($"{at.Name}.self_attn.o_proj", mixed, HiddenSize, _attentionBias, addend: x);
        h = Norm(g, $"{at.Name}.post_attention_layernorm", x);
        return GatedMlp(g, $"{at.Name}.mlp", h, addend: x, _mlpBias);
    }
}
