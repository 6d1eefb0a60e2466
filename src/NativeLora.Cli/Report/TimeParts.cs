using System.Globalization;
using NativeLora.Cli.Show;
using ScottPlot;

namespace NativeLora.Cli.Report;

/// <summary>Where the time of a step goes, by op and by layer, as it was measured.</summary>
internal static class TimeParts
{
    private const int MostOps = 14;

    public static IEnumerable<ReportPart> Of(RunInput run, ProfileFile profile, string id)
    {
        yield return new ReportHeading($"{run.Label}: time");
        yield return new ReportText(string.Create(CultureInfo.InvariantCulture,
            $"Measured over {Ui.Count(profile.Steps, "step")} of {Ui.Count(profile.Tokens, "token")} on {Words.Clean(profile.Device)}, mask {Words.Clean(profile.Mask)}: {1e3 * profile.SecondsPerStep:0.00} ms a step, of which {1e3 * profile.NodeSeconds.Sum():0.00} ms in operations and {1e3 * profile.Outside:0.00} ms outside them (batch, optimizer, the timing itself). One machine at one moment: what else it did then is in these times."));
        yield return ByLayer(run, profile, $"{id}-time-layers");
        yield return ByOp(run, profile, $"{id}-time-ops");
    }

    private static double Sum(ProfileFile profile, Func<int, bool> which) => Enumerable.Range(0, profile.NodeSeconds.Count).Where(which).Sum(i => profile.NodeSeconds[i]);

    private static ReportPicture ByLayer(RunInput run, ProfileFile profile, string id)
    {
        var (nodes, count, total) = (profile.Nodes, profile.Mask.Length, profile.NodeSeconds.Sum());
        var layers = nodes.Layer.Distinct().Order().ToList();
        var times = layers.Select(l => (Layer: l, Forward: Sum(profile, i => nodes.Layer[i] == l && !nodes.Backward[i]), Backward: Sum(profile, i => nodes.Layer[i] == l && nodes.Backward[i]))).ToList();
        bool Adapted(int l) => l >= 0 && l < count && profile.Mask[l] == '1';
        var table = new ReportTable(id, $"{run.Label}: measured time of a step by layer, ms",
            ["layer", "adapters", "forward", "backward", "both", "share"],
            [.. times.Select(t => (IReadOnlyList<ReportCell>)[MemoryParts.Layer(t.Layer, count), Adapted(t.Layer) ? "yes" : "no", Cells.Milliseconds(t.Forward), Cells.Milliseconds(t.Backward), Cells.Milliseconds(t.Forward + t.Backward), Cells.Percent(total > 0 ? (t.Forward + t.Backward) / total : null)])]);
        return new ReportPicture(id, $"Time of a step by layer, {run.Label}",
            "Milliseconds of a step. Filled: forward; hollow: backward. Below the lowest adapted layer there is no backward. ● under a layer: it gets adapters.",
            plot =>
            {
                SelectionParts.Bars(plot, [.. times.Select(t => t.Layer - .2)], [.. times.Select(t => 1e3 * t.Forward)], 0, false, "forward", .36);
                SelectionParts.Bars(plot, [.. times.Select(t => t.Layer + .2)], [.. times.Select(t => 1e3 * t.Backward)], 1, true, "backward", .36);
                var every = count > 40 ? 8 : count > 26 ? 4 : count > 16 ? 2 : 1;
                plot.Axes.Bottom.SetTicks([.. layers.Select(l => (double)l)], [.. layers.Select(l => $"{(l == -1 ? "emb" : l == count ? "head" : l % every == 0 ? $"{l}" : "")}\n{(Adapted(l) ? "●" : "")}")]);
                plot.XLabel("layer (● adapters)");
                plot.YLabel("ms");
                plot.Axes.SetLimits(layers[0] - .7, layers[^1] + .7, 0, Math.Max(1e-9, times.Max(t => Math.Max(t.Forward, t.Backward)) * 1e3) * 1.06);
                plot.ShowLegend(Edge.Top);
            }, 360, table);
    }

    private static ReportPicture ByOp(RunInput run, ProfileFile profile, string id)
    {
        var (nodes, total) = (profile.Nodes, profile.NodeSeconds.Sum());
        var ops = Enumerable.Range(0, nodes.Op.Count).GroupBy(i => nodes.Op[i])
            .Select(g => (Op: Words.Clean(g.Key), Count: g.Count(), Forward: g.Where(i => !nodes.Backward[i]).Sum(i => profile.NodeSeconds[i]), Backward: g.Where(i => nodes.Backward[i]).Sum(i => profile.NodeSeconds[i])))
            .OrderByDescending(o => o.Forward + o.Backward).ThenBy(o => o.Op, StringComparer.Ordinal).ToList();
        var table = new ReportTable(id, $"{run.Label}: measured time of a step by op, ms",
            ["op", "operations", "forward", "backward", "both", "share"],
            [.. ops.Select(o => (IReadOnlyList<ReportCell>)[o.Op, Cells.Count(o.Count), Cells.Milliseconds(o.Forward), Cells.Milliseconds(o.Backward), Cells.Milliseconds(o.Forward + o.Backward), Cells.Percent(total > 0 ? (o.Forward + o.Backward) / total : null)])]);
        var shown = ops.Take(MostOps).ToList();
        var whole = new ReportTable($"{id}-operations", $"{run.Label}: measured time of each operation of a step, ms", ["operation", "pass", "layer", "op", "module", "ms"],
            [.. profile.NodeSeconds.Select((s, i) => (IReadOnlyList<ReportCell>)[$"{i}", nodes.Backward[i] ? "backward" : "forward", MemoryParts.Layer(nodes.Layer[i], profile.Mask.Length), Words.Clean(nodes.Op[i]), Words.Clean(nodes.Name[i]), Cells.Milliseconds(s)])]);
        return new ReportPicture(id, $"Time of a step by op, {run.Label}",
            $"Milliseconds of a step. Filled: forward; hollow: backward.{(ops.Count > shown.Count ? $" The {shown.Count} ops that take most; the table has all." : "")} Every operation's time is in {whole.Id}.csv.",
            plot =>
            {
                double[] places = [.. shown.Select((_, i) => (double)(shown.Count - 1 - i))];
                SelectionParts.Bars(plot, [.. places.Select(p => p + .2)], [.. shown.Select(o => 1e3 * o.Forward)], 0, false, "forward", .36, horizontal: true);
                SelectionParts.Bars(plot, [.. places.Select(p => p - .2)], [.. shown.Select(o => 1e3 * o.Backward)], 1, true, "backward", .36, horizontal: true);
                plot.Axes.Left.SetTicks(places, [.. shown.Select(o => o.Op)]);
                plot.Axes.Left.MajorTickStyle.Length = 0;
                plot.XLabel("ms");
                plot.Grid.YAxisStyle.IsVisible = false;
                plot.Axes.SetLimits(0, Math.Max(1e-9, shown.Max(o => Math.Max(o.Forward, o.Backward)) * 1e3) * 1.06, -.6, shown.Count - .4);
                plot.ShowLegend(Edge.Top);
            }, 110 + (shown.Count * 30), table)
        { Whole = whole };
    }
}
