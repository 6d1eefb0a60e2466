using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Xml.Linq;
using NativeLora.Cli.Report;
using NativeLora.Selection;

namespace NativeLora.Tests.Cli;

/// <summary><c>nativelora report</c>: the page says what the files say.</summary>
[Collection(ReportCollection.Name)]
public sealed class ReportTests(ReportRuns runs)
{
    private XElement Page => XDocument.Parse(File.ReadAllText(runs.Page)).Root!;

    private JsonElement Json => JsonDocument.Parse(File.ReadAllText(runs.File("report-files/report.json"))).RootElement;

    private static JsonElement Read(string path) => JsonDocument.Parse(File.ReadAllText(path)).RootElement;

    // A table of the page, its parts side by side again: what is shown, and the number behind it.
    private static List<List<string>> Table(XElement page, string id)
    {
        var parts = page.Descendants("table").Where(t => t.Attribute("id")!.Value is { } own && (own == id || (own.StartsWith(id + "-", StringComparison.Ordinal) && own[(id.Length + 1)..].All(char.IsAsciiDigit)))).ToList();
        Assert.NotEmpty(parts);
        var rows = parts[0].Element("tbody")!.Elements("tr").Select(r => new List<string> { r.Element("th")!.Value }).ToList();
        foreach (var part in parts)
            foreach (var (i, row) in part.Element("tbody")!.Elements("tr").Index())
            {
                Assert.Equal(rows[i][0], row.Element("th")!.Value);
                rows[i].AddRange(row.Elements("td").Select(td => td.Element("data")?.Attribute("value")!.Value ?? td.Value));
            }
        return rows;
    }

    private static double Number(string text) => double.Parse(text, NumberStyles.Float, CultureInfo.InvariantCulture);

    [Fact]
    public void Page_is_whole_well_formed_and_asks_for_nothing_else()
    {
        var text = File.ReadAllText(runs.Page);
        Assert.StartsWith("<!DOCTYPE html>", text, StringComparison.Ordinal);
        foreach (var not in (string[])["http:", "https:", "<script", "<img", "<link", "@import", "javascript:", "src="])
            Assert.DoesNotContain(not, text, StringComparison.OrdinalIgnoreCase);
        var page = Page;
        string[] ids = [.. page.Descendants().Attributes("id").Select(a => a.Value)];
        Assert.Equal(ids.Length, ids.Distinct().Count());
        foreach (var name in page.Descendants().Attributes("aria-labelledby").SelectMany(a => a.Value.Split(' ')))
            Assert.Contains(name, ids);
        foreach (var link in page.Descendants("a").Attributes("href"))
            Assert.Contains(link.Value[1..], ids);
        foreach (var use in page.Descendants().Attributes("clip-path"))
            Assert.Contains(use.Value["url(#".Length..^1], ids);
        Assert.Equal(["runs", "layers", "memory", "time", "curves", "studies"], page.Descendants("section").Select(s => s.Attribute("id")!.Value));
        var pictures = page.Descendants("svg").ToList();
        Assert.True(pictures.Count > 15);
        foreach (var picture in pictures)
        {
            Assert.Equal("img", picture.Attribute("role")!.Value);
            Assert.False(string.IsNullOrWhiteSpace(picture.Element("title")!.Value) || string.IsNullOrWhiteSpace(picture.Element("desc")!.Value));
            Assert.NotEmpty(picture.Ancestors("figure").Single().Descendants("table"));
            Assert.NotEmpty(picture.Descendants("text"));
        }
        foreach (var table in page.Descendants("table"))
        {
            Assert.False(string.IsNullOrWhiteSpace(table.Element("caption")!.Value));
            Assert.All(table.Descendants("th"), th => Assert.Contains(th.Attribute("scope")!.Value, (string[])["col", "row"]));
        }
        // A heading is never more than one step below the one before.
        var level = 0;
        foreach (var heading in page.Descendants().Where(e => e.Name.LocalName is ['h', >= '1' and <= '6']))
        {
            Assert.InRange(heading.Name.LocalName[1] - '0', 1, level + 1);
            level = heading.Name.LocalName[1] - '0';
        }
    }

    [Fact]
    public void Layers_are_those_of_the_selection()
    {
        foreach (var name in (string[])["picked", "chosen"])
        {
            var report = SelectionReport.Load(runs.File($"{name}/selection.json"));
            var rows = Table(Page, $"r-{name}-layers");
            Assert.Equal(report.Layers.Count, rows.Count);
            foreach (var (layer, row) in report.Layers.Zip(rows))
            {
                double?[] expected = [layer.Cka, layer.Bootstrap!.CkaLow, layer.Bootstrap.CkaHigh, layer.CkaDebiased, layer.Bootstrap.CkaDebiasedLow, layer.Bootstrap.CkaDebiasedHigh, layer.Cosine, layer.Bootstrap.SelectedFraction];
                Assert.Equal(layer.Selected ? "yes" : "no", row[1]);
                foreach (var (value, cell) in expected.Zip(row.Skip(2)))
                    Assert.Equal(value?.ToString("R", CultureInfo.InvariantCulture) ?? "–", cell);
            }
            var matrix = SimilarityMatrix.Load(runs.File($"{name}/similarity.json"));
            foreach (var (values, id) in new[] { (matrix.Cka, "cka-map"), (matrix.CkaDebiased, "cka-debiased-map") })
                foreach (var (row, cells) in values.Zip(Table(Page, $"r-{name}-{id}")))
                    Assert.Equal(row.Select(v => v?.ToString("R", CultureInfo.InvariantCulture) ?? "–"), cells.Skip(1));
            // Neighbours are what layers are ranked by.
            foreach (var layer in report.Layers)
                if (layer.Cka is { } cka)
                    Assert.Equal(cka, matrix.Cka[layer.Layer][layer.Layer + 1]!.Value, 1e-9);
        }
    }

    [Fact]
    public void Memory_and_time_are_those_of_plan_and_profile()
    {
        var plan = Read(runs.File("chosen/plan.json"));
        var (chosen, all) = (plan.GetProperty("chosen"), plan.GetProperty("all"));
        var rows = Table(Page, "r-chosen-memory");
        var total = rows.Single(r => r[0] == "all together");
        Assert.Equal(chosen.GetProperty("memory_bytes").GetProperty("total").GetDouble(), Number(total[1]));
        Assert.Equal(all.GetProperty("memory_bytes").GetProperty("total").GetDouble(), Number(total[2]));
        // The parts are the whole; what is kept lies within the arena.
        Assert.Equal(Number(total[1]), rows.Where(r => r[0] is not ("all together" or "of them kept for backward")).Sum(r => Number(r[1])));
        var live = chosen.GetProperty("live_bytes").EnumerateArray().Select(b => b.GetDouble()).ToList();
        Assert.True(live.Max() <= chosen.GetProperty("memory_bytes").GetProperty("activations").GetDouble());
        var drawn = Table(Page, "r-chosen-live").Where(r => r[0].StartsWith("chosen", StringComparison.Ordinal)).ToList();
        Assert.Equal(live.Max(), drawn.Max(r => Number(r[2])));
        Assert.Equal(live.Count, drawn.Sum(r => Number(r[1])));
        var csv = File.ReadAllLines(runs.File("report-files/r-chosen-live-operations.csv"));
        Assert.Equal(live, csv.Where(l => l.StartsWith("chosen layers,", StringComparison.Ordinal)).Select(l => Number(l.Split(',')[^1])));
        var report = Read(runs.File("chosen/report.json"));
        Assert.Equal(report.GetProperty("memory").GetProperty("measured_peak").GetDouble(), Number(Table(Page, "r-chosen-measured").Single(r => r[0] == "measured peak of the process")[1]));

        var profile = Read(runs.File("chosen/profile.json"));
        var seconds = profile.GetProperty("node_seconds").EnumerateArray().Select(s => s.GetDouble()).ToList();
        Assert.Equal(3, profile.GetProperty("steps").GetInt32());
        Assert.Equal(live.Count, seconds.Count);
        Assert.True(seconds.Sum() > 0 && seconds.Sum() <= profile.GetProperty("seconds_per_step").GetDouble());
        foreach (var id in (string[])["r-chosen-time-layers", "r-chosen-time-ops"])
            Assert.Equal(seconds.Sum(), Table(Page, id).Sum(r => Number(r[^2])), 1e-9);
        Assert.False(File.Exists(runs.File("everywhere/profile.json")));
        Assert.Contains("No time was measured of everywhere", Page.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void Curves_are_the_lines_of_the_metrics()
    {
        foreach (var (name, key) in new[] { ("loss", "loss"), ("learning-rate", "learning_rate"), ("grad-norm", "grad_norm"), ("eval-accuracy", "eval_accuracy") })
        {
            var rows = Table(Page, $"curve-{name}");
            foreach (var (column, run) in new[] { (1, "chosen"), (2, "everywhere") })
            {
                var lines = File.ReadLines(runs.File($"{run}/metrics.jsonl")).Select(l => JsonDocument.Parse(l).RootElement).Where(l => l.TryGetProperty(key, out _)).ToList();
                Assert.Equal(lines.Select(l => (l.GetProperty("step").GetInt32().ToString(CultureInfo.InvariantCulture), l.GetProperty(key).GetDouble())),
                    rows.Where(r => r[column] != "–").Select(r => (r[0], Number(r[column]))));
            }
        }
    }

    [Fact]
    public void Studies_are_those_of_their_tables_and_every_strategy_gets_a_verdict()
    {
        var task = Read(runs.File("compared/study.json")).GetProperty("tasks")[0];
        var rows = Table(Page, "r-compared-rows");
        foreach (var (row, cells) in task.GetProperty("rows").EnumerateArray().Zip(rows))
        {
            var value = row.GetProperty("metrics").GetProperty("accuracy");
            Assert.Equal(value.GetProperty("mean").GetDouble(), Number(cells[3]), 1e-12);
            Assert.Equal(value.GetProperty("std").GetDouble(), Number(cells[4]), 1e-12);
            Assert.Equal(row.GetProperty("trainable_parameters").GetDouble(), Number(cells[7]));
            Assert.Equal(row.GetProperty("planned_bytes").GetDouble(), Number(cells[8]));
        }
        var verdicts = Table(Page, "r-compared-verdicts");
        var cka = task.GetProperty("rows").EnumerateArray().Single(r => r.GetProperty("strategy").GetString() == "cka");
        var against = verdicts.Single(r => r[0] == "cka 0.5 less random");
        if (against[1] != "–")
            Assert.Equal(cka.GetProperty("versus_random").GetProperty("mean").GetDouble(), Number(against[1]), 1e-12);
        Assert.Contains(verdicts, r => r[0] == "cka 0.5 less last");
        Assert.Contains(verdicts, r => r[0] == "last 0.5 less random");
        Assert.Contains("In short: ", Page.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void Files_beside_the_page_have_the_same_numbers()
    {
        var (page, json) = (Page, Json);
        var folder = runs.File("report-files");
        foreach (var table in json.GetProperty("tables").EnumerateObject())
        {
            var csv = File.ReadAllText(Path.Combine(folder, $"{table.Name}.csv"));
            var lines = Csv(csv);
            var found = table.Value.GetProperty("rows").EnumerateArray().Select(r => r.EnumerateArray().Select(Show).ToList()).ToList();
            Assert.Equal(table.Value.GetProperty("columns").EnumerateArray().Select(c => c.GetString()), lines[0]);
            Assert.Equal(found, lines[1..]);
            if (!table.Name.EndsWith("-operations", StringComparison.Ordinal) && !table.Name.EndsWith("-all", StringComparison.Ordinal))
                Assert.Equal(found, Table(page, table.Name).Select(r => r.Select(c => c == "–" ? "" : c).ToList()));
        }
        foreach (var picture in json.GetProperty("pictures").EnumerateArray().Select(p => p.GetProperty("id").GetString()!))
        {
            var svg = XDocument.Load(Path.Combine(folder, picture + ".svg")).Root!;
            Assert.Equal("{http://www.w3.org/2000/svg}svg", svg.Name.ToString());
            var png = File.ReadAllBytes(Path.Combine(folder, picture + ".png"));
            Assert.Equal([0x89, (byte)'P', (byte)'N', (byte)'G'], png[..4]);
            Assert.Equal(2 * ReportPicture.Width, (png[18] << 8) | png[19]);
        }
        Assert.Equal(page.Descendants("svg").Count(), json.GetProperty("pictures").GetArrayLength());
        Assert.Empty(Directory.GetFiles(folder, "*.tmp"));

        static string Show(JsonElement cell) => cell.ValueKind switch
        {
            JsonValueKind.Null => "",
            JsonValueKind.Number => cell.GetDouble().ToString("R", CultureInfo.InvariantCulture),
            _ => cell.GetString()!,
        };
    }

    private static List<List<string>> Csv(string text)
    {
        var rows = new List<List<string>> { new() };
        var field = new StringBuilder();
        var quoted = false;
        for (var i = 0; i < text.Length; i++)
            switch (text[i])
            {
                case '"' when quoted && i + 1 < text.Length && text[i + 1] == '"':
                    field.Append(text[i++]);
                    break;
                case '"':
                    quoted = !quoted;
                    break;
                case ',' or '\n' when !quoted:
                    rows[^1].Add(field.ToString());
                    field.Clear();
                    if (text[i] == '\n')
                        rows.Add([]);
                    break;
                default:
                    field.Append(text[i]);
                    break;
            }
        rows.RemoveAt(rows.Count - 1);
        return rows;
    }

    [Fact]
    public void Profile_changes_no_bit_of_the_training()
    {
        string[] how = ["--layers", "1", "--max-steps", "6", "--lr", "1e-2", "--batch-size", "8"];
        runs.Go("train", ["--output", runs.File("plain"), .. how]);
        runs.Go("train", ["--output", runs.File("timed-alike"), .. how, "--profile", "2"]);
        Assert.Equal(2, Read(runs.File("timed-alike/profile.json")).GetProperty("steps").GetInt32());
        Assert.Equal(File.ReadAllBytes(runs.File("plain/adapter_model.safetensors")), File.ReadAllBytes(runs.File("timed-alike/adapter_model.safetensors")));
        Assert.False(File.Exists(runs.File("plain/profile.json")));
    }
}
