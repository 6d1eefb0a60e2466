using System.Globalization;
using System.Text;
using NativeLora.Cli.Show;

namespace NativeLora.Cli.Study;

/// <summary>A study as Markdown and as comma-separated values.</summary>
internal static class StudyTables
{
    private const int LongestMask = 40;

    /// <summary>Heads and rows of a task's table, in words.</summary>
    public static (IReadOnlyList<string> Heads, IReadOnlyList<IReadOnlyList<string>> Rows) Table(TaskSummary task)
    {
        var hasAll = task.Rows.Any(r => r.RelativeSeconds is not null);
        var hasBudgets = task.Rows.Any(r => r.Within is not null);
        List<string> heads = ["strategy", hasBudgets ? "ratio or budget" : "ratio", "mask", "trainable", "planned", .. hasBudgets ? (string[])["allocated"] : [], hasAll ? "s/step (of all)" : "s/step"];
        heads.AddRange(task.Task.Metrics);
        heads.AddRange([$"{task.Task.Metric} − all", $"{task.Task.Metric} − random", .. hasBudgets ? (string[])[$"{task.Task.Metric} − last"] : []]);
        return (heads, [.. task.Rows.Select(row => (IReadOnlyList<string>)
        [
            row.SameAs is { } same ? $"{row.Row.Name} (= {same.Label})" : row.Row.Name,
            row.Within is { } within ? $"{within.Budget.Label} ({within.Budget.Words(within.Limit)})" : row.Row.Ratio is { } ratio ? Number(ratio) : "–",
            Masks(row),
            Text($"{Ui.Count((long)Math.Round(row.Mean(r => r.TrainableParameters)))} ({row.Mean(r => 100.0 * r.TrainableParameters / r.AllParameters):0.000} %)"),
            Ui.MiB((long)Math.Round(row.Mean(r => r.PlannedBytes))),
            .. hasBudgets ? (string[])[Ui.MiB((long)Math.Round(row.Mean(r => r.AllocatedBytes)))] : [],
            row.SecondsPerStep is { } seconds ? Text($"{seconds:0.000}{(row.RelativeSeconds is { } share ? Text($" ({share:0.00})") : "")}") : "–",
            .. task.Task.Metrics.Select(m => row.Metrics[m] is { } value ? StudyWords.With(value) : "–"),
            StudyWords.With(row.VersusAll),
            StudyWords.With(row.VersusRandom),
            .. hasBudgets ? (string[])[StudyWords.With(row.VersusLast)] : [],
        ])]);
    }

    /// <summary>study.md.</summary>
    public static string Markdown(StudyReport report)
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"# Choices of layers for {report.Model}\n\nSeeds {string.Join(", ", report.Seeds)}. ");
        text.Append("Mean ± standard deviation of the sample over the seeds; differences are paired seed by seed, in brackets Student's 95 % interval of their mean. ");
        text.Append("Trainable: parameters, in brackets of all. Planned: bytes of a training step, weights included. Where masks differ by seed, both are means. s/step: median seconds of a step, in brackets relative to all layers. ");
        text.Append("Rows marked \"=\" have the same masks and share their trainings.");
        if (report.Cells.Any(c => c.Within is not null))
            text.Append(" Allocated: what the device really held, mapped weights and the working memory of threads left out. Within a budget each strategy takes layers in its order while the plan of the training is within it: a layer that does not fit is passed over, except by first and last, which end there; suggest takes the mask of the largest sum of 1 − CKA, suggest-gradient that of the largest sum of gradient norms.");
        text.Append('\n');
        foreach (var task in report.Tasks)
        {
            text.Append(CultureInfo.InvariantCulture, $"\n## {task.Task.Key}\n\n{Ui.Count(task.Task.Examples.Train.Count, "row")} to train on; ");
            text.Append(CultureInfo.InvariantCulture, $"evaluated on {string.Join(" and ", task.Task.Examples.Dev.Select(d => $"{Ui.Count(d.Examples.Count, "row")} of {d.Split}"))}{(task.Task.Examples.Dev.Count > 1 ? ", the first in the table" : "")}.\n\n");
            var (heads, rows) = Table(task);
            text.Append(Line(heads)).Append(Line([.. heads.Select((_, i) => i < 3 ? "---" : "---:")]));
            foreach (var row in rows)
                text.Append(Line(row));
            foreach (var sentence in task.Sentences)
                text.Append('\n').Append(sentence).Append('\n');
            foreach (var row in report.LeftOut.Where(l => l.Task == task.Task).GroupBy(l => l.Row))
                text.Append(CultureInfo.InvariantCulture, $"\nLeft out: {row.Key.Label}, since {row.First().Reason}\n");
            Append(report.Comparisons.First(c => c.Name == task.Task.Key), "### Against random and last");
        }
        if (report.Together is { } together)
            Append(together, $"## {together.Name}");
        text.Append("\n## Settings\n\n");
        foreach (var (name, value) in report.Settings)
            text.Append(CultureInfo.InvariantCulture, $"- {name}: {value}\n");
        return text.ToString();

        void Append(ComparisonTable table, string title)
        {
            if (table.Rows.Count == 0)
                return;
            text.Append(CultureInfo.InvariantCulture, $"\n{title}\n\nPaired seed by seed, two-sided t test");
            text.Append(table == report.Together ? "; a seed's differences are averaged over the tasks first" : "").Append(CultureInfo.InvariantCulture, $". Holm: p after Holm's correction over {Ui.Count(table.Tests, "comparison")} of this table (equal ones count once); a verdict is given at 0.05 after it.\n\n");
            string[] heads = ["strategy", "against", $"{table.Metric} −", "95 % interval", "p", "Holm", "verdict"];
            text.Append(Line(heads)).Append(Line([.. heads.Select((_, i) => i is < 2 or 6 ? "---" : "---:")]));
            foreach (var c in table.Rows)
                text.Append(Line([c.Row.Label, c.Against, ComparisonWords.Signed(c.Difference.Mean), c.Difference.Low is null ? "–" : $"{ComparisonWords.Signed(c.Difference.Low)} to {ComparisonWords.Signed(c.Difference.High)}",
                    ComparisonWords.P(c.P), ComparisonWords.P(c.Holm), ComparisonWords.Word(c.Verdict)]));
            foreach (var sentence in ComparisonWords.Sentences(table))
                text.Append(CultureInfo.InvariantCulture, $"\n- {sentence}");
            text.Append('\n');
        }

        static string Line(IReadOnlyList<string> cells) => $"| {string.Join(" | ", cells.Select(c => c.Replace("|", "\\|", StringComparison.Ordinal)))} |\n";
    }

    /// <summary>study.csv: a line a cell.</summary>
    public static string Cells(StudyReport report)
    {
        var metrics = report.Cells.SelectMany(c => MetricNames(report.Result(c))).Distinct().ToList();
        var text = new StringBuilder();
        Append(text, ["task", "strategy", "ratio", "seed", "mask", "same_training_as", .. metrics, "train_loss", "last_loss", "steps", "tokens", "seconds", "seconds_per_step",
            "trainable_parameters", "all_parameters", "planned_bytes", "planned_evaluation_bytes", "optimizer_bytes", "arena_bytes", "saved_bytes", "allocated_bytes", "peak_process_bytes",
            "budget", "budget_bytes", "budget_flops", "planned_flops"]);
        foreach (var cell in report.Cells)
        {
            var r = report.Result(cell);
            Append(text, [cell.Task.Key, cell.Row.Name, Number(cell.Row.Ratio), Text($"{cell.Seed}"), cell.Mask, report.SharedWith(cell)?.Row.Label ?? "",
                .. metrics.Select(m => Number(Metric(r, m))), Number(r.TrainLoss), Number(r.LastLoss), Text($"{r.Steps}"), Text($"{r.Tokens}"), Number(r.Seconds), Number(r.SecondsPerStep),
                .. ((long?[])[r.TrainableParameters, r.AllParameters, r.PlannedBytes, r.PlannedEvaluationBytes, r.OptimizerBytes, r.ArenaBytes, r.SavedBytes, r.AllocatedBytes, r.PeakProcessBytes])
                    .Select(n => Text($"{n}")),
                cell.Within?.Budget.Text ?? "", Text($"{Limit(cell.Within, false)}"), Text($"{Limit(cell.Within, true)}"), cell.Within is { Budget.IsFlops: true } within ? Text($"{within.Planned}") : ""]);
        }
        return text.ToString();
    }

    /// <summary>summary.csv: a line a row of the tables.</summary>
    public static string Summary(StudyReport report)
    {
        var text = new StringBuilder();
        Append(text, ["task", "strategy", "ratio", "n", "masks", "same_as", "trainable_parameters", "trainable_percent", "planned_bytes", "optimizer_bytes", "seconds_per_step", "relative_seconds_per_step",
            "metric", "mean", "std", "vs_all", "vs_all_low", "vs_all_high", "vs_random", "vs_random_low", "vs_random_high",
            "budget", "budget_bytes", "budget_flops", "allocated_bytes", "vs_last", "vs_last_low", "vs_last_high", "vs_random_p", "vs_random_holm", "vs_random_verdict", "vs_last_p", "vs_last_holm", "vs_last_verdict"]);
        var tests = report.Comparisons.ToDictionary(t => t.Name, t => t.Rows.ToDictionary(r => (r.Row, r.Against)));
        foreach (var task in report.Tasks)
            foreach (var row in task.Rows)
            {
                var value = row.Metrics[task.Task.Metric];
                Append(text, [task.Task.Key, row.Row.Name, Number(row.Row.Ratio), Text($"{row.Results.Count}"), string.Join(' ', row.Masks.Select(m => m.Mask)), row.SameAs?.Label ?? "",
                    Number(row.Mean(r => r.TrainableParameters)), Number(row.Mean(r => 100.0 * r.TrainableParameters / r.AllParameters)), Number(row.Mean(r => r.PlannedBytes)), Number(row.Mean(r => r.OptimizerBytes)),
                    Number(row.SecondsPerStep), Number(row.RelativeSeconds), task.Task.Metric, Number(value?.Mean), Number(value?.Deviation),
                    Number(row.VersusAll?.Mean), Number(row.VersusAll?.Low), Number(row.VersusAll?.High), Number(row.VersusRandom?.Mean), Number(row.VersusRandom?.Low), Number(row.VersusRandom?.High),
                    row.Within?.Budget.Text ?? "", Text($"{Limit(row.Within, false)}"), Text($"{Limit(row.Within, true)}"), Number(row.Mean(r => r.AllocatedBytes)),
                    Number(row.VersusLast?.Mean), Number(row.VersusLast?.Low), Number(row.VersusLast?.High), .. Tested(row, "random"), .. Tested(row, "last")]);

                IEnumerable<string> Tested(RowSummary of, string against) => tests[task.Task.Key].TryGetValue((of.Row, against), out var c)
                    ? [Number(c.P), Number(c.Holm), ComparisonWords.Word(c.Verdict)] : ["", "", ""];
            }
        return text.ToString();
    }

    private static long? Limit(CellBudget? within, bool isFlops) => within is not null && within.Budget.IsFlops == isFlops ? within.Limit : null;

    /// <summary>Names of a result's values: those of the first split as they are, of others after their split.</summary>
    private static IEnumerable<string> MetricNames(CellResult result) =>
        result.Evaluations.SelectMany((e, i) => e.Values.Keys.Select(k => i == 0 ? k : $"{e.Split}_{k}"));

    private static double? Metric(CellResult result, string name) =>
        result.Value(name) ?? result.Evaluations.Skip(1).Where(e => name.StartsWith($"{e.Split}_", StringComparison.Ordinal))
            .Select(e => e.Values.GetValueOrDefault(name[(e.Split.Length + 1)..])).FirstOrDefault();

    private static string Masks(RowSummary row) => row.Masks is [var (mask, _)]
        ? Short(mask)
        : row.Masks.Count <= 3 && row.Cells[0].Mask.Length <= LongestMask / 2
            ? string.Join(", ", row.Masks.Select(m => m.Seeds == 1 ? m.Mask : $"{m.Mask} ×{m.Seeds}"))
            : $"{row.Masks.Count} masks";

    private static string Short(string mask) => mask.Length <= LongestMask ? mask : $"{mask[..LongestMask]}…";

    private static void Append(StringBuilder text, IReadOnlyList<string> fields) =>
        text.AppendJoin(',', fields.Select(f => f.AsSpan().IndexOfAny(",\"\n") < 0 ? f : $"\"{f.Replace("\"", "\"\"", StringComparison.Ordinal)}\"")).Append('\n');

    private static string Number(double? value) => value?.ToString(CultureInfo.InvariantCulture) ?? "";

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
