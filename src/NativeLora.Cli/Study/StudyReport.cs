using NativeLora.Checkpoints;
using NativeLora.Cli.Show;

namespace NativeLora.Cli.Study;

/// <summary>What a study came to, and its files.</summary>
internal sealed class StudyReport
{
    private readonly StudyRequest _request;
    private readonly IReadOnlyDictionary<string, string> _settings;
    private readonly IReadOnlyDictionary<(string Task, string Mask, ulong Seed), CellResult> _results;

    public StudyReport(
        StudyRequest request, IReadOnlyDictionary<string, string> settings, IReadOnlyList<StudyCell> cells, IReadOnlyList<LeftOut> leftOut,
        IReadOnlyDictionary<(string Task, string Mask, ulong Seed), CellResult> results)
    {
        (_request, _settings, Cells, LeftOut, _results) = (request, settings, cells, leftOut, results);
        Tasks = [.. cells.GroupBy(c => c.Task).Select(g => TaskSummary.Of(g.Key, [.. g], results))];
        Comparisons = [.. Tasks.Select(t => new ComparisonTable(t.Task.Key, t.Task.Metric, StudyComparisons.Of(t)))];
        if (Tasks.Count > 1)
            Together = new ComparisonTable(
                $"All {Tasks.Count} tasks together", Tasks.Select(t => t.Task.Metric).Distinct().Count() == 1 ? Tasks[0].Task.Metric : "main metrics", StudyComparisons.Together(Tasks));
    }

    public IReadOnlyList<StudyCell> Cells { get; }

    public IReadOnlyList<TaskSummary> Tasks { get; }

    /// <summary>Rows that have no cell on a task.</summary>
    public IReadOnlyList<LeftOut> LeftOut { get; }

    /// <summary>Every choice against random and last, task by task.</summary>
    public IReadOnlyList<ComparisonTable> Comparisons { get; }

    /// <summary>The same over the mean of the tasks; null for one task.</summary>
    public ComparisonTable? Together { get; }

    public string Model => _request.Model.Name;

    public IReadOnlyDictionary<string, string> Settings => _settings;

    public IReadOnlyList<ulong> Seeds => _request.Seeds;

    public CellResult Result(StudyCell cell) => _results[cell.Training];

    /// <summary>The cell before this one that has its training; null if the training is its own.</summary>
    public StudyCell? SharedWith(StudyCell cell) => Cells.First(c => c.Training == cell.Training) is var first && !ReferenceEquals(first, cell) ? first : null;

    /// <summary>Writes all files into the study's folder.</summary>
    public void Write()
    {
        AtomicFile.WriteAllText(Path.Combine(_request.Output, "study.csv"), StudyTables.Cells(this));
        AtomicFile.WriteAllText(Path.Combine(_request.Output, "summary.csv"), StudyTables.Summary(this));
        AtomicFile.WriteAllText(Path.Combine(_request.Output, "study.md"), StudyTables.Markdown(this));
        AtomicFile.WriteAllText(Path.Combine(_request.Output, "study.json"), ToJson() + "\n");
    }

    /// <summary>The content of study.json.</summary>
    public string ToJson() => StudyJson.Of(this).ToJsonString(JsonText.Indented);

    /// <summary>Shows the tables.</summary>
    public void Show(Ui ui)
    {
        foreach (var task in Tasks)
        {
            ui.Title($"{task.Task.Key}: {task.Task.Metric}, mean ± standard deviation over {Ui.Count(Seeds.Count, "seed")}");
            var (heads, rows) = StudyTables.Table(task);
            ui.Table([.. heads.Select((h, i) => i < 3 ? $"<{h}" : h)], [.. rows.Select(r => r.Select(Spectre.Console.Markup.Escape).ToArray())]);
            foreach (var sentence in task.Sentences)
            {
                ui.Line();
                ui.Line(sentence);
            }
        }
        foreach (var table in Comparisons.Concat(Together is { } together ? [together] : []).Where(t => t.Rows.Count > 0))
        {
            ui.Title($"{table.Name}: against random and last");
            foreach (var sentence in ComparisonWords.Sentences(table))
                ui.Line(sentence);
        }
        ui.Line();
        ui.Fact("written", $"{_request.Output}: study.md, study.csv, summary.csv, study.json");
    }
}
