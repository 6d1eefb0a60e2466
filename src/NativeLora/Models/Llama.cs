using NativeLora.Checkpoints;
using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Models;

/// <summary>Llama (Touvron et al. 2023): pre-norm, rotary positions, grouped-query attention, SiLU-gated MLP.</summary>
public sealed class Llama : Model
{
    private readonly int _kvHeads;
    private readonly int _headDim;
    private readonly float _epsilon;
    private readonly bool _attentionBias;
    private readonly bool _mlpBias;
    private readonly bool _tied;
    private readonly float _attentionDropout;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public Llama(HfConfig config) : base(config)
    {
        _kvHeads = config.GetPositiveInt("num_key_value_heads", Heads);
        _headDim = config.GetPositiveInt("head_dim", HiddenSize / Heads);
        _epsilon = config.GetFloat("rms_norm_eps", 1e-6f);
        _attentionBias = config.GetBool("attention_bias", false);
        _mlpBias = config.GetBool("mlp_bias", false);
        _tied = config.GetBool("tie_word_embeddings", false);
        _attentionDropout = config.GetFloat("attention_dropout", 0);
        MaxPositions = config.GetPositiveInt("max_position_embeddings", 2048);
        if (config.GetString("hidden_act", "silu") is var act and not "silu")
            throw config.Fail("hidden_act", $"is \"{act}\", supported is silu");
        if (_headDim % 2 != 0)
            throw config.Fail("head_dim", $"is {_headDim}; rotary embedding needs an even width");
    }

    /// <inheritdoc/>
    public override int MaxPositions { get; }

    /// <inheritdoc/>
    public override bool IsEncoder => false;

    /// <inheritdoc/>
    public override string BackbonePrefix => "model.";

    /// <inheritdoc/>
    public override string Architecture(ModelHead head) => head switch
    {
        ModelHead.None => "LlamaModel",
        ModelHead.LanguageModel => "LlamaForCausalLM",
        _ => throw NoHead(head),
    };

    private protected override Tensor? Append(Graph g, BuildOptions options, Action<Tensor> state)
    {
        var rope = g.RotaryTable("rotary", RotaryFrequencies.Of(Config.Rope(), _headDim, Config), options.MaxLength);
        var x = g.Embedding(HiddenSize, 1, ("model.embed_tokens", g.TokenIds, VocabularySize));
        for (var l = 0; l < Layers; l++)
        {
            state(x);
            g.Layer = l;
            x = Layer(g, x, $"model.layers.{l}", rope, options.BaseDropout ? _attentionDropout : 0);
        }
        g.Layer = Layers;
        x = g.RmsNorm("model.norm", x, _epsilon);
        state(x);
        if (options.Head == ModelHead.None)
            return null;
        if (options.Head != ModelHead.LanguageModel)
            throw NoHead(options.Head);
        var weight = _tied ? "model.embed_tokens.weight" : "lm_head.weight";
        if (options.Loss)
        {
            g.LmHeadLoss("lm_head", x, weight, VocabularySize);
            return null;
        }
        return g.Keep(g.LmHead("lm_head", x, weight, VocabularySize));
    }

    private Tensor Layer(Graph g, Tensor x, string at, (Tensor Cos, Tensor Sin) rope, float dropout)
    {
        var h = g.RmsNorm($"{at}.input_layernorm", x, _epsilon);
        var q = g.Rotary(g.Linear($"{at}.self_attn.q_proj", h, Heads * _headDim, _attentionBias), _headDim, rope);
        var k = g.Rotary(g.Linear($"{at}.self_attn.k_proj", h, _kvHeads * _headDim, _attentionBias), _headDim, rope);
        var v = g.Linear($"{at}.self_attn.v_proj", h, _kvHeads * _headDim, _attentionBias);
        var mixed = g.Attention($"{at}.self_attn", q, k, v, Heads, _headDim, new AttentionMask(true, 0), dropout);
        x = g.Linear($"{at}.self_attn.o_proj", mixed, HiddenSize, _attentionBias, addend: x);
        h = g.RmsNorm($"{at}.post_attention_layernorm", x, _epsilon);
        var inner = g.SiluMul(g.Linear($"{at}.mlp.gate_proj", h, IntermediateSize, _mlpBias), g.Linear($"{at}.mlp.up_proj", h, IntermediateSize, _mlpBias));
        return g.Linear($"{at}.mlp.down_proj", inner, HiddenSize, _mlpBias, addend: x);
    }
}
