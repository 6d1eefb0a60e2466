using NativeLora.Data;
using NativeLora.Selection;

namespace NativeLora.Tests.Selection;

public class BootstrapTests
{
    [Theory]
    [InlineData(5, 9)]
    [InlineData(33, 12)]
    [InlineData(40, 70)]
    public void ResampledScoresAreThoseOfResampledRows(int n, int d)
    {
        var features = Fixtures.Stream(3, n, d, 21);
        var random = new SplitMix64(3);
        const int B = 9;
        var counts = Bootstrap.Draw(n, B, random);
        var scores = Bootstrap.Score(features, null, counts);
        for (var b = 0; b < B; b++)
        {
            int[] rows = [.. Enumerable.Range(0, n).SelectMany(i => Enumerable.Repeat(i, (int)counts[i * B + b]))];
            Assert.Equal(n, rows.Length);
            var direct = LayerSimilarities.Compute([.. features.Select(f => f.Take(rows))], CkaForm.Covariance).Scores;
            Fixtures.Near(direct.Cka, scores[b].Cka, 1e-9);
            Fixtures.Near([.. direct.CkaClamped!], [.. scores[b].CkaClamped!], 1e-9);
            Fixtures.Near(direct.Cosine!, scores[b].Cosine!, 1e-9);
            if (n > 5)
                Fixtures.Near(direct.CkaDebiased!, scores[b].CkaDebiased!, 1e-9);
        }
    }

    [Fact]
    public void ResamplesOfOneSampleHaveNoCka()
    {
        var features = Fixtures.Stream(1, 6, 5, 2);
        var counts = new double[6];
        counts[2] = 6;
        var score = Bootstrap.Score(features, null, counts)[0];
        Assert.Null(score.Cka[0]);
        Assert.Null(score.CkaDebiased![0]);
        Assert.Equal(0, score.CkaClamped![0]);
    }

    [Fact]
    public void FractionsAddUpAndIntervalsHold()
    {
        var features = Fixtures.Stream(6, 64, 40, 5);
        features[0] = features[0].Map((_, _, j) => 1 + j);
        var options = new SelectionOptions { Ratio = 0.5, Family = ModelFamily.Encoder };
        var found = Bootstrap.Run(features, options, 200, 1);
        Assert.Equal(64, found.Samples);
        Assert.Equal(200, found.Masks.Values.Sum());
        Assert.Equal(3, found.Layers.Sum(l => l.SelectedFraction), 9);
        Assert.Equal(0, found.Layers[0].SelectedFraction);
        Assert.Null(found.Layers[0].CkaMean);
        Assert.Null(found.Layers[0].CkaLow);
        for (var l = 1; l < 6; l++)
        {
            var layer = found.Layers[l];
            Assert.True(layer.CkaLow < layer.CkaMean && layer.CkaMean < layer.CkaHigh);
            Assert.InRange(layer.CkaHigh!.Value - layer.CkaLow!.Value, 1e-4, 0.2);
            Assert.Equal(layer.SelectedFraction, found.Masks.Sum(m => (m.Key[l] - '0') * m.Value) / 200.0, 9);
        }
        var again = Bootstrap.Run(features, options, 200, 1);
        Assert.Equal(found.Layers, again.Layers);
        Assert.Equal(found.Masks, again.Masks);
        Assert.NotEqual(found.Layers, Bootstrap.Run(features, options, 200, 2).Layers);
    }

    [Fact]
    public void ManySamplesAreResampledFromASubset()
    {
        var features = Fixtures.Stream(2, 3000, 8, 5);
        var found = Bootstrap.Run(features, new SelectionOptions { Count = 1, Rule = SelectionRule.Plain }, 50, 1);
        Assert.Equal(1024, found.Samples);
        var whole = LayerSimilarities.Compute(features);
        for (var l = 0; l < 2; l++)
        {
            var layer = found.Layers[l];
            Assert.InRange(whole.Pairs[l].Cka!.Value, layer.CkaLow!.Value - 0.02, layer.CkaHigh!.Value + 0.02);
        }
        var random = new SplitMix64(9);
        var subset = Bootstrap.Subset(3000, random)!;
        Assert.Equal(subset.Distinct().Order(), subset);
        Assert.InRange(subset[^1], 2900, 2999);
        Assert.Null(Bootstrap.Subset(1024, random));
    }

    [Fact]
    public void DrawsAreUniform()
    {
        var random = new SplitMix64(4);
        var counts = Bootstrap.Draw(10, 2000, random);
        for (var i = 0; i < 10; i++)
            Assert.InRange(counts.AsSpan(i * 2000, 2000).ToArray().Sum(), 1800, 2200);
    }

    [Fact]
    public void SplitMixIsThePublishedGenerator()
    {
        var random = new SplitMix64(1234567);
        Assert.Equal(6457827717110365317ul, random.NextUInt64());
        Assert.Equal(3203168211198807973ul, random.NextUInt64());
        Assert.Equal(9817491932198370423ul, random.NextUInt64());
    }

    [Fact]
    public void BadRequestsAreRefused()
    {
        var options = new SelectionOptions { Count = 1 };
        Assert.Throws<InputException>(() => Bootstrap.Run(Fixtures.Stream(2, 3, 4, 1), options));
        Assert.Throws<InputException>(() => Bootstrap.Run(Fixtures.Stream(2, 8, 4, 1), options, 0));
        Assert.Throws<InputException>(() => Bootstrap.Run(Fixtures.Stream(2, 8, 4, 1), options with { Count = 9 }));
        Assert.Throws<InputException>(() => Bootstrap.Run([Fixtures.Normal(8, 4, 1)], options));
    }
}
