using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Products;

/// <summary>What the fused kernels read and write of the device's memory, to the byte: no pass over x or y that need not be.</summary>
[Collection(Cuda.Collection)]
public class TrafficTests
{
    [InterpretedFact]
    public void LoraReadsXOnceAColumnOfTilesAndWritesYOnce()
    {
        const int rows = 256, outside = 224, inside = 64, rank = 16, own = 128 - rank;
        const int rowTiles = rows / 128, columnTiles = outside / own;
        using var fused = Values.FusedFrom(1);
        var x = OpCase.Tokens("x", inside, ElementType.BF16);
        var (read, written) = Count(new OpCase(new LoraLinearOp(0.5f), Values.Batch(rows))
            .In(x, Values.Brain(rows * inside, 1))
            .Again(x)
            .In(OpCase.Weight("w", outside, inside, ElementType.BF16), Values.Brain(outside * inside, 2))
            .None()
            .In(OpCase.Parameter("a", rank, inside), Values.Brain(rank * inside, 3))
            .In(OpCase.Parameter("b", outside, rank), Values.Brain(outside * rank, 4))
            .None()
            .Out(OpCase.Tokens("y", outside, ElementType.BF16))
            .Out(OpCase.Tokens("p", rank)));
        const int factors = rank * (inside + outside);
        // The factors as parameters, then as bf16: A beside each tile of W, B by each of a block's two rows of warps.
        const int down = 2 * rank * inside * rowTiles * columnTiles, up = 2 * outside * rank * rowTiles * 2;
        Assert.Equal((2 * rows * inside * columnTiles) + (2 * outside * inside * rowTiles) + (4 * factors) + down + up, read);
        Assert.Equal((2 * rows * outside) + (4 * rows * rank) + (2 * factors), written);
    }

    [InterpretedFact]
    public void AFactorsGradientReadsTheWideSideOnce()
    {
        const int tokens = 256, columns = 256, rank = 16, tiles = columns / 128, runs = tokens / 128;
        using var fused = Values.FusedFrom(1);
        var (read, written) = Count(new OpCase(new WeightGradOp(false), Values.Batch(tokens)) { Phase = Phase.Backward }
            .In(OpCase.Tokens("dy", columns, ElementType.BF16), Values.Brain(tokens * columns, 1))
            .In(OpCase.Tokens("p", rank), Values.Brain(tokens * rank, 2))
            .Out(OpCase.Gradient("g", columns, rank)));
        const int partial = 4 * runs * rank * columns;
        Assert.Equal((2 * tokens * columns) + (4 * tokens * rank * tiles) + partial, read);
        Assert.Equal(partial + (4 * rank * columns), written);
    }

    private static (long Read, long Written) Count(OpCase test)
    {
        var before = Cuda.Count();
        test.Run(Cuda.Device);
        Cuda.Device.Wait();
        var after = Cuda.Count();
        return ((long)(after.GlobalBytesRead - before.GlobalBytesRead), (long)(after.GlobalBytesWritten - before.GlobalBytesWritten));
    }
}
