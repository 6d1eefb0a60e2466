using System.Globalization;
using System.Text;
using System.Xml.Linq;
using ScottPlot;
using SkiaSharp;

namespace NativeLora.Cli.Report;

/// <summary>Draws a picture as SVG and PNG. On the page its colours follow the reader's: light, dark or paper.</summary>
internal static class Picture
{
    private static readonly XNamespace Svg = "http://www.w3.org/2000/svg";
    private static readonly XNamespace Link = "http://www.w3.org/1999/xlink";

    /// <summary>A font without serifs that is here, so that all pictures look alike.</summary>
    private static readonly Lazy<string?> Font = new(() =>
    {
        var here = SKFontManager.Default.FontFamilies.ToHashSet(StringComparer.OrdinalIgnoreCase);
        return Array.Find(["DejaVu Sans", "Noto Sans", "Liberation Sans", "Segoe UI", "Helvetica Neue", "Arial"], here.Contains);
    });

    /// <summary>Whether letters can be drawn on this machine.</summary>
    public static bool HasFonts
    {
        get
        {
            using var font = new SKFont(SKTypeface.Default);
            return font.MeasureText("A") > 0;
        }
    }

    /// <summary>A picture for a file: on white.</summary>
    public static byte[] Png(ReportPicture picture)
    {
        using var plot = New(picture, Colors.White);
        plot.ScaleFactor = 2;
        return plot.GetImageBytes(2 * ReportPicture.Width, 2 * picture.Height, ImageFormat.Png);
    }

    /// <summary>The same as an SVG file.</summary>
    public static string SvgFile(ReportPicture picture)
    {
        var root = Draw(picture, Colors.White);
        root.AddFirst(new XElement(Svg + "title", picture.Title), new XElement(Svg + "desc", picture.Description));
        return root.ToString(SaveOptions.DisableFormatting) + "\n";
    }

    /// <summary>The same for the page: an element with names for screen readers, whose ids nothing else on the page has.</summary>
    public static XElement Inline(ReportPicture picture)
    {
        var root = Draw(picture, Colors.Transparent);
        var (title, text) = ($"{picture.Id}-title", $"{picture.Id}-desc");
        foreach (var element in root.DescendantsAndSelf())
            foreach (var attribute in element.Attributes())
            {
                if (attribute.Name.LocalName == "id")
                    attribute.Value = $"{picture.Id}-{attribute.Value}";
                else if (attribute.Name == Link + "href" && attribute.Value.StartsWith('#'))
                    attribute.Value = $"#{picture.Id}-{attribute.Value[1..]}";
                else if (attribute.Value.Contains("url(#", StringComparison.Ordinal))
                    attribute.Value = attribute.Value.Replace("url(#", $"url(#{picture.Id}-", StringComparison.Ordinal);
                else if (attribute.Name.LocalName is "fill" or "stroke")
                    attribute.Value = Ink.ForPage(attribute.Value);
            }
        root.SetAttributeValue("width", null);
        root.SetAttributeValue("height", null);
        root.SetAttributeValue("role", "img");
        root.SetAttributeValue("aria-labelledby", $"{title} {text}");
        root.AddFirst(new XElement(Svg + "title", new XAttribute("id", title), picture.Title), new XElement(Svg + "desc", new XAttribute("id", text), picture.Description));
        return root;
    }

    private static Plot New(ReportPicture picture, Color background)
    {
        if (Font.Value is { } name)
            Fonts.Default = name;
        var plot = new Plot();
        picture.Draw(plot);
        plot.FigureBackground.Color = plot.DataBackground.Color = background;
        Ink.Style(plot);
        return plot;
    }

    private static XElement Draw(ReportPicture picture, Color background)
    {
        using var plot = New(picture, background);
        WithoutPatterns(plot);
        using var stream = new MemoryStream();
        using (var canvas = SKSvgCanvas.Create(SKRect.Create(ReportPicture.Width, picture.Height), stream))
            plot.Render(canvas, ReportPicture.Width, picture.Height);
        var root = XDocument.Parse(Encoding.UTF8.GetString(stream.ToArray())).Root!;
        root.SetAttributeValue("viewBox", string.Create(CultureInfo.InvariantCulture, $"0 0 {ReportPicture.Width} {picture.Height}"));
        foreach (var element in root.Descendants())
        {
            if (element.Attribute("font-family") is { } family)
                family.Value = "DejaVu Sans, Verdana, sans-serif";
            if (element.Name == Svg + "text")
                element.Value = element.Value.Trim();
            Patterned(element);
        }
        // What is drawn with a colour that cannot be seen comes out black.
        foreach (var nothing in root.Descendants(Svg + "rect").Where(r => r.Attribute("fill") is null && r.Parent!.Name != Svg + "clipPath").ToList())
            nothing.Remove();
        ShareClips(root);
        return root;
    }

    // Skia's SVG knows no dashes: the hundredths of a line's width name its pattern until it is written.
    private static void WithoutPatterns(Plot plot)
    {
        foreach (var line in plot.GetPlottables().OfType<IHasLine>())
        {
            var pattern = Array.IndexOf(Ink.Patterns, line.LinePattern);
            if (pattern <= 0)
                continue;
            line.LineWidth += .01f * pattern;
            line.LinePattern = LinePattern.Solid;
        }
    }

    private static void Patterned(XElement element)
    {
        if (element.Attribute("stroke-width") is not { } width || !double.TryParse(width.Value, NumberStyles.Float, CultureInfo.InvariantCulture, out var value))
            return;
        var (hundredths, pattern) = ((int)Math.Round(100 * value), (int)Math.Round(100 * value) % 10);
        if (pattern == 0 || pattern >= Ink.Patterns.Length)
            return;
        width.Value = ((hundredths - pattern) / 100.0).ToString(CultureInfo.InvariantCulture);
        element.SetAttributeValue("stroke-dasharray", Ink.Dashes[pattern]);
    }

    // Every mark comes with a clip of its own, which is that of all others.
    private static void ShareClips(XElement root)
    {
        var shared = new Dictionary<string, string>();
        var same = new Dictionary<string, string>();
        foreach (var clip in root.Descendants(Svg + "clipPath").ToList())
        {
            var (id, shape) = (clip.Attribute("id")!.Value, string.Concat(clip.Elements().Select(e => e.ToString(SaveOptions.DisableFormatting))));
            if (shared.TryAdd(shape, id))
                continue;
            same[$"url(#{id})"] = $"url(#{shared[shape]})";
            clip.Remove();
        }
        foreach (var use in root.Descendants().Attributes("clip-path"))
            use.Value = same.GetValueOrDefault(use.Value, use.Value);
    }
}
