using NativeLora.Graphs;

namespace NativeLora.Ops;

/// <summary>
/// out[t] = scale · Σ over tables of table[ids[t]]. Inputs: pairs of ids [tokens] and table [rows, hidden]. Output: [tokens, hidden].
/// </summary>
public sealed class EmbeddingOp(float scale) : Op
{
    /// <summary>Factor on the sum; 1 in most models.</summary>
    public float Scale { get; } = scale;

    /// <inheritdoc/>
    public override string Name => "embedding";

    /// <inheritdoc/>
    public override long Flops(Node node, in BatchSize size) => PerElement(node, size, node.Inputs.Count / 2);

    /// <inheritdoc/>
    public override void Backward(Gradients gradients, Node node)
    {
        var dy = gradients.Of(node.Output)!;
        for (var i = 0; i < node.Inputs.Count; i += 2)
        {
            var table = node.Inputs[i + 1]!;
            if (!gradients.Needs(table))
                continue;
            var gradient = gradients.Graph.ParameterGradient(table, out var first);
            gradients.Graph.Emit(node.Name, new EmbeddingGradOp(Scale, !first), [dy, node.Inputs[i]], gradient);
        }
    }
}

/// <summary>dTable[ids[t]] (+)= scale·dy[t]. Inputs: dy [tokens, hidden], ids [tokens]. Output: the table's gradient.</summary>
public sealed class EmbeddingGradOp(float scale, bool adds) : Op
{
    /// <summary>Factor of the forward.</summary>
    public float Scale { get; } = scale;

    /// <summary>Whether an earlier node of the same step has written the gradient already.</summary>
    public bool Adds { get; } = adds;

    /// <inheritdoc/>
    public override string Name => "embedding_grad";

    /// <inheritdoc/>
    public override long Flops(Node node, in BatchSize size) => node.Inputs[0]!.Shape.Elements(size);
}

/// <summary>
/// P[t] = factor·A[:, ids[t]]: the look-up of an adapter on an embedding. Inputs: ids [tokens], A [r, rows]. Output: [tokens, r].
/// </summary>
public sealed class EmbeddingColumnsOp(float factor) : Op
{
    /// <summary>s of the adapter times the embedding's own factor.</summary>
    public float Factor { get; } = factor;

    /// <inheritdoc/>
    public override string Name => "embedding_columns";

    /// <inheritdoc/>
    public override long Flops(Node node, in BatchSize size) => PerElement(node, size, 1);

    /// <inheritdoc/>
    public override void Backward(Gradients gradients, Node node)
    {
        var (ids, a) = (node.Inputs[0]!, node.Inputs[1]!);
        if (!gradients.Needs(a))
            return;
        var gradient = gradients.Graph.ParameterGradient(a, out var first);
        gradients.Graph.Emit(node.Name, new EmbeddingColumnsGradOp(Factor, !first), [gradients.Of(node.Output)!, ids], gradient);
    }
}

/// <summary>dA[:, ids[t]] (+)= factor·dP[t]. Inputs: dP [tokens, r], ids [tokens]. Output: A's gradient [r, rows].</summary>
public sealed class EmbeddingColumnsGradOp(float factor, bool adds) : Op
{
    /// <summary>Factor of the forward.</summary>
    public float Factor { get; } = factor;

    /// <summary>Whether an earlier node of the same step has written the gradient already.</summary>
    public bool Adds { get; } = adds;

    /// <inheritdoc/>
    public override string Name => "embedding_columns_grad";

    /// <inheritdoc/>
    public override long Flops(Node node, in BatchSize size) => node.Inputs[0]!.Shape.Elements(size);
}
