namespace NativeLora.Cli.Report;

/// <summary>A report before it is written: its sections in order.</summary>
/// <param name="Title">Over all.</param>
/// <param name="Lead">What it is, in a sentence or two.</param>
/// <param name="Sections">In order.</param>
internal sealed record ReportPage(string Title, string Lead, IReadOnlyList<ReportSection> Sections)
{
    public IEnumerable<ReportPicture> Pictures => Sections.SelectMany(s => s.Parts).OfType<ReportPicture>();

    /// <summary>All tables, those of pictures included.</summary>
    public IEnumerable<ReportTable> Tables => Sections.SelectMany(s => s.Parts).SelectMany(p => p switch
    {
        ReportPicture picture => picture.Whole is { } whole ? [picture.Table, whole] : [picture.Table],
        ReportTable table => (IEnumerable<ReportTable>)[table],
        _ => [],
    });
}

/// <summary>A section under a heading.</summary>
/// <param name="Id">Unique on the page.</param>
/// <param name="Title">The heading.</param>
/// <param name="Parts">Texts, pictures and tables in order.</param>
internal sealed record ReportSection(string Id, string Title, IReadOnlyList<ReportPart> Parts);

/// <summary>A part of a section.</summary>
internal abstract record ReportPart;

/// <summary>A heading within a section.</summary>
internal sealed record ReportHeading(string Text) : ReportPart;

/// <summary>A paragraph.</summary>
/// <param name="Text">Its words.</param>
/// <param name="IsWarning">Whether it says that something is not as it should be.</param>
internal sealed record ReportText(string Text, bool IsWarning = false) : ReportPart;

/// <summary>Sentences one below the other.</summary>
internal sealed record ReportList(IReadOnlyList<string> Items) : ReportPart;

/// <summary>A table: its first column names the rows.</summary>
/// <param name="Id">Unique on the page, and the name of its file.</param>
/// <param name="Caption">What it shows.</param>
/// <param name="Columns">Heads.</param>
/// <param name="Rows">A cell a column.</param>
internal sealed record ReportTable(string Id, string Caption, IReadOnlyList<string> Columns, IReadOnlyList<IReadOnlyList<ReportCell>> Rows) : ReportPart;

/// <summary>A picture, whose numbers are a table below it.</summary>
/// <param name="Id">Unique on the page, and the name of its files.</param>
/// <param name="Title">Its name.</param>
/// <param name="Description">What a person who does not see it must know.</param>
/// <param name="Draw">Draws it.</param>
/// <param name="Height">Units of height, where its width is <see cref="Width"/>.</param>
/// <param name="Table">Its numbers, or their sums where they are very many.</param>
internal sealed record ReportPicture(string Id, string Title, string Description, Action<ScottPlot.Plot> Draw, int Height, ReportTable Table) : ReportPart
{
    public const int Width = 760;

    /// <summary>Every number that is drawn, where <see cref="Table"/> only has their sums; it is in files alone.</summary>
    public ReportTable? Whole { get; init; }
}

/// <summary>A cell: what is shown, and the whole number where that is rounded.</summary>
/// <param name="Text">What is shown.</param>
/// <param name="Value">The number as it is; null for words and for what is not known.</param>
internal readonly record struct ReportCell(string Text, double? Value = null)
{
    public static implicit operator ReportCell(string text) => new(text);

    public bool IsNumber => Value is not null;
}
