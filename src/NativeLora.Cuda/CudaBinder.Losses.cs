using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

internal sealed partial class CudaBinder
{
    /// <summary>Rows so long are given 1024 threads.</summary>
    private const int WideRow = 4096;

    [StructLayout(LayoutKind.Sequential)]
    private struct CrossEntropyArgs
    {
        public nint Logits, Labels, Gradient, Losses, Count;
        public int First, Rows, Columns;
        public float InverseCount, Softcap;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct LossSumArgs
    {
        public nint Losses, Count, Result;
        public int Rows;
        public float InverseCount;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct SquaredErrorArgs
    {
        public nint Values, Targets, Gradient, Result;
        public int Rows;
        public float InverseCount;
    }

    private Kernel? BindLoss(Node node, ITensorAddresses at, BatchSize capacity) => node.Op switch
    {
        CrossEntropyOp => BindCrossEntropy(node, at, capacity),
        SquaredErrorOp or LossGradOp { Forward: SquaredErrorOp } => BindSquaredError(node, at),
        LossGradOp { Forward: CrossEntropyOp } => BindCrossEntropy(node, at, capacity),
        LmHeadLossOp op => new CudaLmHead(this, node, op, at, capacity),
        _ => null,
    };

    private Runs BindSquaredError(Node node, ITensorAddresses at)
    {
        var k = Function("squared_error");
        var a = new SquaredErrorArgs { Values = at.Of(node.Inputs[0]!), Targets = at.Of(node.Inputs[1]!) };
        if (node.Op is LossGradOp)
            a.Gradient = at.Of(node.Output);
        else
            a.Result = at.Of(node.Output);
        // One block: the rows are the samples of a batch. A loss over no rows is still written.
        return Do(node.Inputs[0]!, (s, rows) =>
        {
            (a.Rows, a.InverseCount) = (rows, s.InverseCount);
            k.Launch(rows == 0 && a.Result == 0 ? 0 : 1, 256, in a);
        });
    }

    private Runs BindCrossEntropy(Node node, ITensorAddresses at, BatchSize capacity)
    {
        var logits = node.Inputs[0]!;
        var (k, threads) = CrossEntropyKernel(logits.Shape.Columns, ElementType.F32);
        var gradient = node.Op is LossGradOp ? at.Of(node.Output) : 0;
        var a = new CrossEntropyArgs { Logits = at.Of(logits), Labels = at.Of(node.Inputs[1]!), Gradient = gradient, Columns = logits.Shape.Columns };
        if (gradient != 0)
            return Do(logits, (s, rows) =>
            {
                (a.Rows, a.InverseCount) = (rows, s.InverseCount);
                k.Launch(Blocks(rows, 1), threads, in a);
            });
        var sum = Function("loss_sum");
        var losses = Scratch("loss", 4L * logits.Shape.Rows(capacity));
        var b = new LossSumArgs { Result = at.Of(node.Output) };
        return Do(logits, (s, rows) =>
        {
            (a.Rows, a.InverseCount, a.Losses) = (rows, s.InverseCount, losses.Address);
            k.Launch(Blocks(rows, 1), threads, in a);
            (b.Rows, b.InverseCount, b.Losses) = (rows, s.InverseCount, losses.Address);
            sum.Launch(1, 256, in b);
        });
    }

    /// <summary>The kernel for rows of that length whose gradient has that type, and its threads.</summary>
    private (CudaFunction Kernel, int Threads) CrossEntropyKernel(int columns, ElementType gradient) =>
        columns >= WideRow ? (Function("cross_entropy_wide", gradient), 1024) : (Function("cross_entropy", gradient), 256);
}
