using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Products;

[Collection(Cuda.Collection)]
public class LinearTests
{
    public static TheoryData<int, int, int, bool, bool, ElementType, ElementType> Sizes()
    {
        var data = new TheoryData<int, int, int, bool, bool, ElementType, ElementType>();
        int[] sizes = [0, 1, 2, 7, 16, 31, 33, 64, 70];
        var types = new[] { ElementType.F32, ElementType.F16, ElementType.BF16 };
        for (var i = 0; i < 27; i++)
            data.Add(sizes[(i * 5) % sizes.Length], Math.Max(1, sizes[(i * 7 + 3) % sizes.Length]), Math.Max(1, sizes[(i * 2 + 5) % sizes.Length]),
                i % 2 == 1, i % 3 == 1, types[i % 3], i % 4 < 2 ? ElementType.F32 : ElementType.BF16);
        return data;
    }

    [CudaTheory]
    [MemberData(nameof(Sizes))]
    public void IsTheCpus(int rows, int outside, int inside, bool fan, bool bias, ElementType weight, ElementType type)
    {
        foreach (var addend in new[] { 0, 1, 2 })
            Case(new LinearOp(fan), rows, outside, inside, fan, bias, addend, weight, type);
    }

    // cuBLAS and the kernel of the fused product with a bias.
    [CudaTheory]
    [InlineData(1, 8, 8, false)]
    [InlineData(70, 70, 64, false)]
    [InlineData(33, 7, 40, false)]
    [InlineData(130, 129, 24, false)]
    [InlineData(70, 64, 72, true)]
    [InlineData(5, 136, 200, true)]
    public void HasItsBiasInOneKernel(int rows, int outside, int inside, bool fan)
    {
        using var fused = Values.FusedFrom(1);
        foreach (var addend in new[] { 0, 1, 2 })
            foreach (var weight in new[] { ElementType.BF16, ElementType.F16 })
                Case(new LinearOp(fan), rows, outside, inside, fan, true, addend, weight, ElementType.BF16);
    }

    [CudaFact]
    public void ReadsBlocksForBrainActivations()
    {
        const int rows = 9, outside = 6, inside = 256;
        var x = Values.Brain(rows * inside, 1);
        var bytes = Values.Blocks(ElementType.Q4_K, outside * inside, 2);
        var values = new float[outside * inside];
        Checkpoints.GgufBlocks.Dequantize(ElementType.Q4_K, bytes, values);
        OpCase Case(Func<OpCase, OpCase> weight) => weight(new OpCase(new LinearOp(), Values.Batch(rows)).In(OpCase.Tokens("x", inside, ElementType.BF16), x))
            .None().None().Out(OpCase.Tokens("y", outside, ElementType.BF16));
        var expected = Case(c => c.In(OpCase.Weight("w", outside, inside, ElementType.BF16), values)).Run(Cuda.Cpu);
        Case(c => c.InBytes(OpCase.Weight("w", outside, inside, ElementType.Q4_K), bytes)).Expect(expected, Values.Place, 1e-6);
    }

    // A token at a time: blocks are multiplied as they are, in fp32.
    [CudaTheory]
    [InlineData(ElementType.Q8_0)]
    [InlineData(ElementType.Q4_0)]
    [InlineData(ElementType.Q4_1)]
    [InlineData(ElementType.Q5_0)]
    [InlineData(ElementType.Q5_1)]
    [InlineData(ElementType.Q4_K)]
    [InlineData(ElementType.Q5_K)]
    [InlineData(ElementType.Q6_K)]
    public void MultipliesFewRowsWithBlocks(ElementType weight)
    {
        const int outside = 21, inside = 512;
        foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
            foreach (var rows in new[] { 1, 3, 4 })
            {
                var (z, y) = (OpCase.Tokens("z", outside, type), OpCase.Tokens("y", outside, type));
                var test = new OpCase(new LinearOp(), Values.Batch(rows))
                    .In(OpCase.Tokens("x", inside, type), Values.Brain(rows * inside, 1))
                    .InBytes(OpCase.Weight("w", outside, inside, weight), Values.Blocks(weight, outside * inside, 2));
                _ = rows > 1 ? test.In(OpCase.Weight("b", 1, outside), OpCase.Random(outside, 3)) : test.None();
                test.In(z, Values.Brain(rows * outside, 4)).OutOver(y, z);
                // Sums of 512 products of a size of about 1.
                test.Compare(type == ElementType.BF16 ? Values.Place : 2e-5, 1e-4);
            }
    }

    // fp32 rows of a rank into activations of bf16, as adapters on embeddings have it, and bf16 rows into fp32.
    [CudaTheory]
    [InlineData(ElementType.F32, ElementType.BF16)]
    [InlineData(ElementType.BF16, ElementType.F32)]
    public void MixesTypes(ElementType from, ElementType to) =>
        new OpCase(new LinearOp(), Values.Batch(13))
            .In(OpCase.Tokens("x", 5, from), Values.Brain(13 * 5, 1))
            .In(OpCase.Parameter("w", 11, 5), Values.Brain(11 * 5, 2))
            .None()
            .In(OpCase.Tokens("z", 11, ElementType.BF16), Values.Brain(13 * 11, 3))
            .Out(OpCase.Tokens("y", 11, to))
            .Compare(Values.Place, 1e-6);

    [CudaTheory]
    [InlineData(0, 8, 8, false, ElementType.F32)]
    [InlineData(17, 33, 9, false, ElementType.F32)]
    [InlineData(17, 33, 9, true, ElementType.F32)]
    [InlineData(40, 7, 66, false, ElementType.BF16)]
    [InlineData(40, 8, 64, true, ElementType.BF16)]
    public void GivesTheGradientOfItsInput(int rows, int outside, int inside, bool fan, ElementType type)
    {
        foreach (var addend in new[] { 0, 1, 2 })
            Case(new LinearInputGradOp(fan), rows, inside, outside, !fan, false, addend, ElementType.BF16, type);
    }

    // addend: 0 none, 1 of its own, 2 where the output lies. stored: whether the weight is [depth, columns].
    private static void Case(Graphs.Op op, int rows, int columns, int depth, bool stored, bool bias, int addend, ElementType weight, ElementType type)
    {
        var test = new OpCase(op, Values.Batch(rows))
            .In(OpCase.Tokens("x", depth, type), Values.Brain(rows * depth, 1))
            .In(stored ? OpCase.Weight("w", depth, columns, weight) : OpCase.Weight("w", columns, depth, weight), Values.Brain(columns * depth, 2));
        if (op is LinearOp)
            _ = bias ? test.In(OpCase.Weight("b", 1, columns), OpCase.Random(columns, 3)) : test.None();
        var (z, y) = (OpCase.Tokens("z", columns, type), OpCase.Tokens("y", columns, type));
        _ = addend == 0 ? test.None() : test.In(z, Values.Brain(rows * columns, 4));
        _ = addend == 2 ? test.OutOver(y, z) : test.Out(y);
        test.Compare(type == ElementType.BF16 ? Values.Place : 1e-5, type == ElementType.BF16 ? 1e-5 : 1e-5);
    }
}
