using System.Runtime.CompilerServices;
using NativeLora.Selection;
using ScottPlot;

namespace NativeLora.Cli.Demo;

/// <summary>The picture: similarity of each layer, and what the strategies learnt.</summary>
internal static class DemoPicture
{
    private static readonly Color Chosen = Color.FromHex("#1a7f37");
    private static readonly Color NotChosen = Color.FromHex("#b8bec6");
    private static readonly Color[] Palette =
        [Color.FromHex("#24292f"), Chosen, Color.FromHex("#bf5700"), Color.FromHex("#0969da"), Color.FromHex("#8250df")];

    private static readonly LinePattern[] Patterns = [LinePattern.Solid, LinePattern.Solid, LinePattern.Dashed, LinePattern.DenselyDashed, LinePattern.Dotted];

    /// <summary>The first of some well-known fonts without serifs that is here; null for what the library takes.</summary>
    private static string? Font
    {
        get
        {
            var here = SkiaSharp.SKFontManager.Default.FontFamilies.ToHashSet(StringComparer.OrdinalIgnoreCase);
            return Array.Find(["DejaVu Sans", "Noto Sans", "Liberation Sans", "Segoe UI", "Helvetica Neue", "Arial"], here.Contains);
        }
    }

    /// <summary>Draws the picture; where this machine cannot, says why and goes on.</summary>
    /// <returns>What is wrong with the picture, or null.</returns>
    public static string? TrySave(string path, DemoResults results, SelectionReport selection)
    {
        try
        {
            return Save(path, results, selection);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // The drawing library is native code that may be missing here, which shows in exceptions of many kinds.
            var cause = e;
            while (cause.InnerException is { } inner)
                cause = inner;
            File.Delete(path);
            return $"no picture: {(cause is DllNotFoundException ? "the drawing library libSkiaSharp cannot be loaded here" : cause.Message.ReplaceLineEndings(" "))}";
        }
    }

    // Not inlined: where the library is missing, it is the call of this method that fails.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static string? Save(string path, DemoResults results, SelectionReport selection)
    {
        if (Font is { } name)
            Fonts.Default = name;
        var pair = new Multiplot();
        pair.AddPlots(2);
        pair.Layout = new ScottPlot.MultiplotLayouts.Columns();
        Similarities(pair.GetPlot(0), selection);
        Curves(pair.GetPlot(1), results);
        pair.SavePng(path, 1500, 620);
        using var font = new SkiaSharp.SKFont(SkiaSharp.SKTypeface.Default);
        return font.MeasureText("A") > 0 ? null
            : "the picture has no text, since this machine has no fonts (Debian and Ubuntu: apt-get install fonts-dejavu-core); results.json has its numbers";
    }

    private static void Similarities(Plot plot, SelectionReport selection)
    {
        plot.Title("Similarity (CKA) of each layer's input and output", 19);
        foreach (var (layers, color, label) in new[]
        {
            (selection.Layers.Where(l => l.Selected), Chosen, "adapters (lowest similarity)"), (selection.Layers.Where(l => !l.Selected), NotChosen, "no adapters"),
        })
        {
            var bars = plot.Add.Bars(layers.Select(l => (double)l.Layer), layers.Select(l => l.Cka ?? 0));
            bars.Color = color;
            bars.LegendText = label;
            foreach (var bar in bars.Bars)
            {
                bar.LineWidth = 0;
                bar.Label = bar.Value.ToString("0.00", System.Globalization.CultureInfo.InvariantCulture);
            }
            bars.ValueLabelStyle.FontSize = 14;
        }
        plot.Axes.Bottom.SetTicks([.. selection.Layers.Select(l => (double)l.Layer)], [.. selection.Layers.Select(l => $"{l.Layer}")]);
        plot.Axes.Left.SetTicks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        Style(plot, "layer", "CKA", Alignment.UpperLeft);
        plot.Legend.Orientation = Orientation.Horizontal;
        plot.Axes.SetLimits(-0.7, selection.Layers.Count - 0.3, 0, 1.2);
    }

    private static void Curves(Plot plot, DemoResults results)
    {
        plot.Title($"Learning the shifted task (mean of {results.Settings.Repeats})", 19);
        var chance = plot.Add.HorizontalLine(100 * DemoLanguage.Chance, 1, NotChosen, LinePattern.Solid);
        chance.LegendText = "guessing";
        for (var s = 0; s < results.Strategies.Count; s++)
        {
            var curve = results.Strategies[s].MeanCurve;
            var line = plot.Add.Scatter(curve.Select(p => (double)p.Step).ToArray(), curve.Select(p => 100 * p.Accuracy).ToArray(), Palette[s % Palette.Length]);
            line.LegendText = results.Strategies[s].Label;
            line.LineWidth = results.Strategies[s].Name == DemoResults.Cka ? 4 : 2;
            line.LinePattern = Patterns[s % Patterns.Length];
            line.MarkerSize = 6;
        }
        plot.Axes.Left.SetTicks([0, 20, 40, 60, 80, 100], ["0", "20", "40", "60", "80", "100"]);
        int[] steps = [.. results.Strategies[0].MeanCurve.Select(p => p.Step)];
        plot.Axes.Bottom.SetTicks([.. steps.Select(p => (double)p)], [.. steps.Select(p => $"{p}")]);
        Style(plot, "step", "held-out accuracy, %", Alignment.LowerRight);
        plot.Axes.SetLimits(0, results.Settings.TuneSteps * 1.02, 0, 102);
    }

    private static void Style(Plot plot, string bottom, string left, Alignment legend)
    {
        plot.XLabel(bottom, 16);
        plot.YLabel(left, 16);
        plot.Axes.Bottom.TickLabelStyle.FontSize = plot.Axes.Left.TickLabelStyle.FontSize = 14;
        plot.Axes.Right.FrameLineStyle.IsVisible = plot.Axes.Top.FrameLineStyle.IsVisible = false;
        plot.Grid.XAxisStyle.IsVisible = false;
        plot.ShowLegend(legend);
        plot.Legend.FontSize = 15;
        plot.Legend.OutlineWidth = 0;
        plot.Legend.ShadowColor = ScottPlot.Colors.Transparent;
    }
}
