using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>The linear family: everything that is a matrix product.</summary>
internal sealed partial class CudaBinder
{
    private Kernel? BindProduct(Node node, ITensorAddresses at, BatchSize capacity) => node.Op switch
    {
        LinearOp op => BindLinear(node, op, at, capacity),
        LoraLinearOp op => BindLora(node, op, at, capacity),
        LinearInputGradOp op => BindInputGrad(node, op, at, capacity),
        LoraInputGradOp op => BindLoraInputGrad(node, op, at, capacity),
        LoraDownGradOp op => BindDownGrad(node, op, at, capacity),
        WeightGradOp op => BindWeightGrad(node, op, at, capacity),
        DoraScaleOp op => BindDoraScale(node, op, at),
        GroupedLoraOp op => new GroupedLora(this, node, op, at, capacity),
        GroupedEmbeddingOp op => new GroupedEmbedding(this, node, op, at, capacity),
        _ => null,
    };

    /// <summary>Products of a node whose activations are bf16 have operands of bf16.</summary>
    private static ElementType ProductType(Node node) => node.Inputs.Any(IsBrain) || node.Outputs.Any(IsBrain) ? ElementType.BF16 : ElementType.F32;

    private static bool IsBrain(Tensor? tensor) => tensor is { Type: ElementType.BF16, InArena: true };

    private ProductOperand Operand(Tensor tensor, ITensorAddresses at, BatchSize capacity, ElementType wanted, string key, bool inParts = false) =>
        new(this, at.Of(tensor), tensor.Type, tensor.Shape.Columns, tensor.Shape.Rows(capacity), wanted, key, inParts);

    /// <summary>y = x Wᵀ (or dy W, turned otherwise) into the node's output, with bias and addend.</summary>
    private RowProduct Rows(Node node, Tensor x, Tensor weight, bool turned, Tensor? bias, Tensor? addend, ITensorAddresses at, BatchSize capacity)
    {
        var (type, output) = (ProductType(node), node.Output);
        return new RowProduct(this, output.Shape.Rows(capacity))
        {
            N = output.Shape.Columns,
            K = x.Shape.Columns,
            A = Operand(x, at, capacity, type, "product.a"),
            B = Operand(weight, at, capacity, type, "product.b", inParts: turned),
            TurnB = turned,
            Bias = Of(bias, at),
            Addend = Of(addend, at),
            AddendType = addend?.Type ?? ElementType.F32,
            C = at.Of(output),
            CType = output.Type,
        }.Prepare();
    }

    /// <summary>P = s·x Aᵀ or dP = s·dy B, fp32.</summary>
    private RowProduct Down(Node node, Tensor x, Tensor factor, bool turned, float scaling, Tensor p, ITensorAddresses at, BatchSize capacity)
    {
        var type = ProductType(node);
        return new RowProduct(this, p.Shape.Rows(capacity))
        {
            N = p.Shape.Columns,
            K = x.Shape.Columns,
            Alpha = scaling,
            A = Operand(x, at, capacity, type, "product.a"),
            B = Operand(factor, at, capacity, type, "product.b2"),
            TurnB = turned,
            C = at.Of(p),
            CType = p.Type,
        }.Prepare();
    }

    /// <summary>The fused kernel where there is one and the batch is large enough, else products by cuBLAS; P first where it is not made on the way.</summary>
    private static Runs Choose(Tensor output, FusedProduct? fused, RowProduct? down, RowProduct main) => Do(output, (_, rows) =>
    {
        var fuses = fused is not null && rows > 0 && rows >= fused.LeastRows;
        if (!fuses || fused!.IsGiven)
            down?.Run(0, rows);
        if (fuses)
            fused!.Run(rows);
        else
            main.Run(0, rows);
    });

    /// <summary>The batches that are left to cuBLAS beside a fused kernel.</summary>
    private static BatchSize Rest(FusedProduct? fused, BatchSize capacity) => fused is null ? capacity : capacity with
    {
        Tokens = Math.Min(capacity.Tokens, fused.LeastRows - 1),
        Sequences = Math.Min(capacity.Sequences, fused.LeastRows - 1),
        Pictures = Math.Min(capacity.Pictures, fused.LeastRows - 1),
    };

    private Kernel BindLinear(Node node, LinearOp op, ITensorAddresses at, BatchSize capacity)
    {
        var (x, weight, bias, addend) = (node.Inputs[0]!, node.Inputs[1]!, node.Inputs[2], node.Inputs[3]);
        // Without a bias cuBLAS has all in one product too.
        var fused = bias is null ? null : Fuse(node, x, weight, !op.FanInFanOut, bias, addend, null, at, capacity);
        var product = Rows(node, x, weight, !op.FanInFanOut, bias, addend, at, Rest(fused, capacity));
        return Choose(node.Output, fused, null, product);
    }

    private Kernel BindInputGrad(Node node, LinearInputGradOp op, ITensorAddresses at, BatchSize capacity)
    {
        var product = Rows(node, node.Inputs[0]!, node.Inputs[1]!, op.FanInFanOut, null, node.Inputs[2], at, capacity);
        return Do(node.Output, (_, rows) => product.Run(0, rows));
    }

    private Kernel BindLora(Node node, LoraLinearOp op, ITensorAddresses at, BatchSize capacity)
    {
        var (x, dropped, weight, bias) = (node.Inputs[0]!, node.Inputs[1]!, node.Inputs[2]!, node.Inputs[3]);
        var (a, b, addend, p) = (node.Inputs[4]!, node.Inputs[5]!, node.Inputs[6], node.Outputs[1]);
        var type = ProductType(node);
        var rank = new FusedRank(ReferenceEquals(x, dropped) ? a : null, true, b, true, p, op.Scaling);
        var fused = Fuse(node, x, weight, !op.FanInFanOut, bias, addend, rank, at, capacity);
        var rest = Rest(fused, capacity);
        var down = Down(node, dropped, a, turned: true, op.Scaling, p, at, fused is { IsGiven: false } ? rest : capacity);
        var main = Rows(node, x, weight, !op.FanInFanOut, bias, addend, at, rest)
            .Extend(Operand(p, at, rest, type, "product.a2"), Operand(b, at, capacity, type, "product.b2"), turned: true, p.Shape.Columns);
        return Choose(node.Output, fused, down, main);
    }

    private Kernel BindLoraInputGrad(Node node, LoraInputGradOp op, ITensorAddresses at, BatchSize capacity)
    {
        var (dy, weight, addend, b, a, dp) = (node.Inputs[0]!, node.Inputs[1]!, node.Inputs[2], node.Inputs[3]!, node.Inputs[4]!, node.Outputs[1]);
        var type = ProductType(node);
        var fused = Fuse(node, dy, weight, op.FanInFanOut, null, addend, new FusedRank(b, false, a, false, dp, op.Scaling), at, capacity);
        var rest = Rest(fused, capacity);
        var down = Down(node, dy, b, turned: false, op.Scaling, dp, at, fused is { IsGiven: false } ? rest : capacity);
        var main = Rows(node, dy, weight, op.FanInFanOut, null, addend, at, rest)
            .Extend(Operand(dp, at, rest, type, "product.a2"), Operand(a, at, capacity, type, "product.b2"), turned: false, dp.Shape.Columns);
        return Choose(node.Output, fused, down, main);
    }

    private Kernel BindDownGrad(Node node, LoraDownGradOp op, ITensorAddresses at, BatchSize capacity)
    {
        var product = Down(node, node.Inputs[0]!, node.Inputs[1]!, turned: false, op.Scaling, node.Output, at, capacity);
        return Do(node.Output, (_, rows) => product.Run(0, rows));
    }

    private Kernel BindWeightGrad(Node node, WeightGradOp op, ITensorAddresses at, BatchSize capacity)
    {
        var (dy, x, gradient) = (node.Inputs[0]!, node.Inputs[1]!, node.Output);
        var type = ProductType(node);
        var fused = FuseGrad(dy, x, gradient, at, capacity);
        var (first, second) = (Operand(dy, at, capacity, type, "product.a"), Operand(x, at, capacity, type, "product.b"));
        var (outside, inside, address) = (gradient.Shape.FixedRows, gradient.Shape.Columns, at.Of(gradient));
        var finish = new ProductFinish(this, ElementType.F32);
        return Do(dy, (step, rows) =>
        {
            var adds = op.Adds || step.AccumulateGradients;
            if (fused is not null && rows >= fused.LeastRows)
                fused.Run(rows, adds);
            else if (rows > 0)
                Blas.Product(true, false, outside, inside, rows, 1, first.Ready(0, rows), type, outside, second.Ready(0, rows), type, inside, adds ? 1 : 0, address, ElementType.F32, inside);
            else if (!adds)
                finish.Run(outside, inside, 0, 0, 0, 0, ElementType.F32, 0, address, inside);
        });
    }
}
