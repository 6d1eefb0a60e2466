using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Embeddings, whole tables of them, and adapters on them.</summary>
internal sealed partial class CudaBinder
{
    private const int ColumnsPerLookup = 1024;

    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingTable
    {
        public nint Ids, Table;
        public long Type;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingArgs
    {
        public EmbeddingTable First, Second, Third;
        public nint Result;
        public long Rows;
        public int Columns, Lanes;
        public float Scale;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingBlocksArgs
    {
        public nint Ids, Table, Result;
        public long Rows;
        public int Columns, Type;
        public float Scale;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingGradArgs
    {
        public nint Ids, Gradient, Result;
        public long RowStride, ColumnStride;
        public int Tokens, Columns;
        public float Scale;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct EmbeddingColumnsArgs
    {
        public nint Ids, A, Result;
        public long Count, Entries;
        public int Rank;
        public float Factor;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct WidenArgs
    {
        public nint From, To;
        public long Count, Type;
    }

    private Kernel? BindEmbeddings(Node node, RowTensors at)
    {
        var (inputs, output) = (node.Inputs, node.Output);
        var columns = output.Shape.Columns;
        switch (node.Op)
        {
            case EmbeddingOp op:
                return BindEmbedding(node, op, at);
            case EmbeddingGradOp op:
                return BindEmbeddingGrad(inputs[0]!, output, op.Adds, new EmbeddingGradArgs
                {
                    Gradient = at.T(inputs[0]),
                    Ids = at.I(inputs[1]),
                    Result = at.F(output),
                    RowStride = columns,
                    ColumnStride = 1,
                    Columns = columns,
                    Scale = op.Scale,
                }, at.Type);
            case EmbeddingColumnsOp op:
                {
                    var k = Function("embedding_columns");
                    var a = new EmbeddingColumnsArgs
                    {
                        Ids = at.I(inputs[0]),
                        A = at.F(inputs[1]),
                        Result = at.F(output),
                        Entries = inputs[1]!.Shape.Columns,
                        Rank = columns,
                        Factor = op.Factor,
                    };
                    return Do(output, (_, rows) =>
                    {
                        a.Count = (long)rows * columns;
                        k.Launch(Blocks(a.Count, RowThreads), RowThreads, in a);
                    });
                }
            case EmbeddingColumnsGradOp op:
                return BindEmbeddingGrad(inputs[0]!, output, op.Adds, new EmbeddingGradArgs
                {
                    Gradient = at.F(inputs[0]),
                    Ids = at.I(inputs[1]),
                    Result = at.F(output),
                    RowStride = 1,
                    ColumnStride = columns,
                    Columns = output.Shape.FixedRows,
                    Scale = op.Factor,
                }, ElementType.F32);
            case TableOp:
                {
                    var k = Function("widen_table");
                    var table = inputs[0]!;
                    var a = new WidenArgs
                    {
                        From = at.Any(table),
                        To = at.F(output),
                        Count = (long)table.Shape.FixedRows * table.Shape.Columns,
                        Type = TableType(table),
                    };
                    return new Runs(_ => k.Launch(PackBlocks(a.Count), RowThreads, in a));
                }
            case TableGradOp op:
                return BindTableGrad(inputs[0]!, op.Adds, at.F(inputs[0]), at.F(output));
            default:
                return null;
        }
    }

    private static int TableType(Tensor table) => table.Type is ElementType.F32 or ElementType.F16 or ElementType.BF16
        ? (int)table.Type
        : throw new NotSupportedException($"CUDA has no look-up in tables of {table.Type}: {table.Name}");

    private Runs BindEmbedding(Node node, EmbeddingOp op, RowTensors at)
    {
        var (inputs, output) = (node.Inputs, node.Output);
        // Only decoders come in block types, and they have one table.
        if (inputs.Count == 2 && inputs[1]!.Type.IsBlock())
            return BindEmbeddingBlocks(inputs[0]!, inputs[1]!, output, op, at);
        EmbeddingTable Table(int i) => 2 * i < inputs.Count
            ? new EmbeddingTable { Ids = at.I(inputs[2 * i]), Table = at.Any(inputs[(2 * i) + 1]!), Type = TableType(inputs[(2 * i) + 1]!) }
            : default;
        var columns = output.Shape.Columns;
        var a = new EmbeddingArgs
        {
            First = Table(0),
            Second = Table(1),
            Third = Table(2),
            Result = at.T(output),
            Columns = columns,
            Lanes = RowLanes(columns),
            Scale = op.Scale,
        };
        var k = Function("embedding", at.Type);
        return Do(output, (_, rows) =>
        {
            a.Rows = rows;
            k.Launch(RowBlocks(rows, a.Lanes), RowThreads, in a);
        });
    }

    private Runs BindEmbeddingBlocks(Tensor ids, Tensor table, Tensor output, EmbeddingOp op, RowTensors at)
    {
        var k = Function("embedding_blocks", at.Type);
        var a = new EmbeddingBlocksArgs
        {
            Ids = at.I(ids),
            Table = at.Any(table),
            Result = at.T(output),
            Columns = output.Shape.Columns,
            Type = (int)table.Type,
            Scale = op.Scale,
        };
        return Do(output, (_, rows) =>
        {
            a.Rows = rows;
            k.Launch(Blocks(rows * (a.Columns / 32L), RowThreads / 32), RowThreads, in a);
        });
    }

    private Runs BindEmbeddingGrad(Tensor over, Tensor output, bool adds, EmbeddingGradArgs a, ElementType type)
    {
        var (k, clear) = (Function("embedding_grad", type), Clearing(a.Result, ElementType.F32));
        var count = (long)output.Shape.FixedRows * output.Shape.Columns;
        return Do(over, (s, rows) =>
        {
            if (!adds && !s.AccumulateGradients)
                clear(count);
            a.Tokens = rows;
            k.Launch(rows, Blocks(a.Columns, ColumnsPerLookup), 1, RowThreads, 0, in a);
        });
    }

    private Runs BindTableGrad(Tensor gradient, bool adds, nint from, nint to)
    {
        var (copy, add) = (Function("widen_table"), Function("add", ElementType.F32));
        var plain = new WidenArgs { From = from, To = to, Type = (long)ElementType.F32 };
        var sum = new AddArgs { First = from, Second = to, Result = to };
        return Do(gradient, (s, rows) =>
        {
            plain.Count = sum.Count = (long)rows * gradient.Shape.Columns;
            if (adds || s.AccumulateGradients)
                add.Launch(PackBlocks(sum.Count), RowThreads, in sum);
            else
                copy.Launch(PackBlocks(plain.Count), RowThreads, in plain);
        });
    }
}
