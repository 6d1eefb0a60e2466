using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Products;

[Collection(Cuda.Collection)]
public class WeightGradTests
{
    [CudaTheory]
    [InlineData(0, 7, 5)]
    [InlineData(1, 1, 1)]
    [InlineData(70, 33, 16)]
    [InlineData(31, 8, 66)]
    public void IsTheCpus(int tokens, int outside, int inside)
    {
        foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
            foreach (var (adds, accumulates) in new[] { (false, false), (true, false), (false, true) })
                Case(tokens, outside, type, inside, type, adds, accumulates);
    }

    // dB = dyᵀ P, dA = dPᵀ x: one side wide and bf16, the other a rank in fp32.
    [CudaTheory]
    [InlineData(0, 8, 4)]
    [InlineData(1, 8, 1)]
    [InlineData(33, 64, 8)]
    [InlineData(70, 136, 16)]
    [InlineData(129, 120, 17)]
    [InlineData(300, 40, 32)]
    [InlineData(257, 264, 64)]
    [InlineData(64, 31, 5)]
    [InlineData(70, 64, 65)]
    public void OfAFactorIsTheCpus(int tokens, int columns, int rank)
    {
        foreach (var least in new[] { 1, int.MaxValue })
        {
            using var fused = Values.FusedFrom(least);
            Case(tokens, columns, ElementType.BF16, rank, ElementType.F32, adds: false, accumulates: tokens == 70);
            Case(tokens, rank, ElementType.F32, columns, ElementType.BF16, adds: tokens == 33, accumulates: false);
        }
    }

    [InterpretedFact]
    public void ItsKernelTakesTheFactors()
    {
        using var fused = Values.FusedFrom(1);
        var before = Cuda.Count().BlasCalls;
        Case(40, 64, ElementType.BF16, 8, ElementType.F32, false, false);
        Assert.Equal(before, Cuda.Count().BlasCalls);
    }

    private static void Case(int tokens, int outside, ElementType dy, int inside, ElementType x, bool adds, bool accumulates)
    {
        var test = new OpCase(new WeightGradOp(adds), Values.Batch(tokens)) { Phase = Phase.Backward, Step = { AccumulateGradients = accumulates } }
            .In(OpCase.Tokens("dy", outside, dy), Values.Brain(tokens * outside, 1))
            .In(OpCase.Tokens("x", inside, x), Values.Brain(tokens * inside, 2))
            .Out(OpCase.Gradient("g", outside, inside), adds || accumulates ? OpCase.Random(outside * inside, 3) : null);
        test.Compare(1e-5, 1e-6 * Math.Sqrt(tokens) + 1e-6);
    }
}
