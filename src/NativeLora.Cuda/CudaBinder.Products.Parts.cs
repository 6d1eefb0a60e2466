using System.Runtime.InteropServices;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

internal sealed partial class CudaBinder
{
    /// <summary>Weights of other types are converted for so many bytes of scratch at once, where a product can be split by its columns.</summary>
    private const long MostWeightBytes = 128L << 20;

    /// <summary>Sums of a product that are rounded at its end.</summary>
    private const long MostSumBytes = 64L << 20;

    [StructLayout(LayoutKind.Sequential)]
    private struct ConvertArgs
    {
        public nint Source, Target;
        public long Count;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ProductFinishArgs
    {
        public nint Sum, Bias, Addend, C;
        public long SumStride, AddendStride, CStride;
        public int Rows, Columns, AddendBrain, Unused;
    }

    /// <summary>Rows of a matrix as products want them: where they lie, or converted to scratch.</summary>
    private sealed class ProductOperand
    {
        private readonly nint _address;
        private readonly ElementType _type;
        private readonly CudaFunction? _convert;
        private readonly CudaScratch? _scratch;

        public ProductOperand(CudaBinder binder, nint address, ElementType type, int columns, long mostRows, ElementType wanted, string key, bool inParts = false)
        {
            (_address, _type, Columns, Pitch, Type) = (address, type, columns, columns, wanted);
            if (type == wanted)
                return;
            if (inParts)
                MostRowsAtOnce = Math.Max(1, MostWeightBytes / ((long)columns * Bytes(wanted)));
            _convert = binder.Function($"convert_{type.ToString().ToLowerInvariant()}_{(wanted == ElementType.BF16 ? "bf16" : "f32")}");
            _scratch = binder.Scratch(key, Math.Max(1, Math.Min(mostRows, MostRowsAtOnce) * columns) * Bytes(wanted));
        }

        /// <summary>Whether they are stored in blocks.</summary>
        public bool IsBlock => _type.IsBlock();

        /// <summary>The kernel that multiplies few rows with these as they are stored.</summary>
        public CudaFunction Dots(CudaBinder binder) => binder.Function($"block_dot_{_type.ToString().ToLowerInvariant()}", Type);

        /// <summary>Elements of a row, which lie close together.</summary>
        public int Columns { get; }

        /// <summary>Elements from where the first rows of two runs may begin.</summary>
        public int Pitch { get; init; }

        /// <summary>Type of what is read.</summary>
        public ElementType Type { get; }

        /// <summary>Rows that may be asked for at once; the largest number where they lie as they are wanted.</summary>
        public long MostRowsAtOnce { get; } = long.MaxValue;

        /// <summary>Where rows lie, after what is queued here. Those of an earlier call are gone if they were converted.</summary>
        public nint Ready(int first, int rows)
        {
            var from = Stored(first);
            if (_convert is null)
                return from;
            var a = new ConvertArgs { Source = from, Target = _scratch!.Address, Count = (long)rows * Columns };
            _convert.Launch(Blocks(a.Count, 1024), 256, in a);
            return a.Target;
        }

        /// <summary>Where a row lies as it is stored.</summary>
        public nint Stored(int first) => _address + (nint)_type.Bytes((long)first * Pitch);
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct BlockDotArgs
    {
        public nint X, W, C;
        public long CStride;
        public int Rows, N, K, CBrain, Adds;
        public float Alpha;
    }

    private static int Bytes(ElementType type) => type == ElementType.F32 ? 4 : 2;

    /// <summary>C = sum + bias + addend, rounded once.</summary>
    private sealed class ProductFinish(CudaBinder binder, ElementType type)
    {
        private readonly CudaFunction _function = binder.Function("product_finish", type);

        public void Run(int rows, int columns, nint sum, long sumStride, nint bias, nint addend, ElementType addendType, long addendStride, nint c, long cStride)
        {
            var a = new ProductFinishArgs
            {
                Sum = sum,
                Bias = bias,
                Addend = addend,
                C = c,
                SumStride = sumStride,
                AddendStride = addendStride,
                CStride = cStride,
                Rows = rows,
                Columns = columns,
                AddendBrain = addendType == ElementType.BF16 ? 1 : 0,
            };
            _function.Launch(Blocks((long)rows * columns, 256), 256, in a);
        }
    }

    /// <summary>
    /// C[rows, N] = addend + bias + alpha·A B + A2 B2 by cuBLAS. What C's type cannot hold is summed in fp32 scratch and rounded once: a bf16
    /// product with a bias or a second product. The addend may be C.
    /// </summary>
    private sealed class RowProduct(CudaBinder binder, long mostRows)
    {
        private ProductOperand? _a2, _b2;
        private bool _turnB2;
        private int _k2;
        // So few rows are multiplied with blocks as they are.
        private const int MostDotRows = 4;

        private CudaFunction? _dots;
        private ProductFinish? _finish;
        private CudaScratch? _sums;
        private int _columnsAtOnce, _rowsAtOnce;

        public required int N { get; init; }

        public required int K { get; init; }

        public required ProductOperand A { get; init; }

        public required ProductOperand B { get; init; }

        /// <summary>Whether B is stored [N, K].</summary>
        public required bool TurnB { get; init; }

        public float Alpha { get; init; } = 1;

        public nint Bias { get; init; }

        public nint Addend { get; init; }

        public ElementType AddendType { get; init; }

        public required nint C { get; init; }

        public required ElementType CType { get; init; }

        /// <summary>Elements from which the first rows of two runs may begin; 0: N.</summary>
        public int CPitch { get; init; }

        /// <summary>Whether sums are made in scratch.</summary>
        private bool Sums => CType != ElementType.F32 && (Bias != 0 || _k2 > 0);

        /// <summary>Adds a second product.</summary>
        public RowProduct Extend(ProductOperand a2, ProductOperand b2, bool turned, int depth)
        {
            (_a2, _b2, _turnB2, _k2) = (a2, b2, turned, depth);
            return Prepare();
        }

        /// <summary>Takes what scratch it needs.</summary>
        public RowProduct Prepare()
        {
            _columnsAtOnce = (int)Math.Min(N, B.MostRowsAtOnce);
            _rowsAtOnce = int.MaxValue;
            _dots = B.IsBlock && TurnB ? B.Dots(binder) : null;
            if (Bias != 0 || Addend != 0 || Sums)
                _finish = new ProductFinish(binder, CType);
            if (Sums)
            {
                _rowsAtOnce = (int)Math.Max(64, MostSumBytes / 4 / _columnsAtOnce);
                _sums = binder.Scratch("product.sums", 4L * _columnsAtOnce * Math.Max(1, Math.Min(mostRows, _rowsAtOnce)));
            }
            return this;
        }

        public void Run(int first, int rows)
        {
            if (rows == 0)
                return;
            var few = _dots is not null && rows <= MostDotRows;
            var a = A.Ready(first, rows);
            var a2 = _a2 is null ? 0 : _a2.Ready(first, rows);
            var b2 = _b2 is null ? 0 : _b2.Ready(0, _turnB2 ? N : _k2);
            for (var column = 0; column < N; column += _columnsAtOnce)
            {
                var columns = Math.Min(_columnsAtOnce, N - column);
                var b = few ? B.Stored(column) : TurnB ? B.Ready(column, columns) : B.Ready(0, K);
                for (var row = 0; row < rows; row += _rowsAtOnce)
                {
                    var count = Math.Min(_rowsAtOnce, rows - row);
                    Part(few, first + row, count, column, columns, a + At(row, K), b, a2 + At(row, _k2), b2 + At(column, _turnB2 ? _k2 : 1));
                }
            }
        }

        private nint At(int index, int stride) => (nint)((long)index * stride * Bytes(A.Type));

        private void Part(bool few, int row, int rows, int column, int columns, nint a, nint b, nint a2, nint b2)
        {
            var c = C + (nint)((((long)row * (CPitch == 0 ? N : CPitch)) + column) * Bytes(CType));
            var bias = Bias == 0 ? 0 : Bias + (column * 4);
            var addend = Addend == 0 ? 0 : Addend + (nint)((((long)row * N) + column) * Bytes(AddendType));
            if (Sums)
            {
                var sums = _sums!.Address;
                Multiply(few, rows, columns, a, b, 0, sums, ElementType.F32, columns);
                Second(rows, columns, a2, b2, sums, ElementType.F32, columns);
                _finish!.Run(rows, columns, sums, columns, bias, addend, AddendType, N, c, N);
                return;
            }
            var begun = bias != 0 || addend != 0;
            if (begun && (bias != 0 || addend != c))
                _finish!.Run(rows, columns, 0, 0, bias, addend, AddendType, N, c, N);
            Multiply(few, rows, columns, a, b, begun ? 1 : 0, c, CType, N);
            Second(rows, columns, a2, b2, c, CType, N);
        }

        private void Multiply(bool few, int rows, int columns, nint a, nint b, float beta, nint c, ElementType type, int stride)
        {
            if (!few)
            {
                binder.Blas.Product(false, TurnB, rows, columns, K, Alpha, a, A.Type, K, b, B.Type, TurnB ? K : N, beta, c, type, stride);
                return;
            }
            var dots = new BlockDotArgs
            {
                X = a,
                W = b,
                C = c,
                CStride = stride,
                Rows = rows,
                N = columns,
                K = K,
                CBrain = type == ElementType.BF16 ? 1 : 0,
                Adds = beta != 0 ? 1 : 0,
                Alpha = Alpha,
            };
            _dots!.Launch(Blocks(columns, 8, int.MaxValue), 256, in dots);
        }

        private void Second(int rows, int columns, nint a2, nint b2, nint c, ElementType type, int stride)
        {
            if (_k2 > 0)
                binder.Blas.Product(false, _turnB2, rows, columns, _k2, 1, a2, A.Type, _k2, b2, B.Type, _turnB2 ? _k2 : N, 1, c, type, stride);
        }
    }
}
