using System.Globalization;
using NativeLora.Selection;

namespace NativeLora.Cli.Show;

/// <summary>Shows a selection: a bar a layer, the mask, what it saves.</summary>
internal static class SelectionView
{
    private const int BarWidth = 28;

    public static void Show(Ui ui, SelectionReport report, SelectionStrategy strategy)
    {
        if (report.Layers.Any(l => l.Gradient is not null))
            Gradients(ui, report, strategy);
        else if (report.Samples > 0)
            Chart(ui, report, strategy);
        Verdict(ui, report);
    }

    /// <summary>A bar a layer: the longer, the more the layer changes the representation, that is the lower the similarity.</summary>
    private static void Chart(Ui ui, SelectionReport report, SelectionStrategy strategy)
    {
        (string Name, Func<LayerReport, double?> Value)[] measures = [("CKA", l => l.Cka), ("debiased CKA", l => l.CkaDebiased), ("cosine", l => l.Cosine)];
        var first = strategy switch
        {
            SelectionStrategy.CkaDebiased => 1,
            SelectionStrategy.Cosine => 2,
            _ => 0,
        };
        var main = measures[first];
        (string Name, Func<LayerReport, double?> Value)[] others = [.. measures.Where((_, i) => i != first)];
        var resampled = report.Layers.Any(l => l.Bootstrap is not null);
        var largest = Math.Max(1e-12, report.Layers.Max(l => 1 - (main.Value(l) ?? 1)));
        ui.Title($"What each layer does to token {report.TokenRule}: {main.Name} of its input and output over {Ui.Count(report.Samples, "sample")}");
        var rows = report.Layers.Select(layer =>
        {
            var value = main.Value(layer);
            var bar = Ui.Bar((1 - (value ?? 1)) / largest, BarWidth);
            List<string> row =
            [
                $"{layer.Layer}", layer.Selected ? "[green]●[/]" : "", Number(value), $"[{(layer.Selected ? "green" : "grey")}]{bar}[/]", .. others.Select(o => Number(o.Value(layer))),
            ];
            if (resampled)
                row.Add(layer.Bootstrap is { } b ? $"{100 * b.SelectedFraction:0} %" : "");
            row.Add(Remark(report, layer));
            return row;
        }).ToList();
        ui.Table(["layer", "<", main.Name, $"<change, 1 − {main.Name}", .. others.Select(o => o.Name), .. resampled ? (string[])["firm"] : [], "<"], rows);
        ui.Line(resampled ? "●: gets adapters; firm: share of resamples of the samples in which it does" : "●: gets adapters");
    }

    /// <summary>A bar a layer: the longer, the harder the loss pulls at its adapter.</summary>
    private static void Gradients(Ui ui, SelectionReport report, SelectionStrategy strategy)
    {
        static double? Each(LayerReport layer) => layer.Gradient / layer.GradientBytes;
        Func<LayerReport, double?> main = strategy == SelectionStrategy.GradientPerByte ? Each : l => l.Gradient;
        var largest = Math.Max(1e-300, report.Layers.Max(l => main(l) ?? 0));
        ui.Title($"Gradient of each layer's adapter at B = 0: ‖dB‖ of the mean loss over {Ui.Count(report.Samples, "sample")}");
        ui.Table(["layer", "<", "‖dB‖", strategy == SelectionStrategy.GradientPerByte ? "<a byte" : "<", "planned", "a byte"], [.. report.Layers.Select(layer =>
        {
            string[] row =
            [
                $"{layer.Layer}", layer.Selected ? "[green]●[/]" : "", Exponent(layer.Gradient), $"[{(layer.Selected ? "green" : "grey")}]{Ui.Bar((main(layer) ?? 0) / largest, BarWidth)}[/]",
                layer.GradientBytes is { } bytes ? Ui.MiB(bytes) : "–", Exponent(Each(layer)),
            ];
            return row;
        })]);
        ui.Line("●: gets adapters; planned: what the layer's adapter takes in a training of all layers, with what the layer keeps for its backward");
    }

    private static string Exponent(double? value) => value is { } v ? v.ToString("0.000e+0", CultureInfo.InvariantCulture) : "–";

    private static string Remark(SelectionReport report, LayerReport layer)
    {
        var remark = "";
        if (report.DroppedFirst == layer.Layer)
            remark = "dropped by rule paper";
        if (report.LeftOut.Contains(layer.Layer))
            remark = "left out by rule plain";
        return layer.ConstantInput ? $"{remark}{(remark.Length > 0 ? "; " : "")}constant input" : remark;
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
        if (report is { Rule: "paper", Strategy: "cka" or "cka-debiased" } && report.Layers.FirstOrDefault(l => l.Selected && l.ConstantInput) is { } accident)
            ui.Fact("note", $"layer {accident.Layer} is chosen because its input is the same in every row; --rule plain leaves such layers out");
        ui.Fact("backward", lowest == 0 ? "reaches layer 0: nothing of it can be left out" : $"stops at layer {lowest}: nothing is kept of the {Ui.Count(lowest, "layer")} below");
    }

    /// <summary>What the choice saves against adapters on all layers.</summary>
    public static void Savings(Ui ui, TrainingCost all, TrainingCost chosen, string batch)
    {
        ui.Title($"Predicted for training, {batch}");
        ui.Table(["<", "all layers", chosen.Mask.Length <= 16 ? $"mask {chosen.Mask}" : "the mask", "saves"],
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
