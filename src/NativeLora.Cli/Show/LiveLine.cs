namespace NativeLora.Cli.Show;

/// <summary>One line on the error stream that is written over as work goes on; nothing where that is no terminal.</summary>
internal sealed class LiveLine : IDisposable
{
    private const int MillisecondsBetween = 100;
    private long _shownAt = long.MinValue;
    private int _width;

    /// <summary>Whether anything is shown.</summary>
    public bool IsLive { get; } = !Console.IsErrorRedirected && !Ui.IsSilent && !Ui.IsRelayed;

    /// <summary>Whether the line is due to be written again.</summary>
    public bool IsDue => IsLive && (_shownAt == long.MinValue || Environment.TickCount64 - _shownAt >= MillisecondsBetween);

    public void Show(string text)
    {
        if (!IsLive)
            return;
        _shownAt = Environment.TickCount64;
        var room = Math.Max(20, Width() - 1);
        text = text.Length > room ? text[..room] : text;
        Console.Error.Write($"\r{text.PadRight(_width)}");
        _width = text.Length;
    }

    /// <summary>Removes the line, so that others can be written; it comes back when it is shown again.</summary>
    public void Clear()
    {
        if (_width > 0)
            Console.Error.Write($"\r{new string(' ', _width)}\r");
        _width = 0;
    }

    /// <summary>Minutes and seconds, with hours if there are any.</summary>
    public static string Time(double seconds)
    {
        var time = TimeSpan.FromSeconds(Math.Clamp(seconds, 0, 1e7));
        return time.TotalHours >= 1 ? $"{(int)time.TotalHours}:{time.Minutes:00}:{time.Seconds:00}" : $"{time.Minutes}:{time.Seconds:00}";
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

    public void Dispose() => Clear();
}
