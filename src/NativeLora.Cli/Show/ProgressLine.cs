using System.Diagnostics;
using NativeLora.Selection;

namespace NativeLora.Cli.Show;

/// <summary>How far a forward pass over samples is.</summary>
internal sealed class ProgressLine(string what) : IProgress<FeatureProgress>, IDisposable
{
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private readonly LiveLine _line = new();

    /// <summary>Time until the last batch was done.</summary>
    public TimeSpan Elapsed { get; private set; }

    /// <summary>Tokens done.</summary>
    public long Tokens { get; private set; }

    public void Report(FeatureProgress value)
    {
        (Tokens, Elapsed) = (value.Tokens, _clock.Elapsed);
        if (!_line.IsDue && value.Samples < value.AllSamples)
            return;
        var rate = value.Tokens / Math.Max(_clock.Elapsed.TotalSeconds, 1e-3);
        _line.Show($"{what}  {Ui.Bar((double)value.Tokens / value.AllTokens, 20),-20}  {Ui.Count(value.Samples)}/{Ui.Count(value.AllSamples)} samples  "
            + $"{Ui.Count((long)rate)} tokens/s  {LiveLine.Time((value.AllTokens - value.Tokens) / Math.Max(rate, 1))} left");
    }

    public void Dispose() => _line.Dispose();
}
