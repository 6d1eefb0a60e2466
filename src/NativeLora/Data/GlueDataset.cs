namespace NativeLora.Data;

/// <summary>Examples of a GLUE task.</summary>
public sealed class GlueDataset
{
    private GlueDataset(GlueTask task, string path, IReadOnlyList<TextExample> examples, int skippedRows)
    {
        Task = task;
        Path = path;
        Examples = examples;
        SkippedRows = skippedRows;
    }

    /// <summary>The task.</summary>
    public GlueTask Task { get; }

    /// <summary>The file they came from.</summary>
    public string Path { get; }

    /// <summary>The examples in the order of the file.</summary>
    public IReadOnlyList<TextExample> Examples { get; }

    /// <summary>Rows passed over because they had too few fields (QQP only).</summary>
    public int SkippedRows { get; }

    /// <summary>Reads a split.</summary>
    /// <param name="task">The task.</param>
    /// <param name="folder">The task's folder, or the folder of all tasks.</param>
    /// <param name="split">As in <see cref="GlueTask.Files"/>; only a test split may lack labels.</param>
    /// <exception cref="InputException">A file is missing or malformed.</exception>
    public static GlueDataset Load(GlueTask task, string folder, string split)
    {
        var names = task.Files(split);
        foreach (var at in (string[])[folder, System.IO.Path.Combine(folder, task.Folder)])
        {
            foreach (var name in names)
            {
                var path = System.IO.Path.Combine(at, name);
                if (File.Exists(path))
                    return LoadFile(task, path, labelsRequired: !split.StartsWith("test", StringComparison.Ordinal));
            }
        }
        throw new InputException($"{folder}: no {string.Join(" or ", names)} of {task.Name} there; give the folder that holds it");
    }

    /// <summary>Reads one file in the task's form.</summary>
    /// <param name="task">The task.</param>
    /// <param name="path">The file.</param>
    /// <param name="labelsRequired">Whether a file without the label column is an error; else its examples have no labels.</param>
    /// <exception cref="InputException">The file is missing or malformed.</exception>
    public static GlueDataset LoadFile(GlueTask task, string path, bool labelsRequired = true)
    {
        var reader = Open(task, path);
        var first = reader.Column(task.FirstColumn);
        int? second = task.SecondColumn is { } name ? reader.Column(name) : null;
        var label = labelsRequired ? reader.Column(task.LabelColumn) : reader.FindColumn(task.LabelColumn);
        var labels = new LabelSet(task.Labels);
        var examples = new List<TextExample>();
        foreach (var (line, fields) in reader.Rows())
        {
            int? id = null;
            float? score = null;
            if (label is { } column)
            {
                if (task.IsRegression)
                    score = LabelSet.Score(fields[column], path, line, 0, 5);
                else
                    id = labels.Id(fields[column], path, line);
            }
            examples.Add(new TextExample(fields[first], second is { } at ? fields[at] : null, id, score, line));
        }
        return new GlueDataset(task, path, examples, reader.SkippedRows);
    }

    // CoLA's train and dev files and sts-test-labelled.tsv begin with a row, their test files with a header.
    private static TsvReader Open(GlueTask task, string path) =>
        task.ColumnsWithoutHeader is { } columns && !TsvReader.FirstRow(path).Fields.Contains(task.FirstColumn)
            ? TsvReader.WithoutHeader(path, columns, task.SkipShortRows)
            : TsvReader.WithHeader(path, task.SkipShortRows);
}
