using NativeLora.Selection;

namespace NativeLora.Cli.Report;

/// <summary>What one folder holds.</summary>
/// <param name="Label">What it is called on the page: unlike all others.</param>
/// <param name="Path">As it was given.</param>
internal sealed record RunInput(string Label, string Path)
{
    public IReadOnlyList<SelectionInput> Selections { get; private init; } = [];

    public PlanFile? Plan { get; private init; }

    public ProfileFile? Profile { get; private init; }

    public TrainingInput? Training { get; private init; }

    public StudyInput? Study { get; private init; }

    /// <summary>What is missing.</summary>
    public IEnumerable<string> Notes => (Training?.Notes ?? []).Concat(Study?.Notes ?? []);

    /// <summary>What it is, in words.</summary>
    public string Kind => Study is not null ? "study"
        : Training is not null ? Selections.Count > 0 ? "selection and training" : "training"
        : Selections.Count > 0 ? "selection" : Plan is not null ? "plan of a training" : "profile";

    /// <summary>Reads folders; two of one name are told apart by more of their paths.</summary>
    /// <exception cref="InputException">One is no run, or holds a malformed file.</exception>
    public static IReadOnlyList<RunInput> ReadAll(IReadOnlyList<string> paths)
    {
        string[] full = [.. paths.Select(p => p.Length == 0 ? throw new InputException("a run has an empty name: give folders that select, train, run or study wrote") : System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(p)))];
        if (full.GroupBy(f => f).FirstOrDefault(g => g.Count() > 1) is { } twice)
            throw new InputException($"{twice.Key}: is given twice");
        return [.. paths.Select((p, i) => Read(NameOf(full, i), p, full[i]))];
    }

    private static string NameOf(string[] full, int i)
    {
        var parts = full[i].Split(System.IO.Path.DirectorySeparatorChar, StringSplitOptions.RemoveEmptyEntries);
        for (var length = 1; length <= parts.Length; length++)
        {
            var label = string.Join('/', parts[^length..]);
            if (!full.Where((_, j) => j != i).Any(other => other == label || other.EndsWith($"{System.IO.Path.DirectorySeparatorChar}{label}", StringComparison.Ordinal)))
                return Words.Clean(label);
        }
        return Words.Clean(full[i]);
    }

    private static RunInput Read(string label, string given, string folder)
    {
        if (!Directory.Exists(folder))
            throw new InputException($"{given}: {(File.Exists(folder) ? "is a file" : "there is no such folder")}; give folders that select, train, run or study wrote");
        bool Has(string name) => File.Exists(System.IO.Path.Combine(folder, name));
        string File_(string name) => System.IO.Path.Combine(folder, name);
        var isStudy = Has(StudyInput.StudyFile) || Has(StudyInput.SettingsFile);
        var run = new RunInput(label, Words.Clean(given))
        {
            Selections = isStudy ? [.. SelectionInput.OfStudy(label, folder)] : Has(SelectionInput.FileName) ? [SelectionInput.Read(label, folder)] : [],
            Plan = Has(PlanFile.FileName) ? PlanFile.Read(File_(PlanFile.FileName)) : null,
            Profile = Has(ProfileFile.FileName) ? ProfileFile.Read(File_(ProfileFile.FileName)) : null,
            Training = Has(TrainingInput.MetricsFile) ? TrainingInput.Read(folder) : null,
            Study = isStudy ? StudyInput.Read(folder) : null,
        };
        return run is { Selections.Count: 0, Plan: null, Profile: null, Training: null, Study: null }
            ? throw new InputException($"{given}: is no run: it holds none of {SelectionInput.FileName}, {TrainingInput.MetricsFile}, {PlanFile.FileName} and {StudyInput.StudyFile}; give folders that select, train, run or study wrote")
            : run;
    }
}

/// <summary>A selection with what lies beside it.</summary>
/// <param name="Label">What it is called on the page.</param>
/// <param name="Report">What was measured and chosen.</param>
/// <param name="Matrix">All layers against all; null where that was not kept.</param>
internal sealed record SelectionInput(string Label, SelectionReport Report, SimilarityMatrix? Matrix)
{
    public const string FileName = "selection.json";

    public static SelectionInput Read(string label, string folder)
    {
        var matrix = Path.Combine(folder, SelectionRun.SimilarityFile);
        var report = SelectionReport.Load(Path.Combine(folder, FileName));
        var all = File.Exists(matrix) ? SimilarityMatrix.Load(matrix) : null;
        if (all is not null && all.Cka.Count != report.Layers.Count + 1)
            throw RunFiles.Bad(matrix, $"it is of {all.Cka.Count - 1} layers, and {FileName} beside it of {report.Layers.Count}");
        return new SelectionInput(label, report, all);
    }

    /// <summary>What a study measured of each task.</summary>
    public static IEnumerable<SelectionInput> OfStudy(string label, string folder)
    {
        var root = Path.Combine(folder, "selection");
        return Directory.Exists(root)
            ? Directory.EnumerateFiles(root, FileName, SearchOption.AllDirectories).Order(StringComparer.Ordinal)
                .Select(file => Path.GetDirectoryName(file)!).Select(place => Read($"{label}, {Words.Clean(Path.GetRelativePath(root, place).Replace('\\', '/'))}", place))
            : [];
    }
}
