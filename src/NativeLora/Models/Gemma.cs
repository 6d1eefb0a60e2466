using NativeLora.Checkpoints;
using NativeLora.Graphs;

namespace NativeLora.Models;

/// <summary>
/// Gemma (Gemma Team 2024): embeddings scaled by √hidden and tied to the LM head, norms that multiply by 1 + w, heads with a width of
/// their own, a GELU-gated MLP.
/// </summary>
/// <param name="config">The config.</param>
public sealed class Gemma(HfConfig config) : DecoderLayers(config, "Gemma", "gelu_pytorch_tanh", tied: true, headDim: 256)
{
    private readonly bool _attentionBias = config.GetBool("attention_bias", false);

    private protected override bool NormAddsOne => true;

    private protected override double EmbeddingScale => Math.Sqrt(HiddenSize);

    private protected override Tensor Layer(Graph g, Tensor x, in Place at)
    {
        var h = Norm(g, $"{at.Name}.input_layernorm", x);
        var mixed = Attend(g, at, Project(g, $"{at.Name}.self_attn", h, _attentionBias));
        x = g.Linear($"{at.Name}.self_attn.o_proj", mixed, HiddenSize, _attentionBias, addend: x);
        h = Norm(g, $"{at.Name}.post_attention_layernorm", x);
        return GatedMlp(g, $"{at.Name}.mlp", h, addend: x);
    }
}
