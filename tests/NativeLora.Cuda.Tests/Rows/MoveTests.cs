using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Rows;

[Collection(Cuda.Collection)]
public class MoveTests
{
    private static readonly int[][] s_widths = [[1], [3, 4], [8, 4, 4], [1, 2, 3, 70], [64, 16, 16], [1030, 5]];

    [CudaFact]
    public void Splits()
    {
        foreach (var type in RowCases.Types)
            foreach (var widths in s_widths)
                foreach (var rows in new[] { 0, 1, 5, 70 })
                {
                    var op = new OpCase(new SplitOp(), RowCases.Tokens(rows)).In(OpCase.Tokens("x", widths.Sum(), type), OpCase.Random(rows * widths.Sum(), 1));
                    foreach (var width in widths)
                        op.Out(OpCase.Tokens("part", width, type));
                    op.Compare(0, 0);
                }
    }

    [CudaFact]
    public void Joins()
    {
        foreach (var type in RowCases.Types)
            foreach (var widths in s_widths)
                foreach (var absent in new[] { -1, 0, widths.Length - 1 })
                {
                    var op = new OpCase(new JoinOp(widths), RowCases.Tokens(6));
                    for (var i = 0; i < widths.Length; i++)
                        _ = i == absent ? op.None() : op.In(OpCase.Tokens("part", widths[i], type), OpCase.Random(6 * widths[i], i));
                    op.Out(OpCase.Tokens("x", widths.Sum(), type)).Compare(0, 0);
                }
    }

    private static BatchSize Sequences(params int[] lengths) => new(lengths.Sum(), lengths.Length, lengths.Sum(l => (long)l * l));

    private static int[] Starts(int[] lengths) => [.. lengths.Aggregate(new List<int> { 0 }, (all, length) => [.. all, all[^1] + length])];

    [CudaFact]
    public void Gathers()
    {
        foreach (var type in RowCases.Types)
            foreach (var columns in new[] { 1, 5, 8, 33, 64, 1030 })
            {
                var size = Sequences(3, 1, 7, 2);
                var index = OpCase.Ints("index", Shape.PerSequence(1));
                new OpCase(new GatherOp(), size)
                    .In(OpCase.Tokens("x", columns, type), OpCase.Random(13 * columns, 1))
                    .In(index, 2, 3, 10, 11)
                    .Out(OpCase.Sequences("y", columns))
                    .Compare(0, 0);
                // The third again: what repeats is added up.
                foreach (var rows in new[] { new[] { 2, 3, 10, 12 }, [5, 3, 5, 5] })
                    new OpCase(new ScatterOp(), size)
                        .In(OpCase.Sequences("dy", columns), OpCase.Random(4 * columns, 2))
                        .In(index, rows)
                        .Out(OpCase.Tokens("dx", columns, type))
                        .Compare(0, 0);
            }
    }

    [CudaFact]
    public void MeanPools()
    {
        foreach (var type in RowCases.Types)
            foreach (var columns in new[] { 1, 5, 8, 33, 64, 70, 1030 })
                foreach (var lengths in new int[][] { [1], [3, 1, 7, 2], [70], [5, 40, 17] })
                    foreach (var masked in new[] { false, true })
                    {
                        var size = Sequences(lengths);
                        int[] starts = Starts(lengths), visible = [.. Enumerable.Range(0, size.Tokens).Select(t => t % 3 == 0 ? 0 : 1)];
                        Tensor bounds = OpCase.Ints("cu_seqlens", Shape.Fixed(lengths.Length + 1, 1)), mask = OpCase.Ints("key_visible", Shape.PerToken(1));
                        var forward = new OpCase(new MeanPoolOp(), size)
                            .In(OpCase.Tokens("x", columns, type), OpCase.Random(size.Tokens * columns, 1))
                            .In(bounds, starts);
                        (masked ? forward.In(mask, visible) : forward.None()).Out(OpCase.Sequences("y", columns)).Compare(1e-6, 1e-7);
                        var backward = new OpCase(new MeanPoolGradOp(), size)
                            .In(OpCase.Sequences("dy", columns), OpCase.Random(lengths.Length * columns, 2))
                            .In(bounds, starts);
                        (masked ? backward.In(mask, visible) : backward.None()).Out(OpCase.Tokens("dx", columns, type)).Compare(0, 0);
                    }
    }

    [CudaFact]
    public void TurnsByPosition()
    {
        foreach (var type in RowCases.Types)
            foreach (var (heads, headDim, half) in new[] { (1, 2, 1), (3, 6, 3), (2, 8, 4), (4, 64, 32), (2, 20, 4), (3, 10, 2), (1, 70, 35), (5, 128, 16), (20, 80, 40) })
                foreach (var rows in new[] { 0, 1, 7, 33 })
                    foreach (var (inverse, inPlace) in new[] { (false, false), (false, true), (true, false), (true, true) })
                    {
                        var columns = heads * headDim;
                        Tensor x = OpCase.Tokens("x", columns, type), y = OpCase.Tokens("y", columns, type);
                        var op = new OpCase(new RotaryOp(headDim, inverse), RowCases.Tokens(rows)) { BothSchedules = rows == 7 }
                            .In(x, OpCase.Random(rows * columns, 1))
                            .In(OpCase.Ints("positions", Shape.PerToken(1)), [.. Enumerable.Range(0, rows).Select(r => r * 5 % 40)])
                            .In(OpCase.Fixed("cos", 40, half, category: TensorCategory.Constant), OpCase.Random(40 * half, 2))
                            .In(OpCase.Fixed("sin", 40, half, category: TensorCategory.Constant), OpCase.Random(40 * half, 3));
                        (inPlace ? op.OutOver(y, x) : op.Out(y)).Compare(type, 1e-6, 1e-6);
                    }
    }
}
