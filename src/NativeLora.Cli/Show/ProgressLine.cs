using System.Diagnostics;
using NativeLora.Selection;

namespace NativeLora.Cli.Show;

/// <summary>One line on the error stream that is written over as work goes on; nothing where that is no terminal.</summary>
internal sealed class ProgressLine(string what) : IProgress<FeatureProgress>, IDisposable
{
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private readonly bool _live = !Console.IsErrorRedirected;
    private long _shownAt = long.MinValue;
    private int _width;

    public TimeSpan Elapsed => _clock.Elapsed;

    /// <summary>Tokens done.</summary>
    public long Tokens { get; private set; }

    public void Report(FeatureProgress value)
    {
        Tokens = value.Tokens;
        if (!_live || (_clock.ElapsedMilliseconds - _shownAt < 100 && value.Samples < value.AllSamples))
            return;
        _shownAt = _clock.ElapsedMilliseconds;
        var rate = value.Tokens / Math.Max(_clock.Elapsed.TotalSeconds, 1e-3);
        var left = TimeSpan.FromSeconds((value.AllTokens - value.Tokens) / Math.Max(rate, 1));
        Show($"{what}  {Ui.Bar((double)value.Tokens / value.AllTokens, 20),-20}  {Ui.Count(value.Samples)}/{Ui.Count(value.AllSamples)} samples  "
            + $"{Ui.Count((long)rate)} tokens/s  {(int)left.TotalMinutes}:{left.Seconds:00} left");
    }

    private void Show(string text)
    {
        var room = Math.Max(20, Width() - 1);
        text = text.Length > room ? text[..room] : text;
        Console.Error.Write($"\r{text.PadRight(_width)}");
        _width = text.Length;
    }

    private static int Width()
    {
        try
        {
            return Console.WindowWidth;
        }
        catch (IOException)
        {
            return 80;
        }
    }

    public void Dispose()
    {
        if (_live && _width > 0)
            Console.Error.Write($"\r{new string(' ', _width)}\r");
        _width = 0;
    }
}
