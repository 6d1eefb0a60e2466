using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Products;

[Collection(Cuda.Collection)]
public class DequantizeTests
{
    public static TheoryData<ElementType, ElementType> Types()
    {
        var data = new TheoryData<ElementType, ElementType>();
        foreach (var weight in Enum.GetValues<ElementType>().Where(t => t.IsBlock() || t is ElementType.F16 or ElementType.BF16 or ElementType.F32))
            foreach (var type in new[] { ElementType.F32, ElementType.BF16 })
                data.Add(weight, type);
        return data;
    }

    // A product with the unit matrix gives the weight itself: 1 and 0 leave nothing to round.
    [CudaTheory]
    [MemberData(nameof(Types))]
    public void GivesTheValuesOfTheCpu(ElementType weight, ElementType type)
    {
        const int n = 3, k = 256;
        var unit = new float[k * k];
        for (var i = 0; i < k; i++)
            unit[(i * k) + i] = 1;
        var w = OpCase.Weight("w", n, k, weight);
        var test = new OpCase(new LinearOp(), Values.Batch(k)).In(OpCase.Tokens("x", k, type), unit);
        _ = weight.IsBlock() ? test.InBytes(w, Values.Blocks(weight, n * k, 5)) : test.In(w, OpCase.Random(n * k, 5));
        test.None().None().Out(OpCase.Tokens("y", n, type)).Compare(0, 0);
    }

    [CudaTheory]
    [InlineData(ElementType.Q8_0)]
    [InlineData(ElementType.Q4_K)]
    [InlineData(ElementType.Q6_K)]
    public void GivesThemWhereTheWeightLiesTheOtherWay(ElementType weight)
    {
        const int n = 256, k = 5;
        var unit = new float[k * k];
        for (var i = 0; i < k; i++)
            unit[(i * k) + i] = 1;
        new OpCase(new LinearOp(fanInFanOut: true), Values.Batch(k))
            .In(OpCase.Tokens("x", k), unit)
            .InBytes(OpCase.Weight("w", k, n, weight), Values.Blocks(weight, n * k, 6))
            .None()
            .None()
            .Out(OpCase.Tokens("y", n))
            .Compare(0, 0);
    }
}
