using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Products;

[Collection(Cuda.Collection)]
public class LoraTests
{
    public static TheoryData<int, int, int, int, bool> Odd() => new()
    {
        { 0, 8, 8, 4, false },
        { 1, 1, 1, 1, false },
        { 2, 7, 33, 3, true },
        { 31, 70, 16, 8, false },
        { 70, 31, 65, 17, true },
        { 33, 64, 70, 70, false },
    };

    // Rows of whole chunks of 16 bytes where the kernel asks for them; ranks on both sides of each padded one.
    public static TheoryData<int, int, int, int, bool> Fused() => new()
    {
        { 1, 8, 8, 1, false },
        { 7, 70, 16, 3, false },
        { 33, 31, 40, 16, false },
        { 70, 113, 64, 8, false },
        { 129, 112, 72, 17, false },
        { 16, 200, 104, 32, false },
        { 66, 65, 136, 33, false },
        { 64, 130, 32, 64, false },
        { 5, 8, 7, 5, true },
        { 40, 120, 24, 16, true },
        { 130, 104, 33, 20, true },
        { 17, 72, 70, 64, true },
        // So many columns that P is a product of its own.
        { 20, 264, 264, 61, false },
        { 20, 264, 264, 64, true },
        // More than one group of rows of tiles.
        { 1100, 120, 16, 8, false },
    };

    [CudaTheory]
    [MemberData(nameof(Odd))]
    public void ForwardIsTheCpus(int rows, int outside, int inside, int rank, bool fan)
    {
        foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
            foreach (var dropout in new[] { false, true })
                Forward(rows, outside, inside, rank, fan, type, dropout, bias: dropout, addend: rank % 3);
    }

    [CudaTheory]
    [MemberData(nameof(Odd))]
    public void BackwardIsTheCpus(int rows, int outside, int inside, int rank, bool fan)
    {
        foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
            for (var addend = 0; addend < 3; addend++)
                Backward(rows, outside, inside, rank, fan, type, addend);
    }

    [CudaTheory]
    [MemberData(nameof(Fused))]
    public void OneKernelForwardIsTheCpus(int rows, int outside, int inside, int rank, bool fan)
    {
        // The depth is `inside`, and columns of a weight [in, out] are `outside`: what fits one way does not fit the other.
        if (inside % 8 != 0)
            (inside, outside) = (outside, (outside + 7) / 8 * 8);
        using var fused = Values.FusedFrom(1);
        Forward(rows, outside, inside, rank, fan, ElementType.BF16, dropout: false, bias: rank % 2 == 0, addend: rank % 3);
        Forward(rows, outside, inside, rank, fan, ElementType.BF16, dropout: true, bias: rank % 2 == 1, addend: (rank + 1) % 3);
    }

    [CudaTheory]
    [MemberData(nameof(Fused))]
    public void OneKernelBackwardIsTheCpus(int rows, int outside, int inside, int rank, bool fan)
    {
        using var fused = Values.FusedFrom(1);
        // Here dy's columns are the depth.
        Backward(rows, (outside + 7) / 8 * 8, fan ? inside : (inside + 7) / 8 * 8, rank, fan, ElementType.BF16, rank % 3);
    }

    [CudaTheory]
    [InlineData(65, 64, 48, 8, ElementType.F32)]
    [InlineData(65, 64, 48, 8, ElementType.F16)]
    public void ConvertsTheWeightForOneKernel(int rows, int outside, int inside, int rank, ElementType weight)
    {
        using var fused = Values.FusedFrom(64);
        Forward(rows, outside, inside, rank, false, ElementType.BF16, false, true, 0, weight);
    }

    [InterpretedFact]
    public void OneKernelTakesTheBatchesItIsMeantFor()
    {
        long Products(int rows, int least)
        {
            using var fused = Values.FusedFrom(least);
            var before = Cuda.Count().BlasCalls;
            Case(rows, 16, 16, 4, false, ElementType.BF16, false, true, 0, ElementType.BF16).RunCuda();
            return (long)(Cuda.Count().BlasCalls - before);
        }
        Assert.Equal(0, Products(64, 64));
        Assert.True(Products(63, 64) > 0);
        Assert.True(Products(64, int.MaxValue) > 0);
    }

    [CudaTheory]
    [InlineData(0, 8, 4, ElementType.F32)]
    [InlineData(13, 31, 5, ElementType.F32)]
    [InlineData(70, 33, 16, ElementType.BF16)]
    public void GivesTheGradientOfP(int rows, int outside, int rank, ElementType type) =>
        new OpCase(new LoraDownGradOp(0.5f), Values.Batch(rows))
            .In(OpCase.Tokens("dy", outside, type), Values.Brain(rows * outside, 1))
            .In(OpCase.Parameter("b", outside, rank), Values.Brain(outside * rank, 2))
            .Out(OpCase.Tokens("dp", rank))
            .Compare(1e-5, 1e-5);

    private static void Forward(
        int rows, int outside, int inside, int rank, bool fan, ElementType type, bool dropout, bool bias, int addend, ElementType weight = ElementType.BF16) =>
        Compare(Case(rows, outside, inside, rank, fan, type, dropout, bias, addend, weight), type, rank);

    private static OpCase Case(int rows, int outside, int inside, int rank, bool fan, ElementType type, bool dropout, bool bias, int addend, ElementType weight)
    {
        var x = OpCase.Tokens("x", inside, type);
        var test = new OpCase(new LoraLinearOp(0.5f, fan), Values.Batch(rows)).In(x, Values.Brain(rows * inside, 1));
        _ = dropout ? test.In(OpCase.Tokens("dropped", inside, type), Values.Brain(rows * inside, 2)) : test.Again(x);
        test.In(fan ? OpCase.Weight("w", inside, outside, weight) : OpCase.Weight("w", outside, inside, weight), Values.Brain(outside * inside, 3));
        _ = bias ? test.In(OpCase.Weight("bias", 1, outside), OpCase.Random(outside, 4)) : test.None();
        test.In(OpCase.Parameter("a", rank, inside), Values.Brain(rank * inside, 5, 1 / Math.Sqrt(inside)))
            .In(OpCase.Parameter("b", outside, rank), Values.Brain(outside * rank, 6, 0.2));
        return Add(test, outside, rows, rank, type, addend);
    }

    private static void Backward(int rows, int outside, int inside, int rank, bool fan, ElementType type, int addend)
    {
        var test = new OpCase(new LoraInputGradOp(2, fan), Values.Batch(rows)) { Phase = Phase.Backward }
            .In(OpCase.Tokens("dy", outside, type), Values.Brain(rows * outside, 1))
            .In(fan ? OpCase.Weight("w", inside, outside, ElementType.BF16) : OpCase.Weight("w", outside, inside, ElementType.BF16), Values.Brain(outside * inside, 2));
        var (z, dx) = (OpCase.Tokens("z", inside, type), OpCase.Tokens("dx", inside, type));
        _ = addend == 0 ? test.None() : test.In(z, Values.Brain(rows * inside, 3));
        test.In(OpCase.Parameter("b", outside, rank), Values.Brain(outside * rank, 4, 0.5 / Math.Sqrt(outside)))
            .In(OpCase.Parameter("a", rank, inside), Values.Brain(rank * inside, 5, 0.2));
        _ = addend == 2 ? test.OutOver(dx, z) : test.Out(dx);
        test.Out(OpCase.Tokens("dp", rank));
        Compare(test, type, rank);
    }

    private static OpCase Add(OpCase test, int outside, int rows, int rank, ElementType type, int addend)
    {
        var (z, y) = (OpCase.Tokens("z", outside, type), OpCase.Tokens("y", outside, type));
        _ = addend == 0 ? test.None() : test.In(z, Values.Brain(rows * outside, 7));
        _ = addend == 2 ? test.OutOver(y, z) : test.Out(y);
        return test.Out(OpCase.Tokens("p", rank));
    }

    // P is rounded to bf16 where it meets the tensor cores, on a CPU only where that has products of bf16: |P| < 1, |B| <= 0.2.
    private static void Compare(OpCase test, ElementType type, int rank) =>
        test.Compare(type == ElementType.BF16 ? Values.Place : 1e-5, type == ElementType.BF16 ? 0.2 / 512 * rank : 2e-5);
}
