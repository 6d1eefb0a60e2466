using System.Text.Json;
using NativeLora.Data;

namespace NativeLora.Tests.Data;

public class GlueDatasetTests
{
    public static TheoryData<string> Tasks => [.. GlueTask.All.Select(t => t.Name)];

    [SharedTheory]
    [MemberData(nameof(Tasks))]
    public void Every_file_gives_the_reference_examples(string name)
    {
        var task = GlueTask.Get(name);
        using var golden = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "text", "glue", task.Folder + ".json")));
        var root = golden.RootElement;
        var labels = root.GetProperty("labels");
        Assert.Equal(labels.ValueKind == JsonValueKind.Null ? [] : labels.EnumerateArray().Select(l => l.GetString()!), task.Labels);
        Assert.Equal(labels.ValueKind == JsonValueKind.Null, task.IsRegression);
        Assert.Equal(root.GetProperty("text_a").GetString(), task.FirstColumn);
        Assert.Equal(root.GetProperty("text_b").GetString(), task.SecondColumn);
        Assert.Equal(root.GetProperty("label").GetString(), task.LabelColumn);
        Assert.NotEmpty(root.GetProperty("files").EnumerateArray());
        foreach (var file in root.GetProperty("files").EnumerateArray())
            Compare(task, file);
    }

    private static void Compare(GlueTask task, JsonElement golden)
    {
        var path = Shared.Path("data", golden.GetProperty("file").GetString()!);
        var labelled = golden.GetProperty("columns").EnumerateArray().Any(c => c.GetString() == task.LabelColumn);
        if (!labelled)
            Assert.Contains(task.LabelColumn, Assert.Throws<InputException>(() => GlueDataset.LoadFile(task, path)).Message);
        var data = GlueDataset.LoadFile(task, path, labelsRequired: labelled);
        var examples = data.Examples;
        Assert.Equal(golden.GetProperty("examples").GetInt32(), examples.Count);
        Assert.Equal(golden.GetProperty("rows_with_too_few_columns").GetInt32(), data.SkippedRows);
        if (golden.GetProperty("header").GetBoolean())
            Assert.True(examples[0].Line >= 2);
        var first = golden.GetProperty("first").EnumerateArray().ToArray();
        var last = golden.GetProperty("last").EnumerateArray().ToArray();
        Assert.Equal(first.Select(Example), examples.Take(first.Length).Select(Example));
        Assert.Equal(last.Select(Example), examples.TakeLast(last.Length).Select(Example));
        foreach (var count in golden.GetProperty("label_counts").EnumerateObject())
            Assert.Equal(count.Value.GetInt32(), examples.Count(e => e.Label == task.Labels.ToList().IndexOf(count.Name)));
        if (golden.TryGetProperty("score", out var score))
        {
            Assert.Equal(score.GetProperty("min").GetDouble(), examples.Min(e => e.Score!.Value));
            Assert.Equal(score.GetProperty("max").GetDouble(), examples.Max(e => e.Score!.Value));
            Assert.Equal(score.GetProperty("mean").GetDouble(), examples.Average(e => (double)e.Score!.Value), 1e-6);
        }
    }

    private static (string?, string?, float?) Example(JsonElement e) => (
        e.GetProperty("text_a").GetString(),
        e.GetProperty("text_b").GetString(),
        e.GetProperty("label").ValueKind == JsonValueKind.Null ? null : e.GetProperty("label").GetSingle());

    private static (string?, string?, float?) Example(TextExample e) => (e.First, e.Second, e.Label ?? e.Score);

    [SharedFact]
    public void Splits_are_found_in_the_tasks_folder_or_above()
    {
        var rte = GlueTask.Get("RTE");
        var direct = GlueDataset.Load(rte, Shared.Path("data", "glue", "RTE"), "dev");
        var above = GlueDataset.Load(rte, Shared.Path("data", "glue"), "dev");
        Assert.Equal(277, direct.Examples.Count);
        Assert.Equal(direct.Path, above.Path);
        Assert.All(GlueDataset.Load(rte, Shared.Path("data", "glue"), "test").Examples, e => Assert.Null(e.Label));
        Assert.Equal(1000, GlueDataset.Load(GlueTask.Get("mnli"), Shared.Path("data", "glue_samples"), "dev_sample.tsv").Examples.Count);
        var error = Assert.Throws<InputException>(() => GlueDataset.Load(GlueTask.Get("qnli"), Shared.Path("data", "glue"), "train"));
        Assert.Contains("train.tsv", error.Message);
    }

    /// <summary>The malformed files, all in RTE's form; what <c>wanted</c> leaves open is decided here.</summary>
    [SharedFact]
    public void Malformed_files_are_refused_with_file_and_line()
    {
        var bad = Shared.Path("fixtures", "text", "bad");
        var seen = 0;
        foreach (var row in TsvReader.WithHeader(Path.Combine(bad, "EXPECTED.tsv")).Rows().Where(r => r.Fields[1] == "tsv"))
        {
            var path = Path.Combine(bad, row.Fields[0]);
            seen++;
            if (row.Fields[3] == "accept")
            {
                Assert.Equal([0, 1], GlueDataset.LoadFile(GlueTask.Get("rte"), path).Examples.Select(e => e.Label!.Value));
                continue;
            }
            var error = Assert.Throws<InputException>(() => GlueDataset.LoadFile(GlueTask.Get("rte"), path));
            Assert.Contains(path, error.Message);
            Assert.DoesNotContain('\n', error.Message);
            if (row.Fields[0] is "label_not_in_set.tsv" or "short_row.tsv" or "not_utf8.tsv")
                Assert.Contains("line 3", error.Message);
            if (row.Fields[0] == "label_not_in_set.tsv")
                Assert.Contains("\"maybe\"; the labels are entailment, not_entailment", error.Message);
        }
        Assert.Equal(9, seen);
    }

    [Fact]
    public void Only_QQP_passes_over_short_rows()
    {
        Assert.Equal(["qqp"], GlueTask.All.Where(t => t.SkipShortRows).Select(t => t.Name));
        using var file = new TemporaryFile("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t1\n4\tx\n5\t6\t7\tc\td\t0\n");
        var data = GlueDataset.LoadFile(GlueTask.Get("qqp"), file.Path);
        Assert.Equal(1, data.SkippedRows);
        Assert.Equal([new TextExample("a", "b", 1, null, 2), new TextExample("c", "d", 0, null, 4)], data.Examples);
    }

    [Theory]
    [InlineData("abc")]
    [InlineData("NaN")]
    [InlineData("5.1")]
    [InlineData("-1")]
    [InlineData("")]
    public void A_score_that_is_none_is_refused(string score)
    {
        using var file = new TemporaryFile($"sentence1\tsentence2\tscore\na\tb\t3.5\nc\td\t{score}\n");
        Assert.Contains("line 3", Assert.Throws<InputException>(() => GlueDataset.LoadFile(GlueTask.Get("stsb"), file.Path)).Message);
    }

    [Fact]
    public void Names_and_splits()
    {
        Assert.Equal(["cola", "sst2", "mrpc", "rte", "stsb", "qnli", "qqp", "wnli", "mnli"], GlueTask.All.Select(t => t.Name));
        Assert.Equal("sst2", GlueTask.Get("SST-2").Name);
        Assert.Equal("stsb", GlueTask.Get("sts_b").Name);
        Assert.Contains("mrpc", Assert.Throws<InputException>(() => GlueTask.Get("xnli")).Message);
        Assert.Equal(["dev_matched.tsv"], GlueTask.Get("mnli").Files("dev"));
        Assert.Equal(["dev_mismatched.tsv"], GlueTask.Get("mnli").Files("dev_mismatched"));
        Assert.Throws<InputException>(() => GlueTask.Get("rte").Files("dev_mismatched"));
        Assert.Equal((3, 1, 2), (GlueTask.Get("mnli").NumLabels, GlueTask.Get("stsb").NumLabels, GlueTask.Get("cola").NumLabels));
        Assert.Equal("matthews_correlation", GlueTask.Get("cola").MainMetric);
    }
}
