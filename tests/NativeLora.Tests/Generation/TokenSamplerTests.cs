using System.Globalization;
using System.Text.Json;
using NativeLora.Data;
using NativeLora.Generation;

namespace NativeLora.Tests.Generation;

/// <summary>Drawing tokens: what transformers' logits processors leave, and how it is drawn.</summary>
public class TokenSamplerTests
{
    [SharedFact]
    public void LeavesWhatTransformersLeaves()
    {
        using var golden = JsonDocument.Parse(File.ReadAllText(Shared.Path("fixtures", "generation", "sampling.json")));
        var rows = golden.RootElement.EnumerateArray().ToArray();
        Assert.Equal(44, rows.Length);
        foreach (var row in rows)
        {
            var logits = row.GetProperty("logits").EnumerateArray().Select(Number).ToArray();
            var wanted = row.GetProperty("probabilities").EnumerateArray().Select(p => p.GetDouble()).ToArray();
            int[] previous = [.. row.GetProperty("previous_ids").EnumerateArray().Select(p => p.GetInt32())];
            var options = row.GetProperty("options");
            var got = new TokenSampler(Options(options), logits.Length).Probabilities(logits, previous);

            Assert.Equal(row.GetProperty("kept").EnumerateArray().Select(k => k.GetInt32()), Enumerable.Range(0, got.Length).Where(i => got[i] > 0));
            for (var i = 0; i < got.Length; i++)
                Assert.True(Math.Abs(got[i] - wanted[i]) <= 1e-6 * wanted[i], $"{options}: token {i} is {got[i]}, not {wanted[i]}");
        }
    }

    [Fact]
    public void Greedy_TakesTheFirstOfTheBest()
    {
        var sampler = new TokenSampler(new GenerationOptions(), 5);
        Assert.Equal(2, sampler.Next([0, -1, 3, 3, float.NegativeInfinity], [], new SplitMix64(0)));
        var penalised = new TokenSampler(new GenerationOptions { RepetitionPenalty = 2 }, 5);
        Assert.Equal(3, penalised.Next([0, -1, 3, 2, -8], [2, 2], new SplitMix64(0)));
        Assert.Equal(2, penalised.Next([-9, -3, -2, -5, -8], [1], new SplitMix64(0)));
        Assert.Equal(1, penalised.Next([-9, -3, -2, -5, -8], [2], new SplitMix64(0)));
    }

    [Fact]
    public void Draws_AsOftenAsTheProbabilitiesSay()
    {
        float[] logits = [1, float.NegativeInfinity, 0, 2, -1];
        var sampler = new TokenSampler(new GenerationOptions { Temperature = 1.5f, TopK = 3 }, logits.Length);
        var wanted = sampler.Probabilities(logits, []);
        var counts = new int[logits.Length];
        const int Draws = 20000;
        var random = new SplitMix64(5);
        for (var i = 0; i < Draws; i++)
            counts[sampler.Next(logits, [], random)]++;
        for (var i = 0; i < logits.Length; i++)
            Assert.InRange(counts[i] / (double)Draws, wanted[i] - 0.015, wanted[i] + 0.015);
        Assert.Equal(0, counts[1] + counts[4]);
    }

    /// <summary>Most of a large vocabulary goes without being sorted: the same tokens must stay as when all are.</summary>
    [Fact]
    public void TopP_OfALargeVocabulary_IsAsIfAllWereSorted()
    {
        var random = new SplitMix64(3);
        float[] logits = [.. Enumerable.Range(0, 3000).Select(_ => (float)Math.Round(4 * random.NextGaussian(), 2))];
        foreach (var p in new[] { 0.05f, 0.5f, 0.9f, 0.999f })
        {
            var exps = logits.Select(l => Math.Exp(l)).ToArray();
            var room = (1.0 - p) * exps.Sum();
            double gone = 0;
            var kept = Enumerable.Range(0, logits.Length).ToHashSet();
            foreach (var i in Enumerable.Range(0, logits.Length).OrderBy(i => logits[i]).ThenBy(i => i))
                if ((gone += exps[i]) <= room)
                    kept.Remove(i);
            var got = new TokenSampler(new GenerationOptions { Temperature = 1, TopP = p }, logits.Length).Probabilities(logits, []);
            Assert.Equal(kept.Order(), Enumerable.Range(0, got.Length).Where(i => got[i] > 0));
        }
    }

    [Theory]
    [InlineData(float.NaN)]
    [InlineData(float.PositiveInfinity)]
    [InlineData(float.NegativeInfinity)]
    public void LogitsThatAreNotNumbers_EndTheRun(float value)
    {
        foreach (var temperature in new[] { 0f, 1f })
        {
            var sampler = new TokenSampler(new GenerationOptions { Temperature = temperature }, 2);
            var error = Assert.Throws<RunException>(() => sampler.Next([value, value], [], new SplitMix64(0)));
            Assert.Contains("not numbers", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void OptionsThatMakeNoSense_AreRefused()
    {
        (GenerationOptions Options, string Saying)[] bad =
        [
            (new() { MaxNewTokens = 0 }, "new tokens is 0"), (new() { Temperature = -1 }, "temperature is -1"), (new() { Temperature = float.NaN }, "temperature"),
            (new() { TopK = -1 }, "top-k is -1"), (new() { TopP = 0 }, "top-p is 0"), (new() { TopP = 1.5f }, "top-p is 1.5"), (new() { TopP = float.NaN }, "top-p"),
            (new() { MinP = 2 }, "min-p is 2"), (new() { RepetitionPenalty = 0 }, "repetition penalty is 0"), (new() { MaxBatch = 0 }, "batch is 0"),
            (new() { PromptTokens = 0 }, "prompt tokens"), (new() { StopStrings = ["a", ""] }, "stop string is empty"),
        ];
        foreach (var (options, saying) in bad)
            Assert.Contains(saying, Assert.Throws<InputException>(options.Validate).Message, StringComparison.Ordinal);
    }

    private static GenerationOptions Options(JsonElement json)
    {
        float Or(string name, float other) => json.TryGetProperty(name, out var value) ? value.GetSingle() : other;
        return new GenerationOptions
        {
            Temperature = Or("temperature", 1),
            TopK = (int)Or("top_k", 0),
            TopP = Or("top_p", 1),
            MinP = Or("min_p", 0),
            RepetitionPenalty = Or("repetition_penalty", 1),
        };
    }

    private static float Number(JsonElement json) => json.ValueKind == JsonValueKind.String
        ? json.GetString() == "-inf" ? float.NegativeInfinity : throw new InvalidDataException(json.GetString())
        : float.Parse(json.GetRawText(), CultureInfo.InvariantCulture);
}
