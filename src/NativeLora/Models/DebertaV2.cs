using NativeLora.Checkpoints;
using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Models;

/// <summary>
/// DeBERTa-v2 and -v3 (He et al. 2021): post-norm layers whose attention scores have parts for content and for relative positions.
/// The projections of queries and keys also run on the relative embeddings where they are shared, adapters and all.
/// </summary>
public sealed class DebertaV2 : Model
{
    private const int Unlimited = 1 << 20;
    private readonly float _epsilon, _hiddenDropout, _attentionDropout;
    private readonly FreshWeight _fresh;
    private readonly ActivationKind _activation, _poolerActivation;
    private readonly int _embeddingSize, _tablePositions, _buckets, _maxRelative;
    private readonly bool _absolute, _relative, _shared, _normalised, _contentToPosition, _positionToContent;

    internal DebertaV2(HfConfig config) : base(config)
    {
        _tablePositions = config.GetPositiveInt("max_position_embeddings", 512);
        TypeVocabulary = config.GetInt("type_vocab_size", 0);
        _embeddingSize = config.GetPositiveInt("embedding_size", HiddenSize, 1 << 24);
        _epsilon = config.GetFloat("layer_norm_eps", 1e-7f);
        _hiddenDropout = config.GetFloat("hidden_dropout_prob", 0.1f);
        _attentionDropout = config.GetFloat("attention_probs_dropout_prob", 0.1f);
        _fresh = FreshWeight.Normal(config.GetFloat("initializer_range", 0.02f));
        _activation = Activations.Of(Config, "hidden_act", "gelu");
        _poolerActivation = Activations.Of(Config, "pooler_hidden_act", "gelu");
        _absolute = config.GetBool("position_biased_input", true);

        _relative = config.GetBool("relative_attention", false);
        _shared = config.GetBool("share_att_key", false);
        _buckets = Math.Max(0, config.GetInt("position_buckets", -1));
        var most = config.GetInt("max_relative_positions", -1);
        _maxRelative = most < 1 ? _tablePositions : most;
        var parts = Words("pos_att_type");
        (_contentToPosition, _positionToContent) = (parts.Contains("c2p"), parts.Contains("p2c"));
        _normalised = Words("norm_rel_ebd").Contains("layer_norm");

        if (TypeVocabulary < 0)
            throw config.Wrong("type_vocab_size", "an integer from 0");
        if (config.GetInt("conv_kernel_size", 0) > 0)
            throw config.Fail("conv_kernel_size", "asks for a convolution after the first layer, which is not supported");
        if (config.GetInt("pooler_hidden_size", HiddenSize) != HiddenSize)
            throw config.Fail("pooler_hidden_size", $"is not hidden_size, which is {HiddenSize}");
        if (config.GetInt("attention_head_size", HiddenSize / Heads) * (long)Heads != HiddenSize)
            throw config.Fail("attention_head_size", $"times {Heads} heads is not hidden_size, which is {HiddenSize}");
        if (_relative && _maxRelative > Unlimited)
            throw config.Fail("max_relative_positions", $"is {_maxRelative}, supported are up to {Unlimited}");
        if (_relative && _buckets > 0 && (_buckets > Unlimited || !RelativePositions.IsDefined(_buckets, _maxRelative)))
            throw config.Fail("position_buckets", $"is {_buckets}, which has no logarithmic scale up to {_maxRelative} (max_relative_positions)");
    }

    /// <summary>Only absolute positions end: relative ones share the last row from some distance on.</summary>
    public override int MaxPositions => _absolute ? _tablePositions : Unlimited;

    /// <inheritdoc/>
    public override int TypeVocabulary { get; }

    /// <inheritdoc/>
    public override bool IsEncoder => true;

    /// <inheritdoc/>
    public override string BackbonePrefix => "deberta.";

    /// <summary>Labels of the classifier; 1 is regression.</summary>
    public int Labels => Config.NumLabels;

    /// <inheritdoc/>
    public override string Architecture(ModelHead head) => head switch
    {
        ModelHead.None => "DebertaV2Model",
        ModelHead.SequenceClassification => "DebertaV2ForSequenceClassification",
        _ => throw NoHead(head),
    };

    private protected override Tensor? Append(Graph g, BuildOptions options, Action<Tensor> state)
    {
        var (dropout, attentionDropout) = options.BaseDropout ? (_hiddenDropout, _attentionDropout) : (0, 0);
        var x = Embeddings(g, dropout);
        state(x);
        var relative = _relative && (_contentToPosition || _positionToContent) ? RelativeEmbeddings(g) : null;
        var positions = relative is null ? null : new RelativePositions(options.MaxLength, _buckets, _maxRelative);
        for (var l = 0; l < Layers; l++)
        {
            g.Layer = l;
            var at = $"deberta.encoder.layer.{l}";
            var mixed = Attention(g, $"{at}.attention.self", x, relative, positions, dropout, attentionDropout);
            x = g.LayerNorm($"{at}.attention.output.LayerNorm", g.LinearResidual($"{at}.attention.output.dense", mixed, x, dropout), _epsilon);
            var inner = g.Activate(_activation, g.Linear($"{at}.intermediate.dense", x, IntermediateSize));
            x = g.LayerNorm($"{at}.output.LayerNorm", g.LinearResidual($"{at}.output.dense", inner, x, dropout), _epsilon);
            state(x);
        }
        g.Layer = Layers;
        if (options.Head == ModelHead.None)
            return null;
        if (options.Head != ModelHead.SequenceClassification)
            throw NoHead(options.Head);

        var first = g.Gather("deberta.cls", x);
        var pooled = g.Dropout(first, options.BaseDropout ? Config.GetFloat("pooler_dropout", 0) : 0);
        pooled = g.Activate(_poolerActivation, g.Linear("pooler.dense", pooled, HiddenSize, fresh: _fresh));
        pooled = g.Dropout(pooled, options.BaseDropout ? Config.GetFloat("cls_dropout", _hiddenDropout) : 0);
        return Classes(g, g.Linear("classifier", pooled, Labels, fresh: _fresh), options.Loss);
    }

    private Tensor Embeddings(Graph g, float dropout)
    {
        const string At = "deberta.embeddings";
        List<(string, Tensor, int)> tables = [($"{At}.word_embeddings", g.TokenIds, VocabularySize)];
        if (_absolute)
            tables.Add(($"{At}.position_embeddings", g.Positions, _tablePositions));
        if (TypeVocabulary > 0)
            tables.Add(($"{At}.token_type_embeddings", g.TypeIds, TypeVocabulary));
        var x = g.Embedding(_embeddingSize, 1, [.. tables]);
        if (_embeddingSize != HiddenSize)
            x = g.Linear($"{At}.embed_proj", x, HiddenSize, bias: false);
        return g.Dropout(g.LayerNorm($"{At}.LayerNorm", x, _epsilon), dropout);
    }

    private Tensor RelativeEmbeddings(Graph g)
    {
        var rows = g.Table("deberta.encoder.rel_embeddings", 2 * (_buckets > 0 ? _buckets : _maxRelative), HiddenSize);
        return _normalised ? g.LayerNorm("deberta.encoder.LayerNorm", rows, _epsilon) : rows;
    }

    private Tensor Attention(Graph g, string at, Tensor x, Tensor? relative, RelativePositions? positions, float dropout, float attentionDropout)
    {
        var q = g.Linear($"{at}.query_proj", x, HiddenSize);
        var k = g.Linear($"{at}.key_proj", x, HiddenSize);
        var v = g.Linear($"{at}.value_proj", x, HiddenSize);
        // The parts count for the scale even where there is no relative attention.
        var parts = 1 + (_contentToPosition ? 1 : 0) + (_positionToContent ? 1 : 0);
        var scale = 1 / MathF.Sqrt(HiddenSize / Heads * parts);
        if (relative is null)
            return g.Attention(at, q, k, v, Heads, HiddenSize / Heads, new AttentionMask(false, 0), attentionDropout, scale);
        relative = g.Dropout(relative, dropout);
        var keys = _contentToPosition ? g.Linear($"{at}.{(_shared ? "key_proj" : "pos_key_proj")}", relative, HiddenSize) : null;
        var queries = _positionToContent ? g.Linear($"{at}.{(_shared ? "query_proj" : "pos_query_proj")}", relative, HiddenSize) : null;
        return g.DisentangledAttention(at, q, k, v, keys, queries, positions!, Heads, scale, attentionDropout);
    }

    /// <summary>A list, or a string with bars between its words.</summary>
    private IReadOnlyList<string> Words(string key)
    {
        var words = Config.IsString(key) ? Config.GetString(key).Split('|') : Config.GetStrings(key) ?? [];
        return [.. words.Select(w => w.Trim().ToLowerInvariant())];
    }
}
