using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Bench.Cuda;

/// <summary>A GPU as its maker describes it: operations a second of dense bf16 products and of fp32, bytes a second of its memory.</summary>
internal sealed record Gpu(string Name, double Tensor, double Single, double Bandwidth)
{
    public static Gpu[] All { get; } =
    [
        new("A100 80GB", 312e12, 19.5e12, 2.0e12),
        new("H100 SXM", 989e12, 66.9e12, 3.35e12),
        new("RTX 4090", 165e12, 82.6e12, 1.01e12),
    ];

    /// <summary>The least seconds that so much work takes: the longer of its operations and its bytes.</summary>
    public double Seconds(in OpWork work) => Math.Max(work.TensorFlops / Tensor + work.SingleFlops / Single, work.Bytes / Bandwidth);

    public bool IsBoundByMemory(in OpWork work) => work.Bytes / Bandwidth > work.TensorFlops / Tensor + work.SingleFlops / Single;
}

/// <summary>What an op has to do at least.</summary>
/// <param name="TensorFlops">Operations of products of bf16.</param>
/// <param name="SingleFlops">Operations of fp32.</param>
/// <param name="Bytes">Bytes between memory and chip, each operand once.</param>
internal readonly record struct OpWork(double TensorFlops, double SingleFlops, double Bytes)
{
    public double Flops => TensorFlops + SingleFlops;

    public static OpWork operator +(OpWork a, OpWork b) => new(a.TensorFlops + b.TensorFlops, a.SingleFlops + b.SingleFlops, a.Bytes + b.Bytes);

    /// <summary>Work of a node of a bf16 plan.</summary>
    /// <param name="node">The node.</param>
    /// <param name="size">The batch.</param>
    /// <param name="tensorAttention">Whether the kernels of attention multiply on tensor cores.</param>
    public static OpWork Of(Node node, BatchSize size, bool tensorAttention)
    {
        var flops = (double)node.Op.Flops(node, size);
        switch (node.Op)
        {
            case EmbeddingOp:
                // Only rows that are named are read.
                return new OpWork(0, flops, 2.0 * node.Output.Bytes(size));
            case LmHeadLossOp op:
                // For each chunk the weight is read by two products; a logit is written, read and read again from L2, its gradient written
                // (bf16, over it) and read.
                var (h, weight) = (node.Inputs[0]!, node.Inputs[1]!);
                var chunks = (size.Tokens + op.Chunk - 1) / op.Chunk;
                var logits = (double)size.Tokens * weight.Shape.FixedRows;
                var products = op.InputGradient ? 2 : 1;
                return new OpWork(flops, 30 * logits, (double)products * chunks * weight.Bytes(size) + (4 + 4 + 2 + 2) * logits + 3.0 * products * h.Bytes(size));
            default:
                var bytes = node.Inputs.OfType<Tensor>().Distinct().Sum(t => (double)t.Bytes(size)) + node.Outputs.Sum(t => (double)t.Bytes(size));
                if (node.Op is WeightGradOp { Adds: true })
                    bytes += node.Output.Bytes(size);
                var onTensorCores = node.Op is LinearOp or LoraLinearOp or LoraInputGradOp or LoraDownGradOp or LinearInputGradOp or WeightGradOp
                    || (tensorAttention && node.Op is AttentionOp or AttentionGradOp);
                return onTensorCores ? new OpWork(flops, 0, bytes) : new OpWork(0, flops, bytes);
        }
    }
}
