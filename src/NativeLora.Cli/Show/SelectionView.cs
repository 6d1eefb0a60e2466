using System.Globalization;
using NativeLora.Selection;

namespace NativeLora.Cli.Show;

/// <summary>Shows a selection: a bar a layer, the mask, what it saves.</summary>
internal static class SelectionView
{
    private const int BarWidth = 32;

    public static void Show(Ui ui, SelectionReport report, SelectionStrategy strategy)
    {
        var measured = report.Samples > 0;
        if (measured)
        {
            ui.Title($"Similarity of each layer's input and output at token {report.TokenRule}, {Ui.Count(report.Samples, "sample")} (low: the layer changes much)");
            Chart(ui, report, strategy);
        }
        Verdict(ui, report);
    }

    private static void Chart(Ui ui, SelectionReport report, SelectionStrategy strategy)
    {
        var resampled = report.Layers.Any(l => l.Bootstrap is not null);
        List<string> heads = ["layer", strategy switch
        {
            SelectionStrategy.CkaDebiased => "debiased CKA",
            SelectionStrategy.Cosine => "cosine",
            _ => "CKA",
        }, "", strategy == SelectionStrategy.CkaDebiased ? "CKA" : "debiased", "cosine"];
        if (strategy == SelectionStrategy.Cosine)
            heads[4] = "CKA";
        if (resampled)
            heads.Add("firm");
        heads.Add("");
        var rows = report.Layers.Select(layer =>
        {
            var (main, other, last) = strategy switch
            {
                SelectionStrategy.CkaDebiased => (layer.CkaDebiased, layer.Cka, layer.Cosine),
                SelectionStrategy.Cosine => (layer.Cosine, layer.CkaDebiased, layer.Cka),
                _ => (layer.Cka, layer.CkaDebiased, layer.Cosine),
            };
            var colour = layer.Selected ? "green" : "grey";
            List<string> row =
            [
                $"{layer.Layer}", Number(main), $"[{colour}]{Ui.Bar(main ?? 0, BarWidth).PadRight(BarWidth)}[/]", Number(other), Number(last),
            ];
            if (resampled)
                row.Add(layer.Bootstrap is { } b ? $"{100 * b.SelectedFraction:0} %" : "");
            row.Add(Remark(report, layer));
            return (IReadOnlyList<string>)row;
        }).ToList();
        // Remarks are text: padded by hand, since all but the first column are aligned to the right.
        var widest = rows.Max(r => Spectre.Console.Markup.Remove(r[^1]).Length);
        ui.Table(heads, [.. rows.Select(r => (IReadOnlyList<string>)[.. r.SkipLast(1), r[^1] + new string(' ', widest - Spectre.Console.Markup.Remove(r[^1]).Length)])], 0);
        if (resampled)
            ui.Line("firm: share of resamples of the samples in which the layer is chosen");
    }

    private static string Remark(SelectionReport report, LayerReport layer)
    {
        var remark = layer.Selected ? "[green]● adapter[/]" : "";
        if (report.DroppedFirst == layer.Layer)
            remark = "first of the order: dropped (rule paper)";
        if (report.LeftOut.Contains(layer.Layer))
            remark = "left out (rule plain)";
        return layer.ConstantInput ? $"{remark}{(remark.Length > 0 ? "; " : "")}input is constant" : remark;
    }

    private static void Verdict(Ui ui, SelectionReport report)
    {
        ui.Line();
        ui.Markup($"[grey]{"mask",-11}[/] [bold]{string.Concat(report.Mask.Select(c => c == '1' ? "[green]1[/]" : "0"))}[/]");
        if (report.LowestAdaptedLayer is not { } lowest)
        {
            ui.Fact("adapters", "on no layer: only what is trained in full");
            return;
        }
        ui.Fact("adapters", $"on {Ui.Count(report.Selected.Count, "layer")} of {report.Layers.Count}: {string.Join(", ", report.Selected.Order())}");
        ui.Fact("backward", lowest == 0 ? "reaches layer 0: nothing of it can be left out" : $"stops at layer {lowest}: nothing is kept of the {Ui.Count(lowest, "layer")} below");
    }

    /// <summary>What the choice saves against adapters on all layers.</summary>
    public static void Savings(Ui ui, TrainingCost all, TrainingCost chosen, string batch)
    {
        ui.Title($"Predicted for training, {batch}");
        ui.Table(["", "all layers", $"mask {chosen.Mask}", "saves"],
        [
            Row("trainable parameters", c => c.TrainableParameters, Ui.Count),
            Row("optimizer and gradients", c => c.Memory.Optimizer + c.Memory.Gradients, Ui.MiB),
            Row("activations kept for backward", c => c.Memory.Saved, Ui.MiB),
            Row("memory in all, weights included", c => c.Memory.Total, Ui.MiB),
            Row("operations a step", c => c.FlopsPerStep, n => Ui.Flops(n)),
        ]);

        string[] Row(string name, Func<TrainingCost, long> value, Func<long, string> show) =>
            [name, show(value(all)), show(value(chosen)), Ui.Saves(value(chosen), value(all))];
    }

    private static string Number(double? value) => value is { } v ? v.ToString("0.0000", CultureInfo.InvariantCulture) : "–";
}
