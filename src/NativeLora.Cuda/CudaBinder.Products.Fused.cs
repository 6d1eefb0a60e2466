using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>LoRA on tensor cores without cuBLAS: products, rank-r term, bias and addend in one kernel, and gradients of the factors.</summary>
internal sealed partial class CudaBinder
{
    private const int MostFusedRank = 64;

    // P made anew in each column of tiles costs so many operations for each byte that reading x once more, for a product of its own, would take:
    // what GPUs of compute capability 8.0 and 9.0 do in the time of a byte, and something for the launch.
    private const int MostStackedWork = 256;

    /// <summary>Nodes bound from now on take the fused kernels for batches of so many rows or more; with fewer, a tile is mostly empty.</summary>
    public int LeastFusedRows { get; set; } = 64;

    [StructLayout(LayoutKind.Sequential)]
    private struct LoraLinearArgs
    {
        public nint X, W, Down, Up, Bias, Addend, Y, P;
        public int M, N, K, Rank;
        public float Scaling;
        public int Unused;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct LoraPackPart
    {
        public nint Source, Target;
        public int SourceRows, SourceColumns, Rows, Columns, Turned, Unused;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct LoraPackArgs
    {
        public LoraPackPart Down, Up;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct SkinnyGradArgs
    {
        public nint Wide, Narrow, Partial;
        public int Tokens, Columns, Rank, Each;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct SkinnySumArgs
    {
        public nint Partial, Gradient;
        public int Runs, Columns, Rank, Turned, Adds, Unused;
    }

    private static bool IsAligned(nint address) => (address & 15) == 0;

    private static int PaddedRank(int rank) => rank == 0 ? 0 : rank <= 16 ? 16 : rank <= 32 ? 32 : 64;

    /// <summary>What the second product of a fused kernel is made of.</summary>
    /// <param name="Down">Factor that x is multiplied with, [depth, rank] or turned; null: P is given.</param>
    /// <param name="DownTurned">Whether it is stored [rank, depth].</param>
    /// <param name="Up">Factor of P, [rank, N] or turned.</param>
    /// <param name="UpTurned">Whether it is stored [N, rank].</param>
    /// <param name="P">P.</param>
    /// <param name="Scaling">s.</param>
    private sealed record FusedRank(Tensor? Down, bool DownTurned, Tensor Up, bool UpTurned, Tensor P, float Scaling);

    /// <summary>The fused kernel for a node, or null where cuBLAS serves it.</summary>
    private FusedProduct? Fuse(Node node, Tensor x, Tensor weight, bool turned, Tensor? bias, Tensor? addend, FusedRank? rank, ITensorAddresses at, BatchSize capacity)
    {
        var (y, k) = (node.Output, x.Shape.Columns);
        var n = y.Shape.Columns;
        var r = rank?.P.Shape.Columns ?? 0;
        var brain = x.Type == ElementType.BF16 && y.Type == ElementType.BF16 && IsBrain(y) && (addend is null || addend.Type == ElementType.BF16);
        if (!brain || r > MostFusedRank || (rank is not null && r == 0) || k % 8 != 0 || (!turned && n % 8 != 0) || y.Shape.Rows(capacity) < LeastFusedRows)
            return null;
        if (!IsAligned(at.Of(x)) || !IsAligned(at.Of(y)) || !IsAligned(Of(addend, at)))
            return null;
        if (weight.Type == ElementType.BF16 ? !IsAligned(at.Of(weight)) : 2L * n * k > MostWeightBytes)
            return null;
        if (rank?.Down is not null && PaddedRank(r) * Blocks(n, 128 - PaddedRank(r)) > MostStackedWork)
            rank = rank with { Down = null };
        return new FusedProduct(this, Operand(weight, at, capacity, ElementType.BF16, "product.b"), turned, rank, LeastFusedRows, at, new LoraLinearArgs
        {
            X = at.Of(x),
            Bias = Of(bias, at),
            Addend = Of(addend, at),
            Y = at.Of(y),
            N = n,
            K = k,
        });
    }

    /// <summary>y = x W + bias + addend + P up, P = s·x down.</summary>
    private sealed class FusedProduct
    {
        private const int TileRows = 128, TileColumns = 128;

        private readonly CudaFunction _function, _pack;
        private readonly ProductOperand _weight;
        private readonly CudaScratch? _down, _up;
        private readonly LoraLinearArgs _args;
        private readonly LoraPackArgs _factors;
        private readonly int _columns, _weightRows;

        public FusedProduct(CudaBinder binder, ProductOperand weight, bool turned, FusedRank? rank, int leastRows, ITensorAddresses at, LoraLinearArgs args)
        {
            (_weight, LeastRows, _weightRows) = (weight, leastRows, turned ? args.N : args.K);
            IsGiven = rank is { Down: null };
            var r = rank?.P.Shape.Columns ?? 0;
            var padded = PaddedRank(r);
            _columns = TileColumns - (IsGiven ? 0 : padded);
            _function = binder.Function($"lora_{(IsGiven ? "given" : "linear")}_{(turned ? "turned" : "plain")}_{padded}_bf16");
            _pack = binder.Function("lora_pack_bf16");
            (args.Rank, args.Scaling, args.P) = (r, rank?.Scaling ?? 0, Of(rank?.P, at));
            _args = args;
            if (rank is null)
                return;
            _up = binder.Scratch("product.up", 2L * args.N * padded);
            _factors.Up = Part(rank.Up, at, args.N, padded, !rank.UpTurned);
            if (rank.Down is not { } down)
                return;
            _down = binder.Scratch("product.down", 2L * args.K * padded);
            // It lies beside W: by rows of the depth where W does.
            _factors.Down = turned ? Part(down, at, padded, args.K, !rank.DownTurned) : Part(down, at, args.K, padded, rank.DownTurned);
        }

        /// <summary>Rows from which on it serves.</summary>
        public int LeastRows { get; }

        /// <summary>Whether P must be there already.</summary>
        public bool IsGiven { get; }

        public void Run(int rows)
        {
            var a = _args;
            a.M = rows;
            a.W = _weight.Ready(0, _weightRows);
            if (_up is not null)
            {
                var f = _factors;
                a.Up = f.Up.Target = _up.Address;
                if (_down is not null)
                    a.Down = f.Down.Target = _down.Address;
                var most = Math.Max(f.Up.Rows * (long)f.Up.Columns, f.Down.Rows * (long)f.Down.Columns);
                _pack.Launch(Blocks(most, 1024), 2, 1, 256, 0, in f);
            }
            _function.Launch(checked(Blocks(rows, TileRows, int.MaxValue) * Blocks(a.N, _columns, int.MaxValue)), 256, in a);
        }

        private static LoraPackPart Part(Tensor factor, ITensorAddresses at, int rows, int columns, bool turned) => new()
        {
            Source = at.Of(factor),
            SourceRows = factor.Shape.FixedRows,
            SourceColumns = factor.Shape.Columns,
            Rows = rows,
            Columns = columns,
            Turned = turned ? 1 : 0,
        };
    }

    /// <summary>The kernel for a gradient with one narrow side, or null where cuBLAS serves it.</summary>
    private SkinnyGrad? FuseGrad(Tensor dy, Tensor x, Tensor gradient, ITensorAddresses at, BatchSize capacity)
    {
        var turned = x.Type == ElementType.F32;
        var (wide, narrow) = turned ? (dy, x) : (x, dy);
        var suits = wide.Type == ElementType.BF16 && IsBrain(wide) && narrow.Type == ElementType.F32 && narrow.Shape.Columns is > 0 and <= MostFusedRank
            && wide.Shape.Columns % 8 == 0 && IsAligned(at.Of(wide)) && wide.Shape.Rows(capacity) >= LeastFusedRows;
        return suits ? new SkinnyGrad(this, wide, narrow, at.Of(gradient), turned, LeastFusedRows, at, capacity) : null;
    }

    /// <summary>A gradient [rank, columns], or turned, whose depth is the tokens: in runs of tokens, whose number depends on sizes alone.</summary>
    private sealed class SkinnyGrad
    {
        // Enough blocks for the largest GPUs twice over; runs of fewer tokens than this are not worth their partial sums.
        private const int Blocks = 264, LeastRun = 128, TokensAtOnce = 32, TileColumns = 128;

        private readonly CudaFunction _function, _sum;
        private readonly CudaScratch _partial;
        private readonly SkinnyGradArgs _args;
        private readonly nint _gradient;
        private readonly bool _turned;
        private readonly int _tiles;

        public SkinnyGrad(CudaBinder binder, Tensor wide, Tensor narrow, nint gradient, bool turned, int leastRows, ITensorAddresses at, BatchSize capacity)
        {
            (_gradient, _turned, LeastRows) = (gradient, turned, leastRows);
            _args = new SkinnyGradArgs { Wide = at.Of(wide), Narrow = at.Of(narrow), Columns = wide.Shape.Columns, Rank = narrow.Shape.Columns };
            _tiles = CudaBinder.Blocks(_args.Columns, TileColumns);
            _function = binder.Function($"skinny_grad_{PaddedRank(_args.Rank)}_bf16");
            _sum = binder.Function("skinny_sum_f32");
            _partial = binder.Scratch("product.sums", 4L * MostRuns(wide.Shape.Rows(capacity)) * _args.Rank * _args.Columns);
        }

        /// <summary>Rows from which on it serves.</summary>
        public int LeastRows { get; }

        public void Run(int tokens, bool adds)
        {
            var a = _args;
            var runs = MostRuns(tokens);
            a.Tokens = tokens;
            a.Each = CudaBinder.Blocks(CudaBinder.Blocks(tokens, runs), TokensAtOnce) * TokensAtOnce;
            a.Partial = _partial.Address;
            runs = CudaBinder.Blocks(tokens, a.Each);
            _function.Launch(_tiles, runs, 1, 256, 0, in a);
            var s = new SkinnySumArgs
            {
                Partial = a.Partial,
                Gradient = _gradient,
                Runs = runs,
                Columns = a.Columns,
                Rank = a.Rank,
                Turned = _turned ? 1 : 0,
                Adds = adds ? 1 : 0,
            };
            _sum.Launch(CudaBinder.Blocks((long)a.Rank * a.Columns, 256), 256, in s);
        }

        private int MostRuns(int tokens) => Math.Clamp(CudaBinder.Blocks(Blocks, _tiles), 1, Math.Max(1, CudaBinder.Blocks(tokens, LeastRun)));
    }
}
