using NativeLora.Graphs;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Rows;

/// <summary>Sizes, types and tolerances of the ops on rows.</summary>
internal static class RowCases
{
    public static readonly ElementType[] Types = [ElementType.F32, ElementType.BF16];

    /// <summary>Each number of columns and of rows up to 70, and some where a block or a warp has more than one turn.</summary>
    public static IEnumerable<(int Rows, int Columns)> Sizes()
    {
        yield return (0, 8);
        for (var i = 1; i <= 70; i++)
            yield return (i % 5 + 1, i);
        for (var i = 1; i <= 70; i += 3)
            yield return (i, i % 7 + 1);
        yield return (2, 1023);
        yield return (3, 1100);
        yield return (1, 4099);
    }

    /// <summary>A few of them, for ops with many variants.</summary>
    public static IEnumerable<(int Rows, int Columns)> FewSizes() => [(0, 8), (1, 1), (3, 2), (5, 7), (4, 8), (7, 33), (2, 64), (70, 12), (2, 1030)];

    public static BatchSize Tokens(int tokens) => new(tokens, 1, (long)tokens * tokens);

    /// <summary>fp32: rounding errors of sums in another order. bf16: the neighbour, where two fp32 values lie about its rounding border.</summary>
    public static void Compare(this OpCase op, ElementType type, double relative = 1e-5, double absolute = 2e-6) =>
        op.Compare(type == ElementType.BF16 ? 1 / 128.0 : relative, absolute);

    /// <summary>Ids below <paramref name="below"/>, the same for the same seed; with many that repeat.</summary>
    public static int[] Ids(int count, int below, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(3) == 0 ? below / 2 : random.Next(below))];
    }
}
