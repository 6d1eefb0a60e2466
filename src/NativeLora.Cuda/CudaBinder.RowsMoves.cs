using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Rows and columns from one place to another, rotary positions, and DoRA's scaling of columns.</summary>
internal sealed partial class CudaBinder
{
    /// <summary>Blocks that share the tokens of a sequence in the gradient of a mean; the kernel has the same number.</summary>
    private const int PoolShares = 16;

    [StructLayout(LayoutKind.Sequential)]
    private struct ClearArgs
    {
        public nint Result;
        public long Count;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ColumnCopyArgs
    {
        public nint Wide, Part;
        public long Rows;
        public int Stride, Columns, Lanes, ToPart;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct GatherArgs
    {
        public nint Input, Index, Result;
        public long Rows;
        public int Columns, Lanes;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct MeanPoolArgs
    {
        public nint Input, CuSeqlens, Visible, Result;
        public int Columns;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct DoraArgs
    {
        public nint Input, Scale, Bias, Addend, Result;
        public long Rows;
        public int Columns, Lanes;
        public float Offset;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct RotaryArgs
    {
        public nint Input, Positions, Cos, Sin, Result;
        public long Rows;
        public int Heads, HeadDim, Half, Lanes;
        public float Direction;
    }

    private Kernel? BindMoves(Node node, RowTensors at)
    {
        var (inputs, output) = (node.Inputs, node.Output);
        var columns = output.Shape.Columns;
        switch (node.Op)
        {
            case SplitOp or JoinOp:
                return BindColumnCopies(node, at);
            case GatherOp:
                return BindGather(output, new GatherArgs { Input = at.T(inputs[0]), Index = at.I(inputs[1]), Result = at.F(output) }, at.Type);
            case ScatterOp:
                return BindScatter(output, new GatherArgs { Input = at.F(inputs[0]), Index = at.I(inputs[1]), Result = at.T(output) }, at.Type);
            case MeanPoolOp:
                {
                    var k = Function("mean_pool", at.Type);
                    var a = new MeanPoolArgs { Input = at.T(inputs[0]), CuSeqlens = at.I(inputs[1]), Visible = at.I(inputs[2]), Result = at.F(output), Columns = columns };
                    return new Runs(s => k.Launch(s.Size.Sequences, Blocks(columns, 64), 1, RowThreads, 0, in a));
                }
            case MeanPoolGradOp:
                {
                    var k = Function("mean_pool_grad", at.Type);
                    var a = new MeanPoolArgs { Input = at.F(inputs[0]), CuSeqlens = at.I(inputs[1]), Visible = at.I(inputs[2]), Result = at.T(output), Columns = columns };
                    return new Runs(s => k.Launch(s.Size.Sequences, PoolShares, 1, RowThreads, 0, in a));
                }
            case DoraOp op:
                return BindDora(output, new DoraArgs
                {
                    Input = at.T(inputs[0]),
                    Scale = at.F(inputs[1]),
                    Bias = at.F(inputs[4]),
                    Addend = at.T(inputs[5]),
                    Result = at.T(output),
                    Offset = op.Offset,
                }, at.Type);
            case DoraGradOp op:
                return BindDora(output, new DoraArgs { Input = at.T(inputs[0]), Scale = at.F(inputs[1]), Result = at.T(output), Offset = op.Offset }, at.Type);
            case RotaryOp op:
                return BindRotary(output, new RotaryArgs
                {
                    Input = at.T(inputs[0]),
                    Positions = at.I(inputs[1]),
                    Cos = at.F(inputs[2]),
                    Sin = at.F(inputs[3]),
                    Result = at.T(output),
                    Heads = columns / op.HeadDim,
                    HeadDim = op.HeadDim,
                    Half = inputs[2]!.Shape.Columns,
                    Direction = op.Inverse ? -1 : 1,
                }, at.Type);
            default:
                return null;
        }
    }

    /// <summary>Sets activations to zero.</summary>
    private Action<long> Clearing(nint result, ElementType type)
    {
        var k = Function("clear", type);
        var a = new ClearArgs { Result = result };
        return count =>
        {
            a.Count = count;
            k.Launch(PackBlocks(count), RowThreads, in a);
        };
    }

    private Runs BindColumnCopies(Node node, RowTensors at)
    {
        var split = node.Op is SplitOp;
        var wide = split ? node.Inputs[0]! : node.Output;
        var widths = node.Op is JoinOp join ? join.Widths : [.. node.Outputs.Select(o => o.Shape.Columns)];
        var parts = new ColumnCopyArgs[widths.Count];
        nint from = at.T(wide), size = at.Type == ElementType.BF16 ? 2 : 4;
        for (var i = 0; i < parts.Length; i++)
        {
            parts[i] = new ColumnCopyArgs
            {
                Wide = from,
                Part = at.T(split ? node.Outputs[i] : node.Inputs[i]),
                Stride = wide.Shape.Columns,
                Columns = widths[i],
                Lanes = RowLanes(widths[i]),
                ToPart = split ? 1 : 0,
            };
            from += widths[i] * size;
        }
        var k = Function("column_copy", at.Type);
        return Do(wide, (_, rows) =>
        {
            for (var i = 0; i < parts.Length; i++)
            {
                parts[i].Rows = rows;
                k.Launch(RowBlocks(rows, parts[i].Lanes), RowThreads, in parts[i]);
            }
        });
    }

    private Runs BindGather(Tensor output, GatherArgs a, ElementType type)
    {
        var k = Function("gather", type);
        a.Columns = output.Shape.Columns;
        a.Lanes = RowLanes(a.Columns);
        return Do(output, (_, rows) =>
        {
            a.Rows = rows;
            k.Launch(RowBlocks(rows, a.Lanes), RowThreads, in a);
        });
    }

    private Runs BindScatter(Tensor output, GatherArgs a, ElementType type)
    {
        var (k, clear) = (Function("scatter", type), Clearing(a.Result, type));
        a.Columns = output.Shape.Columns;
        a.Lanes = RowLanes(a.Columns);
        return new Runs(s =>
        {
            clear((long)s.Size.Tokens * a.Columns);
            a.Rows = s.Size.Sequences;
            k.Launch(RowBlocks(a.Rows, a.Lanes), RowThreads, in a);
        });
    }

    private Runs BindDora(Tensor output, DoraArgs a, ElementType type)
    {
        var k = Function("dora", type);
        a.Columns = output.Shape.Columns;
        a.Lanes = RowLanes(a.Columns);
        return Do(output, (_, rows) =>
        {
            a.Rows = rows;
            k.Launch(RowBlocks(rows, a.Lanes), RowThreads, in a);
        });
    }

    private Runs BindRotary(Tensor output, RotaryArgs a, ElementType type)
    {
        var k = Function("rotary", type);
        // Each head takes whole packs of pairs.
        a.Lanes = RowLanes(a.Heads * ((a.Half + RowPack - 1) / RowPack) * RowPack);
        return Do(output, (_, rows) =>
        {
            a.Rows = rows;
            k.Launch(RowBlocks(rows, a.Lanes), RowThreads, in a);
        });
    }
}
