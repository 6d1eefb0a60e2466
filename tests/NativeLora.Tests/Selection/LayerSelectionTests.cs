using CsCheck;
using NativeLora.Selection;

namespace NativeLora.Tests.Selection;

public class LayerSelectionTests
{
    private static readonly LayerScores Scores = new()
    {
        Cka = [null, 0.5, 0.9, 0.5, 0.7, 0.95],
        CkaDebiased = [null, 0.4, -0.1, 0.4, 0.6, 0.9],
        Cosine = [0.99, 0.3, 0.2, 0.8, 0.1, 0.9],
        ConstantInput = [true, false, false, false, false, false],
    };

    private static LayerSelection Select(SelectionOptions options) => LayerSelection.Select(6, Scores, options);

    [Fact]
    public void PaperRuleOfEncodersDropsTheFirst()
    {
        var half = Select(new SelectionOptions { Ratio = 0.5, Family = ModelFamily.Encoder });
        Assert.Equal([0, 1, 3, 4, 2, 5], half.Order);
        Assert.Equal([1, 3, 4], half.Selected);
        Assert.Equal("010110", half.Mask);
        Assert.Equal(0, half.DroppedFirst);
        Assert.Equal(1, half.LowestAdaptedLayer);
        Assert.Empty(half.LeftOut);
        Assert.Equal("011111", Select(new SelectionOptions { Ratio = 1, Family = ModelFamily.Encoder }).Mask);
    }

    [Fact]
    public void PaperRuleOfDecodersKeepsTheFirst()
    {
        var half = Select(new SelectionOptions { Ratio = 0.5, Family = ModelFamily.Decoder });
        Assert.Equal([0, 1, 3], half.Selected);
        Assert.Null(half.DroppedFirst);
        Assert.Equal(0, half.LowestAdaptedLayer);
    }

    [Theory]
    [InlineData(ModelFamily.Encoder)]
    [InlineData(ModelFamily.Decoder)]
    public void PlainRuleLeavesOutConstantInputs(ModelFamily family)
    {
        var plain = Select(new SelectionOptions { Ratio = 0.5, Rule = SelectionRule.Plain, Family = family });
        Assert.Equal([1, 3, 4, 2, 5], plain.Order);
        Assert.Equal([1, 3, 4], plain.Selected);
        Assert.Equal([0], plain.LeftOut);
        Assert.Null(plain.DroppedFirst);
        Assert.Equal("011111", Select(new SelectionOptions { Ratio = 1, Rule = SelectionRule.Plain, Family = family }).Mask);
    }

    [Fact]
    public void OtherScores()
    {
        Assert.Equal([2, 1, 3], Select(new SelectionOptions { Strategy = SelectionStrategy.CkaDebiased, Count = 3 }).Selected);
        Assert.Equal([0, 2, 1], Select(new SelectionOptions { Strategy = SelectionStrategy.CkaDebiased, Count = 3, Family = ModelFamily.Decoder }).Selected);
        Assert.Equal([4, 2, 1], Select(new SelectionOptions { Strategy = SelectionStrategy.Cosine, Count = 3 }).Selected);
    }

    [Fact]
    public void PaperRuleRanksByTheClampedValue()
    {
        // At a tiny scale the clamp brings the last layer's CKA to nearly 0; the plain rule ranks by CKA itself.
        var scores = new LayerScores { Cka = [0.5, 0.6, 0.9], CkaClamped = [0.5, 0.6, 1e-30] };
        Assert.Equal([2], LayerSelection.Select(3, scores, new SelectionOptions { Count = 1, Family = ModelFamily.Decoder }).Selected);
        Assert.Equal([0], LayerSelection.Select(3, scores, new SelectionOptions { Count = 1, Rule = SelectionRule.Plain }).Selected);
    }

    [Theory]
    [InlineData("first", "110000")]
    [InlineData("last", "000011")]
    [InlineData("even", "010010")]
    [InlineData("all", "111111")]
    [InlineData("none", "000000")]
    [InlineData("0, 3", "100100")]
    [InlineData("1-2,5", "011001")]
    [InlineData("4", "000010")]
    [InlineData("010011", "010011")]
    public void StrategiesThatNeedNoScores(string text, string mask)
    {
        var selection = LayerSelection.Select(6, null, SelectionOptions.Parse(text) with { Count = 2 });
        Assert.Equal(mask, selection.Mask);
        Assert.Equal(mask.Contains('1', StringComparison.Ordinal) ? mask.IndexOf('1', StringComparison.Ordinal) : null, selection.LowestAdaptedLayer);
    }

    [Fact]
    public void RandomIsTheSameForTheSameSeedAndUniform()
    {
        var times = new int[6];
        for (var seed = 0ul; seed < 3000; seed++)
        {
            var options = new SelectionOptions { Strategy = SelectionStrategy.Random, Count = 2, Seed = seed };
            var mask = Select(options).Mask;
            Assert.Equal(mask, Select(options).Mask);
            Assert.Equal(2, mask.Count(c => c == '1'));
            for (var l = 0; l < 6; l++)
                times[l] += mask[l] - '0';
        }
        Assert.All(times, t => Assert.InRange(t, 900, 1100));
    }

    [Fact]
    public void EverySelectionHasTheRightSize() =>
        Gen.Select(Gen.Int[1, 80], Gen.Double[0.01, 1], Gen.Enum<SelectionStrategy>(), Gen.Enum<ModelFamily>(), Gen.Int[0, 1000]).Sample((layers, ratio, strategy, family, seed) =>
        {
            var k = (int)Math.Floor(ratio * layers);
            if (k == 0 || strategy is SelectionStrategy.All or SelectionStrategy.None or SelectionStrategy.Exhaustive or SelectionStrategy.Suggest or SelectionStrategy.SuggestGradient or SelectionStrategy.Explicit)
                return;
            var random = new Random(seed);
            double?[] values = [.. Enumerable.Range(0, layers).Select(_ => (double?)random.NextDouble())];
            var scores = new LayerScores { Cka = values, CkaDebiased = values, Cosine = values, Gradient = values, GradientPerByte = values };
            var options = new SelectionOptions { Strategy = strategy, Ratio = ratio, Family = family, Seed = (ulong)seed };
            var drops = family == ModelFamily.Encoder && strategy is (SelectionStrategy.Cka or SelectionStrategy.CkaDebiased);
            var expected = drops ? Math.Min(k, layers - 1) : k;
            if (expected == 0)
            {
                Assert.Throws<InputException>(() => LayerSelection.Select(layers, scores, options));
                return;
            }
            var selection = LayerSelection.Select(layers, scores, options);
            Assert.Equal(expected, selection.Selected.Distinct().Count());
            Assert.Equal(expected, selection.Selected.Count);
            Assert.Equal(expected, selection.Mask.Count(c => c == '1'));
        }, iter: 500);

    [Fact]
    public void EqualScoresStayInLayerOrder() => Gen.Int[0, 2].Array[1, 40].Sample(values =>
    {
        var scores = new LayerScores { Cka = [.. values.Select(v => v == 0 ? null : (double?)v)] };
        if (values.All(v => v == 0))
            return;
        var order = LayerSelection.Select(values.Length, scores, new SelectionOptions { Ratio = 1, Family = ModelFamily.Decoder }).Order;
        for (var i = 1; i < order.Count; i++)
            Assert.True(values[order[i - 1]] < values[order[i]] || (values[order[i - 1]] == values[order[i]] && order[i - 1] < order[i]));
    }, iter: 200);

    public static TheoryData<SelectionOptions, string> Bad() => new()
    {
        { new() { Ratio = 0 }, "above 0" },
        { new() { Ratio = -0.5 }, "above 0" },
        { new() { Ratio = 1.01 }, "at most 1" },
        { new() { Ratio = double.NaN }, "above 0" },
        { new() { Ratio = 0.1 }, "chooses none" },
        { new() { Count = 0 }, "1 to 6" },
        { new() { Count = 7 }, "1 to 6" },
        { new() { Ratio = 0.5, Count = 3 }, "one of them" },
        { new(), "needs a ratio" },
        { new() { Strategy = SelectionStrategy.Even }, "needs a ratio" },
        { new() { Strategy = (SelectionStrategy)99, Count = 1 }, "unknown" },
        { new() { Strategy = SelectionStrategy.Explicit }, "no layer number" },
        { SelectionOptions.Parse("0101"), "one digit a layer" },
        { SelectionOptions.Parse("1010101"), "one digit a layer" },
        { SelectionOptions.Parse("000000"), "chooses no layer" },
        { SelectionOptions.Parse("6"), "layers 0 to 5" },
        { SelectionOptions.Parse("2-9"), "layers 0 to 5" },
        { SelectionOptions.Parse("3-1"), "no layer number" },
        { SelectionOptions.Parse("-1"), "no layer number" },
        { SelectionOptions.Parse("1,,2"), "no layer number" },
        { SelectionOptions.Parse("1-2-3"), "no layer number" },
        { SelectionOptions.Parse("99999999999"), "no layer number" },
    };

    [Theory]
    [MemberData(nameof(Bad))]
    public void BadOptionsAreRefused(SelectionOptions options, string why)
    {
        var message = Assert.Throws<InputException>(() => Select(options)).Message;
        Assert.Contains(why, message);
        Assert.DoesNotContain('\n', message);
    }

    [Fact]
    public void BadScoresAreRefused()
    {
        var options = new SelectionOptions { Count = 1 };
        Assert.Throws<InputException>(() => LayerSelection.Select(6, null, options));
        Assert.Throws<InputException>(() => LayerSelection.Select(5, Scores, options));
        Assert.Throws<InputException>(() => LayerSelection.Select(0, Scores, options));
        Assert.Throws<InputException>(() => LayerSelection.Select(2, new LayerScores { Cka = [null, null] }, options));
        Assert.Throws<InputException>(() => LayerSelection.Select(2, new LayerScores { Cka = [0.5, double.NaN] }, options));
        Assert.Throws<InputException>(() => LayerSelection.Select(2, new LayerScores { Cka = [0.5, 0.6] }, options with { Strategy = SelectionStrategy.Cosine }));
        Assert.Throws<InputException>(() => LayerSelection.Select(1, new LayerScores { Cka = [0.5] }, options));
        Assert.Throws<InputException>(() => LayerSelection.Select(1, new LayerScores { Cka = [0.5], ConstantInput = [true] }, options with { Rule = SelectionRule.Plain }));
        foreach (var text in new[] { "", "kcka", "1;2", "a" })
            Assert.Throws<InputException>(() => SelectionOptions.Parse(text));
    }

    [Fact]
    public void NamesReadBack()
    {
        foreach (var name in SelectionOptions.StrategyNames)
            Assert.Equal(name, SelectionOptions.NameOf(SelectionOptions.Parse(name.ToUpperInvariant()).Strategy));
        Assert.Equal(SelectionStrategy.None, SelectionOptions.Parse("none").Strategy);
        Assert.Equal("explicit", SelectionOptions.NameOf(SelectionOptions.Parse("1,2").Strategy));
    }
}
