using System.Diagnostics;
using NativeLora.Cli.Show;

namespace NativeLora.Cli.Demo;

/// <summary>One line on the error stream that is written over as work goes on; nothing where that is no terminal.</summary>
internal sealed class DemoProgress : IDisposable
{
    private const int BarWidth = 24;
    private readonly bool _live = !Console.IsErrorRedirected;
    private long _shownAt = long.MinValue;
    private int _width;

    /// <summary>Shows how far the work is.</summary>
    /// <param name="what">What runs.</param>
    /// <param name="share">Part of it that is done, from 0 to 1.</param>
    /// <param name="detail">What else is known.</param>
    public void Show(string what, double share, string detail)
    {
        if (!_live || (_shownAt != long.MinValue && Stopwatch.GetElapsedTime(_shownAt).TotalMilliseconds < 100))
            return;
        _shownAt = Stopwatch.GetTimestamp();
        var text = $"{what,-11} {Ui.Bar(share, BarWidth),-BarWidth} {100 * share,3:0} %  {detail}";
        text = text.Length < 79 ? text : text[..79];
        Console.Error.Write($"\r{text.PadRight(_width)}");
        _width = text.Length;
    }

    /// <summary>Clears the line.</summary>
    public void Dispose()
    {
        if (_width > 0)
            Console.Error.Write($"\r{new string(' ', _width)}\r");
        (_width, _shownAt) = (0, long.MinValue);
    }
}
