using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests;

[Collection(Cuda.Collection)]
public class AddTests
{
    [CudaTheory]
    [InlineData(0, 7, ElementType.F32)]
    [InlineData(1, 1, ElementType.F32)]
    [InlineData(70, 33, ElementType.F32)]
    [InlineData(5, 7, ElementType.BF16)]
    public void AddsRows(int tokens, int columns, ElementType type)
    {
        new OpCase(new AddOp(), new BatchSize(tokens, 1, (long)tokens * tokens))
            .In(OpCase.Tokens("a", columns, type), OpCase.Random(tokens * columns, 1))
            .In(OpCase.Tokens("b", columns, type), OpCase.Random(tokens * columns, 2))
            .Out(OpCase.Tokens("c", columns, type))
            .Compare(0, 0);
    }

    [CudaFact]
    public void AddsInPlace()
    {
        var (a, b) = (OpCase.Tokens("a", 19), OpCase.Tokens("b", 19));
        new OpCase(new AddOp(), new BatchSize(9, 1, 81))
            .In(a, OpCase.Random(9 * 19, 1))
            .In(b, OpCase.Random(9 * 19, 2))
            .OutOver(OpCase.Tokens("c", 19), a)
            .Compare(0, 0);
    }
}
