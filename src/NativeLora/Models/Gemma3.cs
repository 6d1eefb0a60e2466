using NativeLora.Checkpoints;
using NativeLora.Graphs;

namespace NativeLora.Models;

/// <summary>
/// Gemma 3 (Gemma Team 2025), its language model: Gemma 2 with normalised heads of q and k in place of bounded scores, five layers with
/// a window to one without, and angles for either kind.
/// </summary>
public sealed class Gemma3 : DecoderLayers
{
    private readonly bool _attentionBias;
    private readonly int _window;
    private readonly bool[] _sliding;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public Gemma3(HfConfig config) : base(config, "Gemma3", "gelu_pytorch_tanh", tied: true, headDim: 256)
    {
        if (config.GetBool("use_bidirectional_attention", false))
            throw config.Fail("use_bidirectional_attention", "is true: only causal attention is supported");
        _attentionBias = config.GetBool("attention_bias", false);
        _window = WindowOf(config, 4096);
        var pattern = config.GetPositiveInt("sliding_window_pattern", config.GetPositiveInt("_sliding_window_pattern", 6));
        _sliding = Sliding(layer => (layer + 1) % pattern != 0);
        AttentionScale = GemmaParts.AttentionScale(config);
        AttentionSoftcap = GemmaParts.Softcap(config, "attn_logit_softcapping", 0);
        LogitSoftcap = GemmaParts.Softcap(config, "final_logit_softcapping", 0);
    }

    /// <inheritdoc/>
    public override string Architecture(ModelHead head) => head switch
    {
        ModelHead.LanguageModel => "Gemma3ForCausalLM",
        ModelHead.SequenceClassification => "Gemma3TextForSequenceClassification",
        _ => "Gemma3TextModel",
    };

    private protected override bool NormAddsOne => true;

    private protected override double EmbeddingScale => Math.Sqrt(HiddenSize);

    private protected override float AttentionScale { get; }

    private protected override float AttentionSoftcap { get; }

    private protected override float LogitSoftcap { get; }

    private protected override int Window(int layer) => _sliding[layer] ? _window : 0;

    private protected override (Tensor Cos, Tensor Sin) Rotation(Graph g, int layer, int positions)
    {
        var rope = !_sliding[layer] ? Config.Rope("full_attention", 1_000_000)
            // Older files: rope_theta is that of the layers without a window.
            : Config.Has("rope_parameters") || Config.Has("rope_local_base_freq") ? Config.Rope("sliding_attention", 10_000)
            : new RopeParameters("default", 10_000, 1, 1, 1, 0, 1);
        return g.RotaryTable(_sliding[layer] ? "rotary.sliding" : "rotary.full", RotaryFrequencies.Of(rope, HeadDim, Config), positions);
    }

    private protected override Tensor Layer(Graph g, Tensor x, in Place at)
    {
        var attention = $"{at.Name}.self_attn";
        var h = Norm(g, $"{at.Name}.input_layernorm", x);
        var (q, k, v) = Project(g, attention, h, _attentionBias);
        var mixed = Attend(g, at, (HeadNorm(g, $"{attention}.q_norm", q), HeadNorm(g, $"{attention}.k_norm", k), v));
        h = g.Linear($"{attention}.o_proj", mixed, HiddenSize, _attentionBias);
        x = g.Add(x, Norm(g, $"{at.Name}.post_attention_layernorm", h));
        h = Norm(g, $"{at.Name}.pre_feedforward_layernorm", x);
        h = GatedMlp(g, $"{at.Name}.mlp", h, addend: null);
        return g.Add(x, Norm(g, $"{at.Name}.post_feedforward_layernorm", h));
    }
}
