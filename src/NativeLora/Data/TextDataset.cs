using System.Globalization;

namespace NativeLora.Data;

/// <summary>
/// A data set in a file of one's own: JSON (.jsonl, .json) or TSV with a header (.tsv, .txt), and the names of its fields.
/// </summary>
public sealed record DatasetSpec
{
    /// <summary>The file.</summary>
    public required string Path { get; init; }

    /// <summary>Field of the text.</summary>
    public string TextField { get; init; } = "text";

    /// <summary>Field of the second text, for pairs.</summary>
    public string? PairField { get; init; }

    /// <summary>Field of the label or score; null for texts without one.</summary>
    public string? LabelField { get; init; }

    /// <summary>Labels in the order of their ids; null takes those of the file, sorted (as numbers if they all are whole numbers).</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>Whether the label is a score to predict, not a class.</summary>
    public bool IsRegression { get; init; }

    /// <summary>Field of the instruction, such as <c>query</c> in MetaMathQA.</summary>
    public string InstructionField { get; init; } = "instruction";

    /// <summary>Field of the output wanted, such as <c>response</c> in MetaMathQA.</summary>
    public string OutputField { get; init; } = "output";
}

/// <summary>Texts of a <see cref="DatasetSpec"/>.</summary>
public sealed class TextDataset
{
    private TextDataset(IReadOnlyList<TextExample> examples, IReadOnlyList<string> labels)
    {
        Examples = examples;
        Labels = labels;
    }

    /// <summary>The examples in the order of the file.</summary>
    public IReadOnlyList<TextExample> Examples { get; }

    /// <summary>The labels in the order of their ids; empty for scores and for texts without labels.</summary>
    public IReadOnlyList<string> Labels { get; }

    /// <summary>Reads texts with classes, scores or nothing to predict.</summary>
    /// <exception cref="InputException">The file is missing or a line of it is malformed.</exception>
    public static TextDataset LoadTexts(DatasetSpec spec)
    {
        var rows = new List<(string First, string? Second, string? Label, int Line)>();
        string?[] fields = [spec.TextField, spec.PairField, spec.LabelField];
        foreach (var (line, values) in Rows(spec.Path, fields, scalarAt: 2))
            rows.Add((values[0]!, values[1], values[2], line));

        var named = spec.LabelField is not null && !spec.IsRegression;
        var labels = new LabelSet(!named ? [] : spec.Labels ?? Discover(rows.Select(r => r.Label!)));
        var examples = rows.ConvertAll(r => new TextExample(
            r.First,
            r.Second,
            named ? labels.Id(r.Label!, spec.Path, r.Line) : null,
            spec.IsRegression && r.Label is { } score ? LabelSet.Score(score, spec.Path, r.Line) : null,
            r.Line));
        return new TextDataset(examples, labels.Names);
    }

    /// <summary>Reads instructions and outputs.</summary>
    /// <exception cref="InputException">The file is missing or a line of it is malformed.</exception>
    public static IReadOnlyList<InstructionExample> LoadInstructions(DatasetSpec spec)
    {
        var rows = new List<InstructionExample>();
        foreach (var (line, values) in Rows(spec.Path, [spec.InstructionField, spec.OutputField], scalarAt: 1))
            rows.Add(new InstructionExample(values[0]!, values[1]!, line));
        return rows;
    }

    private static string[] Discover(IEnumerable<string> labels)
    {
        var names = labels.Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal).ToArray();
        if (!names.All(n => long.TryParse(n, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out _)))
            return names;
        return [.. names.OrderBy(n => long.Parse(n, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture))];
    }

    // A field that is null is not asked for; the one at scalarAt may be a number in JSON.
    private static IEnumerable<(int Line, string?[] Values)> Rows(string path, string?[] fields, int scalarAt)
    {
        switch (System.IO.Path.GetExtension(path).ToLowerInvariant())
        {
            case ".jsonl" or ".json" or ".ndjson":
                foreach (var row in JsonLines.Read(path))
                    yield return (row.Line, [.. fields.Select((f, i) => f is null ? null : i == scalarAt ? row.Scalar(f) : row.Text(f))]);
                break;
            case ".tsv" or ".txt":
                var reader = TsvReader.WithHeader(path);
                int?[] columns = [.. fields.Select(f => f is null ? (int?)null : reader.Column(f))];
                foreach (var (line, values) in reader.Rows())
                    yield return (line, [.. columns.Select(c => c is { } at ? values[at] : null)]);
                break;
            default:
                throw new InputException($"{path}: what is in it is told by its ending; use .jsonl, .json or .tsv");
        }
    }
}
