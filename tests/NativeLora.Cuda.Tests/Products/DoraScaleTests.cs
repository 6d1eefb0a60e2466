using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Products;

[Collection(Cuda.Collection)]
public class DoraScaleTests
{
    [CudaTheory]
    [InlineData(1, 1, 1, false, ElementType.F32)]
    [InlineData(33, 70, 5, false, ElementType.BF16)]
    [InlineData(70, 31, 16, true, ElementType.F16)]
    [InlineData(300, 9, 64, true, ElementType.F32)]
    [InlineData(64, 256, 8, false, ElementType.Q4_K)]
    [InlineData(64, 7, 8, true, ElementType.Q8_0)]
    public void IsTheCpus(int outside, int inside, int rank, bool fan, ElementType weight)
    {
        var w = fan ? OpCase.Weight("w", inside, outside, weight) : OpCase.Weight("w", outside, inside, weight);
        var test = new OpCase(new DoraScaleOp(1.5f, fan), Values.Batch(3));
        _ = weight.IsBlock() ? test.InBytes(w, Values.Blocks(weight, outside * inside, 1)) : test.In(w, OpCase.Random(outside * inside, 1));
        test.In(OpCase.Parameter("a", rank, inside), OpCase.Random(rank * inside, 2))
            .In(OpCase.Parameter("b", outside, rank), OpCase.Random(outside * rank, 3, 0.1))
            .In(OpCase.Parameter("m", 1, outside), OpCase.Random(outside, 4, 0.5, 2))
            .Out(OpCase.Fixed("g", 1, outside))
            .Out(OpCase.Fixed("inverse", 1, outside))
            .Work(OpCase.Fixed("wa", outside, rank, category: Graphs.TensorCategory.Workspace))
            .Work(OpCase.Fixed("aa", rank, rank, category: Graphs.TensorCategory.Workspace))
            .Compare(2e-5, 1e-6);
    }
}
