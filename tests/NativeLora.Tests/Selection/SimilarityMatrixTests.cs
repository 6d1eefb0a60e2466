using NativeLora.Data;
using NativeLora.Selection;

namespace NativeLora.Tests.Selection;

public sealed class SimilarityMatrixTests
{
    [Fact]
    public void AllPairsAreThoseOfTheirComparison()
    {
        var features = Fixtures.Stream(4, 30, 20, 7);
        features[0] = features[0].Map((_, _, j) => 1 + j);
        var matrix = SimilarityMatrix.Of(features);
        Assert.Equal(30, matrix.Samples);
        for (var l = 0; l < features.Length; l++)
            for (var m = 0; m < features.Length; m++)
            {
                var direct = LinearCka.Compare(features[l], features[m], CkaForm.Covariance);
                Fixtures.Near([direct.Cka], [matrix.Cka[l][m]], 1e-9);
                Fixtures.Near([direct.CkaDebiased], [matrix.CkaDebiased[l][m]], 1e-9);
                Assert.Equal(matrix.Cka[l][m], matrix.Cka[m][l]);
            }
        Assert.Null(matrix.Cka[0][1]);
    }

    [Fact]
    public void HalvesAreThoseOfTheirRows()
    {
        const int n = 24, b = 5;
        var features = Fixtures.Stream(3, n, 12, 9);
        var counts = Bootstrap.DrawHalves(n, b, new SplitMix64(4));
        var scores = Bootstrap.Score(features, null, counts);
        for (var i = 0; i < b; i++)
        {
            int[] rows = [.. Enumerable.Range(0, n).Where(r => counts[(r * b) + i] == 1)];
            Assert.Equal(n / 2, rows.Length);
            var direct = LayerSimilarities.Compute([.. features.Select(f => f.Take(rows))], CkaForm.Covariance).Scores;
            Fixtures.Near(direct.CkaDebiased!, scores[i].CkaDebiased!, 1e-9);
            Fixtures.Near(direct.Cka, scores[i].Cka, 1e-9);
        }
    }

    [Fact]
    public void IntervalsOfTheDebiasedAreAroundIt()
    {
        var features = Fixtures.Stream(4, 200, 30, 3);
        var all = LayerSimilarities.Compute(features).Scores.CkaDebiased!;
        var found = Bootstrap.Run(features, new SelectionOptions { Ratio = 0.5, Family = ModelFamily.Encoder }, 200, 1);
        for (var l = 0; l < 4; l++)
            Assert.InRange(all[l]!.Value, found.Layers[l].CkaDebiasedLow!.Value, found.Layers[l].CkaDebiasedHigh!.Value);
    }
}
