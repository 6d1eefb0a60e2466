using System.Text.Json;
using NativeLora.Data;

namespace NativeLora.Tests.Data;

public class MetricsTests
{
    private const double Tolerance = 1e-12;

    [SharedFact]
    public void Classification_is_as_the_reference_computes_it()
    {
        var rows = Golden("classification").ToArray();
        Assert.True(rows.Length >= 18);
        foreach (var row in rows)
        {
            var (p, l) = (Ints(row, "predictions"), Ints(row, "labels"));
            Compare(row, "accuracy", () => Metrics.Accuracy(p, l));
            Compare(row, "matthews", () => Metrics.Matthews(p, l));
            if (!row.TryGetProperty("f1", out _))
                continue;
            Compare(row, "f1", () => Metrics.F1(p, l));
            Compare(row, "combined_accuracy_f1", () => Value(Metrics.For(GlueTask.Get("mrpc")).Evaluate(p, l), "combined_score"));
        }
    }

    [SharedFact]
    public void Regression_is_as_the_reference_computes_it()
    {
        var rows = Golden("regression").ToArray();
        Assert.True(rows.Length >= 16);
        foreach (var row in rows)
        {
            var (p, l) = (Doubles(row, "predictions"), Doubles(row, "labels"));
            Compare(row, "pearson", () => Metrics.Pearson(p, l));
            Compare(row, "spearman", () => Metrics.Spearman(p, l));
            Compare(row, "combined", () => Value(Metrics.For(GlueTask.Get("stsb")).Evaluate(p, l), "combined_score"));
        }
    }

    [SharedFact]
    public void Perplexity_weighs_batches_by_their_size()
    {
        foreach (var row in Golden("perplexity"))
        {
            var losses = Doubles(row, "batch_losses");
            Compare(row, "trainer_eval_loss", () => Metrics.EvaluationLoss(losses, Ints(row, "batch_sizes")));
            Compare(row, "perplexity", () => Metrics.Perplexity(Metrics.EvaluationLoss(losses, Ints(row, "batch_sizes"))));
            Compare(row, "token_perplexity", () => Metrics.Perplexity(Metrics.EvaluationLoss(losses, Ints(row, "batch_tokens"))));
        }
    }

    [Fact]
    public void Each_task_has_its_metrics()
    {
        int[] p = [1, 0, 1, 1], l = [1, 0, 0, 1];
        foreach (var task in GlueTask.All.Where(t => !t.IsRegression))
        {
            var metrics = Metrics.For(task);
            var values = metrics.Evaluate(p, l);
            Assert.Equal(task.MetricNames, values.Select(v => v.Name));
            Assert.Equal(task.MainMetric, metrics.Main);
            Assert.Equal(task.Name == "cola" ? Metrics.Matthews(p, l) : 0.75, values[0].Value);
            Assert.Throws<InputException>(() => metrics.Evaluate([1.0, 2.0], [1.0, 2.0]));
        }
        Assert.Throws<InputException>(() => Metrics.For(isRegression: true).Evaluate(p, l));
        Assert.Throws<InputException>(() => Metrics.Accuracy(p, [1]));
    }

    private static void Compare(JsonElement row, string name, Func<double> compute)
    {
        var wanted = row.GetProperty(name);
        if (wanted.ValueKind == JsonValueKind.String && wanted.GetString()!.StartsWith("ValueError", StringComparison.Ordinal))
        {
            Assert.Throws<InputException>(() => compute());
            return;
        }
        var (expected, actual) = (Number(wanted), compute());
        if (double.IsFinite(expected))
            Assert.True(Math.Abs(expected - actual) <= Tolerance * Math.Max(1, Math.Abs(expected)), $"{name}: {actual}, not {expected}");
        else
            Assert.Equal(expected, actual);
    }

    private static double Value(IReadOnlyList<MetricValue> values, string name) => values.Single(v => v.Name == name).Value;

    private static IEnumerable<JsonElement> Golden(string name) =>
        JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "text", "metrics", name + ".json"))).RootElement.EnumerateArray();

    private static int[] Ints(JsonElement row, string name) => [.. row.GetProperty(name).EnumerateArray().Select(v => v.GetInt32())];

    private static double[] Doubles(JsonElement row, string name) => [.. row.GetProperty(name).EnumerateArray().Select(Number)];

    private static double Number(JsonElement v) => v.ValueKind == JsonValueKind.Number ? v.GetDouble() : v.GetString() switch
    {
        "NaN" => double.NaN,
        "Infinity" => double.PositiveInfinity,
        "-Infinity" => double.NegativeInfinity,
        var other => throw new InvalidDataException(other),
    };
}
