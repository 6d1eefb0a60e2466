using System.Buffers.Binary;
using System.CommandLine;
using System.IO.Compression;
using System.Text;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Cli;
using NativeLora.Cli.Commands;
using NativeLora.Cli.Rows;
using NativeLora.Cli.Study;
using NativeLora.Cli.Tasks;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Hub;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Tests.Checkpoints;
using NativeLora.Training;
using Parquet;
using Parquet.Schema;

namespace NativeLora.Tests.Fuzz;

/// <summary>What the fuzzer, or a look at the readers for it, has found: each as small as it can be.</summary>
public sealed class FoundTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("a\nb\u0000\u001b[31m\u2028c\u0085", "a b  [31m c ")]
    [InlineData("plain", "plain")]
    public void MessagesAreOneLineWhateverTheyQuote(string given, string shown)
    {
        Assert.Equal(shown, new InputException(given).Message);
        Assert.Equal(shown, new RunException(given).Message);
    }

    [Fact]
    public void HalvesOfSurrogatePairsAreReplacedInMessages() => Assert.Equal("half \ufffd of one, 😀 whole", new InputException($"half {(char)0xd800} of one, 😀 whole").Message);

    [Fact]
    public void MessagesAreCutInTheMiddle()
    {
        var message = new InputException($"/x/file: has {new string('a', 1 << 20)}; mend it").Message;
        Assert.InRange(message.Length, 100, 3100);
        Assert.StartsWith("/x/file: has a", message, StringComparison.Ordinal);
        Assert.EndsWith("a; mend it", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(64, 32)]
    [InlineData(31, 32)]
    [InlineData(-5, 32)]
    public void PositionsThatBeginOutsideTheTableAreRefused(int pad, int positions)
    {
        var config = HfConfig.Parse($$"""{"model_type": "roberta", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 80, "pad_token_id": {{pad}}, "max_position_embeddings": {{positions}}}""");
        Assert.Contains($"pad_token_id is {pad}: positions begin after it, and there are {positions}", Refused(() => ModelRegistry.Create(config)), StringComparison.Ordinal);
    }

    [Fact]
    public void SizesThatAServerClaimsMayNotOverflow()
    {
        var most = new HubFetch("a/b", "c", "d", "e", [new("x", long.MaxValue / 2 + 1, 5), new("y", long.MaxValue / 2 + 1, 6)]);
        Assert.Equal((long.MaxValue, 11), (most.Bytes, most.Present));
    }

    [Fact]
    public void ArgumentsWithNullCharactersAreRefused() =>
        Assert.Equal(Shell.BadInput, Shell.Run(new Command("nativelora") { TrainCommand.Create() }, ["train", "--model", "a\0b", "--task", "text", "--data", "none"]));

    [Fact]
    public void ColumnsWithControlCharactersAreShownInALine()
    {
        var path = _folder.Write("rows.tsv", "te\u0000xt\tla\u000bbel\u001b[2J\na\tb\n");
        Assert.DoesNotContain(Refused(() => RowSources.Open(path).Read([new("text")]).Count()), char.IsControl);
    }

    [Theory]
    [InlineData("rows.jsonl", "{\"\\ud800\": 1, \"text\": \"a\"}\n")]
    [InlineData("rows.json", "[{\"\\udc00x\": 1, \"text\": \"a\"}]")]
    [InlineData("rows.jsonl", "{\"text\": \"a\", \"more\": {\"b\": [\"\\ud800\"]}}\n")]
    public void HalvesOfSurrogatePairsInAnyNameAreRefused(string name, string content)
    {
        var path = _folder.Write(name, content);
        foreach (var read in (Action[])[() => _ = RowSources.Open(path).Fields, () => RowSources.Open(path).Read([new("none", FieldKind.OptionalText)]).Count(), () => RowSources.Open(path).Read([new("text")]).Count()])
            Assert.Contains("not valid Unicode", Refused(read), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"run\":\"m\",\"run\":\"m\"}\n")]
    [InlineData("{\"run\":\"\\ud800\"}\n")]
    [InlineData("{\"run\":\"m\"}\n{\"index\":0,\"text\":\"a\",\"text\":\"b\",\"reason\":\"stop\"}\n")]
    [InlineData("{\"run\":\"m\"}\n{\"index\":0,\"text\":\"\\ud800\",\"reason\":\"stop\"}\n")]
    [InlineData("{\"run\":\"m\"}\n{\"index\":0,\"text\":7,\"reason\":\"stop\"}\n{\"ind")]
    public void AnswersThatAreNoneAreMadeAnew(string content)
    {
        var path = _folder.Write("unfinished.jsonl", content);
        Assert.Null(Assert.Single(PromptedModel.Kept(path, "m", 1)));
    }

    [Theory]
    [InlineData("(a+)+$")]
    [InlineData("^(([a-z])+.)+[A-Z]([a-z])+$")]
    public void PatternsOfATokenizerThatTakeForEverAreEnded(string pattern)
    {
        _folder.Write("tokenizer.json", $$$"""
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "{{{pattern}}}"}, "behavior": "Isolated"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
            """);
        var tokenizer = TokenizerLoader.FromFolder(_folder.Path);
        Assert.Contains("tokenizer.json: pre_tokenizer.pattern.Regex: the pattern takes more than", Refused(() => tokenizer.Encode(new string('a', 60) + "!")), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("../../../secret")]
    [InlineData("/etc/hostname")]
    [InlineData("a\\u0000b")]
    [InlineData("..")]
    [InlineData("")]
    [InlineData("sub\\\\file")]
    public void SumsOfOtherFilesThanTheCheckpointsAreDamage(string name)
    {
        Directory.CreateDirectory(_folder.File("checkpoints", "step-1"));
        _folder.Write("checkpoints/step-1/files.json", $"{{\"{name}\": \"00\"}}");
        Assert.Contains("no file of the checkpoint", new CheckpointStore(_folder.Path, 1).Damage(1), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("\"step\": -1", "below 0")]
    [InlineData("\"epoch\": -1", "below 0")]
    [InlineData("\"metrics_bytes\": -5", "below 0")]
    [InlineData("\"loss_steps\": -5", "below 0")]
    [InlineData("\"best_step\": -5", "below 0")]
    [InlineData("\"seconds\": 1e999", "no time")]
    [InlineData("\"settings\": {\"rank\": null}", "setting is null")]
    [InlineData("\"\\u0000\": 1", "could not be mapped")]
    public void StatesThatNoTrainingHasAreRefused(string field, string reason)
    {
        _folder.Write(TrainerState.File, $"{{{field}}}");
        Assert.Contains(reason, Refused(() => TrainerState.Read(_folder.Path)), StringComparison.Ordinal);
    }

    [Fact]
    public void NumbersThatCannotBeWrittenAgainAreNoSelection()
    {
        var options = new SelectionOptions { Strategy = SelectionStrategy.Explicit, Explicit = "1" };
        var json = SelectionReport.Create("m", null, null, options, LayerSelection.Select(2, null, options)).ToJson();
        Assert.Contains("\"cka\": null", json, StringComparison.Ordinal);
        Assert.Contains("too large", Refused(() => SelectionReport.FromJson(json.Replace("\"cka\": null", "\"cka\": 1e999", StringComparison.Ordinal))), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[null]")]
    [InlineData("[{\"split\": \"dev\", \"examples\": 1, \"values\": null}]")]
    public void ResultsWithoutEvaluationsAreRefused(string evaluations)
    {
        _folder.Write(CellResult.FileName, $$"""
            {"task": "t", "mask": "1", "seed": 1, "settings": "h", "evaluations": {{evaluations}}, "train_loss": 0, "last_loss": 0, "steps": 1, "tokens": 1, "seconds": 1, "seconds_per_step": 1, "trainable_parameters": 1, "all_parameters": 1,
             "planned_bytes": 1, "planned_evaluation_bytes": 1, "optimizer_bytes": 1, "arena_bytes": 1, "saved_bytes": 1, "allocated_bytes": 1, "peak_process_bytes": 1}
            """);
        Refused(() => CellResult.Find(_folder.Path, "t", "1", 1, "h"));
    }

    [Fact]
    public void ScoresOfSomeLayersOnlyAreRefused()
    {
        _folder.Write("scores.json", "{\"Cka\": [0.5, 0.6], \"CkaClamped\": [0.5]}");
        Assert.Contains("scores of 2 layers", Refused(() => StudyScores.Find(_folder.Path, 2)), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("rows.tsv.gz", "text\tlabel\n", "a                                                                              \tb\n")]
    [InlineData("rows.jsonl.gz", "{\"text\": \"a\"}\n", "                                                                               \n")]
    [InlineData("rows.json.gz", "[{\"text\": \"a\"}", "          \n")]
    public void FilesThatUnpackToFarMoreThanTheyAreAreRefused(string name, string first, string again)
    {
        var path = _folder.File(name);
        using (var gzip = new GZipStream(File.Create(path), CompressionLevel.Optimal))
        {
            gzip.Write(Encoding.UTF8.GetBytes(first));
            var block = Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat(again, 1 << 16)));
            for (var written = 0; written < 48 << 20; written += block.Length)
                gzip.Write(block);
        }
        Assert.InRange(new FileInfo(path).Length, 1, 400_000);
        var before = GC.GetAllocatedBytesForCurrentThread();
        Assert.Contains("times as many", Refused(() => RowSources.Open(path).Read([new("text")]).Count()), StringComparison.Ordinal);
        // Nothing near the 48 MiB that are in it, though each of its rows were an object.
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1L << 30);
    }

    [Fact]
    public async Task ParquetThatSaysMoreThanItHasIsRefused()
    {
        var bytes = await Parquet();
        var length = BinaryPrimitives.ReadInt32LittleEndian(bytes.AsSpan(bytes.Length - 8));
        var (read, refused) = (0, 0);
        // Every byte of the metadata, and of the first page's header, at its extremes: nothing may hang or believe a size.
        foreach (var at in Enumerable.Range(bytes.Length - 8 - length, length).Concat(Enumerable.Range(4, 40)))
            foreach (var value in (byte[])[0, 0xff, (byte)(bytes[at] + 0x10)])
            {
                var path = _folder.File("rows.parquet");
                var changed = (byte[])bytes.Clone();
                changed[at] = value;
                File.WriteAllBytes(path, changed);
                var before = GC.GetTotalAllocatedBytes();
                try
                {
                    read += DataFiles.Open(path).Read([new("text"), new("label", FieldKind.Scalar)]).Count() > 0 ? 1 : 0;
                }
                catch (InputException e)
                {
                    refused++;
                    Assert.StartsWith(path, e.Message, StringComparison.Ordinal);
                }
                Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, long.MinValue, 256 << 20);
            }
        Assert.True(read > 100 && refused > 100, $"{read} read, {refused} refused");
    }

    private async Task<byte[]> Parquet()
    {
        DataField[] columns = [new DataField<string>("text"), new DataField<int>("label")];
        using var stream = new MemoryStream();
        await using (var writer = await ParquetWriter.CreateAsync(new ParquetSchema(columns), stream))
        {
            using var group = writer.CreateRowGroup();
            await group.WriteAsync(columns[0], new string[] { "a", "bc", "a" });
            await group.WriteAsync<int>(columns[1], new int[] { 1, 2, -3 }.AsMemory());
            group.CompleteValidate();
        }
        return stream.ToArray();
    }

    private static string Refused(Action read)
    {
        var message = Assert.Throws<InputException>(read).Message;
        Assert.DoesNotContain(message, c => char.IsControl(c) || c is '\u2028' or '\u2029');
        return message;
    }
}
