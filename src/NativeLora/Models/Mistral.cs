using NativeLora.Checkpoints;
using NativeLora.Graphs;

namespace NativeLora.Models;

/// <summary>Mistral (Jiang et al. 2023): Llama with a sliding window in every layer.</summary>
/// <param name="config">The config.</param>
public sealed class Mistral(HfConfig config) : DecoderLayers(config, "Mistral")
{
    private readonly int _window = WindowOf(config, 4096);

    private protected override int Window(int layer) => _window;

    private protected override Tensor Layer(Graph g, Tensor x, in Place at)
    {
        var h = Norm(g, $"{at.Name}.input_layernorm", x);
        var mixed = Attend(g, at, Project(g, $"{at.Name}.self_attn", h, bias: false));
        x = g.Linear($"{at.Name}.self_attn.o_proj", mixed, HiddenSize, bias: false, addend: x);
        h = Norm(g, $"{at.Name}.post_attention_layernorm", x);
        return GatedMlp(g, $"{at.Name}.mlp", h, addend: x);
    }
}
