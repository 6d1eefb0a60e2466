using System.Globalization;
using System.Text.Json;

namespace NativeLora.Cli.Report;

/// <summary>A line of <c>metrics.jsonl</c>: values by name.</summary>
/// <param name="Step">The step.</param>
/// <param name="Epoch">Passes over the rows; null where it is not told.</param>
/// <param name="Values">By name; null where a value is not a number.</param>
internal sealed record MetricLine(int Step, double? Epoch, IReadOnlyDictionary<string, double?> Values);

/// <summary>What a training left: its curves, and what came out if it has ended.</summary>
/// <param name="Lines">Lines of metrics.jsonl in order, steps and evaluations.</param>
/// <param name="Report">report.json; null where the training has not ended.</param>
/// <param name="Notes">What is missing.</param>
internal sealed record TrainingInput(IReadOnlyList<MetricLine> Lines, JsonElement? Report, IReadOnlyList<string> Notes)
{
    public const string MetricsFile = "metrics.jsonl";

    private const long MostBytes = 1L << 30;
    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false, MaxDepth = 8 };

    /// <summary>Names of the values in the order in which they first come.</summary>
    public IEnumerable<string> Names => Lines.SelectMany(l => l.Values.Keys).Distinct();

    /// <summary>A curve by step.</summary>
    public IReadOnlyList<(int Step, double Value)> Curve(string name) =>
        [.. Lines.Where(l => l.Values.GetValueOrDefault(name) is not null).Select(l => (l.Step, l.Values[name]!.Value))];

    /// <summary>A number of report.json; null where it is not there.</summary>
    public double? Number(params ReadOnlySpan<string> path)
    {
        if (Report is not { } at)
            return null;
        foreach (var name in path)
            if (at.ValueKind != JsonValueKind.Object || !at.TryGetProperty(name, out at))
                return null;
        return at.ValueKind == JsonValueKind.Number ? at.GetDouble() : null;
    }

    /// <exception cref="InputException">A file is malformed.</exception>
    public static TrainingInput Read(string folder)
    {
        var notes = new List<string>();
        var lines = ReadLines(Path.Combine(folder, MetricsFile), notes);
        var path = Path.Combine(folder, TrainingRun.ReportFile);
        JsonElement? report = File.Exists(path) ? ReportJson.Read(path) : null;
        var last = lines.Count == 0 ? 0 : lines.Max(l => l.Step);
        var steps = report?.Number("steps");
        if (report is not null && steps is null)
            throw RunFiles.Bad(path, "it does not tell its steps");
        if (report is not null && steps != last)
        {
            notes.Add(string.Create(CultureInfo.InvariantCulture, $"report.json tells of {steps} steps, metrics.jsonl of {last}: the folder is being trained anew or further, so report.json is left out."));
            report = null;
        }
        else if (report is null)
            notes.Add(string.Create(CultureInfo.InvariantCulture, $"This training has not ended: it is still running, or was interrupted. Shown is what there is, {last} steps."));
        return new TrainingInput(lines, report, notes);
    }

    private static List<MetricLine> ReadLines(string path, List<string> notes)
    {
        var text = ReportJson.Text(path, MostBytes);
        var lines = new List<MetricLine>();
        var number = 0;
        for (var start = 0; start < text.Length;)
        {
            var end = text.IndexOf('\n', start);
            var line = text[start..(end < 0 ? text.Length : end)];
            start = end < 0 ? text.Length : end + 1;
            number++;
            if (string.IsNullOrWhiteSpace(line))
                continue;
            try
            {
                lines.Add(Parse(line));
            }
            catch (JsonException e)
            {
                // A line that is being written has no end yet.
                if (end < 0)
                {
                    notes.Add(string.Create(CultureInfo.InvariantCulture, $"Line {number} of metrics.jsonl is only half written and is left out."));
                    break;
                }
                throw new InputException($"{path}, line {number}: cannot be read: {e.Message.ReplaceLineEndings(" ")}; resume the training, which writes it anew from its last checkpoint", e);
            }
        }
        return lines;
    }

    private static MetricLine Parse(string line)
    {
        using var json = JsonDocument.Parse(line, Strict);
        var root = json.RootElement;
        if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("step", out var step) || step.ValueKind != JsonValueKind.Number || !step.TryGetInt32(out var at) || at < 0)
            throw new JsonException("it has no step");
        var values = new Dictionary<string, double?>();
        foreach (var property in root.EnumerateObject())
            if (property.Name is not ("step" or "epoch"))
                values[Words.Clean(property.Name)] = property.Value.ValueKind switch
                {
                    JsonValueKind.Number => Finite(property.Value),
                    JsonValueKind.Null => null,
                    _ => throw new JsonException($"{Words.Clean(property.Name)} is not a number"),
                };
        return new MetricLine(at, root.TryGetProperty("epoch", out var epoch) && epoch.ValueKind == JsonValueKind.Number ? Finite(epoch) : null, values);
    }

    private static double? Finite(JsonElement number) => number.TryGetDouble(out var value) && double.IsFinite(value) ? value : null;
}
