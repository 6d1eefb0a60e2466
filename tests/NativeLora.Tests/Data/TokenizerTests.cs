using System.Collections.Concurrent;
using System.IO.Compression;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using CsCheck;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;

namespace NativeLora.Tests.Data;

/// <summary>Tokenizers equal the reference implementations token for token, on every row of the goldens.</summary>
public class TokenizerTests
{
    [SharedTheory]
    [InlineData("bert-base-uncased", "data/tokenizers/bert-base-uncased")]
    [InlineData("minilm-l6", "models/minilm-l6")]
    [InlineData("roberta-base", "data/tokenizers/roberta-base")]
    [InlineData("smollm2", "models/smollm2-135m")]
    [InlineData("llama2", "data/tokenizers/llama2.hf")]
    [InlineData("llama2", "data/tokenizers/llama2")]
    [InlineData("gpt2", "data/tokenizers/gpt2.hf")]
    [InlineData("gpt2", "data/tokenizers/gpt2")]
    [InlineData("gpt_neox", "data/tokenizers/gpt_neox.hf")]
    [InlineData("mistral-v0.1", "data/tokenizers/mistral01.hf")]
    [InlineData("clip", "data/tokenizers/clip_base.hf")]
    [InlineData("deberta-v3", "data/tokenizers/deberta-v3")]
    public void Texts_equal_the_goldens(string golden, string folder) =>
        CheckTexts(golden, Tokenizer(folder));

    [SharedFact]
    public void Vocab_txt_equals_the_goldens()
    {
        using var folder = new TokenizerFolder();
        File.Copy(Shared.Path("data/tokenizers/bert-base-uncased/vocab.txt"), folder.File("vocab.txt"));
        var tokenizer = TokenizerLoader.FromFolder(folder.Path);
        CheckTexts("bert-base-uncased", tokenizer);
        CheckPairs("bert-base-uncased", tokenizer);
    }

    [SharedFact]
    public void A_digits_step_before_ByteLevel_equals_the_goldens()
    {
        using var folder = new TokenizerFolder();
        var root = JsonNode.Parse(File.ReadAllText(Shared.Path("models/smollm2-135m/tokenizer.json")))!;
        root["pre_tokenizer"] = JsonNode.Parse("""
            {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
             {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]}
            """);
        File.WriteAllText(folder.File("tokenizer.json"), root.ToJsonString());
        CheckTexts("smollm2_digits", TokenizerLoader.FromFolder(folder.Path));
    }

    [SharedFact]
    public void Gemma_equals_the_goldens()
    {
        using var folder = new TokenizerFolder();
        using (var packed = new GZipStream(File.OpenRead(Shared.Path("data/tokenizers/gemma/tokenizer.json.gz")), CompressionMode.Decompress))
        using (var file = File.Create(folder.File("tokenizer.json")))
            packed.CopyTo(file);
        CheckTexts("gemma", TokenizerLoader.FromFolder(folder.Path));
    }

    /// <summary>Its golden is SentencePiece itself, which takes control tokens in a text as text.</summary>
    [SharedFact]
    public void Mistral_v03_pieces_equal_the_goldens() =>
        CheckTexts("mistral-v0.3", Pieces("data/tokenizers/mistral-7b-v0.3/tokenizer.model.v3"));

    /// <summary>Vectors of another project: characters of all scripts in random order.</summary>
    [SharedTheory]
    [InlineData("tokenizers", "gpt2", "data/tokenizers/gpt2.hf")]
    [InlineData("tokenizers", "gpt_neox", "data/tokenizers/gpt_neox.hf")]
    [InlineData("tokenizers", "llama2", "data/tokenizers/llama2.hf")]
    [InlineData("tokenizers", "mistral01", "data/tokenizers/mistral01.hf")]
    [InlineData("tokenizers", "clip_base", "data/tokenizers/clip_base.hf")]
    [InlineData("sentencepiece", "llama2", "data/tokenizers/llama2/tokenizer.model")]
    [InlineData("sentencepiece", "mistral01", "data/tokenizers/mistral-7b-v0.1/tokenizer.model")]
    [InlineData("sentencepiece", "mistral03", "data/tokenizers/mistral-7b-v0.3/tokenizer.model.v3")]
    public void Mixed_scripts_equal_the_vectors(string kind, string name, string path)
    {
        var tokenizer = kind == "sentencepiece" ? Pieces(path) : Tokenizer(path);
        var vectors = Shared.Path("data/tokenizers/kitoken_golden");
        foreach (var size in new[] { "small", "mixed", "utf8" })
        {
            var text = File.ReadAllText(Path.Combine(vectors, size + "_input.txt"));
            var inputs = size == "utf8" ? [text] : text.TrimEnd('\n').Split('\n');
            var wanted = File.ReadAllText(Path.Combine(vectors, kind, $"{size}_tokens_{name}.txt")).TrimEnd('\n').Split('\n');
            Assert.Equal(inputs.Length, wanted.Length);
            for (var i = 0; i < inputs.Length; i++)
            {
                var input = inputs[i].Replace("\\n", "\n", StringComparison.Ordinal).Replace("\\r", "\r", StringComparison.Ordinal)
                    .Replace("\\t", "\t", StringComparison.Ordinal).Replace("\\s", " ", StringComparison.Ordinal);
                var ids = wanted[i].Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Select(int.Parse);
                Assert.True(ids.SequenceEqual(tokenizer.Encode(input, addSpecialTokens: false)), $"{size} case {i} differs");
            }
        }
    }

    /// <summary>Vectors of llama.cpp.</summary>
    [SharedTheory]
    [InlineData("ggml-vocab-bert-bge", "data/tokenizers/bert-base-uncased")]
    [InlineData("ggml-vocab-roberta-bpe", "data/tokenizers/roberta-base")]
    [InlineData("ggml-vocab-gpt-2", "data/tokenizers/gpt2")]
    [InlineData("ggml-vocab-llama-spm", "data/tokenizers/llama2")]
    public void Odd_texts_equal_the_vectors(string name, string folder)
    {
        var tokenizer = Tokenizer(folder);
        var vectors = Shared.Path("data/tokenizers/llamacpp_vocab", name + ".gguf");
        var inputs = File.ReadAllText(vectors + ".inp").Split("\n__ggml_vocab_test__\n");
        var wanted = File.ReadAllText(vectors + ".out").Split('\n');
        for (var i = 0; i < inputs.Length - 1; i++)
        {
            var ids = wanted[i].Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse);
            Assert.True(ids.SequenceEqual(tokenizer.Encode(inputs[i], addSpecialTokens: false)), $"case {i} differs: '{inputs[i]}'");
        }
        Assert.True(inputs.Length > 40);
    }

    [SharedTheory]
    [InlineData("bert-base-uncased", "data/tokenizers/bert-base-uncased")]
    [InlineData("minilm-l6", "models/minilm-l6")]
    [InlineData("roberta-base", "data/tokenizers/roberta-base")]
    [InlineData("deberta-v3", "data/tokenizers/deberta-v3")]
    public void Pairs_equal_the_goldens(string golden, string folder) =>
        CheckPairs(golden, Tokenizer(folder));

    [SharedTheory]
    [InlineData("models/minilm-l6", 30522, "[PAD]", "[CLS]", "[SEP]")]
    [InlineData("data/tokenizers/roberta-base", 50265, "<pad>", "<s>", "</s>")]
    [InlineData("models/smollm2-135m", 49152, "<|im_end|>", "<|im_start|>", "<|im_end|>")]
    [InlineData("data/tokenizers/llama2.hf", 32000, null, "<s>", "</s>")]
    [InlineData("data/tokenizers/llama2", 32000, null, "<s>", "</s>")]
    [InlineData("data/tokenizers/deberta-v3", 128001, "[PAD]", "[CLS]", "[SEP]")]
    [InlineData("data/tokenizers/gpt_neox.hf", 50277, "<|padding|>", "<|endoftext|>", "<|endoftext|>")]
    public void Roles_of_special_tokens_are_known(string folder, int size, string? pad, string bos, string eos)
    {
        var tokenizer = Tokenizer(folder);
        Assert.Equal(size, tokenizer.VocabularySize);
        Assert.Equal(pad is null ? null : tokenizer.TokenId(pad), tokenizer.PadId);
        Assert.Equal(tokenizer.TokenId(bos), Assert.NotNull(tokenizer.BosId));
        Assert.Equal(tokenizer.TokenId(eos), Assert.NotNull(tokenizer.EosId));
        Assert.Null(tokenizer.TokenId("no such token"));
    }

    [SharedFact]
    public void A_length_without_room_for_special_tokens_is_refused()
    {
        var tokenizer = Tokenizer("models/minilm-l6");
        Assert.Equal([101, 102], tokenizer.Encode("hello", null, 2).Ids);
        var error = Assert.Throws<InputException>(() => tokenizer.Encode("hello", "world", 2));
        Assert.Contains("3 special tokens", error.Message, StringComparison.Ordinal);
    }

    [SharedTheory]
    [InlineData("models/minilm-l6")]
    [InlineData("data/tokenizers/roberta-base")]
    [InlineData("data/tokenizers/llama2.hf")]
    [InlineData("data/tokenizers/clip_base.hf")]
    [InlineData("data/tokenizers/deberta-v3")]
    public void Any_string_can_be_encoded(string folder)
    {
        var tokenizer = Tokenizer(folder);
        // Any UTF-16 units, halves of surrogate pairs among them, mixed with what tokenizers look for.
        var unit = Gen.OneOf(Gen.Char, Gen.Char['\uD700', '\uE100'], Gen.Char[' ', '~']).Select(c => c.ToString());
        string[] known = ["<s>", "</s>", "[MASK]", "<mask>", "<|endoftext|>", "'s", "  ", "\u2581", "\U0001F600"];
        var part = Gen.OneOf(unit, Gen.Int[0, known.Length - 1].Select(i => known[i]));
        part.Array[0, 40].Select(string.Concat).Sample(text =>
        {
            var ids = tokenizer.Encode(text);
            Assert.All(ids, id => Assert.InRange(id, 0, tokenizer.VocabularySize - 1));
            Assert.NotNull(tokenizer.Decode(ids));
            var cut = tokenizer.Encode(text, text, 16);
            Assert.InRange(cut.Ids.Length, 2, 16);
            Assert.Equal(cut.Ids.Length, cut.TypeIds.Length);
        }, iter: 300);
        foreach (var text in new[] { "", "\uD800", "\uDC00x", new string('x', 100_000), string.Concat(Enumerable.Repeat("\U00020BB7", 20_000)) })
            Assert.NotNull(tokenizer.Decode(tokenizer.Encode(text)));
    }

    [SharedTheory]
    [InlineData("data/tokenizers/gpt2.hf")]
    [InlineData("data/tokenizers/roberta-base")]
    public void Byte_level_text_comes_back(string folder)
    {
        var tokenizer = Tokenizer(folder);
        var rune = Gen.OneOf(Gen.Int[0, 0xD7FF], Gen.Int[0xE000, 0x10FFFF], Gen.Int[32, 126]).Select(c => new Rune(c).ToString());
        rune.Array[0, 60].Select(string.Concat).Sample(text =>
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text, addSpecialTokens: false))), iter: 500);
    }

    /// <summary>SmolLM2's vocabulary lacks some bytes and has no unknown token; the reference drops them too.</summary>
    [SharedFact]
    public void Bytes_outside_the_vocabulary_are_dropped()
    {
        var tokenizer = Tokenizer("models/smollm2-135m");
        Assert.Null(tokenizer.TokenId("\u0104"));
        Assert.Equal("ab", tokenizer.Decode(tokenizer.Encode("a\u0004b")));
    }

    [Theory]
    [InlineData(3, 4, 10, 3, 4)]
    [InlineData(3, 9, 10, 3, 7)]
    [InlineData(9, 3, 10, 7, 3)]
    [InlineData(9, 9, 11, 5, 6)]
    [InlineData(10, 9, 11, 6, 5)]
    [InlineData(20, 30, 11, 5, 6)]
    [InlineData(20, 30, 0, 0, 0)]
    [InlineData(0, 30, 5, 0, 5)]
    public void Pairs_are_cut_longest_first(int first, int second, int room, int keepFirst, int keepSecond) =>
        Assert.Equal((keepFirst, keepSecond), PipelineTokenizer.LongestFirst(first, second, room));

    [SharedFact]
    public async Task Threads_share_a_tokenizer()
    {
        var tokenizer = Tokenizer("models/minilm-l6");
        var rows = Rows("minilm-l6.jsonl").ToArray();
        await Parallel.ForEachAsync(Enumerable.Range(0, 4), (_, _) =>
        {
            foreach (var row in rows)
                Assert.Equal(Ids(row, "ids"), tokenizer.Encode(row.GetProperty("text").GetString()!, addSpecialTokens: false));
            return ValueTask.CompletedTask;
        });
    }

    private static readonly ConcurrentDictionary<string, Lazy<ITokenizer>> Opened = new();

    // Loading takes longer than most of what is tested.
    private static ITokenizer Tokenizer(string folder) =>
        Opened.GetOrAdd(folder, _ => new Lazy<ITokenizer>(() => TokenizerLoader.FromFolder(Shared.Path(folder)))).Value;

    // As SentencePiece itself reads texts: control tokens in them are text.
    private static PipelineTokenizer Pieces(string file) =>
        new(SentencePieceTokenizers.Llama(Shared.Path(file), controlInText: false), new SpecialNames(null, null, null, null, null, null, null));

    private static void CheckTexts(string golden, ITokenizer tokenizer)
    {
        var wrong = new List<string>();
        var count = 0;
        foreach (var row in Rows(golden + ".jsonl"))
        {
            var text = row.GetProperty("text").GetString()!;
            var (ids, special) = (Ids(row, "ids")!, Ids(row, "ids_special")!);
            Compare("ids", ids, tokenizer.Encode(text, addSpecialTokens: false));
            Compare("ids_special", special, tokenizer.Encode(text));
            var decoded = row.GetProperty("decoded").GetString()!;
            if (tokenizer.Decode(ids) != decoded)
                wrong.Add($"row {count} decoded: wanted '{decoded}', got '{tokenizer.Decode(ids)}'");
            count++;

            void Compare(string what, int[] wanted, int[] got)
            {
                if (!wanted.AsSpan().SequenceEqual(got))
                    wrong.Add($"row {count} {what}: wanted {string.Join(' ', wanted)}, got {string.Join(' ', got)}");
            }
        }
        Assert.True(count > 100, $"{golden} has only {count} rows");
        Assert.True(wrong.Count == 0, $"{golden}: {wrong.Count} differences\n{string.Join('\n', wrong.Take(10))}");
    }

    private static void CheckPairs(string golden, ITokenizer tokenizer)
    {
        var wrong = new List<string>();
        var count = 0;
        foreach (var row in Rows(golden + ".pairs.jsonl"))
        {
            var (a, b) = (row.GetProperty("a").GetString()!, row.GetProperty("b").GetString());
            var length = row.GetProperty("max_length").GetInt32();
            if (Ids(row, "ids") is not { } ids)
                Assert.Throws<InputException>(() => tokenizer.Encode(a, b, length));
            else
            {
                var got = tokenizer.Encode(a, b, length);
                if (!ids.AsSpan().SequenceEqual(got.Ids) || !Ids(row, "type_ids").AsSpan().SequenceEqual(got.TypeIds))
                    wrong.Add($"row {count}: wanted {string.Join(' ', ids)}, got {string.Join(' ', got.Ids)}");
            }
            count++;
        }
        Assert.True(count > 100, $"{golden} has only {count} pairs");
        Assert.True(wrong.Count == 0, $"{golden}: {wrong.Count} differences\n{string.Join('\n', wrong.Take(10))}");
    }

    private static IEnumerable<JsonElement> Rows(string file) =>
        File.ReadLines(Shared.Path("fixtures/text/tokenizers", file)).Select(line => JsonDocument.Parse(line).RootElement);

    private static int[]? Ids(JsonElement row, string name) => row.GetProperty(name) is { ValueKind: JsonValueKind.Array } ids
        ? [.. ids.EnumerateArray().Select(id => id.GetInt32())] : null;
}
