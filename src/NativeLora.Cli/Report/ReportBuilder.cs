using System.Globalization;

namespace NativeLora.Cli.Report;

/// <summary>Puts a page together from what runs left.</summary>
internal static class ReportBuilder
{
    public static ReportPage Build(IReadOnlyList<RunInput> runs, string title)
    {
        var ids = Ids(runs);
        var sections = new List<ReportSection> { new("runs", "Runs", [.. Overview(runs)]) };
        Add("layers", "What each layer does, and which are adapted", [.. runs.SelectMany(r => r.Selections.SelectMany((s, i) => SelectionParts.Of(s, r.Selections.Count == 1 ? ids[r] : string.Create(CultureInfo.InvariantCulture, $"{ids[r]}-{i + 1}"))))]);
        Add("memory", "Memory", [.. runs.Where(r => r.Plan is not null).SelectMany(r => MemoryParts.Of(r, r.Plan!, ids[r]))]);
        Add("time", "Where the time goes", Time(runs, ids));
        Add("curves", "Learning curves", runs.Any(r => r.Training is not null) ? [.. CurveParts.Of(runs)] : []);
        Add("studies", "Quality against cost over strategies", [.. runs.Where(r => r.Study is not null).SelectMany(r => StudyParts.Of(r, ids[r]))]);
        return new ReportPage(title, $"What {Words.And([.. runs.Select(r => r.Label)])} left: which layers are adapted and why, what that takes, how it learns. Every picture has its numbers in the table below it.", sections);

        void Add(string id, string heading, IReadOnlyList<ReportPart> parts)
        {
            if (parts.Count > 0)
                sections.Add(new ReportSection(id, heading, parts));
        }
    }

    private static Dictionary<RunInput, string> Ids(IReadOnlyList<RunInput> runs)
    {
        var ids = new Dictionary<RunInput, string>(ReferenceEqualityComparer.Instance);
        var taken = new HashSet<string>();
        foreach (var run in runs)
        {
            var id = $"r-{Words.Id(run.Label)}";
            for (var n = 2; !taken.Add(id); n++)
                id = string.Create(CultureInfo.InvariantCulture, $"r-{Words.Id(run.Label)}-{n}");
            // No id of one run begins with that of another and a number of its parts.
            ids[run] = id;
        }
        return ids;
    }

    private static IEnumerable<ReportPart> Overview(IReadOnlyList<RunInput> runs)
    {
        yield return new ReportTable("runs-table", "The folders that this report is made of", ["run", "folder", "what it is", "model", "task", "state"],
            [.. runs.Select(r => (IReadOnlyList<ReportCell>)
            [
                r.Label, r.Path, r.Kind, Model(r) is { Length: > 0 } model ? model : Cells.None, Task(r) is { Length: > 0 } task ? task : Cells.None, r.Notes.Any() ? "see the note below" : "whole",
            ])]);
        foreach (var run in runs)
            foreach (var note in run.Notes)
                yield return new ReportText($"{run.Label}: {note}", IsWarning: true);
        if (!Picture.HasFonts)
            yield return new ReportText("The pictures have no text, since the machine that made them has no fonts (Debian and Ubuntu: apt-get install fonts-dejavu-core); the tables have their numbers.", IsWarning: true);
    }

    private static string Model(RunInput run) => Words.Clean(run.Selections.FirstOrDefault()?.Report.Model ?? run.Plan?.Model ?? run.Study?.Model ?? "");

    private static string Task(RunInput run) => Words.Clean(run.Study is { } study ? string.Join(", ", study.Tasks.Select(t => t.Key)) : run.Selections.FirstOrDefault()?.Report.Task ?? "");

    private static IReadOnlyList<ReportPart> Time(IReadOnlyList<RunInput> runs, Dictionary<RunInput, string> ids)
    {
        List<ReportPart> parts = [.. runs.Where(r => r.Profile is not null).SelectMany(r => TimeParts.Of(r, r.Profile!, ids[r]))];
        var without = runs.Where(r => r is { Training: not null, Profile: null }).Select(r => r.Label).ToList();
        if (without.Count > 0)
            parts.Add(new ReportText($"No time was measured of {Words.And(without)}: train with --profile to have every operation of a few steps timed."));
        return parts;
    }
}
