using System.Globalization;

namespace NativeLora.Data;

/// <summary>
/// A data set in a file of one's own: JSON (.jsonl, .json) or TSV with a header (.tsv, .txt), or any other <see cref="IRowSource"/>, and the
/// names of its fields.
/// </summary>
public sealed record DatasetSpec
{
    /// <summary>The file.</summary>
    public required string Path { get; init; }

    /// <summary>The rows, where they are not to be read by the ending of <see cref="Path"/>.</summary>
    public IRowSource? Source { get; init; }

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

    /// <summary>Field of what an instruction is about, which rows may lack; null for none.</summary>
    public string? InputField { get; init; }

    /// <summary>Field of the output wanted, such as <c>response</c> in MetaMathQA.</summary>
    public string OutputField { get; init; } = "output";

    internal IRowSource Open() => Source ?? RowSources.Open(Path);
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
        var fields = new List<FieldRequest> { new(spec.TextField) };
        if (spec.PairField is { } pair)
            fields.Add(new(pair));
        if (spec.LabelField is { } label)
            fields.Add(new(label, FieldKind.Scalar));
        var rows = spec.Open().Read(fields).Select(r => (
            First: r.Values[0]!, Second: spec.PairField is null ? null : r.Values[1], Label: spec.LabelField is null ? null : r.Values[^1], r.Path, r.Line)).ToList();

        var named = spec.LabelField is not null && !spec.IsRegression;
        var labels = new LabelSet(!named ? [] : spec.Labels ?? Discover(rows.Select(r => r.Label!)));
        var examples = rows.ConvertAll(r => new TextExample(
            r.First,
            r.Second,
            named ? labels.Id(r.Label!, r.Path, r.Line) : null,
            spec.IsRegression && r.Label is { } score ? LabelSet.Score(score, r.Path, r.Line) : null,
            r.Line));
        return new TextDataset(examples, labels.Names);
    }

    /// <summary>Reads instructions and outputs.</summary>
    /// <exception cref="InputException">The file is missing or a line of it is malformed.</exception>
    public static IReadOnlyList<InstructionExample> LoadInstructions(DatasetSpec spec)
    {
        var fields = new List<FieldRequest> { new(spec.InstructionField), new(spec.OutputField, FieldKind.Scalar) };
        if (spec.InputField is { } input)
            fields.Add(new(input, FieldKind.OptionalText));
        return [.. spec.Open().Read(fields).Select(r => new InstructionExample(
            r.Values[0]!, r.Values[1]!, r.Line, spec.InputField is not null && r.Values[2] is { Length: > 0 } given ? given : null))];
    }

    /// <summary>The labels that occur, sorted, as numbers if they all are whole numbers.</summary>
    internal static string[] Discover(IEnumerable<string> labels)
    {
        var names = labels.Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal).ToArray();
        if (!names.All(n => long.TryParse(n, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out _)))
            return names;
        return [.. names.OrderBy(n => long.Parse(n, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture))];
    }
}
