using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Bench.Cuda;

/// <summary>
/// Bytes that the launches of a node read and write, each operand of a launch once: what is read again by other blocks is left to the caches.
/// For bf16 plans whose adapters are fp32.
/// </summary>
internal static class OwnTraffic
{
    // As CudaBinder.Products.Fused.cs splits the tokens of a gradient.
    private const int SkinnyBlocks = 264, SkinnyRun = 128, SkinnyColumns = 128;

    public static double Of(NodeLaunches launches, BatchSize size, in OpWork work)
    {
        var (node, moved) = (launches.Node, (double)launches.ProductBytes);
        switch (node.Op)
        {
            case LoraLinearOp:
                return Lora(launches, node.Inputs[0]!, node.Inputs[2]!, node.Inputs[4]!, node.Inputs[5]!, node.Inputs[6], size);
            case LoraInputGradOp:
                return Lora(launches, node.Inputs[0]!, node.Inputs[1]!, node.Inputs[3]!, node.Inputs[4]!, node.Inputs[2], size);
            case LoraDownGradOp:
                return moved + Converted(node.Inputs[1]!, size);
            case LinearOp or LinearInputGradOp:
                // The addend is copied to the output where it lies elsewhere.
                return moved + launches.Kernels * 4.0 * Count(node.Output, size);
            case WeightGradOp when launches.Products > 0:
                return moved + node.Inputs.OfType<Tensor>().Sum(t => Converted(t, size));
            case WeightGradOp:
                var narrow = node.Inputs[1]!.Type == ElementType.F32 ? node.Inputs[1]! : node.Inputs[0]!;
                var tiles = (Count(node.Output, size) / narrow.Shape.Columns + SkinnyColumns - 1) / SkinnyColumns;
                var runs = Math.Clamp((SkinnyBlocks + tiles - 1) / tiles, 1, Math.Max(1, (size.Tokens + SkinnyRun - 1) / SkinnyRun));
                return work.Bytes + 8.0 * runs * Count(node.Output, size);
            case LmHeadLossOp:
                // Rows gathered and scattered; a logit read and its gradient written over it.
                return moved + (2 + 2 + 4 + 2) * Count(node.Inputs[0]!, size) + (4.0 + 2) * size.Tokens * node.Inputs[1]!.Shape.FixedRows;
            default:
                return work.Bytes;
        }
    }

    /// <summary>y = x W + addend + P up with P = x down.</summary>
    private static double Lora(NodeLaunches launches, Tensor x, Tensor weight, Tensor down, Tensor up, Tensor? addend, BatchSize size)
    {
        var node = launches.Node;
        double y = Count(node.Output, size), p = Count(node.Outputs[1], size);
        var factors = Converted(down, size) + Converted(up, size);
        var sums = addend is null ? 0 : 2 * y;
        return launches.Products switch
        {
            // All by cuBLAS, with the sums in fp32, which a last kernel rounds.
            > 1 => launches.ProductBytes + factors + 6 * p + 6 * y + sums,
            // P by cuBLAS, the rest in one kernel.
            1 => launches.ProductBytes + factors + 2.0 * (Count(x, size) + Count(weight, size) + Count(up, size)) + 4 * p + 2 * y + sums,
            _ => factors + 2.0 * (Count(x, size) + Count(weight, size) + Count(down, size) + Count(up, size)) + 4 * p + 2 * y + sums,
        };
    }

    /// <summary>A tensor made bf16 in memory.</summary>
    private static double Converted(Tensor tensor, BatchSize size) => tensor.Type == ElementType.F32 ? 6.0 * Count(tensor, size) : 0;

    private static long Count(Tensor tensor, BatchSize size) => tensor.Shape.Elements(size);
}
