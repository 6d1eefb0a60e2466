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
            if (!(Math.Abs(Exp(bits, x) - exact) <= 2.0 * unit))
                Assert.Fail($"exp({x:R}) is {Exp(bits, x):R}, expected {exact:R}");
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

    [Theory]
    [InlineData(128)]
    [InlineData(256)]
    [InlineData(512)]
    public void TanhIsWithinTwoUlp(int bits)
    {
        var random = new Random(8);
        for (var i = 0; i < 200_000; i++)
        {
            var x = (float)((random.NextDouble() * 2 - 1) * Math.Pow(10, random.NextDouble() * 6 - 4.7));
            var exact = Math.Tanh(x);
            var unit = MathF.BitIncrement(Math.Abs((float)exact)) - Math.Abs((float)exact);
            if (!(Math.Abs(Tanh(bits, x) - exact) <= 2.0 * unit))
                Assert.Fail($"tanh({x:R}) is {Tanh(bits, x):R}, expected {exact:R}");
        }
        Assert.Equal(0f, Tanh(bits, 0f));
        Assert.Equal(1f, Tanh(bits, 30f));
        Assert.Equal(1f, Tanh(bits, float.PositiveInfinity));
        Assert.Equal(-1f, Tanh(bits, float.NegativeInfinity));
        Assert.Equal(-1f, Tanh(bits, float.MinValue));
        Assert.True(float.IsNaN(Tanh(bits, float.NaN)));
    }

    // As below.
    private static float Tanh(int bits, float x) => bits switch
    {
        128 => VectorMath.Tanh(Vector128<float>.One.WithElement(2, x))[2],
        256 => VectorMath.Tanh(Vector256<float>.One.WithElement(5, x))[5],
        _ => VectorMath.Tanh(Vector512<float>.One.WithElement(11, x))[11],
    };

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
