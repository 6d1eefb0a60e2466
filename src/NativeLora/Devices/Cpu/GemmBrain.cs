using System.Runtime.CompilerServices;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cpu;

/// <summary>Tiles of bf16 operands with fp32 sums, by the native kernels (kernels/cpu/gemm_bf16.cpp).</summary>
internal sealed unsafe class GemmBrain : GemmKernel
{
    private const int MaxLanes = 32;

    private GemmBrain() { }

    /// <summary>The kernel, or null where the native library or the processor's instructions are missing.</summary>
    public static GemmBrain? Create() => NativeCpu.HasBrainProducts ? new GemmBrain() : null;

    public override int Rows => 12;

    public override int Columns => 32;

    public override int NarrowColumns => 16;

    public override int PackedBytes => sizeof(ushort);

    public override int DepthUnit => 2;

    public override int MaxDepth => 768;

    public override bool Finishes => true;

    public override bool TakesRest => true;

    public override int PanelRows(int left) => left > 8 ? 12 : left > 4 ? 8 : 4;

    public override void PackRows(in GemmMatrix m, int lane, int lanes, int width, int from, int depth, float factor, void* target)
    {
        if (m.Type.IsBlock())
            PackBlockRows(m, lane, lanes, width, from, depth, factor, (uint*)target);
        else
            NativeCpu.PackRows(At(m, lane, from), Code(m.Type), m.Stride, lanes, width, depth, factor, target);
    }

    public override void PackColumns(in GemmMatrix m, int lane, int lanes, int width, int from, int depth, float factor, void* target)
    {
        if (m.Type.IsBlock())
            PackBlockColumns(m, lane, lanes, width, from, depth, factor, (uint*)target);
        else
            NativeCpu.PackColumns(At(m, from, lane), Code(m.Type), m.Stride, lanes, width, depth, factor, target);
    }

    // Blocks are widened to fp32 by so many values at a time, an even number.
    [SkipLocalsInit]
    private static void PackBlockRows(in GemmMatrix m, int lane, int lanes, int width, int from, int depth, float factor, uint* target)
    {
        const int Chunk = 64;
        var scratch = stackalloc float[MaxLanes * Chunk];
        for (int k = 0, count; k < depth; k += count)
        {
            count = Math.Min(Chunk - GemmPack.PastBlock(m, from + k), depth - k);
            for (var i = 0; i < lanes; i++)
                m.Widen(lane + i, from + k, count, scratch + (i * Chunk));
            NativeCpu.PackRows(scratch, 0, Chunk, lanes, width, count, factor, target + ((nint)(k / 2) * width));
        }
    }

    [SkipLocalsInit]
    private static void PackBlockColumns(in GemmMatrix m, int lane, int lanes, int width, int from, int depth, float factor, uint* target)
    {
        const int Chunk = 32;
        var scratch = stackalloc float[MaxLanes * Chunk];
        for (var k = 0; k < depth; k += Chunk)
        {
            var count = Math.Min(Chunk, depth - k);
            for (var i = 0; i < count; i++)
                m.Widen(from + k + i, lane, lanes, scratch + (i * MaxLanes));
            NativeCpu.PackColumns(scratch, 0, MaxLanes, lanes, width, count, factor, target + ((nint)(k / 2) * width));
        }
    }

    public override void Multiply(in GemmTile tile)
    {
        fixed (GemmTile* at = &tile)
            if (NativeCpu.Tile(at) == 0)
                throw new ArgumentException($"no tile of {tile.Rows}x{tile.Columns}", nameof(tile));
    }

    public override void Dot4(nint depth, float* a, float* b, nint stride, float* sums) =>
        throw new NotSupportedException("few rows are multiplied in fp32");

    private static void* At(in GemmMatrix m, int row, int column) =>
        (byte*)m.Data + ((((nint)row * m.Stride) + column) * (m.Type == ElementType.F32 ? sizeof(float) : sizeof(ushort)));

    internal static int Code(ElementType type) => type switch
    {
        ElementType.F32 => 0,
        ElementType.F16 => 1,
        _ => 2,
    };
}
