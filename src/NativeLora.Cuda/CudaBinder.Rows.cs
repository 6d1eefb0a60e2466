using System.Runtime.InteropServices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Elementwise ops, and where the other ops on rows are found.</summary>
internal sealed partial class CudaBinder
{
    private const int RowThreads = 256;
    private const int RowPack = 4;

    [StructLayout(LayoutKind.Sequential)]
    private struct AddArgs
    {
        public nint First, Second, Result;
        public long Count;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ActivationArgs
    {
        public nint Input, Up, Result;
        public long Count;
        public int Kind;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ActivationGradArgs
    {
        public nint Gradient, Input, Up, Result, UpGradient;
        public long Count;
        public int Kind;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct SoftcapArgs
    {
        public nint Gradient, Input, Result;
        public long Count;
        public float Cap;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct DropoutArgs
    {
        public nint Input, Result;
        public long Count;
        public ulong Key;
        public uint Stream, Step, Threshold;
        public float KeepScale;
    }

    /// <summary>Addresses of tensors of the type that a kernel takes them for.</summary>
    private readonly struct RowTensors(ITensorAddresses at, ElementType type)
    {
        /// <summary>Type of the activations.</summary>
        public ElementType Type => type;

        /// <summary>A tensor that is fp32 at any precision.</summary>
        public nint F(Tensor? tensor) => Typed(tensor, ElementType.F32);

        /// <summary>An activation.</summary>
        public nint T(Tensor? tensor) => Typed(tensor, type);

        /// <summary>Ids, positions and their like.</summary>
        public nint I(Tensor? tensor) => Typed(tensor, ElementType.I32);

        /// <summary>A table of any type.</summary>
        public nint Any(Tensor tensor) => at.Of(tensor);

        private nint Typed(Tensor? tensor, ElementType wanted) => tensor is null ? 0
            : tensor.Type == wanted ? at.Of(tensor)
            : throw new InvalidOperationException($"{tensor} should be {wanted}");
    }

    /// <summary>Threads that share a row: a power of two, enough for a pack of four columns each.</summary>
    private static int RowLanes(int columns)
    {
        var lanes = 1;
        while (lanes < RowThreads && lanes * RowPack < columns)
            lanes *= 2;
        return lanes;
    }

    private static int RowBlocks(long rows, int lanes) => Blocks(rows, RowThreads / lanes);

    private static int PackBlocks(long count) => Blocks(count, RowThreads * RowPack);

    private Kernel? BindRows(Node node, ITensorAddresses at, BatchSize capacity)
    {
        static bool IsBrain(Tensor? tensor) => tensor is { Type: ElementType.BF16, InArena: true };
        var type = node.Inputs.Any(IsBrain) || node.Outputs.Any(IsBrain) ? ElementType.BF16 : ElementType.F32;
        var tensors = new RowTensors(at, type);
        return BindElements(node, tensors) ?? BindNorms(node, tensors, capacity) ?? BindMoves(node, tensors) ?? BindEmbeddings(node, tensors) ?? BindPictures(node, tensors);
    }

    private Kernel? BindElements(Node node, RowTensors at)
    {
        var (inputs, output) = (node.Inputs, node.Output);
        return node.Op switch
        {
            AddOp => BindAdd(output, new AddArgs { First = at.T(inputs[0]), Second = at.T(inputs[1]), Result = at.T(output) }, at.Type),
            ActivationOp op => BindActivation(output, new ActivationArgs { Input = at.T(inputs[0]), Result = at.T(output), Kind = (int)op.Kind }, at.Type),
            GatedOp op => BindActivation(
                output, new ActivationArgs { Input = at.T(inputs[0]), Up = at.T(inputs[1]), Result = at.T(output), Kind = (int)Gated(op.Kind) }, at.Type),
            ActivationGradOp op => BindActivationGrad(
                output, new ActivationGradArgs { Gradient = at.T(inputs[0]), Input = at.T(inputs[1]), Result = at.T(output), Kind = (int)op.Kind }, at.Type),
            GatedGradOp op => BindActivationGrad(output, new ActivationGradArgs
            {
                Gradient = at.T(inputs[0]),
                Input = at.T(inputs[1]),
                Up = at.T(inputs[2]),
                Result = at.T(node.Outputs[0]),
                UpGradient = at.T(node.Outputs[1]),
                Kind = (int)Gated(op.Kind),
            }, at.Type),
            SoftcapOp op => BindSoftcap("softcap", output, new SoftcapArgs { Input = at.T(inputs[0]), Result = at.T(output), Cap = op.Cap }, at.Type),
            SoftcapGradOp op => BindSoftcap(
                "softcap_grad", output, new SoftcapArgs { Gradient = at.T(inputs[0]), Input = at.T(inputs[1]), Result = at.T(output), Cap = op.Cap }, at.Type),
            DropoutOp op => BindDropout(op, output, new DropoutArgs { Input = at.T(inputs[0]), Result = at.T(output) }, at.Type),
            _ => null,
        };
    }

    // The gradient of tanh would come from its output, which a gate does not keep.
    private static ActivationKind Gated(ActivationKind kind) =>
        kind != ActivationKind.Tanh ? kind : throw new NotSupportedException($"CUDA has no kernel for gates of {kind}");

    private Runs BindAdd(Tensor output, AddArgs a, ElementType type)
    {
        var k = Function("add", type);
        return Do(output, (_, rows) =>
        {
            a.Count = (long)rows * output.Shape.Columns;
            k.Launch(PackBlocks(a.Count), RowThreads, in a);
        });
    }

    private Runs BindActivation(Tensor output, ActivationArgs a, ElementType type)
    {
        var k = Function("activation", type);
        return Do(output, (_, rows) =>
        {
            a.Count = (long)rows * output.Shape.Columns;
            k.Launch(PackBlocks(a.Count), RowThreads, in a);
        });
    }

    private Runs BindActivationGrad(Tensor output, ActivationGradArgs a, ElementType type)
    {
        var k = Function("activation_grad", type);
        return Do(output, (_, rows) =>
        {
            a.Count = (long)rows * output.Shape.Columns;
            k.Launch(PackBlocks(a.Count), RowThreads, in a);
        });
    }

    private Runs BindSoftcap(string kernel, Tensor output, SoftcapArgs a, ElementType type)
    {
        var k = Function(kernel, type);
        return Do(output, (_, rows) =>
        {
            a.Count = (long)rows * output.Shape.Columns;
            k.Launch(PackBlocks(a.Count), RowThreads, in a);
        });
    }

    private Runs BindDropout(DropoutOp op, Tensor output, DropoutArgs a, ElementType type)
    {
        var k = Function("dropout", type);
        (a.Stream, a.Threshold, a.KeepScale) = (op.Stream, Philox.Threshold(op.Probability), Philox.KeepScale(op.Probability));
        return Do(output, (s, rows) =>
        {
            a.Count = (long)rows * output.Shape.Columns;
            (a.Key, a.Step) = (Philox.Mix(s.Seed), s.Step);
            k.Launch(PackBlocks(a.Count), RowThreads, in a);
        });
    }
}
