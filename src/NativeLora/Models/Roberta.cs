using NativeLora.Checkpoints;
using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Models;

/// <summary>
/// RoBERTa (Liu et al. 2019) with its two-layer classifier, and XLM-RoBERTa (Conneau et al. 2020), the same with another vocabulary.
/// Positions begin after the padding index.
/// </summary>
public sealed class Roberta(HfConfig config) : BertLayers(config)
{
    private readonly string _family = config.ModelType == "xlm-roberta" ? "XLMRoberta" : "Roberta";
    private readonly int _pad = PadOf(config);

    /// <inheritdoc/>
    public override string BackbonePrefix => "roberta.";

    /// <inheritdoc/>
    public override int PositionOffset => _pad + 1;

    /// <inheritdoc/>
    public override string Architecture(ModelHead head) => head switch
    {
        ModelHead.None => $"{_family}Model",
        ModelHead.SequenceClassification => $"{_family}ForSequenceClassification",
        _ => throw NoHead(head),
    };

    // At least one position is left after it.
    private static int PadOf(HfConfig config)
    {
        var (pad, positions) = (config.GetInt("pad_token_id", 1), config.GetPositiveInt("max_position_embeddings", 512));
        return pad >= 0 && pad < positions - 1 ? pad
            : throw config.Fail("pad_token_id", $"is {pad}: positions begin after it, and there are {positions} (max_position_embeddings)");
    }

    private protected override Tensor Head(Graph g, Tensor cls, float dropout, bool baseDropout)
    {
        var p = ClassifierDropout(dropout, baseDropout);
        var fresh = FreshWeight.Normal(InitializerRange);
        var x = g.Linear("classifier.dense", g.Dropout(cls, p), HiddenSize, fresh: fresh);
        x = g.Dropout(g.Activate(ActivationKind.Tanh, x), p);
        return g.Linear("classifier.out_proj", x, Labels, fresh: fresh);
    }
}
