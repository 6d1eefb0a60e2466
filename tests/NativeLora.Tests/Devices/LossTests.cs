using NativeLora.Devices.Cpu;

namespace NativeLora.Tests.Devices;

public unsafe class LossTests
{
    public static TheoryData<int, int> Sizes()
    {
        var sizes = new TheoryData<int, int> { { 0, 3 }, { 40, 2 } };
        for (var classes = 1; classes <= 70; classes += 2)
            sizes.Add(5, classes);
        return sizes;
    }

    [Theory]
    [MemberData(nameof(Sizes))]
    public void CrossEntropyAndItsGradient(int rows, int classes)
    {
        using var threads = new CpuThreads(2);
        using var x = Floats.Random(rows * classes, 1, 3);
        using var labels = Ints.Random(rows, classes, 2);
        if (rows > 2)
            labels.At[1] = labels.Values[1] = CrossEntropy.Ignored;
        using var dx = new Floats(x.Count);
        using var losses = new Floats(rows);
        var inverse = 1f / Math.Max(1, rows - 1);
        var kernel = new CrossEntropy(threads, classes)
        {
            Logits = x.At,
            Labels = labels.At,
            RowLosses = losses.At,
            InverseCount = inverse,
        };
        double[] Forward(double[] v) => [ReferenceLosses.CrossEntropy(v, labels.Values, classes, inverse)];
        var expected = Forward(x.Doubles())[0];
        Check.Near(expected, kernel.Execute(rows), 1e-6, 1e-7);

        kernel.LogitsGradient = dx.At;
        Check.Near(expected, kernel.Execute(rows), 1e-6, 1e-7);
        Check.Near(Check.Gradient(Forward, x.Doubles(), [1]), dx, 1e-6, 2e-8);
        if (rows > 2)
            Assert.All(dx.Span.Slice(classes, classes).ToArray(), v => Assert.Equal(0f, v));

        // In chunks, over the logits, as the LM head does: the same bits.
        using var chunked = new Floats(rows);
        kernel.RowLosses = chunked.At;
        for (var first = 0; first < rows; first += 2)
        {
            kernel.Logits = kernel.LogitsGradient = x.At + first * classes;
            kernel.ExecuteChunk(first, Math.Min(2, rows - first));
        }
        Check.Near(expected, kernel.Sum(rows), 1e-6, 1e-7);
        Assert.Equal(dx.Bits(), x.Bits());
        Assert.Equal(losses.Bits(), chunked.Bits());
    }

    [Theory]
    [InlineData(3, 50257)]
    [InlineData(70, 1031)]
    public void CrossEntropyOfAVocabulary(int rows, int classes)
    {
        using var threads = new CpuThreads(2);
        using var x = Floats.Random(rows * classes, 1, 4);
        using var labels = Ints.Random(rows, classes, 2);
        using var dx = new Floats(x.Count);
        using var losses = new Floats(rows);
        var loss = new CrossEntropy(threads, classes)
        {
            Logits = x.At,
            Labels = labels.At,
            RowLosses = losses.At,
            LogitsGradient = dx.At,
            InverseCount = 1f / rows,
        }.Execute(rows);
        Check.Near(ReferenceLosses.CrossEntropy(x.Doubles(), labels.Values, classes, 1.0 / rows), loss, 1e-6, 0);
        for (var row = 0; row < rows; row++)
        {
            var of = x.Span.Slice(row * classes, classes).ToArray();
            var sum = of.Sum(v => Math.Exp(v));
            for (var c = 0; c < classes; c++)
            {
                var wanted = (Math.Exp(of[c]) / sum - (c == labels.Values[row] ? 1 : 0)) / rows;
                Check.Near(wanted, dx.At[row * classes + c], 2e-6, 1e-12, c);
            }
        }
    }

    [Fact]
    public void ExtremeLogits()
    {
        using var threads = new CpuThreads(1);
        using var x = new Floats([1e4, -1e4, 0, -1e4, 1e4, 0, 1e4, 1e4, 1e4, double.NegativeInfinity, 0, 0]);
        using var labels = new Ints(0, 0, 1, 2);
        using var dx = new Floats(12);
        using var losses = new Floats(4);
        var loss = new CrossEntropy(threads, 3)
        {
            Logits = x.At,
            Labels = labels.At,
            RowLosses = losses.At,
            LogitsGradient = dx.At,
        }.Execute(4);
        Check.Near([0, 20000, Math.Log(3), Math.Log(2)], losses, 1e-7, 0);
        Check.Near(20000 + Math.Log(6), loss, 1e-7, 0);
        Check.Near([0, 0, 0, -1, 1, 0, 1 / 3.0, -2 / 3.0, 1 / 3.0, 0, 0.5, -0.5], dx, 2e-7, 0);
    }

    [Fact]
    public void ATinyLossKeepsItsDigits()
    {
        using var threads = new CpuThreads(1);
        using var x = new Floats([20.0, 0]);
        using var labels = new Ints(0);
        using var dx = new Floats(2);
        using var losses = new Floats(1);
        new CrossEntropy(threads, 2)
        {
            Logits = x.At,
            Labels = labels.At,
            RowLosses = losses.At,
            LogitsGradient = dx.At,
        }.Execute(1);
        var p = Math.Exp(-20) / (1 + Math.Exp(-20));
        Check.Near([-p, p], dx, 1e-6, 0);
    }

    [Fact]
    public void NotANumberIsNotHidden()
    {
        using var threads = new CpuThreads(1);
        using var x = new Floats([.. Enumerable.Repeat(1.0, 20).Append(double.NaN).Concat(Enumerable.Repeat(2.0, 9))]);
        using var labels = new Ints(3);
        using var losses = new Floats(1);
        var loss = new CrossEntropy(threads, 30) { Logits = x.At, Labels = labels.At, RowLosses = losses.At }.Execute(1);
        Assert.True(double.IsNaN(loss));
    }

    [Fact]
    public void MeanSquaredErrorAndItsGradient()
    {
        for (var rows = 1; rows <= 70; rows += 3)
        {
            using var x = Floats.Random(rows, 1, 3);
            using var t = Floats.Random(rows, 2, 3);
            using var dx = new Floats(rows);
            var kernel = new MeanSquaredError { Logits = x.At, Targets = t.At, InverseCount = 1f / rows };
            double[] Forward(double[] v) => [ReferenceLosses.MeanSquaredError(v, t.Doubles(), 1.0 / rows)];
            Check.Near(Forward(x.Doubles())[0], kernel.Execute(rows), 1e-6, 0);
            kernel.LogitsGradient = dx.At;
            Check.Near(Forward(x.Doubles())[0], kernel.Execute(rows), 1e-6, 0);
            Check.Near(Check.Gradient(Forward, x.Doubles(), [1]), dx, 1e-6, 1e-7);
            kernel.LogitsGradient = x.At;
            kernel.Execute(rows);
            Assert.Equal(dx.Bits(), x.Bits());
        }
    }
}
