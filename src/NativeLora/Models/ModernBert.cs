using NativeLora.Checkpoints;
using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Models;

/// <summary>
/// ModernBERT (Warner et al. 2024): pre-norm, rotary positions, GELU-gated MLP; most layers see a window of neighbours only, every third
/// (say) sees all. The two kinds have rotary bases of their own.
/// </summary>
public sealed class ModernBert : Model
{
    private readonly float _epsilon;
    private readonly bool _normBias;
    private readonly bool _attentionBias;
    private readonly bool _mlpBias;
    private readonly bool _classifierBias;
    private readonly ActivationKind _activation;
    private readonly ActivationKind _classifierActivation;
    private readonly bool _meanPooling;
    private readonly int _window;
    private readonly bool[] _local;
    private readonly float _initializerRange;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public ModernBert(HfConfig config) : base(config)
    {
        MaxPositions = config.GetPositiveInt("max_position_embeddings", 8192);
        _epsilon = config.GetFloat("norm_eps", 1e-5f);
        _normBias = config.GetBool("norm_bias", false);
        _attentionBias = config.GetBool("attention_bias", false);
        _mlpBias = config.GetBool("mlp_bias", false);
        _classifierBias = config.GetBool("classifier_bias", false);
        _activation = Activations.Of(config, "hidden_activation", "gelu");
        _classifierActivation = Activations.Of(config, "classifier_activation", "gelu");
        _initializerRange = config.GetFloat("initializer_range", 0.02f);
        _window = config.GetPositiveInt("local_attention", 128);
        var every = config.GetPositiveInt("global_attn_every_n_layers", 3);
        _local = Sliding(l => l % every != 0);
        _meanPooling = config.GetString("classifier_pooling", "cls") switch
        {
            "cls" => false,
            "mean" => true,
            var other => throw config.Fail("classifier_pooling", $"is \"{other}\", supported are cls, mean"),
        };
        if (HiddenSize / Heads % 2 != 0)
            throw config.Fail("hidden_size", $"gives heads of {HiddenSize / Heads}; rotary embedding needs an even width");
    }

    /// <inheritdoc/>
    public override int MaxPositions { get; }

    /// <inheritdoc/>
    public override bool IsEncoder => true;

    /// <inheritdoc/>
    public override string BackbonePrefix => "model.";

    /// <inheritdoc/>
    public override string Architecture(ModelHead head) => head switch
    {
        ModelHead.None => "ModernBertModel",
        ModelHead.SequenceClassification => "ModernBertForSequenceClassification",
        _ => throw NoHead(head),
    };

    private protected override Tensor? Append(Graph g, BuildOptions options, Action<Tensor> state)
    {
        float Dropout(string key) => options.BaseDropout ? Config.GetFloat(key, 0) : 0;
        (Tensor, Tensor) Rope(string kind, double theta) =>
            g.RotaryTable(kind, RotaryFrequencies.Of(Config.Rope(kind, theta), HiddenSize / Heads, Config), options.MaxLength);
        var (everywhere, nearby) = (Rope("full_attention", 160000), Rope("sliding_attention", 10000));
        var (attention, mlp) = (Dropout("attention_dropout"), Dropout("mlp_dropout"));

        var x = g.Embedding(HiddenSize, 1, ("model.embeddings.tok_embeddings", g.TokenIds, VocabularySize));
        x = g.Dropout(g.LayerNorm("model.embeddings.norm", x, _epsilon, _normBias), Dropout("embedding_dropout"));
        for (var l = 0; l < Layers; l++)
        {
            state(x);
            g.Layer = l;
            var at = $"model.layers.{l}";
            // The embeddings are normed already.
            var h = l == 0 ? x : g.LayerNorm($"{at}.attn_norm", x, _epsilon, _normBias);
            x = Attention(g, $"{at}.attn", h, x, _local[l] ? nearby : everywhere, _local[l] ? _window : 0, attention);
            h = g.LayerNorm($"{at}.mlp_norm", x, _epsilon, _normBias);
            var halves = g.Split(g.Linear($"{at}.mlp.Wi", h, 2 * IntermediateSize, _mlpBias), ($"{at}.mlp.gate", IntermediateSize), ($"{at}.mlp.up", IntermediateSize));
            h = g.Dropout(g.Gated(_activation, halves[0], halves[1]), mlp);
            x = g.Linear($"{at}.mlp.Wo", h, HiddenSize, _mlpBias, addend: x);
        }
        g.Layer = Layers;
        x = g.LayerNorm("model.final_norm", x, _epsilon, _normBias);
        state(x);
        if (options.Head == ModelHead.None)
            return null;
        if (options.Head != ModelHead.SequenceClassification)
            throw NoHead(options.Head);
        return Classes(g, Classifier(g, x, Dropout("classifier_dropout")), options.Loss);
    }

    private Tensor Attention(Graph g, string at, Tensor h, Tensor residual, (Tensor Cos, Tensor Sin) rope, int window, float dropout)
    {
        var width = HiddenSize / Heads;
        var qkv = g.Linear($"{at}.Wqkv", h, 3 * HiddenSize, _attentionBias);
        var parts = g.Split(qkv, ($"{at}.q", HiddenSize), ($"{at}.k", HiddenSize), ($"{at}.v", HiddenSize));
        var (q, k) = (g.Rotary(parts[0], width, rope), g.Rotary(parts[1], width, rope));
        var mixed = g.Attention(at, q, k, parts[2], Heads, width, new AttentionMask(false, window), dropout);
        return g.LinearResidual($"{at}.Wo", mixed, residual, dropout, _attentionBias);
    }

    private Tensor Classifier(Graph g, Tensor x, float dropout)
    {
        var pooled = _meanPooling ? g.MeanPool("model.mean", x) : g.Gather("model.cls", x);
        var fresh = FreshWeight.Normal(_initializerRange / MathF.Sqrt(2 * Layers));
        pooled = g.Activate(_classifierActivation, g.Linear("head.dense", pooled, HiddenSize, _classifierBias, fresh));
        pooled = g.Dropout(g.LayerNorm("head.norm", pooled, _epsilon, _normBias, fresh: true), dropout);
        return g.Linear("classifier", pooled, Config.NumLabels, fresh: FreshWeight.Normal(1 / MathF.Sqrt(HiddenSize)));
    }
}
