using NativeLora.Checkpoints;
using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Models;

/// <summary>DistilBERT (Sanh et al. 2019): BERT's layers under other names, without segments and pooler.</summary>
public sealed class DistilBert : Model
{
    // Not in the config: the architecture fixes it.
    private const float Epsilon = 1e-12f;

    private readonly ActivationKind _activation;
    private readonly float _dropout;
    private readonly float _attentionDropout;
    private readonly float _classifierDropout;
    private readonly float _initializerRange;

    /// <summary>Reads the sizes.</summary>
    /// <exception cref="InputException">The config is wrong or asks for something unsupported.</exception>
    public DistilBert(HfConfig config) : base(config)
    {
        MaxPositions = config.GetPositiveInt("max_position_embeddings", 512);
        _activation = Activations.Of(config, "activation", "gelu");
        _dropout = config.GetFloat("dropout", 0.1f);
        _attentionDropout = config.GetFloat("attention_dropout", 0.1f);
        _classifierDropout = config.GetFloat("seq_classif_dropout", 0.2f);
        _initializerRange = config.GetFloat("initializer_range", 0.02f);
    }

    /// <inheritdoc/>
    public override int MaxPositions { get; }

    /// <inheritdoc/>
    public override bool IsEncoder => true;

    /// <inheritdoc/>
    public override string BackbonePrefix => "distilbert.";

    /// <inheritdoc/>
    public override string Architecture(ModelHead head) => head switch
    {
        ModelHead.None => "DistilBertModel",
        ModelHead.SequenceClassification => "DistilBertForSequenceClassification",
        _ => throw NoHead(head),
    };

    private protected override Tensor? Append(Graph g, BuildOptions options, Action<Tensor> state)
    {
        float Active(float p) => options.BaseDropout ? p : 0;
        var x = g.Embedding(HiddenSize, 1,
            ("distilbert.embeddings.word_embeddings", g.TokenIds, VocabularySize),
            ("distilbert.embeddings.position_embeddings", g.Positions, MaxPositions));
        x = g.Dropout(g.LayerNorm("distilbert.embeddings.LayerNorm", x, Epsilon), Active(_dropout));
        state(x);
        for (var l = 0; l < Layers; l++)
        {
            g.Layer = l;
            state(x = Layer(g, x, $"distilbert.transformer.layer.{l}", Active(_dropout), Active(_attentionDropout)));
        }
        g.Layer = Layers;
        if (options.Head == ModelHead.None)
            return null;
        if (options.Head != ModelHead.SequenceClassification)
            throw NoHead(options.Head);
        var fresh = FreshWeight.Normal(_initializerRange);
        var pooled = g.Linear("pre_classifier", g.Gather("distilbert.cls", x), HiddenSize, fresh: fresh);
        pooled = g.Dropout(g.Activate(ActivationKind.Relu, pooled), Active(_classifierDropout));
        return Classes(g, g.Linear("classifier", pooled, Config.NumLabels, fresh: fresh), options.Loss);
    }

    private Tensor Layer(Graph g, Tensor x, string at, float dropout, float attentionDropout)
    {
        var q = g.Linear($"{at}.attention.q_lin", x, HiddenSize);
        var k = g.Linear($"{at}.attention.k_lin", x, HiddenSize);
        var v = g.Linear($"{at}.attention.v_lin", x, HiddenSize);
        var mixed = g.Attention($"{at}.attention", q, k, v, Heads, HiddenSize / Heads, new AttentionMask(false, 0), attentionDropout);
        x = g.LayerNorm($"{at}.sa_layer_norm", g.Linear($"{at}.attention.out_lin", mixed, HiddenSize, addend: x), Epsilon);
        var inner = g.Activate(_activation, g.Linear($"{at}.ffn.lin1", x, IntermediateSize));
        return g.LayerNorm($"{at}.output_layer_norm", g.LinearResidual($"{at}.ffn.lin2", inner, x, dropout), Epsilon);
    }
}
