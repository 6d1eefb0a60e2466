using System.Collections.Immutable;
using NativeLora.Tensors;

namespace NativeLora.Checkpoints;

/// <summary>Where a tensor lies in its file and what it holds.</summary>
/// <param name="Name">Name in the checkpoint, such as <c>model.layers.0.self_attn.q_proj.weight</c>.</param>
/// <param name="Type">Element type.</param>
/// <param name="Shape">Sizes, the slowest varying first; empty for a scalar.</param>
/// <param name="Offset">First byte, counted from the start of the file.</param>
/// <param name="Bytes">Size in bytes.</param>
public sealed record TensorInfo(string Name, ElementType Type, ImmutableArray<long> Shape, long Offset, long Bytes)
{
    /// <summary>Number of elements: the product of <see cref="Shape"/>.</summary>
    public long Count { get; } = Product(Shape);

    /// <summary>The shape as text, such as <c>[576, 192]</c>.</summary>
    public string ShapeText => $"[{string.Join(", ", Shape)}]";

    /// <summary>Number of elements of a shape.</summary>
    /// <exception cref="OverflowException">The product does not fit 63 bits.</exception>
    internal static long Product(ImmutableArray<long> shape)
    {
        long count = 1;
        foreach (var size in shape)
            count = checked(count * size);
        return count;
    }
}
