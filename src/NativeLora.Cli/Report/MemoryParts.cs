using System.Globalization;
using NativeLora.Cli.Show;
using ScottPlot;

namespace NativeLora.Cli.Report;

/// <summary>What a step takes by category, by layer and over its time.</summary>
internal static class MemoryParts
{
    // "activations_saved" lies within "activations".
    private static readonly (string Key, string Name)[] Categories =
    [
        ("weights", "weights"), ("weights_packed", "weights, packed"), ("trainable", "adapters and head"), ("gradients", "their gradients"), ("optimizer", "optimizer"),
        ("activations", "activations (arena)"), ("activations_saved", "of them kept for backward"), ("tables", "tables"), ("inputs", "inputs"), ("kernels", "kernels"), ("total", "all together"),
    ];

    public static IEnumerable<ReportPart> Of(RunInput run, PlanFile plan, string id)
    {
        var (chosen, all) = (plan.Chosen, plan.All);
        yield return new ReportHeading($"{run.Label}: memory");
        var batch = string.Create(CultureInfo.InvariantCulture, $"a batch of at most {plan.Capacity.Sequences:N0} sequences and {plan.Capacity.Tokens:N0} tokens");
        yield return new ReportText(all is null
            ? $"Planned for {batch}, mask {chosen.Mask}; {(chosen.Mask.Contains('0') ? "there is no plan of all layers to compare with" : "these are all layers, so there is nothing to compare with")}."
            : $"Planned for {batch}: the chosen layers (mask {chosen.Mask}) against all layers. {Saving(chosen, all)}");
        yield return ByCategory(run, plan, $"{id}-memory");
        if (Measured(run, $"{id}-measured") is { } measured)
            yield return measured;
        else
            yield return new ReportText("Nothing was measured yet: a training that has ended tells what it took beside its plan.");
        yield return ByLayer(run, plan, $"{id}-kept");
        yield return OverTime(run, plan, $"{id}-live");
    }

    private static string Saving(PlannedMask chosen, PlannedMask all)
    {
        var (less, of) = (all.MemoryBytes.GetValueOrDefault("total") - chosen.MemoryBytes.GetValueOrDefault("total"), all.MemoryBytes.GetValueOrDefault("total"));
        return string.Create(CultureInfo.InvariantCulture,
            $"The mask saves {Ui.MiB(less)} of {Ui.MiB(of)} ({(of == 0 ? 0 : 100.0 * less / of):0.0} %), {Ui.Count(all.TrainableParameters - chosen.TrainableParameters)} of {Ui.Count(all.TrainableParameters)} trainable parameters, and {Ui.Flops(all.FlopsPerStep - chosen.FlopsPerStep)} of {Ui.Flops(all.FlopsPerStep)} a step.");
    }

    private static ReportPicture ByCategory(RunInput run, PlanFile plan, string id)
    {
        var kinds = Categories.Where(c => plan.Chosen.MemoryBytes.GetValueOrDefault(c.Key) > 0 || plan.All?.MemoryBytes.GetValueOrDefault(c.Key) > 0).ToArray();
        var table = new ReportTable(id, $"{run.Label}: planned bytes of a training step by category",
            plan.All is null ? ["category", "chosen layers"] : ["category", "chosen layers", "all layers", "less"],
            [.. kinds.Select(c => (IReadOnlyList<ReportCell>)(plan.All is { } all
                ? [c.Name, Cells.Bytes(Bytes(plan.Chosen, c.Key)), Cells.Bytes(Bytes(all, c.Key)), Cells.Saves(Bytes(plan.Chosen, c.Key), Bytes(all, c.Key))]
                : [c.Name, Cells.Bytes(Bytes(plan.Chosen, c.Key))]))]);
        return new ReportPicture(id, $"Memory of a training step by category, {run.Label}",
            "From the plan, which is what is allocated. " + (plan.All is null ? "" : "Filled: chosen layers; hollow: all layers. ") + "What is kept for the backward pass lies within the arena of activations and is not counted twice in the sum.",
            plot =>
            {
                double[] places = [.. kinds.Select((_, i) => (double)(kinds.Length - 1 - i))];
                var pair = plan.All is not null;
                SelectionParts.Bars(plot, [.. places.Select(p => p + (pair ? .2 : 0))], [.. kinds.Select(k => Bytes(plan.Chosen, k.Key) / 1048576)], 0, false, "chosen layers", pair ? .36 : .6, horizontal: true);
                if (plan.All is { } all)
                    SelectionParts.Bars(plot, [.. places.Select(p => p - .2)], [.. kinds.Select(k => Bytes(all, k.Key) / 1048576)], 1, true, "all layers", .36, horizontal: true);
                var most = kinds.Max(k => Math.Max(Bytes(plan.Chosen, k.Key), plan.All is { } a ? Bytes(a, k.Key) : 0)) / 1048576;
                foreach (var (mask, shift) in plan.All is { } other ? new[] { (plan.Chosen, .2), (other, -.2) } : [(plan.Chosen, 0)])
                    foreach (var (i, kind) in kinds.Index())
                    {
                        var text = plot.Add.Text(Ui.MiB((long)Bytes(mask, kind.Key)), (Bytes(mask, kind.Key) / 1048576) + (.01 * most), places[i] + shift);
                        text.LabelAlignment = Alignment.MiddleLeft;
                        text.LabelFontSize = 11;
                        text.LabelFontColor = Ink.Text;
                    }
                plot.Axes.Left.SetTicks(places, [.. kinds.Select(k => k.Name)]);
                plot.Axes.Left.MajorTickStyle.Length = 0;
                plot.XLabel("MiB");
                plot.Grid.YAxisStyle.IsVisible = false;
                plot.Axes.SetLimits(0, most * 1.17, -.6, kinds.Length - .4);
                if (pair)
                    plot.ShowLegend(Edge.Top);
            }, 110 + (kinds.Length * 36), table);
    }

    private static double Bytes(PlannedMask mask, string key) => mask.MemoryBytes.GetValueOrDefault(key);

    private static ReportTable? Measured(RunInput run, string id)
    {
        var training = run.Training;
        if (training?.Number("memory", "measured_peak") is null && training?.Number("peak_process_bytes") is null)
            return null;
        (string Name, double? Value)[] rows =
        [
            ("planned, evaluations included", training.Number("memory", "planned") ?? training.Number("planned_bytes")),
            ("of the program before the training", training.Number("memory", "program_before")),
            ("predicted peak of the process", training.Number("memory", "predicted_peak")),
            ("measured peak of the process", training.Number("memory", "measured_peak") ?? training.Number("peak_process_bytes")),
            ("measured less predicted", training.Number("memory", "difference")),
            ("allocated by the device (measured)", training.Number("memory", "allocated_by_the_device")),
        ];
        return new ReportTable(id, $"{run.Label}: what this training was planned to take, and what it took",
            ["what", "MiB"], [.. rows.Where(r => r.Value is not null).Select(r => (IReadOnlyList<ReportCell>)[r.Name, new ReportCell((r.Value!.Value / 1048576).ToString("N1", CultureInfo.InvariantCulture), r.Value)])]);
    }

    private static ReportPicture ByLayer(RunInput run, PlanFile plan, string id)
    {
        var (chosen, all) = (plan.Chosen, plan.All);
        var layers = chosen.Layers.Concat(all?.Layers ?? []).Select(l => l.Layer).Distinct().Order().ToList();
        PlannedLayer? Find(PlannedMask? mask, int layer) => mask?.Layers.FirstOrDefault(l => l.Layer == layer);
        var table = new ReportTable(id, $"{run.Label}: by layer, what is kept for the backward pass, trained, and computed in a step",
            ["layer", "adapters", "kept", .. all is null ? (string[])[] : ["kept, all layers"], "trained", "forward", "backward", .. all is null ? (string[])[] : ["backward, all layers"]],
            [.. layers.Select(l => (IReadOnlyList<ReportCell>)
            [
                Layer(l, chosen.Mask.Length), Adapted(chosen, l) ? "yes" : "no", Cells.Bytes(Find(chosen, l)?.SavedBytes ?? 0), .. all is null ? (ReportCell[])[] : [Cells.Bytes(Find(all, l)?.SavedBytes ?? 0)],
                Cells.Count(Find(chosen, l)?.TrainableParameters ?? 0), Cells.Flops(Find(chosen, l)?.ForwardFlops ?? 0), Cells.Flops(Find(chosen, l)?.BackwardFlops ?? 0),
                .. all is null ? (ReportCell[])[] : [Cells.Flops(Find(all, l)?.BackwardFlops ?? 0)],
            ])]);
        return new ReportPicture(id, $"What each layer keeps for the backward pass, {run.Label}",
            (all is null ? "" : "Filled: chosen layers; hollow: all layers. ") + "Below the lowest adapted layer nothing is kept. Above it a skipped layer still keeps what the gradient must pass through, but not the inputs of its own adapters. ● under a layer: it gets adapters.",
            plot =>
            {
                SelectionParts.Bars(plot, [.. layers.Select(l => l + (all is null ? 0 : -.2))], [.. layers.Select(l => (Find(chosen, l)?.SavedBytes ?? 0) / 1048576.0)], 0, false, "chosen layers", all is null ? .6 : .36);
                if (all is not null)
                    SelectionParts.Bars(plot, [.. layers.Select(l => l + .2)], [.. layers.Select(l => (Find(all, l)?.SavedBytes ?? 0) / 1048576.0)], 1, true, "all layers", .36);
                var count = chosen.Mask.Length;
                var every = count > 40 ? 8 : count > 26 ? 4 : count > 16 ? 2 : 1;
                plot.Axes.Bottom.SetTicks([.. layers.Select(l => (double)l)], [.. layers.Select(l => $"{(l == -1 ? "emb" : l == count ? "head" : l % every == 0 ? $"{l}" : "")}\n{(Adapted(chosen, l) ? "●" : "")}")]);
                plot.XLabel("layer (● adapters)");
                plot.YLabel("MiB kept");
                var most = layers.Max(l => Math.Max(Find(chosen, l)?.SavedBytes ?? 0, Find(all, l)?.SavedBytes ?? 0)) / 1048576.0;
                plot.Axes.SetLimits(layers.Min() - .7, layers.Max() + .7, 0, Math.Max(most, 1e-6) * 1.06);
                if (all is not null)
                    plot.ShowLegend(Edge.Top);
            }, 360, table);
    }

    private static bool Adapted(PlannedMask mask, int layer) => layer >= 0 && layer < mask.Mask.Length && mask.Mask[layer] == '1';

    /// <summary>A layer's name, -1 being the embeddings.</summary>
    public static string Layer(int layer, int count) => layer < 0 ? "embeddings" : layer >= count ? "head" : string.Create(CultureInfo.InvariantCulture, $"{layer}");

    private static ReportPicture OverTime(RunInput run, PlanFile plan, string id)
    {
        (string Name, PlannedMask Mask)[] masks = plan.All is { } all ? [("chosen layers", plan.Chosen), ("all layers", all)] : [("chosen layers", plan.Chosen)];
        var rows = masks.SelectMany(m => Groups(m.Mask).Select(g => (m.Name, m.Mask, g.Layer, g.Backward, g.First, g.Last))).ToList();
        var table = new ReportTable(id, $"{run.Label}: live bytes of the arena over a step, the most in each layer's part of it",
            ["mask, pass, layer", "operations", "most live", "at operation"],
            [.. rows.Select(r =>
            {
                var peak = Enumerable.Range(r.First, r.Last - r.First + 1).MaxBy(i => r.Mask.LiveBytes[i]);
                return (IReadOnlyList<ReportCell>)[$"{r.Name}, {(r.Backward ? "backward" : "forward")}, {Layer(r.Layer, r.Mask.Mask.Length)}", Cells.Count(r.Last - r.First + 1), Cells.Bytes(r.Mask.LiveBytes[peak]),
                    Words.Clean($"{peak}: {r.Mask.Nodes.Op[peak]} {r.Mask.Nodes.Name[peak]}")];
            })]);
        var whole = new ReportTable($"{id}-operations", $"{run.Label}: live bytes of the arena at each operation of a step", ["mask", "operation", "pass", "layer", "op", "module", "live bytes"],
            [.. masks.SelectMany(m => m.Mask.LiveBytes.Select((bytes, i) => (IReadOnlyList<ReportCell>)
                [m.Name, Cells.Count(i), m.Mask.Nodes.Backward[i] ? "backward" : "forward", Layer(m.Mask.Nodes.Layer[i], m.Mask.Mask.Length), Words.Clean(m.Mask.Nodes.Op[i]), Words.Clean(m.Mask.Nodes.Name[i]), Cells.Bytes(bytes)]))]);
        return new ReportPicture(id, $"Activations over the time of a step, {run.Label}",
            "Bytes of the arena that hold something while each operation runs, in the order of the operations, from the plan: the forward fills it, the backward frees it. "
            + (plan.All is null ? "" : "Solid: chosen layers; dashed: all layers. ") + "Dotted upright lines: where the backward begins. The arena is allocated once, so this is what must be there, and the height of its peak, not what is taken and given back. "
            + $"Every operation's number is in {whole.Id}.csv.",
            plot =>
            {
                foreach (var (i, (name, mask)) in masks.Index())
                {
                    var line = plot.Add.ScatterLine(Enumerable.Range(0, mask.LiveBytes.Count).Select(n => (double)n).ToArray(), mask.LiveBytes.Select(b => b / 1048576.0).ToArray(), Ink.Of(i));
                    line.ConnectStyle = ConnectStyle.StepHorizontal;
                    line.LineWidth = 2;
                    line.LinePattern = i == 0 ? LinePattern.Solid : LinePattern.Dashed;
                    line.LegendText = name;
                    var turn = Enumerable.Range(0, mask.Nodes.Backward.Count).FirstOrDefault(n => mask.Nodes.Backward[n], -1);
                    if (turn < 0)
                        continue;
                    var upright = plot.Add.VerticalLine(turn, 1.5f, Ink.Of(i), LinePattern.Dotted);
                    upright.EnableAutoscale = false;
                }
                plot.XLabel("operation of the step");
                plot.YLabel("MiB live");
                plot.Axes.SetLimits(0, masks.Max(m => m.Mask.LiveBytes.Count), 0, Math.Max(1e-6, masks.Max(m => m.Mask.LiveBytes.Max()) / 1048576.0) * 1.06);
                if (masks.Length > 1)
                    plot.ShowLegend(Edge.Top);
                else
                    plot.HideLegend();
            }, 380, table)
        { Whole = whole };
    }

    // Neighbouring operations of one layer and pass.
    private static IEnumerable<(int Layer, bool Backward, int First, int Last)> Groups(PlannedMask mask)
    {
        var nodes = mask.Nodes;
        var first = 0;
        for (var i = 1; i <= nodes.Op.Count; i++)
            if (i == nodes.Op.Count || nodes.Layer[i] != nodes.Layer[first] || nodes.Backward[i] != nodes.Backward[first])
            {
                yield return (nodes.Layer[first], nodes.Backward[first], first, i - 1);
                first = i;
            }
    }
}
