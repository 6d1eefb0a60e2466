using System.Globalization;
using System.Text.Json;
using NativeLora.Cli.Study;

namespace NativeLora.Cli.Report;

/// <summary>What a study left: its tasks with every training of every row.</summary>
/// <param name="Model">The model; empty where the study has not ended.</param>
/// <param name="Tasks">By task.</param>
/// <param name="Notes">What is missing.</param>
internal sealed record StudyInput(string Model, IReadOnlyList<StudyTaskInput> Tasks, IReadOnlyList<string> Notes)
{
    public const string StudyFile = "study.json";
    public const string SettingsFile = "study-settings.json";
    private const int LongestFinding = 4000;

    /// <exception cref="InputException">A file is malformed.</exception>
    public static StudyInput Read(string folder)
    {
        var path = Path.Combine(folder, StudyFile);
        if (!File.Exists(path))
            return Unfinished(folder);
        var root = ReportJson.Read(path);
        try
        {
            List<StudyCellInput> cells = [.. root.List("cells").Select(Cell)];
            return new StudyInput(root.Text("model") ?? "", [.. root.List("tasks").Select(t => Task(t, cells))], []);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            throw RunFiles.Bad(path, e.Message, e);
        }
    }

    private static StudyTaskInput Task(JsonElement task, List<StudyCellInput> cells)
    {
        var (key, metric) = (Needed(task, "task"), Needed(task, "metric"));
        var rows = new List<StudyRowInput>();
        foreach (var row in task.List("rows"))
        {
            var (name, cost) = (Needed(row, "strategy"), Cost(row));
            List<StudyCellInput> own = [.. cells.Where(c => c.Task == key && c.Strategy == name && c.Cost == cost)];
            if (own.Count == 0)
                throw new JsonException($"there is no cell of {name} in task {key}");
            rows.Add(new StudyRowInput(name, cost, own));
        }
        return new StudyTaskInput(key, metric, rows) { Comparisons = Comparisons(task, rows) };
    }

    // What the study itself says of random and last layers, in its words and with its correction for many comparisons.
    private static StudyComparisons? Comparisons(JsonElement task, List<StudyRowInput> rows)
    {
        if (task.Find("against") is not { ValueKind: JsonValueKind.Object } against)
            return null;
        var found = new List<StudyComparison>();
        foreach (var row in against.List("rows"))
        {
            var (name, other, budget) = (Needed(row, "strategy"), Needed(row, "against"), row.Text("budget"));
            var ratio = row.Number("ratio")?.ToString(CultureInfo.InvariantCulture);
            var own = rows.FirstOrDefault(r => r.Strategy == name && (budget is null ? r.Cost == (ratio ?? "") : r.Cost.Contains($"≤ {budget} ", StringComparison.Ordinal)));
            found.Add(new StudyComparison(own?.Label ?? name, other, row.Number("mean"), row.Number("low"), row.Number("high"), row.Number("n"), row.Number("p"), row.Number("holm"), Needed(row, "verdict")));
        }
        return new StudyComparisons(found, [.. against.List("findings").Select(f => Words.Clean(f.GetString() ?? "", LongestFinding))]);
    }

    private static StudyCellInput Cell(JsonElement cell)
    {
        var evaluations = cell.Find("evaluations") ?? throw new JsonException("a cell has no evaluations");
        var values = evaluations.EnumerateObject().FirstOrDefault().Value;
        if (values.ValueKind != JsonValueKind.Object)
            throw new JsonException("a cell has no evaluation");
        return new StudyCellInput(Needed(cell, "task"), Needed(cell, "strategy"), Cost(cell), (ulong)(cell.Number("seed") ?? throw new JsonException("a cell has no seed")), Needed(cell, "mask"),
            values.EnumerateObject().DistinctBy(v => v.Name).ToDictionary(v => Words.Clean(v.Name), v => values.Number(v.Name)),
            cell.Number("trainable_parameters") ?? throw new JsonException("a cell has no trainable_parameters"),
            cell.Number("planned_bytes") ?? throw new JsonException("a cell has no planned_bytes"),
            cell.Number("allocated_bytes"), cell.Number("peak_process_bytes"), cell.Number("seconds_per_step"));
    }

    // Rows are compared where they were given the same: a share of the layers, or a budget.
    private static string Cost(JsonElement at)
    {
        var given = new List<string>();
        if (at.Number("ratio") is { } ratio)
            given.Add(ratio.ToString(CultureInfo.InvariantCulture));
        // A bound on what is planned: its words, and of what.
        if (at.Find("budget") is { ValueKind: JsonValueKind.Object } budget)
            given.Add($"≤ {Needed(budget, "text")} {(budget.Find("flops") is null ? "bytes" : "FLOP")}");
        return string.Join(", ", given);
    }

    private static string Needed(JsonElement at, string name) => at.Text(name) ?? throw new JsonException($"it has no \"{name}\"");

    // Without the tables, the trainings that have ended are known by their masks alone.
    private static StudyInput Unfinished(string folder)
    {
        var cells = new List<StudyCellInput>();
        var begun = 0;
        var root = Path.Combine(folder, "cells");
        string[] files = Directory.Exists(root) ? [.. Directory.EnumerateFiles(root, "*.json*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)] : [];
        foreach (var file in files)
        {
            if (Path.GetFileName(file) == TrainingInput.MetricsFile)
                begun++;
            if (Path.GetFileName(file) != CellResult.FileName)
                continue;
            var result = RunFiles.Read<CellResult>(file);
            RunFiles.Require(result.Evaluations.Count > 0, file, "it has no evaluation");
            cells.Add(new StudyCellInput(Words.Clean(result.Task), Words.Clean($"mask {result.Mask}"), "", result.Seed, Words.Clean(result.Mask),
                result.Evaluations[0].Values.ToDictionary(v => Words.Clean(v.Key), v => v.Value), result.TrainableParameters, result.PlannedBytes, result.AllocatedBytes, result.PeakProcessBytes, result.SecondsPerStep));
        }
        var tasks = cells.GroupBy(c => c.Task).Select(t => new StudyTaskInput(t.Key, MetricOf(t.First()), [.. t.GroupBy(c => c.Mask).Select(m => new StudyRowInput(m.First().Strategy, "", [.. m]))])).ToList();
        return new StudyInput("", tasks, [string.Create(CultureInfo.InvariantCulture,
            $"This study has not ended: {cells.Count} of its trainings have, {begun - cells.Count} have begun. They are shown by mask; which strategy chose which is told, and compared, only when the study has ended.")]);
    }

    private static string MetricOf(StudyCellInput cell) => cell.Values.Keys.FirstOrDefault(k => k is not ("loss" or "perplexity")) ?? "loss";
}

/// <summary>The rows of a task.</summary>
/// <param name="Key">The task.</param>
/// <param name="Metric">What its rows are compared by.</param>
/// <param name="Rows">In the order of the study.</param>
internal sealed record StudyTaskInput(string Key, string Metric, IReadOnlyList<StudyRowInput> Rows)
{
    /// <summary>The study's own comparisons with random and last layers; null where it made none.</summary>
    public StudyComparisons? Comparisons { get; init; }

    /// <summary>Whether a lower value is the better one.</summary>
    public bool LowerIsBetter => Metric is "loss" or "perplexity";
}

/// <summary>What a study says of its choices against random and last layers at equal cost.</summary>
/// <param name="Rows">The comparisons.</param>
/// <param name="Findings">The same in sentences.</param>
internal sealed record StudyComparisons(IReadOnlyList<StudyComparison> Rows, IReadOnlyList<string> Findings);

/// <summary>A choice against random or last layers.</summary>
/// <param name="Label">The choice.</param>
/// <param name="Against">random or last.</param>
/// <param name="Mean">Mean difference, paired by seed; positive where the metric is higher.</param>
/// <param name="Low">Lower end of its 95 % interval.</param>
/// <param name="High">Upper end.</param>
/// <param name="Seeds">Seeds that both have.</param>
/// <param name="P">Probability of as large a difference by chance.</param>
/// <param name="Holm">The same after Holm's correction for all comparisons.</param>
/// <param name="Verdict">In a word.</param>
internal sealed record StudyComparison(string Label, string Against, double? Mean, double? Low, double? High, double? Seeds, double? P, double? Holm, string Verdict);

/// <summary>A way to choose layers.</summary>
/// <param name="Strategy">Its name.</param>
/// <param name="Cost">What it was given: a ratio or a budget; empty for none.</param>
/// <param name="Cells">A training a seed.</param>
internal sealed record StudyRowInput(string Strategy, string Cost, IReadOnlyList<StudyCellInput> Cells)
{
    public string Label => Cost.Length == 0 ? Strategy : $"{Strategy} {Cost}";

    public bool IsExhaustive => Strategy.StartsWith("exhaustive ", StringComparison.Ordinal);

    /// <summary>Mean and spread over the seeds; null where a seed gave no number.</summary>
    public Spread? Value(string metric) =>
        Cells.All(c => c.Values.GetValueOrDefault(metric) is not null) ? Spread.Of([.. Cells.Select(c => c.Values[metric]!.Value)]) : null;

    public double Mean(Func<StudyCellInput, double> value) => Cells.Average(value);

    public double? MeanOf(Func<StudyCellInput, double?> value) => Cells.All(c => value(c) is not null) ? Cells.Average(c => value(c)!.Value) : null;

    public string Masks => string.Join(", ", Cells.GroupBy(c => c.Mask).Select(g => g.Count() == Cells.Count ? g.Key : $"{g.Key} ×{g.Count()}"));

    /// <summary>This less another over the seeds that both have; null where there are none.</summary>
    public Difference? Less(StudyRowInput other, string metric)
    {
        double[] pairs = [.. Cells.Join(other.Cells, c => c.Seed, c => c.Seed, (a, b) => a.Values.GetValueOrDefault(metric) - b.Values.GetValueOrDefault(metric)).OfType<double>()];
        return pairs.Length == 0 ? null : new Difference(Spread.Of(pairs));
    }

    /// <summary>Whether both chose the same layers with every seed, so that their trainings are the same.</summary>
    public bool SameAs(StudyRowInput other) => Cells.Select(c => (c.Seed, c.Mask)).ToHashSet().SetEquals(other.Cells.Select(c => (c.Seed, c.Mask)));
}

/// <summary>A training of a study.</summary>
internal sealed record StudyCellInput(
    string Task, string Strategy, string Cost, ulong Seed, string Mask, IReadOnlyDictionary<string, double?> Values, double TrainableParameters, double PlannedBytes,
    double? AllocatedBytes, double? PeakProcessBytes, double? SecondsPerStep);
