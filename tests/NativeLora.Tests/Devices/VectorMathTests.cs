using System.Runtime.Intrinsics;
using NativeLora.Devices.Cpu;

namespace NativeLora.Tests.Devices;

public class VectorMathTests
{
    [Theory]
    [InlineData(128)]
    [InlineData(256)]
    [InlineData(512)]
    public void ExpIsWithinTwoUlp(int bits)
    {
        var random = new Random(7);
        for (var i = 0; i < 200_000; i++)
        {
            var x = i < 100_000 ? (float)(random.NextDouble() * 176 - 87.3) : (float)(random.NextDouble() * 2 - 1);
            var exact = Math.Exp(x);
            var unit = MathF.BitIncrement((float)exact) - (float)exact;
            Assert.True(Math.Abs(Exp(bits, x) - exact) <= 2.0 * unit, $"exp({x:R})");
        }
    }

    [Theory]
    [InlineData(128)]
    [InlineData(256)]
    [InlineData(512)]
    public void ExpAtTheEdges(int bits)
    {
        Assert.Equal(0f, Exp(bits, float.NegativeInfinity));
        Assert.Equal(0f, Exp(bits, float.MinValue));
        Assert.Equal(0f, Exp(bits, -104.5f));
        Assert.Equal(1f, Exp(bits, 0f));
        Assert.Equal(1f, Exp(bits, -0f));
        Assert.Equal(1f, Exp(bits, 1e-30f));
        Assert.Equal(float.PositiveInfinity, Exp(bits, float.PositiveInfinity));
        Assert.Equal(float.PositiveInfinity, Exp(bits, 88.8f));
        Assert.Equal(float.PositiveInfinity, Exp(bits, 1e30f));
        Assert.True(float.IsNaN(Exp(bits, float.NaN)));
        // Subnormal results keep two steps of the subnormal spacing.
        foreach (var x in new[] { -87.4f, -90f, -95.5f, -100f, -103f })
            Assert.InRange(Exp(bits, x), Math.Exp(x) - 2 * float.Epsilon, Math.Exp(x) + 2 * float.Epsilon);
        Assert.InRange(Exp(bits, 88.7f), (float)Math.Exp(88.7f) * (1 - 4e-7f), (float)Math.Exp(88.7f) * (1 + 4e-7f));
    }

    private static float Exp(int bits, float x)
    {
        // Another number in the other lanes: every lane stands for itself.
        switch (bits)
        {
            case 128:
                return VectorMath.Exp(Vector128<float>.One.WithElement(2, x))[2];
            case 256:
                return VectorMath.Exp(Vector256<float>.One.WithElement(5, x))[5];
            default:
                return VectorMath.Exp(Vector512<float>.One.WithElement(11, x))[11];
        }
    }
}
