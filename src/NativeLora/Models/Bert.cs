using NativeLora.Checkpoints;
using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Models;

/// <summary>BERT (Devlin et al. 2018) with a pooler and a linear classifier.</summary>
public sealed class Bert(HfConfig config) : BertLayers(config)
{
    /// <inheritdoc/>
    public override string BackbonePrefix => "bert.";

    /// <inheritdoc/>
    public override string Architecture(ModelHead head) => head switch
    {
        ModelHead.None => "BertModel",
        ModelHead.SequenceClassification => "BertForSequenceClassification",
        _ => throw NoHead(head),
    };

    private protected override Tensor Head(Graph g, Tensor cls, float dropout, bool baseDropout)
    {
        var fresh = FreshWeight.Normal(InitializerRange);
        var pooled = g.Activate(ActivationKind.Tanh, g.Linear("bert.pooler.dense", cls, HiddenSize, fresh: fresh));
        pooled = g.Dropout(pooled, ClassifierDropout(dropout, baseDropout));
        return g.Linear("classifier", pooled, Labels, fresh: fresh);
    }
}
