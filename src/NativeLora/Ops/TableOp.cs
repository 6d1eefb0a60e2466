using NativeLora.Graphs;

namespace NativeLora.Ops;

/// <summary>A whole table of embeddings as fp32 rows. Input: table [rows, n]. Output: [rows, n].</summary>
public sealed class TableOp : Op
{
    /// <summary>The one instance.</summary>
    public static TableOp Instance { get; } = new();

    /// <inheritdoc/>
    public override string Name => "table";

    /// <inheritdoc/>
    public override long Flops(Node node, in BatchSize size) => 0;

    /// <inheritdoc/>
    public override void Backward(Gradients gradients, Node node)
    {
        var table = node.Inputs[0]!;
        if (!gradients.Needs(table))
            return;
        var gradient = gradients.Graph.ParameterGradient(table, out var first);
        gradients.Graph.Emit(node.Name, new TableGradOp(!first), [gradients.Of(node.Output)!], gradient);
    }
}

/// <summary>dTable (+)= dy. Input: dy [rows, n]. Output: the table's gradient.</summary>
public sealed class TableGradOp(bool adds) : Op
{
    /// <summary>Whether an earlier node of the same step has written the gradient already.</summary>
    public bool Adds { get; } = adds;

    /// <inheritdoc/>
    public override string Name => "table_grad";

    /// <inheritdoc/>
    public override long Flops(Node node, in BatchSize size) => PerElement(node, size, 1);
}
