using System.IO.Compression;
using NativeLora.Cli.Options;
using NativeLora.Cli.Rows;
using NativeLora.Cli.Tasks;
using NativeLora.Data;
using Parquet;
using Parquet.Schema;
using static NativeLora.Fuzz.CheckpointReaders;

namespace NativeLora.Fuzz;

/// <summary>Readers of data sets.</summary>
internal static class DataReaders
{
    private static readonly FieldRequest[] Fields = [new("text"), new("label", FieldKind.Scalar), new("input", FieldKind.OptionalText)];

    public static IEnumerable<FuzzReader> All =>
    [
        FuzzReader.Of("glue", "TSV of GLUE tasks", Glue, folder =>
        {
            foreach (var path in Directory.EnumerateFiles(folder))
                _ = GlueDataset.LoadFile(GlueTask.Get(Path.GetFileNameWithoutExtension(path)), path).Examples.Count;
        }) with { Words = ["\tsentence", "0\t", "label", "\r\n", "3.5", "not_entailment", "\ufeff"] },
        FuzzReader.Of("tsv", "TSV with a header", () => [FuzzCase.Of("rows.tsv", "text\tinput\tlabel\nab\tx\tyes\ncd \"e\t\tno\n")], Rows),
        FuzzReader.Of("json-lines", ".jsonl", () => [FuzzCase.Of("rows.jsonl", "{\"text\": \"a\", \"label\": 1, \"input\": null}\n\n{\"text\": \"b\\u00e9\", \"label\": \"x\", \"more\": [1, {\"a\": 2}]}\n")], Rows),
        FuzzReader.Of("json-array", "one JSON array", () => [FuzzCase.Of("rows.json", "[\n {\"text\": \"a\", \"label\": 1},\n {\"text\": \"b\", \"label\": true, \"input\": \"c\"}\n]\n")], Rows),
        FuzzReader.Of("gzip", ".jsonl.gz, .tsv.gz", () =>
        [
            FuzzCase.Of("rows.jsonl.gz", Packed("{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": 2}\n")),
            FuzzCase.Of("rows.json.gz", Packed("[{\"text\": \"a\", \"label\": 1}]")),
            FuzzCase.Of("rows.tsv.gz", Packed("text\tlabel\na\t1\n")),
        ], Rows),
        FuzzReader.Of("parquet", ".parquet", () => [FuzzCase.Of("rows.parquet", Parquet(CompressionMethod.None)), FuzzCase.Of("rows.parquet", Parquet(CompressionMethod.Snappy)), FuzzCase.Of("rows.parquet", Parquet(CompressionMethod.Gzip))], Rows) with { Allocates = 64 << 20 },
        FuzzReader.Of("instructions", "rows of instructions", () => [FuzzCase.Of("rows.jsonl", "{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}\n{\"instruction\": \"c\", \"output\": 4}\n")], folder =>
            _ = TextDataset.LoadInstructions(new DatasetSpec { Path = Path.Combine(folder, "rows.jsonl"), InputField = "input" }).Count),
        FuzzReader.Of("scienceqa", "problems.json, pid_splits.json, captions.json", ScienceQa, folder =>
        {
            foreach (var missing in new[] { MissingPicture.Caption, MissingPicture.Text, MissingPicture.Refuse })
            {
                var set = ScienceQaDataset.Load(new ScienceQaSpec { Path = folder, Missing = missing });
                if (set.Examples.Any(e => e.Picture is { } picture && !Path.GetFullPath(picture).StartsWith(folder, StringComparison.Ordinal)))
                    throw new InvalidOperationException("a picture lies outside the folder");
            }
            _ = ScienceQaDataset.Has(folder, "val");
        }) with { Words = ["\"../../x\"", "\"image\"", "\"train\"", "\"split\"", "\"choices\"", "\"answer\"", "\"image.png\"", "\"captions\""] },
        FuzzReader.Of("humaneval", "HumanEval.jsonl and samples", () => [FuzzCase.Of(
            ("HumanEval.jsonl", Utf8("{\"task_id\": \"HumanEval/0\", \"prompt\": \"def f():\\n\", \"entry_point\": \"f\", \"canonical_solution\": \"    return 1\\n\", \"test\": \"def check(c):\\n    assert c() == 1\\n\"}\n")),
            ("samples.jsonl", Utf8("{\"task_id\": \"HumanEval/0\", \"completion\": \"    return 1\"}\n{\"task_id\": \"HumanEval/0\", \"solution\": \"x\"}\n")))], folder => Code(TaskSettings.HumanEval, folder, "HumanEval.jsonl")),
        FuzzReader.Of("mbpp", "mbpp.jsonl and samples", () => [FuzzCase.Of(
            ("mbpp.jsonl", Utf8("{\"task_id\": 11, \"text\": \"Write f.\", \"code\": \"def f(): pass\", \"test_list\": [\"assert f() is None\"], \"test_setup_code\": \"\"}\n{\"task_id\": 601, \"prompt\": \"Write g.\", \"test_imports\": [\"import math\"], \"test_list\": [\"assert g()\"]}\n")),
            ("samples.jsonl", Utf8("{\"task_id\": 11, \"solution\": \"def f(): pass\"}\n{\"task_id\": \"Mbpp/601\", \"completion\": \"x\"}\n")))], folder => Code(TaskSettings.Mbpp, folder, "mbpp.jsonl")),
        FuzzReader.Of("answers", "unfinished.jsonl of an interrupted evaluation", () => [FuzzCase.Of("unfinished.jsonl", "{\"run\":\"m\"}\n{\"index\":0,\"text\":\"a\",\"reason\":\"stop\"}\n{\"index\":1,\"text\":\"b\",\"reason\":\"length\"}\n")], folder =>
            _ = PromptedModel.Kept(Path.Combine(folder, "unfinished.jsonl"), "m", 2).Length) with { Writes = true, Words = ["\"run\"", "\"index\"", "\"text\"", "\"reason\""] },
        FuzzReader.Of("gold-answers", "answers of GSM8K", () => [FuzzCase.Of("answer.txt", "Natalia sold 48/2 = 24.\n#### 72"), FuzzCase.Of("answer.txt", "so we get 1,234.50. The answer is: $-1,234")], folder =>
        {
            var text = File.ReadAllText(Path.Combine(folder, "answer.txt"));
            _ = (MathAnswers.TryGold(text, out _), MathAnswers.Number(text), MathAnswers.IsCorrect(text, "#### 72"));
        }) with { Words = ["####", "The answer is: ", "1e9", "1/3", "99999999999999999999999999", "½", ",,,", "−5"] },
    ];

    private static void Rows(string folder)
    {
        foreach (var path in Directory.EnumerateFiles(folder))
        {
            var source = DataFiles.Open(path);
            _ = source.Fields.Count;
            _ = source.Read(Fields).Count();
            _ = TextDataset.LoadTexts(new DatasetSpec { Path = path, Source = source, LabelField = "label" }).Labels.Count;
        }
    }

    private static void Code(string task, string folder, string file)
    {
        var problems = CodeProblem.Load(task, [Path.Combine(folder, file)], null, all: true);
        foreach (var problem in problems)
            _ = (problem.Bare, problem.Instruction, problem.Program(CodeProblem.CodeOf(problem.Canonical), true));
        _ = CodeProblem.Load(task, [Path.Combine(folder, file)], null).Count;
        _ = CodeSample.Load(Path.Combine(folder, "samples.jsonl"), task, problems).Count;
    }

    private static IReadOnlyList<FuzzCase> Glue() =>
    [
        FuzzCase.Of("sst2.tsv", "sentence\tlabel\na b\t1\nc \"d\t0\n"),
        FuzzCase.Of("cola.tsv", "gj04\t1\t\tA sentence.\ngj04\t0\t*\tSentence a.\n"),
        FuzzCase.Of("mrpc.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta\tb\n0\t4\t5\tc\td\n"),
        FuzzCase.Of("stsb.tsv", "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n0\tg\tf\t2012\t1\tn\tn\ta\tb\t3.8\n"),
        FuzzCase.Of("rte.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tc\td\tnot_entailment\n"),
    ];

    private static byte[] Packed(string text)
    {
        using var stream = new MemoryStream();
        using (var gzip = new GZipStream(stream, CompressionLevel.Fastest, leaveOpen: true))
            gzip.Write(Utf8(text));
        return stream.ToArray();
    }

    private static byte[] Parquet(CompressionMethod compression) => Write(compression).GetAwaiter().GetResult();

    private static async Task<byte[]> Write(CompressionMethod compression)
    {
        DataField[] columns = [new DataField<string>("text"), new DataField<int>("label"), new DataField<string>("input"), new DataField<double?>("score")];
        using var stream = new MemoryStream();
        await using (var writer = await ParquetWriter.CreateAsync(new ParquetSchema(columns), stream, new ParquetOptions { CompressionMethod = compression }))
        {
            using var group = writer.CreateRowGroup();
            await group.WriteAsync(columns[0], new string[] { "a", "bc", "a" });
            await group.WriteAsync<int>(columns[1], new int[] { 1, 2, -3 }.AsMemory());
            await group.WriteAsync(columns[2], new string[] { "x", null!, "" });
            await group.WriteAsync<double>(columns[3], new double?[] { 0.5, null, 2 }.AsMemory());
            group.CompleteValidate();
        }
        return stream.ToArray();
    }

    private static IReadOnlyList<FuzzCase> ScienceQa()
    {
        var problems = Utf8("{\"1\": {\"question\": \"Which?\", \"choices\": [\"a\", \"b\"], \"answer\": 0, \"hint\": \"h\", \"image\": null, \"split\": \"train\"}, \"2\": {\"question\": \"Who?\", \"choices\": [\"c\", \"d\", \"e\"], \"answer\": 2, \"hint\": \"\", \"image\": \"image.png\", \"split\": \"train\"}}");
        return
        [
            FuzzCase.Of(("problems.json", problems), ("pid_splits.json", Utf8("{\"train\": [\"1\", \"2\"], \"val\": [\"3\"]}")), ("captions.json", Utf8("{\"captions\": {\"2\": \"A cat.\"}}"))).Beside(("images/train/2/image.png", [0])),
            FuzzCase.Of(("problems.json", problems), ("captions.json", Utf8("{\"captions\": {\"2\": \"A cat.\"}}"))).Beside(("images/train/2/image.png", [0])),
        ];
    }
}
