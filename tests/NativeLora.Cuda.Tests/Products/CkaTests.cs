using System.Runtime.InteropServices;
using NativeLora.Devices.Cuda;
using NativeLora.Selection;

namespace NativeLora.Cuda.Tests.Products;

[Collection(Cuda.Collection)]
public class CkaTests
{
    [CudaTheory]
    [InlineData(1, 1, 3)]
    [InlineData(2, 5, 5)]
    [InlineData(3, 17, 4)]
    [InlineData(5, 33, 70)]
    [InlineData(64, 70, 16)]
    [InlineData(70, 65, 129)]
    public void IsTheCpus(int samples, int widthX, int widthY)
    {
        var x = OpCase.Random((long)samples * widthX, 1, 1, 3);
        var y = OpCase.Random((long)samples * widthY, 2);
        // Not independent, or the debiased value is a difference of noise.
        for (var i = 0; i < samples; i++)
            for (var j = 0; j < Math.Min(widthX, widthY); j++)
                y[(i * widthY) + j] += x[(i * widthX) + j];
        Same(samples, widthX, x, widthY, y);
    }

    [CudaFact]
    public void AConstantSideHasNone()
    {
        var x = new float[9 * 6];
        for (var i = 0; i < x.Length; i++)
            x[i] = i % 6;
        Same(9, 6, x, 6, OpCase.Random(9 * 6, 3));
    }

    [CudaFact]
    public void OneHugeColumnHidesNothing()
    {
        var x = OpCase.Random(20 * 30, 4);
        for (var i = 0; i < 20; i++)
            x[i * 30] = 5000 + (0.25f * i);
        Same(20, 30, x, 30, OpCase.Random(20 * 30, 5));
    }

    private static void Same(int samples, int widthX, float[] x, int widthY, float[] y)
    {
        var expected = LinearCka.Compare(new FeatureMatrix(samples, widthX, x), new FeatureMatrix(samples, widthY, y), CkaForm.Gram);
        var device = Cuda.Device;
        var cka = new CudaCka(device);
        using var first = device.Allocate(4L * x.Length);
        using var second = device.Allocate(4L * y.Length);
        first.Write(0, MemoryMarshal.AsBytes(x.AsSpan()));
        second.Write(0, MemoryMarshal.AsBytes(y.AsSpan()));
        using var k = cka.Gram(first.Address, samples, widthX);
        using var l = cka.Gram(second.Address, samples, widthY);
        var terms = cka.Compare(k, l);
        Assert.Equal(expected.ConstantX, terms.X.Constant);
        Assert.Equal(expected.ConstantY, terms.Y.Constant);
        Near(expected.Cka, terms.Cka);
        Near(expected.CkaDebiased, terms.CkaDebiased);
    }

    private static void Near(double? expected, double? actual)
    {
        Assert.Equal(expected is null, actual is null);
        if (expected is not null)
            Assert.InRange(actual!.Value, expected.Value - 1e-6, expected.Value + 1e-6);
    }
}
