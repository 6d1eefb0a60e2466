using System.Globalization;
using NativeLora.Cli.Show;
using ScottPlot;

namespace NativeLora.Cli.Report;

/// <summary>Curves of the trainings, all runs in one picture for each value.</summary>
internal static class CurveParts
{
    // A longer table is thinned out: files have every line.
    private const int MostRows = 40;

    private static readonly string[] NotDrawn = ["tokens", "seconds"];

    public static IEnumerable<ReportPart> Of(IReadOnlyList<RunInput> runs)
    {
        var trained = runs.Where(r => r.Training is not null).ToList();
        yield return Results(trained);
        foreach (var name in trained.SelectMany(r => r.Training!.Names).Distinct().Where(n => !NotDrawn.Contains(n)))
            if (Curve(trained, name) is { } picture)
                yield return picture;
    }

    private static ReportTable Results(List<RunInput> runs)
    {
        var names = runs.SelectMany(r => r.Training!.Names).Where(n => n.StartsWith("eval_", StringComparison.Ordinal)).Distinct().ToList();
        return new ReportTable("trainings", "Trainings: where each stands, and its last line of each kind",
            ["run", "state", "steps", "loss", .. names.Select(Name), "trainable parameters", "tokens", "seconds"],
            [.. runs.Select(r =>
            {
                var training = r.Training!;
                double? Last(string name) => training.Curve(name) is { Count: > 0 } curve ? curve[^1].Value : null;
                return (IReadOnlyList<ReportCell>)
                [
                    r.Label, training.Report is null ? "not ended" : "ended", Cells.Count(training.Lines.Count == 0 ? 0 : training.Lines.Max(l => l.Step)), Cells.Number(Last("loss")),
                    .. names.Select(n => Cells.Number(Last(n))), Cells.Count(training.Number("trainable_parameters")), Cells.Count(Last("tokens")),
                    Cells.Any(Last("seconds")),
                ];
            })]);
    }

    private static ReportPicture? Curve(List<RunInput> runs, string name)
    {
        var curves = runs.Select((r, i) => (Run: r, Ink: i, Points: r.Training!.Curve(name))).Where(c => c.Points.Count > 0).ToList();
        if (curves.Count == 0)
            return null;
        var id = $"curve-{Words.Id(name)}";
        int[] steps = [.. curves.SelectMany(c => c.Points.Select(p => p.Step)).Distinct().Order()];
        var values = curves.Select(c => c.Points.GroupBy(p => p.Step).ToDictionary(g => g.Key, g => g.Last().Value)).ToList();
        ReportTable Table(string place, string caption, IEnumerable<int> at) => new(place, caption, ["step", .. curves.Select(c => c.Run.Label)],
            [.. at.Select(s => (IReadOnlyList<ReportCell>)[string.Create(CultureInfo.InvariantCulture, $"{s}"), .. values.Select(v => v.TryGetValue(s, out var value) ? Show(name, value) : Cells.None)])]);
        var all = steps.Length <= MostRows;
        var shown = all ? steps : [.. Enumerable.Range(0, MostRows).Select(i => steps[(int)((long)i * (steps.Length - 1) / (MostRows - 1))])];
        var whole = all ? null : Table($"{id}-all", $"{Name(name)} at every step that was logged", steps);
        return new ReportPicture(id, $"{Name(name)} by step",
            $"{Explain(name)} {(curves.Count > 1 ? "Runs differ in colour, pattern of the line and shape of the mark; in the order of the legend: " + Words.And([.. curves.Select(c => c.Run.Label)]) : "Run: " + curves[0].Run.Label)}."
            + (whole is null ? "" : $" The table has {MostRows} of {Ui.Count(steps.Length, "step")}; {whole.Id}.csv has all."),
            plot =>
            {
                foreach (var (run, ink, points) in curves)
                {
                    var line = plot.Add.Scatter(points.Select(p => (double)p.Step).ToArray(), points.Select(p => p.Value).ToArray(), Ink.Of(ink));
                    line.LineWidth = 2;
                    line.LinePattern = Ink.Pattern(ink);
                    line.MarkerShape = Ink.Mark(ink);
                    line.MarkerSize = points.Count > 60 ? 0 : 7;
                    line.MarkerLineColor = line.MarkerFillColor = Ink.Of(ink);
                    line.LegendText = run.Label;
                }
                plot.XLabel("step");
                plot.YLabel(Name(name));
                plot.Axes.Margins(.03, .08);
                if (curves.Count > 1)
                    plot.ShowLegend(Edge.Top);
                else
                    plot.HideLegend();
            }, 340, Table(id, $"{Name(name)} by step and run", shown))
        { Whole = whole };
    }

    private static ReportCell Show(string name, double value) => name == "learning_rate" ? Cells.Any(value) : Cells.Number(value);

    private static string Name(string name) => name switch
    {
        "grad_norm" => "gradient norm",
        _ => name.Replace("eval_", "evaluation: ", StringComparison.Ordinal).Replace('_', ' '),
    };

    private static string Explain(string name) => name switch
    {
        "loss" => "Mean loss of the training batches since the line before, each before its update.",
        "learning_rate" => "Learning rate of the step, as the schedule gives it.",
        "grad_norm" => "Norm of all gradients before clipping.",
        "eval_loss" => "Loss on the evaluation rows; no step was made on them.",
        _ when name.StartsWith("eval_", StringComparison.Ordinal) => "On the evaluation rows; no step was made on them.",
        _ => "As metrics.jsonl has it.",
    };
}
