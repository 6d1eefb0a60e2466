using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;

namespace NativeLora.Devices.Cpu;

/// <summary>One call of a micro-kernel: C = (A B + source) + bias over a whole tile, A and B packed by panels.</summary>
internal unsafe struct GemmTile
{
    public nint Depth;

    /// <summary>Depth times Rows values.</summary>
    public void* A;
    public int Rows;

    /// <summary>Depth times Columns values.</summary>
    public void* B;
    public int Columns;

    /// <summary>Added to the product; null for nothing. May be C.</summary>
    public float* Source;
    public nint SourceStride;

    /// <summary>Added to each row; null for nothing.</summary>
    public float* Bias;
    public void* C;
    public nint CStride;

    /// <summary>Added before the bias, where <see cref="GemmKernel.Finishes"/>; null for nothing.</summary>
    public void* Addend;
    public nint AddendStride;

    /// <summary>Of the addend and of C, where <see cref="GemmKernel.Finishes"/>: 0 for fp32, 2 for bf16.</summary>
    public int AddendType, CType;

    /// <summary>B where depth goes on behind it, packed elsewhere, if <see cref="GemmKernel.TakesRest"/>; A goes on where it is.</summary>
    public void* Rest;
    public nint RestDepth;

    /// <summary>Fetches C while the product runs: its rows lie too far apart for the processor to foresee.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly void PrefetchC()
    {
        if (!Sse.IsSupported)
            return;
        var c = (float*)C;
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

    /// <summary>Bytes of a packed value.</summary>
    public virtual int PackedBytes => sizeof(float);

    /// <summary>Depth is packed in units of so many steps, the last filled up with zeros.</summary>
    public virtual int DepthUnit => 1;

    /// <summary>Depth of a block: a panel of B of that depth stays in the first-level cache, or nearly.</summary>
    public virtual int MaxDepth => 384;

    /// <summary>Whether tiles can be finished as they are made: with an addend of their own, and stored in bf16.</summary>
    public virtual bool Finishes => false;

    /// <summary>Whether B may lie in two places: see <see cref="GemmTile.Rest"/>.</summary>
    public virtual bool TakesRest => false;

    /// <summary>Whether packing may use vectors.</summary>
    protected virtual bool PacksByVectors => true;

    /// <summary>Packs lanes whose depth is contiguous in memory.</summary>
    public virtual void PackRows(in GemmMatrix m, int lane, int lanes, int width, int from, int depth, float factor, void* target) =>
        GemmPack.Rows(m, lane, lanes, width, from, depth, factor, PacksByVectors, (float*)target);

    /// <summary>Packs lanes that lie side by side in memory.</summary>
    public virtual void PackColumns(in GemmMatrix m, int lane, int lanes, int width, int from, int depth, float factor, void* target) =>
        GemmPack.Columns(m, lane, lanes, width, from, depth, factor, (float*)target);

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
