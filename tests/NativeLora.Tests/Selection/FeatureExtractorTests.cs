using NativeLora.Data;
using NativeLora.Devices.Cpu;
using NativeLora.Models;
using NativeLora.Selection;

namespace NativeLora.Tests.Selection;

public sealed class FeatureExtractorTests
{
    private static readonly FeatureOptions Plain = new() { Token = TokenRule.TrueLast, BatchTokens = 100 };

    [SharedFact]
    public void Streamed_IsAsHeld()
    {
        using var device = new CpuDevice(2);
        using var model = Open(device, "bert-cls");
        var examples = Examples(model.Model, 700);
        var held = FeatureExtractor.Extract(model, examples, Plain);
        int[] keep = [3, 100, 699];
        var (streamed, kept) = FeatureExtractor.Stream(model, examples, Plain, keep);
        var expected = LayerSimilarities.Compute(held);
        for (var l = 0; l < expected.Layers; l++)
        {
            Fixtures.Near(expected.Pairs[l].Cka, streamed.Pairs[l].Cka, 1e-10);
            Fixtures.Near(expected.Pairs[l].CkaDebiased, streamed.Pairs[l].CkaDebiased, 1e-9);
            Fixtures.Near(expected.Pairs[l].Cosine, streamed.Pairs[l].Cosine, 1e-10);
            Assert.Equal(held[l].Take(keep).Values, kept[l].Values);
        }
        Assert.Equal(700, streamed.Samples);
        Assert.Empty(FeatureExtractor.Stream(model, examples, Plain, []).Kept);
    }

    [SharedTheory]
    [InlineData("bert-cls")]
    [InlineData("llama-gqa")]
    public void Rows_AreThoseOfEachExampleAlone(string name)
    {
        using var device = new CpuDevice(2);
        using var model = Open(device, name);
        var examples = Examples(model.Model, 9);
        foreach (var token in (TokenRule[])[TokenRule.Cls, TokenRule.Last, TokenRule.TrueLast, TokenRule.Content, TokenRule.Mean])
        {
            var options = Plain with { Token = token, PadId = model.Model.IsEncoder ? null : 7 };
            var together = FeatureExtractor.Extract(model, examples, options);
            Assert.Equal(model.Model.Layers + 1, together.Count);
            for (var i = 0; i < examples.Count; i++)
            {
                var alone = FeatureExtractor.Extract(model, [examples[i]], options);
                for (var l = 0; l < together.Count; l++)
                    for (var c = 0; c < together[l].Columns; c++)
                        Assert.InRange(together[l].Row(i)[c] - alone[l].Row(0)[c], -1e-5f, 1e-5f);
            }
        }
    }

    [Theory]
    [InlineData(TokenRule.Cls, 0)]
    [InlineData(TokenRule.Last, 2)]
    [InlineData(TokenRule.TrueLast, 4)]
    [InlineData(TokenRule.Content, 1)]
    public void Index_OfEachRule(TokenRule rule, int expected)
    {
        // Two pads, one of them within the text: the paper's index counts both.
        int[] ids = [5, 9, 6, 8, 9];
        Assert.Equal(expected, TokenRules.Index(rule, ids, 9, 1));
        Assert.Equal(rule, TokenRules.Parse(TokenRules.NameOf(rule)));
    }

    [Fact]
    public void Index_OfNothingButPads_IsTheLastToken() => Assert.Equal(2, TokenRules.Index(TokenRule.Last, [9, 9, 9], 9, 0));

    [Fact]
    public void Batches_KeepTheBudget_AndHoldEachExampleOnce()
    {
        int[] lengths = [.. Enumerable.Range(0, 500).Select(i => 1 + (i * 7919 % 60))];
        lengths[250] = 130;
        var batches = FeatureExtractor.Batches(lengths, 100);
        Assert.Equal(Enumerable.Range(0, 500), batches.SelectMany(b => b).Order());
        Assert.All(batches, b => Assert.True(b.Length == 1 || b.Sum(i => lengths[i]) <= 100));
        Assert.Equal([250], batches[0]);
    }

    [SharedFact]
    public void Cancellation_StopsBetweenBatches()
    {
        using var device = new CpuDevice(1);
        using var model = Open(device, "bert-cls");
        using var source = new CancellationTokenSource();
        var progress = new Stopper(source);
        Assert.Throws<OperationCanceledException>(() => FeatureExtractor.Extract(model, Examples(model.Model, 60), Plain, progress, source.Token));
        Assert.Equal(1, progress.Reports);
        Assert.Throws<InputException>(() => FeatureExtractor.Extract(model, [], Plain));
    }

    private sealed class Stopper(CancellationTokenSource source) : IProgress<FeatureProgress>
    {
        public int Reports { get; private set; }

        public void Report(FeatureProgress value)
        {
            Reports++;
            source.Cancel();
        }
    }

    private static PretrainedModel Open(CpuDevice device, string name) => PretrainedModel.Open(Shared.Path("fixtures", "models", name, "model"), device);

    private static List<EncodedExample> Examples(Model model, int count)
    {
        var random = new Random(5);
        return [.. Enumerable.Range(0, count).Select(_ =>
        {
            var ids = new int[random.Next(2, 16)];
            for (var t = 0; t < ids.Length; t++)
                ids[t] = random.Next(8, Math.Min(90, model.VocabularySize));
            return EncodedExample.Text(new TokenizedText(ids, new int[ids.Length]), poolIndex: random.Next(ids.Length));
        })];
    }
}
