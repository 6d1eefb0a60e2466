using CsCheck;
using NativeLora.Data;

namespace NativeLora.Tests.Data;

public class TextDatasetTests
{
    [Fact]
    public void Classes_come_from_JSON_lines_or_TSV_alike()
    {
        using var json = new TemporaryFile("{\"t\":\"a\",\"p\":\"b\",\"l\":10}\n\n{\"t\":\"c\",\"p\":\"d\",\"l\":\"9\"}\n", ".jsonl");
        using var tsv = new TemporaryFile("t\tp\tl\na\tb\t10\n\nc\td\t9\n".Replace("a\tb", "\na\tb"));
        var fromJson = TextDataset.LoadTexts(new() { Path = json.Path, TextField = "t", PairField = "p", LabelField = "l" });
        var fromTsv = TextDataset.LoadTexts(new() { Path = tsv.Path, TextField = "t", PairField = "p", LabelField = "l" });
        Assert.Equal(["9", "10"], fromJson.Labels);
        Assert.Equal(fromJson.Labels, fromTsv.Labels);
        Assert.Equal([new("a", "b", 1, null, 1), new("c", "d", 0, null, 3)], fromJson.Examples);
        Assert.Equal([new("a", "b", 1, null, 3), new("c", "d", 0, null, 5)], fromTsv.Examples);
    }

    [Fact]
    public void Given_labels_keep_their_order_and_are_the_only_ones()
    {
        using var file = new TemporaryFile("text\tlabel\nx\tneg\ny\tpos\n");
        var spec = new DatasetSpec { Path = file.Path, LabelField = "label", Labels = ["pos", "neg"] };
        Assert.Equal([1, 0], TextDataset.LoadTexts(spec).Examples.Select(e => e.Label!.Value));
        var error = Assert.Throws<InputException>(() => TextDataset.LoadTexts(spec with { Labels = ["neg", "good"] }));
        Assert.Contains($"{file.Path}: line 3", error.Message);
        Assert.Contains("neg, good", error.Message);
        Assert.Throws<InputException>(() => TextDataset.LoadTexts(spec with { Labels = ["neg", "neg", "pos"] }));
        Assert.Equal(["neg", "pos"], TextDataset.LoadTexts(spec with { Labels = null }).Labels);
    }

    [Fact]
    public void Scores_and_bare_texts()
    {
        using var file = new TemporaryFile("{\"text\":\"x\",\"s\":-2.5}\n", ".jsonl");
        var spec = new DatasetSpec { Path = file.Path, LabelField = "s", IsRegression = true };
        Assert.Equal(new TextExample("x", null, null, -2.5f, 1), TextDataset.LoadTexts(spec).Examples.Single());
        Assert.Equal(new TextExample("x", null, null, null, 1), TextDataset.LoadTexts(spec with { LabelField = null }).Examples.Single());
    }

    [Fact]
    public void Instructions_come_from_lines_or_from_one_array()
    {
        const string Rows = "{\"query\":\"q1\",\"response\":\"r\\n1\"},\n  {\"query\":\"q2\",\n\"response\":\"\"}";
        using var array = new TemporaryFile($"\uFEFF\n[ {Rows}\n]\n", ".json");
        using var lines = new TemporaryFile(Rows.Replace(",\n\"", ",\"").Replace("},", "}"), ".jsonl");
        InstructionExample[] wanted = [new("q1", "r\n1", 1), new("q2", "", 2)];
        foreach (var (path, shift) in new[] { (array.Path, 1), (lines.Path, 0) })
        {
            var rows = TextDataset.LoadInstructions(new() { Path = path, InstructionField = "query", OutputField = "response" });
            Assert.Equal(wanted.Select(w => w with { Line = w.Line + shift }), rows);
        }
    }

    [SharedFact]
    public void MetaMathQA_and_GSM8K_are_read()
    {
        var meta = TextDataset.LoadInstructions(new()
        {
            Path = Shared.Path("data", "gsm8k", "metamathqa_schema_rows.json"),
            InstructionField = "query",
            OutputField = "response",
        });
        Assert.StartsWith("Gracie and Joe", meta[0].Instruction, StringComparison.Ordinal);
        Assert.Equal(2, meta[0].Line);
        var gsm = TextDataset.LoadInstructions(new()
        {
            Path = Shared.Path("data", "gsm8k", "test.jsonl"),
            InstructionField = "question",
            OutputField = "answer",
        });
        Assert.Equal(1319, gsm.Count);
        Assert.All(gsm, r => Assert.Contains("\n#### ", r.Output));
    }

    [Theory]
    [InlineData("{\"instruction\":\"a\",\"output\":\"b\"}\n{\"instruction\":\"a\"", 2)]
    [InlineData("{\"instruction\":\"a\",\"output\":\"b\"}\n{\"instruction\":\"a\"}", 2)]
    [InlineData("{\"instruction\":\"a\",\"output\":\"b\"}\n[1]", 2)]
    [InlineData("{\"instruction\":\"a\",\"output\":\"b\"}\n\"text\"", 2)]
    [InlineData("{\"instruction\":1,\"output\":\"b\"}", 1)]
    [InlineData("{\"instruction\":\"\\ud800\",\"output\":\"b\"}", 1)]
    [InlineData("{\"instruction\":\"a\",\"output\":null}", 1)]
    [InlineData("[{\"instruction\":\"a\",\"output\":\"b\"},\n\n{\"instruction\":\"a\",}]", 3)]
    [InlineData("[{\"instruction\":\"a\",\"output\":\"b\"},\n\n7]", 3)]
    [InlineData("[{\"instruction\":\"a\",\"output\":\"b\"}\n", 2)]
    [InlineData("[{\"instruction\":\"a\",\"output\":\"b\"}\n]\n{}", 3)]
    public void A_bad_line_is_named(string text, int line)
    {
        using var file = new TemporaryFile(text, ".jsonl");
        var error = Assert.Throws<InputException>(() => TextDataset.LoadInstructions(new() { Path = file.Path }));
        Assert.StartsWith($"{file.Path}: line {line}", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Theory]
    [InlineData("", ".jsonl")]
    [InlineData("[]", ".json")]
    [InlineData("[", ".json")]
    [InlineData("{}", ".csv")]
    public void What_holds_no_rows_is_refused(string text, string ending)
    {
        using var file = new TemporaryFile(text, ending);
        Assert.Throws<InputException>(() => TextDataset.LoadInstructions(new() { Path = file.Path }));
    }

    [Fact]
    public void An_array_that_is_not_UTF8_is_refused_with_its_line()
    {
        using var file = new TemporaryFile([.. "[\n\""u8, 0xFF, .. "\"]"u8], ".json");
        Assert.Contains("line 2", Assert.Throws<InputException>(() => TextDataset.LoadInstructions(new() { Path = file.Path })).Message);
    }

    [Fact]
    public void Any_text_is_read_or_refused_but_nothing_else() =>
        Gen.Char["[]{},:\"\\u1 \na"].Array[0, 24].Sample(chars =>
        {
            using var file = new TemporaryFile(new string(chars), ".json");
            try
            {
                Assert.NotEmpty(JsonLines.Read(file.Path));
            }
            catch (InputException e)
            {
                Assert.DoesNotContain('\n', e.Message);
            }
        }, iter: 1000, threads: 1);
}
