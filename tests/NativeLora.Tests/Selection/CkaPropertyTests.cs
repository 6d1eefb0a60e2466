using CsCheck;
using NativeLora.Selection;

namespace NativeLora.Tests.Selection;

public class CkaPropertyTests
{
    /// <summary>Samples, widths and a seed; the pair is Y = X with noise where the widths agree, else independent.</summary>
    private static readonly Gen<(int N, int D1, int D2, int Seed)> Cases =
        Gen.Select(Gen.Int[2, 70], Gen.Int[1, 70], Gen.Int[1, 70], Gen.Int[0, 1 << 20]);

    private static (FeatureMatrix X, FeatureMatrix Y) Pair((int N, int D1, int D2, int Seed) c)
    {
        var x = Fixtures.Normal(c.N, c.D1, c.Seed);
        var noise = Fixtures.Normal(c.N, c.D2, c.Seed + 1);
        return (x, noise.Map((v, i, j) => x.Row(i)[j % c.D1] + 0.5 * v));
    }

    private static void Same(PairSimilarity a, PairSimilarity b, double tolerance)
    {
        Assert.Equal(a.Samples, b.Samples);
        Fixtures.Near(a.Cka, b.Cka, tolerance);
        Fixtures.Near(a.CkaClamped, b.CkaClamped, tolerance);
        Fixtures.Near(a.Cosine, b.Cosine, tolerance);
        Fixtures.Near(a.Angular, b.Angular, tolerance);
        // With four samples the unbiased norm of one layer may all but vanish, and the ratio magnifies rounding.
        if (a.Samples > 5)
            Fixtures.Near(a.CkaDebiased, b.CkaDebiased, tolerance);
    }

    [Fact]
    public void BothFormsAgree() => Cases.Sample(c =>
    {
        var (x, y) = Pair(c);
        Same(LinearCka.Compare(x, y, CkaForm.Gram), LinearCka.Compare(x, y, CkaForm.Covariance), 1e-9);
    }, iter: 200);

    [Fact]
    public void CkaAgreesWithItsDefinition() => Cases.Sample(c =>
    {
        var (x, y) = Pair(c);
        double Cross(FeatureMatrix a, FeatureMatrix b)
        {
            var sum = 0.0;
            for (var p = 0; p < a.Columns; p++)
            {
                for (var q = 0; q < b.Columns; q++)
                {
                    double meanA = 0, meanB = 0, product = 0;
                    for (var i = 0; i < a.Rows; i++)
                        (meanA, meanB) = (meanA + (double)a.Row(i)[p] / a.Rows, meanB + (double)b.Row(i)[q] / a.Rows);
                    for (var i = 0; i < a.Rows; i++)
                        product += (a.Row(i)[p] - meanA) * (b.Row(i)[q] - meanB);
                    sum += product * product;
                }
            }
            return sum;
        }
        var expected = Cross(x, y) / Math.Sqrt(Cross(x, x) * Cross(y, y));
        Fixtures.Near(expected, LinearCka.Biased(x, y), 1e-10);
    }, iter: 20);

    [Fact]
    public void StreamedInAnyBlocksIsTheSame() => Gen.Select(Cases, Gen.Int[1, 9], Gen.Double[-1e3, 1e3]).Sample((c, block, offset) =>
    {
        var (x, y) = Pair(c);
        // The first rows are far from the mean of all: the running means must move.
        x = x.Map((v, i, _) => v + (i < 3 ? offset : 0));
        var streamed = new StreamingCka(x.Columns, y.Columns);
        for (var from = 0; from < x.Rows; from += block)
        {
            var rows = Enumerable.Range(from, Math.Min(block, x.Rows - from)).ToArray();
            streamed.Add(x.Take(rows), y.Take(rows));
        }
        Same(LinearCka.Compare(x, y, CkaForm.Gram), streamed.Result(), 1e-9);
    }, iter: 200);

    [Fact]
    public void MergeOrderDoesNotMatter() => Gen.Select(Cases, Gen.Int[0, 70], Gen.Int[0, 70]).Sample((c, first, second) =>
    {
        var (x, y) = Pair(c);
        x = x.Map((v, i, _) => v + 0.3 * i);
        int[] cuts = [0, Math.Min(first % c.N, second % c.N), Math.Max(first % c.N, second % c.N), c.N];
        StreamingCka Part(int p)
        {
            var part = new StreamingCka(x.Columns, y.Columns);
            var rows = Enumerable.Range(cuts[p], cuts[p + 1] - cuts[p]).ToArray();
            if (rows.Length > 0)
                part.Add(x.Take(rows), y.Take(rows));
            return part;
        }
        var forward = Part(0);
        forward.Merge(Part(1));
        forward.Merge(Part(2));
        var late = Part(1);
        late.Merge(Part(0));
        var backward = Part(2);
        backward.Merge(late);
        var whole = LinearCka.Compare(x, y, CkaForm.Gram);
        Same(whole, forward.Result(), 1e-9);
        Same(whole, backward.Result(), 1e-9);
    }, iter: 200);

    [Fact]
    public void ScaleAndOffsetDoNotMatter() => Gen.Select(Cases, Gen.Int[-20, 20], Gen.Int[-1024, 1024]).Sample((c, power, offset) =>
    {
        // Values on a grid of 1/64, so that scaling by a power of two and adding an integer are exact in fp32.
        var (x, y) = Pair(c);
        x = x.Map((v, _, _) => Math.Round(v * 64) / 64);
        var before = LinearCka.Compare(x, y);
        var scaled = LinearCka.Compare(x.Map((v, _, _) => Math.ScaleB(v, power)), y);
        var shifted = LinearCka.Compare(x.Map((v, _, j) => v + offset * (j % 3)), y);
        foreach (var after in new[] { scaled, shifted })
        {
            Fixtures.Near(before.Cka, after.Cka, 1e-10);
            if (c.N > 5)
                Fixtures.Near(before.CkaDebiased, after.CkaDebiased, 1e-9);
        }
    }, iter: 200);

    [Fact]
    public void RotationDoesNotMatter() => Gen.Select(Gen.Int[3, 60], Gen.Int[2, 60], Gen.Int[0, 1 << 20]).Sample((n, d, seed) =>
    {
        // A Householder reflection; rounding its result to fp32 sets the tolerance.
        var (x, y) = Pair((n, d, d, seed));
        var v = Fixtures.Normal(1, d, seed + 7).Row(0).ToArray();
        var norm = v.Sum(a => (double)a * a);
        var rotated = x.Map((value, i, j) =>
        {
            var dot = 0.0;
            for (var k = 0; k < d; k++)
                dot += (double)x.Row(i)[k] * v[k];
            return value - 2 * dot / norm * v[j];
        });
        var before = LinearCka.Compare(x, y);
        var after = LinearCka.Compare(rotated, y);
        Fixtures.Near(before.Cka, after.Cka, 1e-6);
        Fixtures.Near(1, LinearCka.Biased(x, rotated), 1e-6);
    }, iter: 100);

    [Fact]
    public void SymmetricInItsArguments() => Cases.Sample(c =>
    {
        var (x, y) = Pair(c);
        Same(LinearCka.Compare(x, y), LinearCka.Compare(y, x), 1e-11);
    }, iter: 100);

    [Fact]
    public void ADuplicatedSampleSetHasTheSameBiasedCka() => Cases.Sample(c =>
    {
        var (x, y) = Pair(c);
        int[] twice = [.. Enumerable.Range(0, c.N), .. Enumerable.Range(0, c.N)];
        Fixtures.Near(LinearCka.Biased(x, y), LinearCka.Biased(x.Take(twice), y.Take(twice)), 1e-11);
    }, iter: 100);

    [Fact]
    public void DebiasedIsAboutZeroForIndependentNoise()
    {
        var (x, y) = (Fixtures.Normal(128, 768, 1), Fixtures.Normal(128, 768, 2));
        var found = LinearCka.Compare(x, y);
        Assert.InRange(found.Cka!.Value, 0.84, 0.88);
        Assert.InRange(found.CkaDebiased!.Value, -0.05, 0.05);
    }

    [Theory]
    [InlineData(1f)]
    [InlineData(1e-10f)]
    [InlineData(1e10f)]
    public void RoundingNoiseIsConstant(float scale)
    {
        var row = Fixtures.Normal(1, 384, 5).Row(0).ToArray();
        row[17] = 900;
        var noisy = Fixtures.Normal(64, 384, 6, (v, _, j) => scale * row[j] * (1 + 1.5e-7 * v));
        var real = Fixtures.Normal(64, 384, 7, (v, _, j) => scale * row[j] * (1 + 1.5e-3 * v));
        // An outlier column holds nearly all of the norm; the others differ between samples.
        var hidden = Fixtures.Normal(64, 384, 8, (v, _, j) => j == 17 ? scale * 1e6 : scale * row[j] * (1 + 1e-3 * v));
        foreach (var form in new[] { CkaForm.Gram, CkaForm.Covariance })
        {
            var found = LinearCka.Compare(noisy, real, form);
            Assert.True(found.ConstantX);
            Assert.False(found.ConstantY);
            Assert.Null(found.Cka);
            Assert.Null(found.CkaDebiased);
            Assert.Equal(0, found.CkaClamped);
            Assert.False(LinearCka.Compare(hidden, real, form).ConstantX);
            Assert.NotNull(LinearCka.Compare(hidden, real, form).Cka);
        }
    }

    [Fact]
    public void OneDifferentRowHasNoDebiasedCka()
    {
        var x = Fixtures.Normal(12, 5, 3).Map((v, i, j) => i == 4 ? v : j);
        var y = Fixtures.Normal(12, 5, 4);
        foreach (var form in new[] { CkaForm.Gram, CkaForm.Covariance })
        {
            Assert.NotNull(LinearCka.Biased(x, y, form));
            Assert.Null(LinearCka.Debiased(x, y, form));
        }
    }

    [Fact]
    public void ExtremeMagnitudesStayFinite()
    {
        foreach (var scale in new[] { 1e-36, 1e35 })
        {
            var x = Fixtures.Normal(20, 30, 1, (v, _, _) => scale * v);
            var y = Fixtures.Normal(20, 30, 1, (v, _, j) => scale * (v + j % 2 * v * v));
            var plain = LinearCka.Compare(x.Map((v, _, _) => v / scale), y.Map((v, _, _) => v / scale));
            foreach (var form in new[] { CkaForm.Gram, CkaForm.Covariance })
            {
                var found = LinearCka.Compare(x, y, form);
                Fixtures.Near(plain.Cka, found.Cka, 1e-5);
                Fixtures.Near(plain.CkaDebiased, found.CkaDebiased, 1e-5);
            }
        }
    }

    [Fact]
    public void AngleKeepsItsDigits()
    {
        var x = new FeatureMatrix(1, 2, [1, 0]);
        Assert.Equal(0, LinearCka.Compare(x, x).Angular);
        Assert.Equal(1, LinearCka.Compare(x, new FeatureMatrix(1, 2, [-2, 0])).Angular);
        Fixtures.Near(0.5, LinearCka.Compare(x, new FeatureMatrix(1, 2, [0, 3])).Angular, 1e-15);
        var small = LinearCka.Compare(x, new FeatureMatrix(1, 2, [1, 1e-10f])).Angular!.Value;
        Assert.InRange(small * Math.PI / 1e-10f, 1 - 1e-9, 1 + 1e-9);
        Assert.Null(LinearCka.Compare(x, new FeatureMatrix(1, 3, [1, 0, 0])).Angular);
    }

    [Fact]
    public void LayersAgreeWithPairsAndStreams()
    {
        foreach (var (n, d) in new[] { (40, 60), (300, 24) })
        {
            var features = Fixtures.Stream(4, n, d, 11);
            var layers = LayerSimilarities.Compute(features);
            var streamed = new StreamingLayerSimilarities([.. features.Select(f => f.Columns)]);
            for (var from = 0; from < n; from += 7)
            {
                var rows = Enumerable.Range(from, Math.Min(7, n - from)).ToArray();
                streamed.Add([.. features.Select(f => f.Take(rows))]);
            }
            var other = streamed.Result();
            for (var l = 0; l < layers.Layers; l++)
            {
                Assert.Equal(LinearCka.Compare(features[l], features[l + 1]), layers.Pairs[l]);
                Same(layers.Pairs[l], other.Pairs[l], 1e-10);
            }
        }
    }

    [Fact]
    public void BadFeaturesAreRefused()
    {
        var x = Fixtures.Normal(4, 3, 1);
        Assert.Throws<InputException>(() => new FeatureMatrix(2, 3, new float[5]));
        Assert.Throws<InputException>(() => new FeatureMatrix(0, 3, []));
        Assert.Throws<InputException>(() => x.Take([4]));
        Assert.Throws<InputException>(() => LinearCka.Compare(x, Fixtures.Normal(5, 3, 1)));
        Assert.Throws<InputException>(() => LayerSimilarities.Compute([x]));
        var many = new FeatureMatrix(50_000, 1, new float[50_000]);
        Assert.Contains("covariance form", Assert.Throws<InputException>(() => LinearCka.Compare(many, many, CkaForm.Gram)).Message);
        Assert.Throws<InputException>(() => new StreamingCka(3, 3).Result());
        Assert.Throws<InputException>(() => new StreamingCka(3, 3).Merge(new StreamingCka(3, 4)));
        Assert.Throws<InputException>(() => new StreamingCka(3, 4).Add(x, x));
        Assert.Throws<InputException>(() => new StreamingLayerSimilarities([3, 3]).Add([x, x, x]));
        Assert.Throws<InputException>(() => new StreamingLayerSimilarities([3, 4]).Add([x, x]));
        Assert.Throws<InputException>(() => new StreamingLayerSimilarities([3, 4]).Result());
        foreach (var bad in new[] { float.NaN, float.PositiveInfinity })
        {
            var broken = x.Map((v, i, j) => i == 2 && j == 1 ? bad : v);
            foreach (var form in new[] { CkaForm.Gram, CkaForm.Covariance })
                Assert.Contains("sample 2, column 1", Assert.Throws<RunException>(() => LinearCka.Compare(x, broken, form)).Message);
            Assert.Contains("layer 1", Assert.Throws<RunException>(() => LayerSimilarities.Compute([x, broken])).Message);
        }
    }
}
