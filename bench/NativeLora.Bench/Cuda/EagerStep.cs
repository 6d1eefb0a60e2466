using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Bench.Cuda;

/// <summary>Launches, and bytes that they read and write.</summary>
internal readonly record struct EagerCost(long Launches, long Bytes)
{
    public static EagerCost operator +(EagerCost a, EagerCost b) => new(a.Launches + b.Launches, a.Bytes + b.Bytes);
}

/// <summary>
/// What PyTorch with PEFT would launch for a node of a decoder's step, one operation a kernel, on paper: the operations of transformers'
/// modeling_llama.py, of peft's lora.Linear and of their derivatives, with flash attention. Activations, weights and adapters are bf16;
/// nothing is recomputed; gradients of tensors used several times are added in a kernel of their own.
/// </summary>
internal static class EagerStep
{
    /// <summary>Elements that one block of a multi-tensor kernel takes, and blocks of a launch.</summary>
    private const long MultiTensorChunk = 65_536, MultiTensorBlocks = 320;

    private const long MultiTensorTensors = 36;

    public static EagerCost Of(Node node, in BatchSize size)
    {
        // What our plan runs once more has been kept there.
        if (node.Phase == Phase.Backward && node.Op is RmsNormOp or GatedOp)
            return default;
        var (output, type) = (Count(node.Output, size), 2L);
        switch (node.Op)
        {
            case EmbeddingOp:
                return new EagerCost(1, 2 * type * output);
            case RmsNormOp:
                // To fp32, square, mean, + ε, 1/√, product, to bf16, times the weight.
                return new EagerCost(8, 36 * output);
            case NormGradOp { Forward: RmsNormOp }:
                // Product with the weight, to fp32, products with 1/σ and x, the latter's sum, 1/√ (3), the mean's, the square's (3), the sum, to bf16.
                return new EagerCost(14, 84 * output) + Sum(node.Inputs[3], output);
            case RotaryOp rotary:
                // x cos + (−x₂, x₁) sin: two products, a negation, a concatenation, a sum; backwards slices become sums of zeros and copies.
                return rotary.Inverse ? new EagerCost(9, 30 * output) : new EagerCost(5, 20 * output);
            case AttentionOp:
                return new EagerCost(1, type * 4 * output);
            case AttentionGradOp:
                // dO·O, the gradients with dQ in fp32, and dQ to bf16.
                return new EagerCost(3, (type * 8 + 8) * output);
            case GatedOp:
                return new EagerCost(2, 10 * output);
            case GatedGradOp:
                return new EagerCost(3, 18 * output);
            case LinearOp:
                return Product(node.Inputs[0]!, node.Inputs[1]!, output, size) + Sum(node.Inputs[3], output);
            case LoraLinearOp:
                var (x, p) = (Count(node.Inputs[0]!, size), Count(node.Outputs[1], size));
                var (a, b) = (Count(node.Inputs[4]!, size), Count(node.Inputs[5]!, size));
                // W x, A x, B P, times the scaling, the sum.
                return Product(node.Inputs[0]!, node.Inputs[2]!, output, size)
                    + new EagerCost(4, type * (x + a + p + p + b + output + 2 * output + 3 * output)) + Sum(node.Inputs[6], output);
            case LoraInputGradOp:
                var (dy, dp) = (Count(node.Inputs[0]!, size), Count(node.Outputs[1], size));
                var (down, up) = (Count(node.Inputs[4]!, size), Count(node.Inputs[3]!, size));
                return Product(node.Inputs[0]!, node.Inputs[1]!, output, size)
                    + new EagerCost(4, type * (2 * dy + dy + up + dp + dp + down + output + 3 * output)) + Sum(node.Inputs[2], output);
            case LoraDownGradOp:
                var gradient = Count(node.Inputs[0]!, size);
                return new EagerCost(2, type * (3 * gradient + Count(node.Inputs[1]!, size) + output));
            case LinearInputGradOp:
                return Product(node.Inputs[0]!, node.Inputs[1]!, output, size) + Sum(node.Inputs[2], output);
            case WeightGradOp:
                return new EagerCost(1, type * (Count(node.Inputs[0]!, size) + Count(node.Inputs[1]!, size) + output));
            case LmHeadLossOp:
                var (hidden, weight) = (Count(node.Inputs[0]!, size), Count(node.Inputs[1]!, size));
                var logits = (long)size.Tokens * node.Inputs[1]!.Shape.FixedRows;
                // Product, to fp32, labels shifted (2), log-softmax, its choice; backwards a fill and a scatter, log-softmax, to bf16, product.
                return new EagerCost(11, 40 * logits + type * 2 * (hidden + weight));
            default:
                throw new NotSupportedException($"what PyTorch launches for {node.Op.Name} is not written down");
        }
    }

    /// <summary>Sines and cosines of the positions, once a step: a product, a concatenation, cos, sin, two factors, two conversions.</summary>
    public static EagerCost RotaryTables(in BatchSize size, int headDim) => new(8, 40L * size.Tokens * headDim);

    /// <summary>Clipping and AdamW over lists of tensors (foreach), which multi-tensor kernels take in pieces.</summary>
    public static EagerCost Update(IReadOnlyCollection<Tensor> trainable, in BatchSize size)
    {
        long elements = 0, chunks = 0;
        foreach (var tensor in trainable)
        {
            var count = Count(tensor, size);
            elements += count;
            chunks += (count + MultiTensorChunk - 1) / MultiTensorChunk;
        }
        var launches = Math.Max((trainable.Count + MultiTensorTensors - 1) / MultiTensorTensors, (chunks + MultiTensorBlocks - 1) / MultiTensorBlocks);
        // Norm and factor of clipping (with four kernels on the norms); decay, first moment, second moment (2), root, two corrections, update.
        return new EagerCost(10 * launches + 4, 2 * (1 + 2 + 2 + 3 + 2 + 3 + 2 + 2 + 2 + 4) * elements);
    }

    private static EagerCost Product(Tensor x, Tensor weight, long output, in BatchSize size) => new(1, 2 * (Count(x, size) + Count(weight, size) + output));

    private static EagerCost Sum(Tensor? addend, long output) => addend is null ? default : new EagerCost(1, 2 * 3 * output);

    private static long Count(Tensor tensor, in BatchSize size) => tensor.Shape.Elements(size);
}
