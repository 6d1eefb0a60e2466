using System.Globalization;

namespace NativeLora.Data;

/// <summary>A row of a TSV file.</summary>
/// <param name="Line">Its line in the file, from 1.</param>
/// <param name="Fields">Its fields, as they stand in the file.</param>
public readonly record struct TsvRow(int Line, string[] Fields);

/// <summary>
/// Reads TSV as GLUE's files are: UTF-8, a byte order mark dropped, split on TAB, quotes are ordinary characters, only the
/// line end (\n or \r\n) stripped, blank lines passed over. Rows may have more fields than there are columns, not fewer.
/// </summary>
public sealed class TsvReader
{
    private readonly int firstRowLine;

    private TsvReader(string path, string[] columns, int firstRowLine, bool skipShortRows)
    {
        Path = path;
        Columns = columns;
        this.firstRowLine = firstRowLine;
        SkipShortRows = skipShortRows;
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>Names of the columns; in a file without a header and without given names their numbers from 0.</summary>
    public IReadOnlyList<string> Columns { get; }

    /// <summary>Whether rows with too few fields are passed over and counted instead of being an error.</summary>
    public bool SkipShortRows { get; }

    /// <summary>Rows passed over by the last <see cref="Rows"/>.</summary>
    public int SkippedRows { get; private set; }

    /// <summary>Opens a file whose first line names the columns.</summary>
    /// <exception cref="InputException">The file is missing, empty or not UTF-8.</exception>
    public static TsvReader WithHeader(string path, bool skipShortRows = false)
    {
        var (line, fields) = FirstRow(path);
        return new TsvReader(path, fields, line + 1, skipShortRows);
    }

    /// <summary>Opens a file without a header.</summary>
    /// <param name="path">The file.</param>
    /// <param name="columns">Names of the columns, or null for numbers, as many as the first row has fields.</param>
    /// <param name="skipShortRows">Whether rows with too few fields are passed over and counted.</param>
    /// <exception cref="InputException">The file is missing, empty or not UTF-8.</exception>
    public static TsvReader WithoutHeader(string path, IReadOnlyList<string>? columns = null, bool skipShortRows = false)
    {
        var (line, fields) = FirstRow(path);
        var names = columns?.ToArray() ?? [.. Enumerable.Range(0, fields.Length).Select(i => i.ToString(CultureInfo.InvariantCulture))];
        return new TsvReader(path, names, line, skipShortRows);
    }

    /// <summary>The fields of the first line that is not blank: what tells a header from a row.</summary>
    internal static (int Line, string[] Fields) FirstRow(string path)
    {
        foreach (var (line, text) in Utf8Lines.Read(path))
        {
            if (text.Length > 0)
                return (line, text.Split('\t'));
        }
        throw new InputException($"{path}: the file is empty; give a TSV file with rows");
    }

    /// <summary>Index of a column, by its name or, if no column is so named, by its number from 0.</summary>
    /// <exception cref="InputException">There is none, or several have the name.</exception>
    public int Column(string nameOrIndex) =>
        FindColumn(nameOrIndex) ?? throw new InputException(
            $"{Path}: no column {nameOrIndex}; its columns are {string.Join(", ", Columns)}");

    /// <summary>As <see cref="Column"/>, but null if there is none.</summary>
    public int? FindColumn(string nameOrIndex)
    {
        int? found = null;
        for (var i = 0; i < Columns.Count; i++)
        {
            if (Columns[i] != nameOrIndex)
                continue;
            if (found is not null)
                throw new InputException($"{Path}: two columns are named {nameOrIndex}; rename one in the first line");
            found = i;
        }
        if (found is null && int.TryParse(nameOrIndex, NumberStyles.None, CultureInfo.InvariantCulture, out var index) && index < Columns.Count)
            found = index;
        return found;
    }

    /// <summary>The rows, read as they are asked for.</summary>
    /// <exception cref="InputException">A row is short or not UTF-8, or there is no row at all.</exception>
    public IEnumerable<TsvRow> Rows()
    {
        SkippedRows = 0;
        var any = false;
        foreach (var (line, text) in Utf8Lines.Read(Path))
        {
            if (line < firstRowLine || text.Length == 0)
                continue;
            var fields = text.Split('\t');
            if (fields.Length < Columns.Count)
            {
                if (!SkipShortRows)
                    throw new InputException(
                        $"{Path}: line {line} has {fields.Length} of {Columns.Count} fields; mend the row or leave it out");
                SkippedRows++;
                continue;
            }
            any = true;
            yield return new TsvRow(line, fields);
        }
        if (!any)
            throw new InputException(SkippedRows > 0
                ? $"{Path}: all {SkippedRows} rows have too few fields (fewer than {Columns.Count}); is it split by tabs?"
                : $"{Path}: a header but no rows; give a TSV file with rows");
    }
}
