using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Rows;

[Collection(Cuda.Collection)]
public class EmbeddingTests
{
    private static Tensor Ids(string name = "ids") => OpCase.Ints(name, Shape.PerToken(1));

    [CudaFact]
    public void LooksUp()
    {
        ElementType[] stored = [ElementType.F32, ElementType.F16, ElementType.BF16];
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.Sizes())
            {
                var op = new OpCase(new EmbeddingOp(columns % 2 == 0 ? 1 : 3.5f), RowCases.Tokens(rows));
                for (var i = 0; i <= columns % 3; i++)
                    op.In(Ids($"ids{i}"), RowCases.Ids(rows, 9 + i, i))
                        .In(OpCase.Weight($"table{i}", 9 + i, columns, stored[(columns + i) % 3]), OpCase.Random((9 + i) * columns, i));
                op.Out(OpCase.Tokens("y", columns, type)).Compare(type, 1e-6, 1e-7);
            }
    }

    [CudaTheory]
    [InlineData(ElementType.Q8_0, 32)]
    [InlineData(ElementType.Q4_0, 96)]
    [InlineData(ElementType.Q4_1, 32)]
    [InlineData(ElementType.Q5_0, 64)]
    [InlineData(ElementType.Q5_1, 32)]
    [InlineData(ElementType.Q4_K, 256)]
    [InlineData(ElementType.Q5_K, 512)]
    [InlineData(ElementType.Q6_K, 256)]
    public void LooksUpInBlocks(ElementType stored, int columns)
    {
        // The table's own bytes: any bits are a block, but for factors that are not finite.
        var bytes = new byte[stored.Bytes(7 * columns)];
        new Random(3).NextBytes(bytes);
        var (values, size) = ElementTypes.Block(stored);
        var factors = stored == ElementType.Q6_K ? (First: size - 2, Count: 1) : (First: 0, Count: stored is ElementType.Q8_0 or ElementType.Q4_0 or ElementType.Q5_0 ? 1 : 2);
        for (var b = 0; b < bytes.Length / size; b++)
            for (var f = 0; f < factors.Count; f++)
                bytes[(b * size) + factors.First + (2 * f) + 1] = (byte)(0x20 + (b % 16) + (b % 2 == 0 ? 0x80 : 0));
        Assert.Equal(7 * columns / values, bytes.Length / size);
        foreach (var type in RowCases.Types)
            foreach (var rows in new[] { 0, 1, 13 })
                new OpCase(new EmbeddingOp(1.5f), RowCases.Tokens(rows))
                    .In(Ids(), RowCases.Ids(rows, 7, 1))
                    .InBytes(OpCase.Weight("table", 7, columns, stored), bytes)
                    .Out(OpCase.Tokens("y", columns, type))
                    .Compare(0, 0);
    }

    [CudaFact]
    public void Gradient()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.Sizes())
            {
                var adding = columns % 3;
                new OpCase(new EmbeddingGradOp(columns % 2 == 0 ? 1 : 2.5f, adding == 1), RowCases.Tokens(rows)) { Step = { AccumulateGradients = adding == 2 } }
                    .In(OpCase.Tokens("dy", columns, type), OpCase.Random(rows * columns, columns))
                    .In(Ids(), RowCases.Ids(rows, 11, columns))
                    .Out(OpCase.Gradient("dtable", 11, columns), adding == 0 ? null : OpCase.Random(11 * columns, 2))
                    .Compare(1e-6, 1e-6);
            }
    }

    /// <summary>More tokens than a block looks at in one turn; all the same, two by turns, and none alike.</summary>
    [CudaFact]
    public void GradientOfManyTokens()
    {
        foreach (var (tokens, modulus) in new[] { (1100, 1), (1100, 2), (1025, 2000), (2100, 700) })
            new OpCase(new EmbeddingGradOp(1, false), RowCases.Tokens(tokens)) { BothSchedules = modulus == 2 }
                .In(OpCase.Tokens("dy", 5), OpCase.Random(tokens * 5, 1))
                .In(Ids(), [.. Enumerable.Range(0, tokens).Select(t => t * 7 % modulus)])
                .Out(OpCase.Gradient("dtable", modulus, 5))
                .Compare(1e-5, 1e-5);
    }

    [CudaFact]
    public void ColumnsOfAnAdapter()
    {
        foreach (var rank in new[] { 1, 2, 7, 8, 16, 70 })
            foreach (var tokens in new[] { 0, 1, 5, 33, 70 })
                foreach (var adding in new[] { 0, 1, 2 })
                {
                    new OpCase(new EmbeddingColumnsOp(0.75f), RowCases.Tokens(tokens))
                        .In(Ids(), RowCases.Ids(tokens, 13, rank))
                        .In(OpCase.Parameter("a", rank, 13), OpCase.Random(rank * 13, 1))
                        .Out(OpCase.Tokens("p", rank))
                        .Compare(0, 0);
                    new OpCase(new EmbeddingColumnsGradOp(0.75f, adding == 1), RowCases.Tokens(tokens)) { Step = { AccumulateGradients = adding == 2 } }
                        .In(OpCase.Tokens("dp", rank), OpCase.Random(tokens * rank, 2))
                        .In(Ids(), RowCases.Ids(tokens, 13, rank))
                        .Out(OpCase.Gradient("da", rank, 13), adding == 0 ? null : OpCase.Random(rank * 13, 3))
                        .Compare(1e-6, 1e-6);
                }
    }

    [CudaFact]
    public void WholeTable()
    {
        foreach (var stored in new[] { ElementType.F32, ElementType.F16, ElementType.BF16 })
            foreach (var (rows, columns) in new[] { (1, 1), (3, 7), (8, 64), (70, 33) })
                new OpCase(new TableOp(), RowCases.Tokens(1))
                    .In(OpCase.Weight("table", rows, columns, stored), OpCase.Random(rows * columns, 1))
                    .Out(OpCase.Fixed("y", rows, columns))
                    .Compare(0, 0);
    }

    [CudaFact]
    public void WholeTableGradient()
    {
        foreach (var adding in new[] { 0, 1, 2 })
            foreach (var (rows, columns) in new[] { (1, 1), (3, 7), (8, 64), (70, 33) })
                new OpCase(new TableGradOp(adding == 1), RowCases.Tokens(1)) { Step = { AccumulateGradients = adding == 2 } }
                    .In(OpCase.Fixed("dy", rows, columns), OpCase.Random(rows * columns, 1))
                    .Out(OpCase.Gradient("dtable", rows, columns), adding == 0 ? null : OpCase.Random(rows * columns, 2))
                    .Compare(0, 0);
    }
}
