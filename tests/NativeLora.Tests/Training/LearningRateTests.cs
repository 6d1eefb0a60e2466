using System.Text.Json;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

public class LearningRateTests
{
    [SharedTheory]
    [InlineData("linear")]
    [InlineData("cosine")]
    [InlineData("constant")]
    [InlineData("constant_with_warmup")]
    public void Every_step_is_as_the_reference_has_it(string name)
    {
        var compared = 0;
        foreach (var row in Golden().GetProperty("schedules").EnumerateArray().Where(r => r.GetProperty("name").GetString() == name))
        {
            var total = row.GetProperty("total_steps").GetInt32();
            var warmup = LearningRate.StepsOf(total, row.GetProperty("warmup_ratio").GetDouble());
            Assert.Equal(row.GetProperty("warmup_steps").GetInt32(), warmup);
            var rate = new LearningRate(LearningRate.KindOf(name), row.GetProperty("lr").GetDouble(), total, warmup);
            var step = 0;
            foreach (var wanted in row.GetProperty("lr_at_step").EnumerateArray())
            {
                Assert.Equal(wanted.GetDouble(), rate.At(step++), 1e-12 * rate.Peak);
                compared++;
            }
        }
        Assert.Equal(202, compared);
    }

    [SharedFact]
    public void Warmup_steps_are_rounded_up_in_doubles()
    {
        foreach (var row in Golden().GetProperty("warmup").EnumerateArray())
        {
            Assert.Equal(
                row.GetProperty("warmup_steps").GetInt32(),
                LearningRate.StepsOf(row.GetProperty("total_steps").GetInt32(), row.GetProperty("ratio").GetDouble()));
        }
    }

    [Fact]
    public void A_warmup_as_long_as_the_training_ends_at_zero()
    {
        var rate = new LearningRate(LearningRateKind.Linear, 1, 4, 4);
        Assert.Equal([0, 0.25, 0.5, 0.75, 0, 0], Enumerable.Range(0, 6).Select(rate.At));
    }

    [Theory]
    [InlineData(double.NaN)]
    [InlineData(-1)]
    [InlineData(double.PositiveInfinity)]
    public void A_rate_out_of_range_is_refused(double peak) =>
        Assert.Throws<InputException>(() => new LearningRate(LearningRateKind.Linear, peak, 10, 1));

    [Fact]
    public void Bad_settings_are_refused()
    {
        Assert.Throws<InputException>(() => LearningRate.StepsOf(10, double.NaN));
        Assert.Throws<InputException>(() => LearningRate.StepsOf(10, 1.1));
        Assert.Throws<InputException>(() => new LearningRate(LearningRateKind.Cosine, 1, 10, -1));
        Assert.Contains("cosine", Assert.Throws<InputException>(() => LearningRate.KindOf("cosin")).Message);
    }

    private static JsonElement Golden() =>
        JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "text", "train", "schedules.json"))).RootElement;
}
