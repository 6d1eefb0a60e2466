using NativeLora.Tensors;

namespace NativeLora.Graphs;

/// <summary>What the number of rows of a tensor is counted in.</summary>
public enum RowKind
{
    /// <summary>A number known when the graph is built, such as the rows of a weight.</summary>
    Fixed,

    /// <summary>The tokens of the packed batch.</summary>
    Tokens,

    /// <summary>The sequences of the packed batch.</summary>
    Sequences,

    /// <summary>The pictures of the packed batch, so many rows each.</summary>
    Pictures,
}

/// <summary>Sizes of one batch, or of the capacity that a plan is made for.</summary>
/// <param name="Tokens">Tokens of all sequences together.</param>
/// <param name="Sequences">Sequences in the batch.</param>
/// <param name="SquaredLengths">Sum over the sequences of length squared: what attention works on.</param>
public readonly record struct BatchSize(int Tokens, int Sequences, long SquaredLengths)
{
    /// <summary>Pictures in the batch, of all sequences together.</summary>
    public int Pictures { get; init; }

    /// <summary>A batch of <paramref name="sequences"/> sequences of equal length.</summary>
    public static BatchSize Of(int sequences, int length) => new(sequences * length, sequences, (long)sequences * length * length);
}

/// <summary>Shape of a symbolic tensor: rows (fixed, tokens, sequences or pictures) by columns. Vectors have one row.</summary>
/// <param name="Kind">What the rows are counted in.</param>
/// <param name="FixedRows">The rows where <paramref name="Kind"/> is <see cref="RowKind.Fixed"/>, those of each picture where it is <see cref="RowKind.Pictures"/>, else 0.</param>
/// <param name="Columns">Elements of a row.</param>
public readonly record struct Shape(RowKind Kind, int FixedRows, int Columns)
{
    /// <summary>[rows, columns], both known.</summary>
    public static Shape Fixed(int rows, int columns) => new(RowKind.Fixed, rows, columns);

    /// <summary>[tokens, columns].</summary>
    public static Shape PerToken(int columns) => new(RowKind.Tokens, 0, columns);

    /// <summary>[sequences, columns].</summary>
    public static Shape PerSequence(int columns) => new(RowKind.Sequences, 0, columns);

    /// <summary>[pictures · rows, columns].</summary>
    public static Shape PerPicture(int rows, int columns) => new(RowKind.Pictures, rows, columns);

    /// <summary>Rows for a batch of that size.</summary>
    public int Rows(in BatchSize size) => Kind switch
    {
        RowKind.Tokens => size.Tokens,
        RowKind.Sequences => size.Sequences,
        RowKind.Pictures => size.Pictures * FixedRows,
        _ => FixedRows,
    };

    /// <summary>Rows that those of a part of a batch come after; 0 for rows that all parts share.</summary>
    internal int RowsBefore(in BatchSize before) => Kind == RowKind.Fixed ? 0 : Rows(before);

    /// <summary>Elements for a batch of that size.</summary>
    public long Elements(in BatchSize size) => (long)Rows(size) * Columns;

    /// <inheritdoc/>
    public override string ToString() => Kind switch
    {
        RowKind.Tokens => $"[tokens, {Columns}]",
        RowKind.Sequences => $"[sequences, {Columns}]",
        RowKind.Pictures => FixedRows == 1 ? $"[pictures, {Columns}]" : $"[pictures·{FixedRows}, {Columns}]",
        _ => $"[{FixedRows}, {Columns}]",
    };
}

/// <summary>Who owns the bytes of a tensor, and where a report counts them.</summary>
public enum TensorCategory
{
    /// <summary>Frozen weight of the base model, in the file's type.</summary>
    Weight,

    /// <summary>Trainable tensor: adapter, head, or any weight in full training; fp32.</summary>
    Parameter,

    /// <summary>Gradient of a trainable tensor; fp32.</summary>
    Gradient,

    /// <summary>What the host sets before a step: ids, positions, boundaries, labels.</summary>
    Input,

    /// <summary>A table computed once when the session is loaded.</summary>
    Constant,

    /// <summary>Made and used within a step, in the arena.</summary>
    Activation,

    /// <summary>Scratch of a single node, in the arena.</summary>
    Workspace,

    /// <summary>Representation that the host reads after the step, in the arena.</summary>
    Feature,

    /// <summary>Keys or values of the tokens so far: lives from step to step, a row a sequence of the capacity.</summary>
    Cache,
}

/// <summary>A symbolic tensor: a name, a shape and a type. Only a session gives it bytes.</summary>
public sealed class Tensor
{
    internal Tensor(string name, Shape shape, ElementType type, TensorCategory category, int layer)
    {
        Name = name;
        Shape = shape;
        Type = type;
        Category = category;
        Layer = layer;
    }

    /// <summary>Hugging Face name for weights; a name derived from the module for what is computed.</summary>
    public string Name { get; }

    /// <summary>Rows and columns.</summary>
    public Shape Shape { get; }

    /// <summary>Element type.</summary>
    public ElementType Type { get; }

    /// <summary>Who owns the bytes.</summary>
    public TensorCategory Category { get; }

    /// <summary>Layer it belongs to: -1 for embeddings and inputs, the number of layers for the head.</summary>
    public int Layer { get; }

    /// <summary>The node that computes it; null for weights and inputs.</summary>
    public Node? Producer { get; internal set; }

    /// <summary>Whether the host reads it after a step, so that its bytes must stay.</summary>
    public bool Kept { get; internal set; }

    /// <summary>Whether it lies in the arena of a plan.</summary>
    public bool InArena => Category is TensorCategory.Activation or TensorCategory.Workspace or TensorCategory.Feature;

    /// <summary>Bytes for a batch of that size.</summary>
    public long Bytes(in BatchSize size) => Type.Bytes(Shape.Elements(size));

    /// <inheritdoc/>
    public override string ToString() => $"{Name} {Shape} {Type}";
}

/// <summary>Whether a node belongs to the forward or the backward part of a step.</summary>
public enum Phase
{
    /// <summary>Forward.</summary>
    Forward,

    /// <summary>Backward, recomputation included.</summary>
    Backward,
}

/// <summary>One op applied to tensors. An absent optional input is null.</summary>
public sealed class Node
{
    internal Node(string name, Op op, Tensor?[] inputs, Tensor[] outputs, Phase phase, int layer)
    {
        Name = name;
        Op = op;
        Inputs = inputs;
        Outputs = outputs;
        Phase = phase;
        Layer = layer;
        foreach (var output in outputs)
            output.Producer ??= this;
    }

    /// <summary>Module that it computes, such as <c>model.layers.3.self_attn.q_proj</c>.</summary>
    public string Name { get; }

    /// <summary>What is computed.</summary>
    public Op Op { get; private set; }

    /// <summary>What is read; optional ones may be null.</summary>
    public IReadOnlyList<Tensor?> Inputs { get; private set; }

    /// <summary>What is written.</summary>
    public IReadOnlyList<Tensor> Outputs { get; private set; }

    /// <summary>Forward or backward.</summary>
    public Phase Phase { get; }

    /// <summary>Layer: -1 for embeddings, the number of layers for the head.</summary>
    public int Layer { get; }

    /// <summary>First output.</summary>
    public Tensor Output => Outputs[0];

    /// <summary>Lets the node read other tensors of the same values.</summary>
    internal void Read(Tensor?[] inputs) => Inputs = inputs;

    /// <summary>Gives the node further outputs: a loss that makes its gradient in the same pass.</summary>
    internal void Replace(Op op, Tensor[] outputs)
    {
        Op = op;
        Outputs = outputs;
        foreach (var output in outputs)
            output.Producer ??= this;
    }
}
