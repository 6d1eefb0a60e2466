using System.Globalization;
using NativeLora.Training;

namespace NativeLora.Cli.Show;

/// <summary>Shows a training: a live line in a terminal, now and then a plain line elsewhere, and each evaluation.</summary>
internal sealed class TrainingView(Ui ui) : ITrainingObserver, IDisposable
{
    private const int PlainLines = 20;
    private readonly LiveLine _line = new();

    public void OnResumed(int step, string checkpoint) => ui.Fact("resumed", $"from {checkpoint}");

    public void OnStep(in TrainingProgress p)
    {
        var last = p.Step == p.TotalSteps;
        if (_line.IsLive ? _line.IsDue || last : p.Step % Math.Max(1, p.TotalSteps / PlainLines) == 0 || last)
            Show(p);
    }

    private void Show(in TrainingProgress p)
    {
        var numbers = string.Create(CultureInfo.InvariantCulture,
            $"loss {p.MeanLoss:0.0000}  lr {p.LearningRate:0.00e0}  norm {p.GradientNorm:0.000}  {p.TokensPerSecond:N0} tokens/s");
        if (_line.IsLive)
            _line.Show($"train  {Ui.Bar((double)p.Step / p.TotalSteps, 20),-20}  {Ui.Count(p.Step)}/{Ui.Count(p.TotalSteps)}  {numbers}  {LiveLine.Time(p.SecondsLeft)} left");
        else
            ui.Line($"step {p.Step}/{p.TotalSteps}  epoch {p.Epoch.ToString("0.00", CultureInfo.InvariantCulture)}  {numbers}");
    }

    public void OnEvaluation(TrainingEvaluation evaluation)
    {
        _line.Clear();
        ui.Fact($"step {evaluation.Step}", $"{Values(evaluation.Result)}{(evaluation.IsBest ? "  (best so far)" : "")}");
    }

    public void OnWarning(string message)
    {
        _line.Clear();
        Ui.Warn(message);
    }

    /// <summary>Loss and metrics in a line.</summary>
    public static string Values(EvaluationResult result)
    {
        List<string> parts = [];
        if (result.Loss is { } loss)
            parts.Add($"loss {Number(loss)}");
        if (result.Perplexity is { } perplexity)
            parts.Add($"perplexity {Number(perplexity)}");
        parts.AddRange(result.Metrics.Select(m => $"{m.Name} {Number(m.Value)}"));
        return string.Join("  ", parts);
    }

    private static string Number(double value) => value.ToString("0.0000", CultureInfo.InvariantCulture);

    public void Dispose() => _line.Dispose();
}
