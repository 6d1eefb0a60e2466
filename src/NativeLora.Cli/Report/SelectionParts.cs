using System.Globalization;
using NativeLora.Cli.Show;
using NativeLora.Selection;
using ScottPlot;

namespace NativeLora.Cli.Report;

/// <summary>What a selection measured of each layer, and which layers it chose.</summary>
internal static class SelectionParts
{
    // Larger maps have no room for numbers in their fields.
    private const int MostWritten = 14;

    public static IEnumerable<ReportPart> Of(SelectionInput input, string id)
    {
        var report = input.Report;
        yield return new ReportHeading($"{input.Label}: {Words.Clean(report.Strategy)}{(report.Task is { } task ? $" on {Words.Clean(task)}" : "")}");
        yield return new ReportText(Chosen(report));
        if (report.Layers.Any(l => l.Gradient is not null))
            yield return Gradients(input, $"{id}-gradients");
        else if (report.Samples > 0)
            yield return Bars(input, $"{id}-layers");
        else
            yield return new ReportText("This strategy looks at no samples, so nothing was measured of the layers.");
        if (input.Matrix is { } matrix)
            foreach (var part in Maps(input, matrix, id))
                yield return part;
        else if (report.Samples > 0 && report.Layers.All(l => l.Gradient is null))
            yield return new ReportText($"There is no heat map: {SelectionRun.SimilarityFile}, which select writes beside {SelectionInput.FileName}, is not there.", IsWarning: true);
    }

    private static string Chosen(SelectionReport report)
    {
        var text = string.Create(CultureInfo.InvariantCulture, $"Of {Ui.Count(report.Layers.Count, "layer")} ");
        text += report.Selected.Count == 0 ? "none gets adapters" : $"{Words.And([.. report.Selected.Order().Select(l => $"{l}")])} {(report.Selected.Count == 1 ? "gets" : "get")} adapters (mask {report.Mask})";
        text += $", chosen by strategy {Words.Clean(report.Strategy)}{(report.Ratio is { } ratio ? string.Create(CultureInfo.InvariantCulture, $" with ratio {ratio}") : "")}, rule {report.Rule}";
        text += report.Samples == 0 ? "." : $", from {Ui.Count(report.Samples, "sample")}{(report.TokenRule is { } token ? $" at token {Words.Clean(token)}" : "")}.";
        if (report.LowestAdaptedLayer is { } lowest)
            text += lowest == 0 ? " The backward pass reaches layer 0, so it stops nowhere early." : string.Create(CultureInfo.InvariantCulture, $" The backward pass stops at layer {lowest}: nothing is kept of what lies below.");
        if (report.DroppedFirst is { } dropped)
            text += string.Create(CultureInfo.InvariantCulture, $" Rule paper drops the first of the order, layer {dropped}.");
        return text;
    }

    private static ReportPicture Bars(SelectionInput input, string id)
    {
        var (report, resampled) = (input.Report, input.Report.Layers.Any(l => l.Bootstrap is not null));
        var table = new ReportTable(id, $"{input.Label}: CKA of each layer's input and output, biased and debiased{(resampled ? ", with 95 % intervals over resamples" : "")}",
            ["layer", "adapters", "CKA", .. resampled ? (string[])["low", "high"] : [], "debiased CKA", .. resampled ? (string[])["debiased low", "debiased high"] : [], "cosine", .. resampled ? (string[])["chosen in"] : [], "remark"],
            [.. report.Layers.Select(l => (IReadOnlyList<ReportCell>)
            [
                $"{l.Layer}", l.Selected ? "yes" : "no", Cells.Number(l.Cka),
                .. resampled ? (ReportCell[])[Cells.Number(l.Bootstrap?.CkaLow), Cells.Number(l.Bootstrap?.CkaHigh)] : [],
                Cells.Number(l.CkaDebiased),
                .. resampled ? (ReportCell[])[Cells.Number(l.Bootstrap?.CkaDebiasedLow), Cells.Number(l.Bootstrap?.CkaDebiasedHigh)] : [],
                Cells.Number(l.Cosine), .. resampled ? (ReportCell[])[Cells.Percent(l.Bootstrap?.SelectedFraction)] : [], Remark(report, l),
            ])]);
        var description = "Filled bars: CKA (biased), by which layers are ranked; hollow bars: debiased CKA, which independent noise brings to about 0, where the biased one has a floor that grows with width over samples. "
            + "The lower a bar, the more the layer changes the representation. ● under a layer: it gets adapters."
            + (resampled ? " Lines: 95 % of resamples; of the biased CKA by drawing samples with replacement (a sample drawn twice raises it a little, so an interval may lie above its bar), of the debiased one over halves of the samples." : "");
        return new ReportPicture(id, $"What each layer does to the representation, {input.Label}", description, plot => DrawBars(plot, report), 380, table);
    }

    private static void DrawBars(Plot plot, SelectionReport report)
    {
        foreach (var (offset, hollow, name) in new[] { (-.2, false, "CKA (biased)"), (.2, true, "debiased CKA") })
        {
            var layers = report.Layers.Where(l => (hollow ? l.CkaDebiased : l.Cka) is not null).ToList();
            if (layers.Count == 0)
                continue;
            Bars(plot, [.. layers.Select(l => l.Layer + offset)], [.. layers.Select(l => (hollow ? l.CkaDebiased : l.Cka)!.Value)], hollow ? 1 : 0, hollow, name, .36);
            foreach (var layer in layers)
                if (layer.Bootstrap is { } b && (hollow ? b.CkaDebiasedLow : b.CkaLow) is { } low && (hollow ? b.CkaDebiasedHigh : b.CkaHigh) is { } high)
                    Interval(plot, layer.Layer + offset, low, high);
        }
        var lowest = Math.Min(0, report.Layers.Min(l => Math.Min(l.CkaDebiased ?? 0, l.Bootstrap?.CkaDebiasedLow ?? 0)));
        LayerTicks(plot, report.Layers.Select(l => (l.Layer, l.Selected)), report.Layers.Count);
        plot.YLabel("CKA of input and output");
        plot.Axes.SetLimits(-.7, report.Layers.Count - .3, lowest * 1.1, 1.05);
        plot.ShowLegend(Edge.Top);
    }

    private static ReportPicture Gradients(SelectionInput input, string id)
    {
        var report = input.Report;
        var table = new ReportTable(id, $"{input.Label}: norm of the gradient of each layer's adapter at B = 0",
            ["layer", "adapters", "gradient norm", "planned bytes", "norm a MiB"],
            [.. report.Layers.Select(l => (IReadOnlyList<ReportCell>)[$"{l.Layer}", l.Selected ? "yes" : "no", Cells.Any(l.Gradient), Cells.Bytes(l.GradientBytes), Cells.Any(l.Gradient / (l.GradientBytes / 1048576.0))])]);
        return new ReportPicture(id, $"How hard the loss pulls at each layer's adapter, {input.Label}",
            "Norm of the gradient of B of each layer's adapters, before any training (B = 0). The higher a bar, the more a small adapter there would change the loss. ● under a layer: it gets adapters.",
            plot =>
            {
                var known = report.Layers.Where(l => l.Gradient is not null).ToList();
                Bars(plot, [.. known.Select(l => (double)l.Layer)], [.. known.Select(l => l.Gradient!.Value)], 0, false, null, .6);
                LayerTicks(plot, report.Layers.Select(l => (l.Layer, l.Selected)), report.Layers.Count);
                plot.YLabel("norm of the gradient");
                plot.Axes.SetLimits(-.7, report.Layers.Count - .3, 0, Math.Max(1e-12, known.Max(l => l.Gradient!.Value)) * 1.08);
            }, 340, table);
    }

    private static IEnumerable<ReportPart> Maps(SelectionInput input, SimilarityMatrix matrix, string id)
    {
        foreach (var (values, name, words) in new[] { (matrix.Cka, "CKA", "cka"), (matrix.CkaDebiased, "debiased CKA", "cka-debiased") })
        {
            var place = $"{id}-{words}-map";
            var depths = values.Count;
            var table = new ReportTable(place, $"{input.Label}: {name} of the representation at every depth against every other",
                ["after", .. Enumerable.Range(0, depths).Select(Depth)],
                [.. values.Select((row, l) => (IReadOnlyList<ReportCell>)[Depth(l), .. row.Select(v => Cells.Number(v))])]);
            yield return new ReportPicture(place, $"{name} of all layers against all, {input.Label}",
                $"Each field compares the representation after one layer (row) with that after another (column) over {Ui.Count(matrix.Samples, "sample")}; \"emb\" is the output of the embeddings. "
                + "1, light: the same up to rotation and scale; 0, dark: nothing in common. Fields beside the diagonal are what layers are ranked by; fields without a number have no CKA, since a side is constant over the samples.",
                plot => DrawMap(plot, values), Math.Clamp(150 + (depths * 44), 380, 720), table);
        }
    }

    private static string Depth(int l) => l == 0 ? "emb" : string.Create(CultureInfo.InvariantCulture, $"{l - 1}");

    private static void DrawMap(Plot plot, IReadOnlyList<IReadOnlyList<double?>> values)
    {
        var n = values.Count;
        for (var i = 0; i < n; i++)
            for (var j = 0; j < n; j++)
            {
                var value = values[i][j];
                Field(plot, j - .5, j + .5, n - 1 - i - .5, n - 1 - i + .5, value is { } v ? Ink.Scale(v) : Colors.Transparent, value is null);
                if (n > MostWritten)
                    continue;
                var text = plot.Add.Text(value is { } number ? number.ToString("0.00", CultureInfo.InvariantCulture) : Cells.None, j, n - 1 - i);
                text.LabelAlignment = Alignment.MiddleCenter;
                text.LabelFontSize = 12;
                // Black or white, whichever can be read on the field; where there is no field, the colour of the page's text.
                text.LabelFontColor = value is null ? Ink.Text : Ink.IsLight(Ink.Scale(value.Value)) ? Colors.Black : Colors.White;
            }
        // The scale, beside the map.
        const int steps = 50;
        for (var s = 0; s < steps; s++)
            Field(plot, n + .1, n + .1 + (.035 * n) + .15, -.5 + ((double)n * s / steps), -.5 + ((double)n * (s + 1) / steps), Ink.Scale((s + .5) / steps), false);
        foreach (var mark in (double[])[0, .5, 1])
        {
            var text = plot.Add.Text(mark.ToString("0.0", CultureInfo.InvariantCulture), n + .35 + (.035 * n), -.5 + (n * mark));
            text.LabelAlignment = mark == 0 ? Alignment.LowerLeft : mark == 1 ? Alignment.UpperLeft : Alignment.MiddleLeft;
            text.LabelFontSize = 13;
            text.LabelFontColor = Ink.Text;
        }
        var every = n > 26 ? 4 : n > 16 ? 2 : 1;
        int[] shown = [.. Enumerable.Range(0, n).Where(i => i == 0 || (i - 1) % every == 0)];
        plot.Axes.Bottom.SetTicks([.. shown.Select(i => (double)i)], [.. shown.Select(Depth)]);
        plot.Axes.Left.SetTicks([.. shown.Select(i => (double)(n - 1 - i))], [.. shown.Select(Depth)]);
        plot.XLabel("after layer");
        plot.YLabel("after layer");
        plot.HideGrid();
        plot.Axes.SetLimits(-.5, n + .6 + (.12 * n), -.5, n - .5);
    }

    private static void Field(Plot plot, double left, double right, double bottom, double top, Color color, bool outlined)
    {
        var field = plot.Add.Rectangle(left, right, bottom, top);
        field.FillColor = color;
        field.LineWidth = outlined ? 1 : 0;
        field.LineColor = Ink.Text.WithAlpha(.3);
    }

    /// <summary>Bars, filled or hollow.</summary>
    public static void Bars(Plot plot, double[] at, double[] values, int ink, bool hollow, string? name, double size, bool horizontal = false)
    {
        var bars = plot.Add.Bars(at, values);
        bars.Horizontal = horizontal;
        foreach (var bar in bars.Bars)
        {
            bar.Size = size;
            bar.FillColor = hollow ? Colors.Transparent : Ink.Of(ink);
            bar.LineColor = Ink.Of(ink);
            bar.LineWidth = hollow ? 1.8f : 0;
        }
        if (name is null)
            return;
        plot.Legend.ManualItems.Add(new LegendItem
        {
            LabelText = name,
            MarkerShape = hollow ? MarkerShape.OpenSquare : MarkerShape.FilledSquare,
            MarkerFillColor = Ink.Of(ink),
            MarkerLineColor = Ink.Of(ink),
            MarkerLineWidth = hollow ? 1.8f : 0,
            MarkerSize = 12,
            LineWidth = 0,
        });
    }

    /// <summary>A line from low to high with caps.</summary>
    public static void Interval(Plot plot, double at, double low, double high)
    {
        foreach (var (x1, y1, x2, y2) in new[] { (at, low, at, high), (at - .07, low, at + .07, low), (at - .07, high, at + .07, high) })
        {
            var line = plot.Add.Line(x1, y1, x2, y2);
            line.LineColor = Ink.Text;
            line.LineWidth = 1.4f;
            line.MarkerSize = 0;
        }
    }

    /// <summary>Numbers of layers, ● under those with adapters.</summary>
    public static void LayerTicks(Plot plot, IEnumerable<(int Layer, bool Selected)> layers, int count)
    {
        var all = layers.ToList();
        // Wide models: not every number has room, every mark has.
        var every = count > 40 ? 8 : count > 26 ? 4 : count > 16 ? 2 : 1;
        plot.Axes.Bottom.SetTicks([.. all.Select(l => (double)l.Layer)], [.. all.Select(l => $"{(l.Layer % every == 0 ? $"{l.Layer}" : "")}\n{(l.Selected ? "●" : "")}")]);
        plot.XLabel("layer (● adapters)");
    }

    private static string Remark(SelectionReport report, LayerReport layer) => string.Join("; ", ((string?[])
    [
        report.DroppedFirst == layer.Layer ? "dropped by rule paper" : null,
        report.LeftOut.Contains(layer.Layer) ? "left out by rule plain" : null,
        layer.ConstantInput ? "constant input, no CKA" : null,
    ]).OfType<string>());
}
