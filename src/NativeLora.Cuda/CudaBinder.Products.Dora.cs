using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

internal sealed partial class CudaBinder
{
    [StructLayout(LayoutKind.Sequential)]
    private struct DoraSquaresArgs
    {
        public nint Weight, Squares;
        public int Rows, Columns, Adds, Unused;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct DoraFactorArgs
    {
        public nint Squares, B, WeightA, GramA, Magnitude, Scale, InverseNorm;
        public double Scaling;
        public int Rows, Rank;
    }

    private DoraScale BindDoraScale(Node node, DoraScaleOp op, ITensorAddresses at)
    {
        var (weight, a, b) = (node.Inputs[0]!, node.Inputs[1]!, node.Inputs[2]!);
        // For all sessions over this weight: it is frozen.
        var squares = Scratch($"dora.squares {weight.Name} {at.Of(weight)}", 8L * b.Shape.FixedRows);
        return new DoraScale(this, new ProductOperand(this, at.Of(weight), weight.Type, weight.Shape.Columns, weight.Shape.FixedRows, ElementType.F32, "product.b", inParts: true), squares)
        {
            FanInFanOut = op.FanInFanOut,
            Rows = b.Shape.FixedRows,
            Columns = a.Shape.Columns,
            Rank = a.Shape.FixedRows,
            A = at.Of(a),
            WeightA = at.Of(node.Outputs[2]),
            GramA = at.Of(node.Outputs[3]),
            Factor = new DoraFactorArgs
            {
                B = at.Of(b),
                WeightA = at.Of(node.Outputs[2]),
                GramA = at.Of(node.Outputs[3]),
                Magnitude = at.Of(node.Inputs[3]!),
                Scale = at.Of(node.Outputs[0]),
                InverseNorm = at.Of(node.Outputs[1]),
                Scaling = op.Scaling,
                Rows = b.Shape.FixedRows,
                Rank = a.Shape.FixedRows,
            },
        };
    }

    /// <summary>W Aᵀ and A Aᵀ by cuBLAS in fp32, ‖W‖² once, as W is frozen; then the factors. W is read in parts where it is converted.</summary>
    private sealed class DoraScale(CudaBinder binder, ProductOperand weight, CudaScratch squares) : Kernel
    {
        private const ElementType Full = ElementType.F32;
        private readonly CudaFunction _squaresOfRows = binder.Function("dora_squares_rows_f32");
        private readonly CudaFunction _squaresOfColumns = binder.Function("dora_squares_columns_f32");
        private readonly CudaFunction _factor = binder.Function("dora_factor_f32");
        private bool _known;

        public required bool FanInFanOut { get; init; }

        public required int Rows { get; init; }

        public required int Columns { get; init; }

        public required int Rank { get; init; }

        public required nint A { get; init; }

        public required nint WeightA { get; init; }

        public required nint GramA { get; init; }

        public required DoraFactorArgs Factor { get; init; }

        public override void Execute(StepArguments step)
        {
            var stored = FanInFanOut ? Columns : Rows;
            var most = (int)Math.Min(stored, weight.MostRowsAtOnce);
            for (var first = 0; first < stored; first += most)
                Part(first, Math.Min(most, stored - first));
            _known = true;
            binder.Blas.Product(false, true, Rank, Rank, Columns, 1, A, Full, Columns, A, Full, Columns, 0, GramA, Full, Rank);
            var a = Factor;
            a.Squares = squares.Address;
            _factor.Launch(Blocks(Rows, 128), 128, in a);
        }

        private void Part(int first, int rows)
        {
            var w = weight.Ready(first, rows);
            var s = new DoraSquaresArgs { Weight = w, Rows = rows };
            if (FanInFanOut)
            {
                binder.Blas.Product(true, true, Rows, Rank, rows, 1, w, Full, Rows, A + ((nint)first * 4), Full, Columns, first > 0 ? 1 : 0, WeightA, Full, Rank);
                if (_known)
                    return;
                (s.Squares, s.Columns, s.Adds) = (squares.Address, Rows, first > 0 ? 1 : 0);
                _squaresOfColumns.Launch(Blocks(Rows, 256), 256, in s);
                return;
            }
            binder.Blas.Product(false, true, rows, Rank, Columns, 1, w, Full, Columns, A, Full, Columns, 0, WeightA + ((nint)first * Rank * 4), Full, Rank);
            if (_known)
                return;
            (s.Squares, s.Columns) = (squares.Address + ((nint)first * 8), Columns);
            _squaresOfRows.Launch(Blocks(rows, 1), 256, in s);
        }
    }
}
