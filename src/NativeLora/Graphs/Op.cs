namespace NativeLora.Graphs;

/// <summary>
/// An operation: what it costs and how gradients flow through it. Ops hold only attributes; kernels belong to devices.
/// </summary>
public abstract class Op
{
    /// <summary>Short name for plans and profiles.</summary>
    public abstract string Name { get; }

    /// <summary>
    /// Whether the backward may compute the output again from the inputs rather than keep it: elementwise or row-wise work,
    /// small beside the products that read it.
    /// </summary>
    public virtual bool CheapToRecompute => false;

    /// <summary>Whether an output of the same shape may take the bytes of that input, if nothing reads the input later.</summary>
    public virtual bool MayOverwrite(int input) => false;

    /// <summary>Floating-point operations for a batch of that size; a multiply-add counts as two.</summary>
    public abstract long Flops(Node node, in BatchSize size);

    /// <summary>Emits the backward nodes of <paramref name="node"/> for the inputs that need a gradient.</summary>
    /// <exception cref="InvalidOperationException">The op has no backward rule.</exception>
    public virtual void Backward(Gradients gradients, Node node) =>
        throw new InvalidOperationException($"{Name} has no backward rule");

    /// <summary>Elements of the first output times <paramref name="each"/>.</summary>
    private protected static long PerElement(Node node, in BatchSize size, int each) => node.Output.Shape.Elements(size) * each;
}
