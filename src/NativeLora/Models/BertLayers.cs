using NativeLora.Checkpoints;
using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Models;

/// <summary>What BERT and RoBERTa share: embeddings, post-norm layers, dropouts.</summary>
public abstract class BertLayers : Model
{
    private readonly float _epsilon;
    private readonly ActivationKind _activation;
    private readonly int _tablePositions;

    private protected BertLayers(HfConfig config) : base(config)
    {
        _epsilon = config.GetFloat("layer_norm_eps", 1e-12f);
        _tablePositions = config.GetPositiveInt("max_position_embeddings", 512);
        TypeVocabulary = config.GetPositiveInt("type_vocab_size", 2);
        HiddenDropout = config.GetFloat("hidden_dropout_prob", 0.1f);
        AttentionDropout = config.GetFloat("attention_probs_dropout_prob", 0.1f);
        InitializerRange = config.GetFloat("initializer_range", 0.02f);
        if (config.GetString("position_embedding_type", "absolute") is var kind and not "absolute")
            throw config.Fail("position_embedding_type", $"is \"{kind}\", supported is absolute");
        if (config.GetBool("is_decoder", false))
            throw config.Fail("is_decoder", "is true: only encoders are supported");
        _activation = Activations.Of(config, "hidden_act", "gelu");
    }

    /// <inheritdoc/>
    public override int MaxPositions => _tablePositions - PositionOffset;

    /// <inheritdoc/>
    public override int TypeVocabulary { get; }

    /// <inheritdoc/>
    public override bool IsEncoder => true;

    private protected float HiddenDropout { get; }

    private protected float AttentionDropout { get; }

    private protected float InitializerRange { get; }

    /// <summary>Labels of the classifier; 1 is regression.</summary>
    public int Labels => Config.NumLabels;

    private protected override Tensor? Append(Graph g, BuildOptions options, Action<Tensor> state)
    {
        var p = BackbonePrefix;
        var dropout = options.BaseDropout ? HiddenDropout : 0;
        var x = g.Embedding(HiddenSize, 1,
            ($"{p}embeddings.word_embeddings", g.TokenIds, VocabularySize),
            ($"{p}embeddings.token_type_embeddings", g.TypeIds, TypeVocabulary),
            ($"{p}embeddings.position_embeddings", g.Positions, _tablePositions));
        x = g.Dropout(g.LayerNorm($"{p}embeddings.LayerNorm", x, _epsilon), dropout);
        state(x);
        for (var l = 0; l < Layers; l++)
        {
            g.Layer = l;
            state(x = Layer(g, x, $"{p}encoder.layer.{l}", dropout, options.BaseDropout ? AttentionDropout : 0));
        }
        g.Layer = Layers;
        if (options.Head == ModelHead.None)
            return null;
        if (options.Head != ModelHead.SequenceClassification)
            throw NoHead(options.Head);
        return Classes(g, Head(g, g.Gather($"{p}cls", x), dropout, options.BaseDropout), options.Loss);
    }

    /// <summary>Logits from the first token's row [sequences, hidden].</summary>
    private protected abstract Tensor Head(Graph g, Tensor cls, float dropout, bool baseDropout);

    private protected float ClassifierDropout(float dropout, bool baseDropout) =>
        baseDropout ? Config.GetFloat("classifier_dropout", dropout) : 0;

    private Tensor Layer(Graph g, Tensor x, string at, float dropout, float attentionDropout)
    {
        var q = g.Linear($"{at}.attention.self.query", x, HiddenSize);
        var k = g.Linear($"{at}.attention.self.key", x, HiddenSize);
        var v = g.Linear($"{at}.attention.self.value", x, HiddenSize);
        var mixed = g.Attention($"{at}.attention.self", q, k, v, Heads, HiddenSize / Heads, new AttentionMask(false, 0), attentionDropout);
        x = g.LayerNorm($"{at}.attention.output.LayerNorm", g.LinearResidual($"{at}.attention.output.dense", mixed, x, dropout), _epsilon);
        var inner = g.Activate(_activation, g.Linear($"{at}.intermediate.dense", x, IntermediateSize));
        return g.LayerNorm($"{at}.output.LayerNorm", g.LinearResidual($"{at}.output.dense", inner, x, dropout), _epsilon);
    }
}
