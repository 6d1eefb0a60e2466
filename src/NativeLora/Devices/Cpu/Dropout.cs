using System.Runtime.Intrinsics;

namespace NativeLora.Devices.Cpu;

/// <summary>
/// y = x · mask / (1 - p). The mask is a function of (seed, stream, step, row · columns + column) and is computed again in the
/// backward, which is the same kernel on dy. The output may be the input.
/// </summary>
internal sealed unsafe class Dropout<E>(CpuThreads threads, int columns) : IParallelBody
    where E : unmanaged
{
    private const int MaskSpan = 1024;

    public E* Input;
    public E* Output;

    /// <summary>p, at least 0 and below 1.</summary>
    public float Probability;

    public ulong Seed;

    /// <summary>Which dropout of the model this is.</summary>
    public uint Stream;

    /// <summary>Counts forward passes: every micro-batch gets its own masks.</summary>
    public uint Step;

    /// <summary>Rows of a larger batch that lie before these: the masks are those of the larger one.</summary>
    public int RowsBefore;

    private long _count;

    public void Execute(int rows)
    {
        _count = (long)rows * columns;
        threads.For(RowMath.Tasks(_count, RowMath.ElementsPerTask), this);
    }

    public void Run(int task, int worker)
    {
        var mask = stackalloc float[MaskSpan];
        var end = Math.Min(_count, (long)(task + 1) * RowMath.ElementsPerTask);
        for (var start = (long)task * RowMath.ElementsPerTask; start < end; start += MaskSpan)
        {
            var count = (int)Math.Min(MaskSpan, end - start);
            Philox.FillMask(mask, (ulong)((long)RowsBefore * columns + start), count, Seed, Stream, Step, Probability);
            for (var i = 0; i < count; i += RowMath.Lanes)
            {
                var left = count - i;
                RowMath.Store(RowMath.Load(Input + start + i, left) * RowMath.Load(mask + i, left), Output + start + i, left);
            }
        }
    }
}
