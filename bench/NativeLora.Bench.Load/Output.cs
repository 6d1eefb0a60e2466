using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using NativeLora.Bench.Compare;

namespace NativeLora.Bench.Load;

/// <summary>Tables with notes, shown, and written as Markdown and JSON where asked for.</summary>
internal sealed class Output(string name)
{
    private readonly StringBuilder _markdown = new();
    private readonly JsonObject _json = new()
    {
        ["machine"] = new JsonObject
        {
            ["processors"] = Environment.ProcessorCount,
            ["runtime"] = System.Runtime.InteropServices.RuntimeInformation.FrameworkDescription,
        },
    };

    public void Table(string key, string[] columns, IEnumerable<object[]> rows)
    {
        var array = new JsonArray();
        Line(columns);
        Line(columns.Select(_ => "---"));
        foreach (var row in rows)
        {
            Line(row.Select(Show));
            var item = new JsonObject();
            for (var c = 0; c < columns.Length; c++)
                item[columns[c]] = row[c] switch
                {
                    double d => double.IsFinite(d) ? JsonValue.Create(d) : null,
                    int i => JsonValue.Create(i),
                    long l => JsonValue.Create(l),
                    var other => JsonValue.Create(other.ToString()),
                };
            array.Add((JsonNode)item);
        }
        _json[key] = array;
        _markdown.AppendLine();
    }

    public void Note(string line)
    {
        _markdown.AppendLine(line).AppendLine();
        if (_json["notes"] is not JsonArray notes)
            _json["notes"] = notes = [];
        notes.Add((JsonNode)line);
    }

    public void Write(Options options)
    {
        Console.WriteLine(_markdown.ToString());
        if (options.Text("output") is not { } folder)
            return;
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, $"{name}.md"), _markdown.ToString());
        File.WriteAllText(Path.Combine(folder, $"{name}.json"), _json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n");
    }

    private void Line(IEnumerable<string> cells) => _markdown.Append("| ").AppendJoin(" | ", cells).AppendLine(" |");

    private static string Show(object value) => value switch
    {
        double d => double.IsFinite(d) ? d.ToString(Math.Abs(d) >= 100 ? "0" : Math.Abs(d) >= 10 ? "0.0" : "0.00", CultureInfo.InvariantCulture) : "–",
        IFormattable f => f.ToString(null, CultureInfo.InvariantCulture),
        _ => value.ToString() ?? "",
    };
}
