using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;

namespace NativeLora.Devices.Cpu;

/// <summary>One call of a micro-kernel: C = (A B + source) + bias over a whole tile, A and B packed by panels.</summary>
internal unsafe struct GemmTile
{
    public nint Depth;

    /// <summary>Depth times Rows values.</summary>
    public float* A;
    public int Rows;

    /// <summary>Depth times Columns values.</summary>
    public float* B;
    public int Columns;

    /// <summary>Added to the product; null for nothing. May be C.</summary>
    public float* Source;
    public nint SourceStride;

    /// <summary>Added to each row; null for nothing.</summary>
    public float* Bias;
    public float* C;
    public nint CStride;

    /// <summary>Fetches C while the product runs: its rows lie too far apart for the processor to foresee.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly void PrefetchC()
    {
        if (!Sse.IsSupported)
            return;
        var c = C;
        for (var i = Rows; i > 0; i--, c += CStride)
        {
            Sse.Prefetch0(c);
            Sse.Prefetch0(c + Columns - 1);
        }
    }
}

/// <summary>
/// The innermost loops for one instruction set. Every tile shape sums a product in order of depth in a single accumulator, so
/// how a matrix is cut into tiles does not show in the result.
/// </summary>
internal abstract unsafe class GemmKernel
{
    /// <summary>Rows of a full panel of A.</summary>
    public abstract int Rows { get; }

    /// <summary>Columns of a full panel of B.</summary>
    public abstract int Columns { get; }

    /// <summary>Columns of the panel that takes a rest of at most so many.</summary>
    public abstract int NarrowColumns { get; }

    /// <summary>Rows of the panel that comes next when <paramref name="left"/> rows are left.</summary>
    public abstract int PanelRows(int left);

    /// <summary>Columns of the panel that comes next when <paramref name="left"/> columns are left.</summary>
    public int PanelColumns(int left) => left <= NarrowColumns ? NarrowColumns : Columns;

    /// <summary>Computes one whole tile.</summary>
    public abstract void Multiply(in GemmTile tile);

    /// <summary>Dot products of <paramref name="a"/> with four rows of <paramref name="b"/>.</summary>
    public abstract void Dot4(nint depth, float* a, float* b, nint stride, float* sums);

    public static GemmKernel For(CpuPath path) => path switch
    {
        CpuPath.Avx512 => new GemmAvx512(),
        CpuPath.Avx2 => new GemmAvx2(),
        _ => new GemmPortable(),
    };
}
