using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using NativeLora.Checkpoints;
using NativeLora.Cli.Show;

namespace NativeLora.Cli.Report;

/// <summary>Files beside a page: its pictures as SVG and PNG, every table as CSV, and all tables as one JSON.</summary>
internal static class ReportFiles
{
    public const string JsonFile = "report.json";

    /// <summary>Writes them all.</summary>
    /// <returns>How many files.</returns>
    public static int Write(ReportPage page, string folder)
    {
        var count = 1;
        foreach (var picture in page.Pictures)
        {
            AtomicFile.WriteAllText(Path.Combine(folder, $"{picture.Id}.svg"), Picture.SvgFile(picture));
            AtomicFile.Write(Path.Combine(folder, $"{picture.Id}.png"), stream => stream.Write(Picture.Png(picture)));
            count += 2;
        }
        foreach (var table in page.Tables)
        {
            AtomicFile.WriteAllText(Path.Combine(folder, $"{table.Id}.csv"), Csv(table));
            count++;
        }
        AtomicFile.WriteAllText(Path.Combine(folder, JsonFile), Json(page));
        return count;
    }

    /// <summary>A table as comma-separated values (RFC 4180, lines end in \n), numbers in full.</summary>
    public static string Csv(ReportTable table)
    {
        var text = new StringBuilder();
        Append(table.Columns);
        foreach (var row in table.Rows)
            Append(row.Select(c => c.Value is { } value ? value.ToString("R", CultureInfo.InvariantCulture) : c.Text == Cells.None ? "" : c.Text));
        return text.ToString();

        void Append(IEnumerable<string> fields) =>
            text.AppendJoin(',', fields.Select(f => f.AsSpan().IndexOfAny(",\"\n\r") < 0 ? f : $"\"{f.Replace("\"", "\"\"", StringComparison.Ordinal)}\"")).Append('\n');
    }

    /// <summary>All tables: numbers in full, null for what is not known.</summary>
    public static string Json(ReportPage page) => new JsonObject
    {
        ["title"] = page.Title,
        ["sections"] = new JsonArray([.. page.Sections.Select(s => (JsonNode)new JsonObject
        {
            ["id"] = s.Id,
            ["title"] = s.Title,
            ["texts"] = new JsonArray([.. s.Parts.SelectMany(Texts).Select(t => (JsonNode)t)]),
        })]),
        ["pictures"] = new JsonArray([.. page.Pictures.Select(p => (JsonNode)new JsonObject { ["id"] = p.Id, ["title"] = p.Title, ["description"] = p.Description })]),
        ["tables"] = new JsonObject(page.Tables.Select(t => KeyValuePair.Create(t.Id, (JsonNode?)new JsonObject
        {
            ["caption"] = t.Caption,
            ["columns"] = new JsonArray([.. t.Columns.Select(c => (JsonNode)c)]),
            ["rows"] = new JsonArray([.. t.Rows.Select(r => (JsonNode)new JsonArray([.. r.Select(Node)]))]),
        }))),
    }.ToJsonString(JsonText.Indented) + "\n";

    private static IEnumerable<string> Texts(ReportPart part) => part switch
    {
        ReportHeading heading => [heading.Text],
        ReportText text => [text.Text],
        ReportList list => list.Items,
        _ => [],
    };

    private static JsonNode? Node(ReportCell cell) => cell.Value is { } value ? JsonValue.Create(value) : cell.Text == Cells.None ? null : JsonValue.Create(cell.Text);
}
