using System.Text.Json;
using System.Xml.Linq;
using NativeLora.Cli.Report;

namespace NativeLora.Tests.Cli;

/// <summary>What <c>nativelora report</c> does with folders that are no runs, half-written ones, and names that would be code.</summary>
[Collection(ReportCollection.Name)]
public sealed class ReportMistakeTests(ReportRuns runs)
{
    private void Refused(string saying, params string[] arguments)
    {
        var page = runs.File("never.html");
        var error = Assert.Throws<InputException>(() => { ReportRuns.Invoke([.. arguments, "--output", page]); });
        Assert.Contains(saying, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
        Assert.False(File.Exists(page));
    }

    [Fact]
    public void Folders_that_are_no_runs_are_refused()
    {
        Refused("there is no such folder", runs.File("nowhere"));
        Refused("is a file", runs.File("data.tsv"));
        Refused("is no run: it holds none of", runs.File("model"));
        Refused("is given twice", runs.File("chosen"), runs.File("chosen") + "/");
        Refused("is a run, which the files of the report would be mixed with", runs.File("chosen"), "--pictures", runs.File("chosen"));
        Refused("is a file", runs.File("chosen"), "--pictures", runs.File("data.tsv"));
        Assert.Contains("give --output FILE", Assert.Throws<InputException>(() => { ReportRuns.Invoke(runs.File("chosen")); }).Message, StringComparison.Ordinal);
        Assert.Contains("is a folder", Assert.Throws<InputException>(() => { ReportRuns.Invoke(runs.File("chosen"), "--output", runs.File("model")); }).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("chosen", "selection.json", "{", "not a selection report")]
    [InlineData("chosen", "similarity.json", "{\"samples\":1,\"cka\":[[1]],\"cka_debiased\":[[1]]}", "not square")]
    [InlineData("chosen", "similarity.json", "{\"samples\":2,\"cka\":[[1,1],[1,1]],\"cka_debiased\":[[1,1],[1,1]]}", "it is of 1 layers, and selection.json beside it of 2")]
    [InlineData("chosen", "plan.json", "{}", "plan.json: cannot be read")]
    [InlineData("chosen", "plan.json", "null", "it holds null")]
    [InlineData("chosen", "profile.json", "[]", "profile.json: cannot be read")]
    [InlineData("chosen", "report.json", "{\"steps\":\"many\"}", "it does not tell its steps")]
    [InlineData("chosen", "report.json", "[]", "it is no JSON object")]
    [InlineData("chosen", "metrics.jsonl", "{\"step\":1,\"loss\":1}\nnonsense\n{\"step\":2,\"loss\":1}\n", "metrics.jsonl, line 2: cannot be read")]
    [InlineData("chosen", "metrics.jsonl", "{\"loss\":1}\n", "line 1: cannot be read: it has no step")]
    [InlineData("chosen", "metrics.jsonl", "{\"step\":1,\"loss\":\"low\"}\n", "loss is not a number")]
    [InlineData("compared", "study.json", "{\"tasks\":[]}", "it has no list \"cells\"")]
    [InlineData("compared", "study.json", "{\"cells\":[{\"task\":\"t\"}],\"tasks\":[]}", "a cell has no evaluations")]
    [InlineData("compared", "study.json", "{\"cells\":[],\"tasks\":[{\"task\":\"t\",\"metric\":\"m\",\"rows\":[{\"strategy\":\"s\"}]}]}", "there is no cell of s in task t")]
    public void Malformed_files_are_named(string run, string file, string content, string saying)
    {
        var folder = runs.Copy(run, $"bad-{Guid.NewGuid():N}");
        File.WriteAllText(Path.Combine(folder, file), content);
        Refused(saying, folder);
    }

    [Fact]
    public void Training_that_goes_on_is_shown_as_far_as_it_is()
    {
        var folder = runs.Copy("chosen", "going-on");
        File.Delete(Path.Combine(folder, "report.json"));
        File.Delete(Path.Combine(folder, "profile.json"));
        var lines = File.ReadAllLines(Path.Combine(folder, "metrics.jsonl"));
        File.WriteAllText(Path.Combine(folder, "metrics.jsonl"), $"{string.Join('\n', lines[..4])}\n{lines[4][..20]}");
        var page = XDocument.Load(runs.Make("going-on.html", folder)).Root!;
        Assert.Contains("This training has not ended", page.Value, StringComparison.Ordinal);
        Assert.Contains("Line 5 of metrics.jsonl is only half written", page.Value, StringComparison.Ordinal);
        Assert.Contains(page.Descendants("figure"), f => f.Attribute("id")!.Value == "fig-curve-loss");
        Assert.Contains("not ended", page.Descendants("table").First(t => t.Attribute("id")!.Value.StartsWith("trainings", StringComparison.Ordinal)).Value, StringComparison.Ordinal);

        // Trained anew over the results of before.
        var again = runs.Copy("chosen", "again");
        File.WriteAllText(Path.Combine(again, "metrics.jsonl"), lines[0] + "\n");
        Assert.Contains("the folder is being trained anew or further", XDocument.Load(runs.Make("again.html", again)).Root!.Value, StringComparison.Ordinal);

        // Nothing was logged yet.
        File.WriteAllText(Path.Combine(folder, "metrics.jsonl"), "");
        Assert.Contains("Shown is what there is, 0 steps", XDocument.Load(runs.Make("going-on.html", folder)).Root!.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void Study_that_goes_on_is_shown_by_mask()
    {
        var folder = runs.Copy("compared", "study-on");
        File.Delete(Path.Combine(folder, "study.json"));
        File.Delete(Directory.GetFiles(Path.Combine(folder, "cells"), "result.json", SearchOption.AllDirectories).Order(StringComparer.Ordinal).First());
        var page = XDocument.Load(runs.Make("study-on.html", folder)).Root!;
        Assert.Contains("This study has not ended", page.Value, StringComparison.Ordinal);
        Assert.Contains("1 have begun", page.Value, StringComparison.Ordinal);
        Assert.DoesNotContain("In short", page.Value, StringComparison.Ordinal);
        Assert.Contains(page.Descendants("figure"), f => f.Attribute("id")!.Value == "fig-r-study-on-parameters");
    }

    [Fact]
    public void Names_that_would_be_code_are_words()
    {
        const string evil = "</title><script>alert(1)</script>&\"'><img src=x onerror=alert(2)>";
        var folder = runs.Copy("chosen", "<script>alert(0)<");
        var selection = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "selection.json"))).RootElement.EnumerateObject().ToDictionary(p => p.Name, p => (object)p.Value);
        (selection["model"], selection["task"]) = (evil, $"task\u0001\ufffe{evil}");
        File.WriteAllText(Path.Combine(folder, "selection.json"), JsonSerializer.Serialize(selection));
        File.AppendAllText(Path.Combine(folder, "metrics.jsonl"), $"{{\"step\":{int.MaxValue},{JsonSerializer.Serialize("eval_" + evil)}:1}}\n");
        var plan = File.ReadAllText(Path.Combine(folder, "plan.json"));
        File.WriteAllText(Path.Combine(folder, "plan.json"), plan.Replace("\"name\":[\"", "\"name\":[\"</svg><script>alert(3)</script>", StringComparison.Ordinal));
        var text = File.ReadAllText(runs.Make("evil.html", folder));
        Assert.DoesNotContain("<script", text, StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain("<img", text, StringComparison.OrdinalIgnoreCase);
        var page = XDocument.Parse(text).Root!;
        Assert.Contains(evil, page.Value, StringComparison.Ordinal);
        Assert.Contains("<script>alert(0)<", page.Value, StringComparison.Ordinal);
        // No name of a file leaves the folder.
        Assert.All(Directory.GetFileSystemEntries(runs.File("evil-files")), f => Assert.Matches("^[a-z0-9.-]+$", Path.GetFileName(f)));
    }

    [Fact]
    public void Runs_of_one_name_are_told_apart()
    {
        var (first, second) = (runs.Copy("everywhere", "one/same"), runs.Copy("everywhere", "two/same"));
        var page = XDocument.Load(runs.Make("same.html", first, second)).Root!;
        Assert.Contains("one/same", page.Value, StringComparison.Ordinal);
        Assert.Contains("two/same", page.Value, StringComparison.Ordinal);
        string[] ids = [.. page.Descendants().Attributes("id").Select(a => a.Value)];
        Assert.Equal(ids.Length, ids.Distinct().Count());
    }

    private static StudyTaskInput Task(string metric, params (string Strategy, string Cost, string Mask, double[] Values)[] rows) => new("t", metric,
        [.. rows.Select(r => new StudyRowInput(r.Strategy, r.Cost, [.. r.Values.Select((v, s) => new StudyCellInput("t", r.Strategy, r.Cost, (ulong)s, r.Mask, new Dictionary<string, double?> { [metric] = v }, 10, 100, null, null, null))]))]);

    [Fact]
    public void Verdicts_follow_the_intervals()
    {
        var task = Task("accuracy",
            ("random", "0.5", "0110", [0.50, 0.52, 0.51]), ("last", "0.5", "0011", [0.60, 0.50, 0.55]), ("cka", "0.5", "0011", [0.60, 0.50, 0.55]),
            ("gradient", "0.5", "1001", [0.80, 0.83, 0.82]), ("first", "0.5", "1100", [0.30, 0.31, 0.29]), ("all", "", "1111", [0.9, 0.9, 0.9]), ("cka", "0.25", "0001", [0.5, 0.5, 0.5]),
            ("1010", "", "1010", [0.51, 0.52, 0.50]));
        var found = StudyVerdict.All(task).ToDictionary(v => (v.Row.Label, v.Against), v => v.Short);
        Assert.Equal("no difference shown", found[("cka 0.5", "random")]);
        Assert.Equal("the same layers", found[("cka 0.5", "last")]);
        Assert.Equal("beats it", found[("gradient 0.5", "random")]);
        Assert.Equal("beats it", found[("gradient 0.5", "last")]);
        Assert.Equal("is beaten", found[("first 0.5", "random")]);
        Assert.Equal("no random of equal cost", found[("cka 0.25", "random")]);
        Assert.Equal("no difference shown", found[("1010", "random")]);
        Assert.DoesNotContain(found.Keys, k => k.Label == "all" || k.Label.StartsWith("random", StringComparison.Ordinal));
        var words = StudyVerdict.Words(task, StudyVerdict.All(task));
        Assert.Contains("In short: gradient 0.5 was shown to beat both random and last layers at equal cost.", words);
        // Of a loss the lower one is better.
        var loss = Task("loss", ("random", "0.5", "0110", [0.5, 0.52, 0.51]), ("cka", "0.5", "0011", [0.3, 0.33, 0.31]));
        Assert.Equal("beats it", StudyVerdict.All(loss).Single(v => v.Against == "random").Short);
        Assert.Contains("In short: here no strategy was shown to beat both random and last layers at equal cost.", StudyVerdict.Words(loss, StudyVerdict.All(loss)));
        var single = Task("accuracy", ("random", "0.5", "0110", [0.5]), ("last", "0.5", "0101", [0.5]), ("cka", "0.5", "0011", [0.9]));
        Assert.All(StudyVerdict.All(single), v => Assert.Equal("one seed: no verdict", v.Short));
    }
}
