using System.Globalization;
using NativeLora.Cli.Show;
using NativeLora.Cli.Study;
using ScottPlot;

namespace NativeLora.Cli.Report;

/// <summary>Quality against cost over the strategies of a study, and whether each beats random and last layers at equal cost.</summary>
internal static class StudyParts
{
    public static IEnumerable<ReportPart> Of(RunInput run, string id)
    {
        var study = run.Study!;
        foreach (var note in study.Notes)
            yield return new ReportText(note, IsWarning: true);
        foreach (var (t, task) in study.Tasks.Index())
        {
            var place = study.Tasks.Count == 1 ? id : string.Create(CultureInfo.InvariantCulture, $"{id}-{t + 1}");
            yield return new ReportHeading($"{run.Label}: {task.Key}{(study.Model.Length > 0 ? $" with {study.Model}" : "")}");
            yield return Rows(run, task, $"{place}-rows");
            foreach (var (what, name, cost) in new[] { ("parameters", "trainable parameters", (Func<StudyCellInput, double>)(c => c.TrainableParameters)), ("bytes", "planned bytes of a step", c => c.PlannedBytes / 1048576) })
                if (Against(run, task, $"{place}-{what}", name, what, cost) is { } picture)
                    yield return picture;
            if (study.Notes.Count > 0)
                continue;
            yield return new ReportHeading($"Does a strategy beat random and last layers at equal cost? {run.Label}, {task.Key}");
            if (task.Comparisons is { Rows.Count: > 0 } own)
            {
                // The study has said it itself: two judgements of the same numbers would only confuse.
                yield return new ReportList([.. own.Findings, InShort(own.Rows)]);
                yield return Differences(run, task, own.Rows, $"{place}-verdicts");
                continue;
            }
            var verdicts = StudyVerdict.All(task);
            yield return new ReportList(StudyVerdict.Words(task, verdicts));
            if (verdicts.Count > 0)
                yield return Differences(run, task, [.. verdicts.Select(v => v.Comparison)], $"{place}-verdicts");
        }
    }

    private static ReportTable Rows(RunInput run, StudyTaskInput task, string id)
    {
        var metric = task.Metric;
        return new ReportTable(id, $"{run.Label}, {task.Key}: {metric} over the seeds, and what each row costs",
            ["strategy", "mask", "seeds", metric, "± std", "95 % low", "95 % high", "trainable parameters", "planned", "allocated (measured)", "peak of process", "s/step"],
            [.. task.Rows.Select(r =>
            {
                var value = r.Value(metric);
                return (IReadOnlyList<ReportCell>)
                [
                    r.Label, r.Masks, Cells.Count(r.Cells.Count), Cells.Number(value?.Mean), Cells.Number(value?.Deviation), Cells.Number(value?.Mean - value?.HalfInterval), Cells.Number(value?.Mean + value?.HalfInterval),
                    Cells.Count(r.Mean(c => c.TrainableParameters)), Cells.Bytes(r.Mean(c => c.PlannedBytes)), Cells.Bytes(r.MeanOf(c => c.AllocatedBytes)), Cells.Bytes(r.MeanOf(c => c.PeakProcessBytes)), Cells.Seconds(r.MeanOf(c => c.SecondsPerStep)),
                ];
            })]);
    }

    private static ReportPicture? Against(RunInput run, StudyTaskInput task, string id, string name, string what, Func<StudyCellInput, double> cost)
    {
        var points = task.Rows.Select((r, i) => (Row: r, Ink: i, X: r.Mean(cost), Value: r.Value(task.Metric))).Where(p => p.Value is not null).ToList();
        if (points.Count == 0)
            return null;
        var table = new ReportTable(id, $"{run.Label}, {task.Key}: {task.Metric} against {name}", ["strategy", "mask", what == "bytes" ? "planned bytes" : name, task.Metric, "95 % low", "95 % high"],
            [.. points.Select(p => (IReadOnlyList<ReportCell>)
            [
                p.Row.Label, p.Row.Masks, what == "bytes" ? Cells.Bytes(p.X * 1048576) : Cells.Count(p.X), Cells.Number(p.Value!.Value.Mean), Cells.Number(p.Value.Value.Mean - p.Value.Value.HalfInterval), Cells.Number(p.Value.Value.Mean + p.Value.Value.HalfInterval),
            ])]);
        // Strategies that chose the same layers with every seed are the same trainings: one mark.
        var marks = points.GroupBy(p => points.First(q => q.Row.SameAs(p.Row)).Ink).Select(g => (g.First().Row, Label: Together(g.Select(p => p.Row)), g.First().X, g.First().Value)).ToList();
        return new ReportPicture(id, $"{task.Metric} against {name}, {run.Label}, {task.Key}",
            $"Each mark is a strategy, or several that chose the same layers: the mean over the seeds, with Student's 95 % interval of the mean. {(task.LowerIsBetter ? "Lower" : "Higher")} and further left is better. Marks of nearly the same cost are drawn side by side, so that none hides another; the table has their true places and names them all.",
            plot => DrawAgainst(plot, marks, task.Metric, name + (what == "bytes" ? ", MiB" : "")), 420, table);
    }

    private static string Together(IEnumerable<StudyRowInput> rows)
    {
        var all = rows.ToList();
        return all.Count == 1 ? all[0].Label : $"{all[0].Masks}: {all[0].Label}, {all.Count - 1} more";
    }

    private static void DrawAgainst(Plot plot, List<(StudyRowInput Row, string Label, double X, Spread? Value)> points, string metric, string name)
    {
        var (least, most) = (points.Min(p => p.X), points.Max(p => p.X));
        var width = most > least ? most - least : Math.Max(1, Math.Abs(most) * .1);
        // All masks of a size would be hundreds of entries: they share one.
        var exhaustive = false;
        var cluster = 0;
        double? before = null;
        foreach (var (ink, (row, label, x, value)) in points.Index().OrderBy(p => p.Item.X))
        {
            cluster = before is { } last && x - last < .02 * width ? cluster + 1 : 0;
            before = x;
            var at = row.IsExhaustive ? x : x + (.014 * width * cluster);
            var color = row.IsExhaustive ? Ink.Grey : Ink.Of(ink);
            var (mean, half) = (value!.Value.Mean, value.Value.HalfInterval);
            if (half is { } h && !row.IsExhaustive)
            {
                var line = plot.Add.Line(at, mean - h, at, mean + h);
                (line.LineColor, line.LineWidth, line.MarkerSize) = (color, 1.6f, 0);
            }
            var mark = plot.Add.Scatter(new[] { at }, new[] { mean }, color);
            mark.MarkerShape = row.IsExhaustive ? MarkerShape.HorizontalBar : Ink.Mark(ink);
            mark.MarkerSize = row.IsExhaustive ? 7 : 11;
            mark.MarkerLineWidth = 2;
            mark.LineWidth = 0;
            mark.LegendText = row.IsExhaustive ? (exhaustive ? "" : "exhaustive: every mask") : label;
            exhaustive |= row.IsExhaustive;
        }
        plot.XLabel(name);
        plot.YLabel(metric);
        plot.Axes.Margins(.08, .1);
        plot.ShowLegend(Edge.Right);
    }

    private static string InShort(IReadOnlyList<StudyComparison> rows)
    {
        List<string> both = [.. rows.GroupBy(r => r.Label).Where(g => ((string[])["random", "last"]).All(a => g.Any(r => r.Against == a && r.Verdict == "beats"))).Select(g => g.Key)];
        return StudyVerdict.InShort(both);
    }

    private static ReportPart Differences(RunInput run, StudyTaskInput task, IReadOnlyList<StudyComparison> comparisons, string id)
    {
        // The same layers with every seed: nothing to draw. Equal differences are those of equal trainings: drawn once.
        var drawn = comparisons.Where(v => v.Mean is not null && v is not { Mean: 0, Low: 0, High: 0 }).GroupBy(v => (v.Against, v.Mean, v.Low, v.High)).Select(g =>
            (Row: g.First(), Label: $"{g.First().Label}{(g.Count() > 1 ? $" (and {g.Count() - 1} more)" : "")} less {g.First().Against}")).ToList();
        var tested = comparisons.Any(c => c.P is not null);
        double? Planned(string label) => task.Rows.FirstOrDefault(r => r.Label == label)?.Mean(c => c.PlannedBytes);
        string Reference(StudyComparison c) => task.Rows.FirstOrDefault(r => r.Label == c.Label) is { } row ? StudyVerdict.ReferenceOf(task, row, c.Against)?.Label ?? "" : "";
        var table = new ReportTable(id, $"{run.Label}, {task.Key}: {task.Metric} of each strategy less that of random and last layers at equal cost, paired by seed",
            ["strategy less reference", "difference", "95 % low", "95 % high", .. tested ? (string[])["p", "p, Holm"] : [], "seeds", "verdict", "planned", "reference planned"],
            [.. comparisons.Select(c => (IReadOnlyList<ReportCell>)
            [
                $"{c.Label} less {c.Against}", Cells.Signed(c.Mean), Cells.Signed(c.Low), Cells.Signed(c.High), .. tested ? (ReportCell[])[Cells.Number(c.P), Cells.Number(c.Holm)] : [], Cells.Count(c.Seeds), c.Verdict,
                Cells.Bytes(Planned(c.Label)), Cells.Bytes(Planned(Reference(c))),
            ])]);
        if (drawn.Count == 0)
            return table;
        return new ReportPicture(id, $"{task.Metric} less that of random and last layers, {run.Label}, {task.Key}",
            $"Each mark is the mean difference over the seeds at equal cost, paired seed by seed, with Student's 95 % interval. An interval that crosses the line at 0 shows no difference. Choices of the same layers are drawn once, and not at all where they are those of the reference. {(task.LowerIsBetter ? "Left of 0 the strategy is better." : "Right of 0 the strategy is better.")}",
            plot =>
            {
                double[] places = [.. drawn.Select((_, i) => (double)(drawn.Count - 1 - i))];
                foreach (var (i, (c, _)) in drawn.Index())
                {
                    if (c is { Low: { } low, High: { } high })
                    {
                        var line = plot.Add.Line(low, places[i], high, places[i]);
                        (line.LineColor, line.LineWidth, line.MarkerSize) = (Ink.Of(0), 2, 0);
                    }
                    var mark = plot.Add.Scatter(new[] { c.Mean!.Value }, new[] { places[i] }, Ink.Of(0));
                    // Hollow where the interval crosses 0.
                    mark.MarkerShape = c.Low > 0 || c.High < 0 ? MarkerShape.FilledCircle : MarkerShape.OpenCircle;
                    (mark.MarkerSize, mark.MarkerLineWidth, mark.LineWidth) = (11, 2, 0);
                }
                plot.Add.VerticalLine(0, 1.5f, Ink.Text, LinePattern.Solid);
                plot.Axes.Left.SetTicks(places, [.. drawn.Select(d => d.Label)]);
                plot.Axes.Left.MajorTickStyle.Length = 0;
                plot.Grid.YAxisStyle.IsVisible = false;
                plot.XLabel($"difference in {task.Metric} (filled mark: the interval leaves out 0)");
                var most = Math.Max(1e-9, drawn.Max(d => Math.Max(Math.Abs(d.Row.Mean!.Value), Math.Max(Math.Abs(d.Row.Low ?? 0), Math.Abs(d.Row.High ?? 0)))));
                plot.Axes.SetLimits(-1.1 * most, 1.1 * most, -.6, drawn.Count - .4);
            }, 110 + (drawn.Count * 34), table);
    }
}
