using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Norms, and sums over rows.</summary>
internal sealed partial class CudaBinder
{
    /// <summary>Columns up to which a row is one warp's.</summary>
    private const int WarpColumns = 1024;

    private const int RowsPerSum = 128;
    private const int ColumnsPerSum = 64;

    [StructLayout(LayoutKind.Sequential)]
    private struct ColumnSumArgs
    {
        public nint First, Second, Factor, Result;
        public long Rows;
        public int Columns, Chunks, Accumulate;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct NormColumnsArgs
    {
        public nint Gradient, Input, Means, Scales, Weights, Biases;
        public long Rows;
        public int Columns;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct NormArgs
    {
        public nint Input, Weight, Bias, Result, Means, Scales;
        public long Rows;
        public int Columns, Centred;
        public float Epsilon, Offset;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct NormGradArgs
    {
        public nint Gradient, Input, Weight, Addend, Result;
        public long Rows;
        public int Columns, Centred;
        public float Epsilon, Offset;
    }

    private Kernel? BindNorms(Node node, RowTensors at, BatchSize capacity)
    {
        var (inputs, output) = (node.Inputs, node.Output);
        switch (node.Op)
        {
            case LayerNormOp op:
                return BindNorm(output, 1, new NormArgs
                {
                    Input = at.T(inputs[0]),
                    Weight = at.F(inputs[1]),
                    Bias = at.F(inputs[2]),
                    Result = at.T(output),
                    Columns = output.Shape.Columns,
                    Centred = 1,
                    Epsilon = op.Epsilon,
                }, at.Type);
            case RmsNormOp op:
                var (width, groups) = RmsNormOp.Groups(inputs[0]!, inputs[1]!);
                return BindNorm(output, groups, new NormArgs
                {
                    Input = at.T(inputs[0]),
                    Weight = at.F(inputs[1]),
                    Result = at.T(output),
                    Columns = width,
                    Epsilon = op.Epsilon,
                    Offset = op.AddOne ? 1 : 0,
                }, at.Type);
            case NormGradOp op:
                return BindNormGrad(node, op, at, capacity);
            case ColumnSumOp op:
                return BindColumnSum(inputs[0]!, op.Adds, new ColumnSumArgs { First = at.T(inputs[0]), Result = at.F(output) }, at.Type, capacity);
            case MagnitudeGradOp op:
                return BindColumnSum(inputs[0]!, op.Adds, new ColumnSumArgs
                {
                    First = at.T(inputs[0]),
                    Second = at.T(inputs[1]),
                    Factor = at.F(inputs[2]),
                    Result = at.F(output),
                }, at.Type, capacity);
            default:
                return null;
        }
    }

    private CudaFunction NormFunction(string name, int columns, ElementType type) => Function(columns <= WarpColumns ? name : $"{name}_wide", type);

    private static int NormBlocks(long rows, int columns) => columns <= WarpColumns ? Blocks(rows, RowThreads / 32) : Blocks(rows, 1);

    private Runs BindNorm(Tensor output, int groups, NormArgs a, ElementType type)
    {
        var k = NormFunction("norm", a.Columns, type);
        return Do(output, (_, rows) =>
        {
            a.Rows = (long)rows * groups;
            k.Launch(NormBlocks(a.Rows, a.Columns), RowThreads, in a);
        });
    }

    private Runs BindColumnSum(Tensor over, bool adds, ColumnSumArgs a, ElementType type, BatchSize capacity)
    {
        a.Columns = over.Shape.Columns;
        var sums = new ColumnSums(this, type, over.Shape.Rows(capacity), a.Columns);
        return Do(over, (s, rows) =>
        {
            a.Rows = rows;
            sums.Run(a, adds || s.AccumulateGradients);
        });
    }

    private Runs BindNormGrad(Node node, NormGradOp op, RowTensors at, BatchSize capacity)
    {
        var (inputs, outputs, x) = (node.Inputs, node.Outputs, node.Inputs[1]!);
        var (width, groups, layer) = (x.Shape.Columns, 1, op.Forward as LayerNormOp);
        var a = new NormGradArgs { Gradient = at.T(inputs[0]), Input = at.T(x), Weight = at.F(inputs[2]), Addend = at.T(inputs[3]) };
        if (layer is not null)
        {
            (a.Centred, a.Epsilon) = (1, layer.Epsilon);
        }
        else
        {
            var norm = (RmsNormOp)op.Forward;
            (width, groups) = RmsNormOp.Groups(x, inputs[2]!);
            (a.Epsilon, a.Offset) = (norm.Epsilon, norm.AddOne ? 1 : 0);
        }
        a.Columns = width;
        a.Result = op.Input ? at.T(outputs[0]) : 0;
        var first = op.Input ? 1 : 0;
        var parameters = op.Parameters
            ? new NormParameters(this, a, at.Type, (long)x.Shape.Rows(capacity) * groups, at.F(outputs[first]), outputs.Count > first + 1 ? at.F(outputs[first + 1]) : 0)
            : null;
        var k = op.Input ? NormFunction("norm_grad", width, at.Type) : null;
        return Do(x, (s, rows) =>
        {
            a.Rows = (long)rows * groups;
            // First: the input's gradient may take the place of dy.
            parameters?.Run(a.Rows, op.Adds || s.AccumulateGradients);
            k?.Launch(NormBlocks(a.Rows, width), RowThreads, in a);
        });
    }

    private static int SumChunks(long rows) => checked((int)((rows + RowsPerSum - 1) / RowsPerSum));

    /// <summary>Sums over rows, in as many passes as the rows need: each leaves a row of partial sums for 128.</summary>
    private sealed class ColumnSums
    {
        private readonly CudaFunction _function, _partial;
        private readonly CudaScratch? _scratch;
        private readonly long _second;

        public ColumnSums(CudaBinder binder, ElementType type, long maxRows, int columns)
        {
            _function = binder.Function("column_sum", type);
            _partial = binder.Function("column_sum", ElementType.F32);
            var chunks = SumChunks(maxRows);
            if (chunks <= 1)
                return;
            _second = (long)chunks * columns * sizeof(float);
            _scratch = binder.Scratch("rows.sums", _second + (long)SumChunks(chunks) * columns * sizeof(float));
        }

        public void Run(ColumnSumArgs a, bool accumulate)
        {
            var (function, result, factor, turn) = (_function, a.Result, a.Factor, false);
            a.Accumulate = accumulate ? 1 : 0;
            for (; ; turn = !turn)
            {
                a.Chunks = Math.Max(1, SumChunks(a.Rows));
                var last = a.Chunks == 1;
                a.Result = last ? result : _scratch!.Address + (nint)(turn ? _second : 0);
                a.Factor = last ? factor : 0;
                function.Launch(Blocks(a.Columns, ColumnsPerSum), a.Chunks, 1, RowThreads, 0, in a);
                if (last)
                    return;
                (function, a.First, a.Second, a.Rows) = (_partial, a.Result, 0, a.Chunks);
            }
        }
    }

    /// <summary>Gradients of a norm's weight and bias: statistics of the rows, partial sums, and their sum.</summary>
    private sealed class NormParameters
    {
        private readonly CudaFunction _statistics, _columns;
        private readonly ColumnSums _sums;
        private readonly CudaScratch _scratch;
        private readonly long _maxRows;
        private readonly nint _weight, _bias;
        private NormArgs _norm;
        private NormColumnsArgs _partial;

        public NormParameters(CudaBinder binder, in NormGradArgs of, ElementType type, long maxRows, nint weight, nint bias)
        {
            (_maxRows, _weight, _bias) = (maxRows, weight, bias);
            _statistics = binder.NormFunction("norm", of.Columns, type);
            _columns = binder.Function("norm_columns", type);
            _norm = new NormArgs { Input = of.Input, Columns = of.Columns, Centred = of.Centred, Epsilon = of.Epsilon };
            _partial = new NormColumnsArgs { Gradient = of.Gradient, Input = of.Input, Columns = of.Columns };
            long chunks = SumChunks(maxRows);
            _sums = new ColumnSums(binder, ElementType.F32, chunks, of.Columns);
            _scratch = binder.Scratch("rows.norms", 2 * (maxRows + (chunks * of.Columns)) * sizeof(float));
        }

        public void Run(long rows, bool accumulate)
        {
            var (at, columns, chunks) = (_scratch.Address, _norm.Columns, SumChunks(rows));
            var (statistics, partials) = ((nint)(_maxRows * sizeof(float)), (nint)((long)SumChunks(_maxRows) * columns * sizeof(float)));
            var weights = at + (2 * statistics);
            (_norm.Means, _norm.Scales, _norm.Rows) = (at, at + statistics, rows);
            _statistics.Launch(NormBlocks(rows, columns), RowThreads, in _norm);
            (_partial.Means, _partial.Scales, _partial.Rows) = (_norm.Means, _norm.Scales, rows);
            (_partial.Weights, _partial.Biases) = (weights, _bias == 0 ? 0 : weights + partials);
            _columns.Launch(Blocks(columns, ColumnsPerSum), chunks, 1, RowThreads, 0, in _partial);
            var sum = new ColumnSumArgs { First = weights, Result = _weight, Rows = chunks, Columns = columns };
            _sums.Run(sum, accumulate);
            if (_bias == 0)
                return;
            (sum.First, sum.Result) = (_partial.Biases, _bias);
            _sums.Run(sum, accumulate);
        }
    }
}
