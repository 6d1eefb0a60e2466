using ScottPlot;

namespace NativeLora.Cli.Report;

/// <summary>
/// Colours of the pictures: told apart by the colour-blind (after Okabe and Ito 2008) and at least 3:1 against paper. Nothing is said by
/// colour alone: lines have patterns and marks, bars are filled or hollow.
/// </summary>
internal static class Ink
{
    /// <summary>Words and axes; on the page it is the colour of the text.</summary>
    public static readonly Color Text = Color.FromHex("#1F2328");

    /// <summary>For what stands beside: all layers, references.</summary>
    public static readonly Color Grey = Color.FromHex("#6B747D");

    private static readonly string[] Hexes = ["#0072B2", "#C44E00", "#00805E", "#A0528A", "#6B747D", "#8A6D00"];

    // The same on a dark page.
    private static readonly string[] Dark = ["#56B4E9", "#FF9248", "#2CC295", "#E39AC7", "#A2ACB6", "#E6C229"];

    /// <summary>Patterns of lines, and what they are in SVG.</summary>
    public static readonly LinePattern[] Patterns = [LinePattern.Solid, LinePattern.Dashed, LinePattern.DenselyDashed, LinePattern.Dotted];

    public static readonly string[] Dashes = ["none", "10 6", "6 3", "2 4"];

    private static readonly MarkerShape[] Marks =
        [MarkerShape.FilledCircle, MarkerShape.FilledSquare, MarkerShape.FilledTriangleUp, MarkerShape.FilledDiamond, MarkerShape.OpenCircle, MarkerShape.OpenSquare, MarkerShape.OpenTriangleUp, MarkerShape.OpenDiamond];

    public static Color Of(int i) => Color.FromHex(Hexes[i % Hexes.Length]);

    public static LinePattern Pattern(int i) => Patterns[i % Patterns.Length];

    public static MarkerShape Mark(int i) => Marks[i % Marks.Length];

    /// <summary>CSS of the colours, for light pages and for dark ones.</summary>
    public static string Css(bool dark) => string.Concat((dark ? Dark : Hexes).Select((hex, i) => $"--ink{i}:{hex};"));

    /// <summary>An attribute of a picture as the page has it.</summary>
    public static string ForPage(string color)
    {
        if (Hex(color) is not { } hex)
            return color;
        if (hex == "#1F2328")
            return "currentColor";
        var i = Array.IndexOf(Hexes, hex);
        return i < 0 ? color : $"var(--ink{i})";
    }

    /// <summary>Letters, axes and grid of all pictures.</summary>
    public static void Style(Plot plot)
    {
        plot.Axes.Color(Text);
        plot.Grid.MajorLineColor = Text.WithAlpha(.14);
        foreach (var axis in plot.Axes.GetAxes())
        {
            axis.TickLabelStyle.FontSize = 13;
            axis.TickLabelStyle.ForeColor = Text;
            axis.MinorTickStyle.Length = 0;
            axis.Label.FontSize = 14;
            axis.Label.Bold = false;
            axis.Label.ForeColor = Text;
        }
        plot.Axes.Right.FrameLineStyle.IsVisible = plot.Axes.Top.FrameLineStyle.IsVisible = false;
        plot.Legend.FontSize = 13;
        plot.Legend.FontColor = Text;
        plot.Legend.OutlineWidth = 0;
        plot.Legend.ShadowColor = Colors.Transparent;
        plot.Legend.BackgroundColor = Colors.Transparent;
    }

    /// <summary>viridis (van der Walt and Smith 2015), from 0 to 1: grows lighter evenly, also without colour.</summary>
    public static Color Scale(double value) => ViridisMap.GetColor(Math.Clamp(value, 0, 1));

    /// <summary>Whether black can be read better on it than white (WCAG's contrast).</summary>
    public static bool IsLight(Color color)
    {
        return (.2126 * Part(color.R)) + (.7152 * Part(color.G)) + (.0722 * Part(color.B)) > .179;

        static double Part(byte value) => value <= 10 ? value / 255.0 / 12.92 : Math.Pow(((value / 255.0) + .055) / 1.055, 2.4);
    }

    private static readonly IColormap ViridisMap = new ScottPlot.Colormaps.Viridis();

    private static string? Hex(string color)
    {
        if (color.StartsWith('#') && color.Length == 7)
            return color.ToUpperInvariant();
        if (!color.StartsWith("rgb(", StringComparison.Ordinal) || !color.EndsWith(')'))
            return null;
        var parts = color[4..^1].Split(',');
        return parts.Length == 3 && parts.All(p => byte.TryParse(p, out _))
            ? $"#{string.Concat(parts.Select(p => byte.Parse(p, System.Globalization.CultureInfo.InvariantCulture).ToString("X2", System.Globalization.CultureInfo.InvariantCulture)))}" : null;
    }
}
