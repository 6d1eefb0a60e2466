using System.Text;
using System.Text.Json.Nodes;
using CsCheck;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;

namespace NativeLora.Tests.Data;

/// <summary>Files of tokenizers: what their parts mean, and what is said of damaged ones.</summary>
public class TokenizerFileTests
{
    private const string Bpe = """
        {"added_tokens": [{"id": 5, "content": "<x>", "special": true, "normalized": false}],
         "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
         "model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, "aba": 4}, "merges": ["a b", "ab a"]}}
        """;

    private const string WordPiece = """
        {"added_tokens": [{"id": 0, "content": "[UNK]", "special": true, "normalized": false}],
         "normalizer": {"type": "BertNormalizer", "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"},
         "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
         "decoder": {"type": "WordPiece"},
         "model": {"type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 5,
          "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##b": 4, ",": 5}}}
        """;

    [Fact]
    public void Lowest_rank_merges_first_and_unknown_characters_are_one_token_each()
    {
        var tokenizer = Open(Bpe);
        Assert.Equal([4], tokenizer.Encode("aba"));
        Assert.Equal([3, 3, 0, 0, 5, 2], tokenizer.Encode("ababcd<x>b"));
        Assert.Equal("abab??<x>b", tokenizer.Decode([3, 3, 0, 0, 5, 2, 99]));
        Assert.Equal(6, tokenizer.VocabularySize);
    }

    [Fact]
    public void Unknown_characters_fuse_or_fall_back_to_bytes()
    {
        Assert.Equal([1, 0, 2], Open(Bpe, "model.fuse_unk", "true").Encode("acdb"));
        var bytes = Open(Bpe.Replace("\"aba\": 4", "\"aba\": 4, \"<0xC3>\": 6, \"<0xA9>\": 7", StringComparison.Ordinal),
            "model.byte_fallback", "true");
        Assert.Equal([1, 6, 7, 0], bytes.Encode("aéc"));
        var decoding = Open(Bpe.Replace("\"aba\": 4", "\"aba\": 4, \"<0xC3>\": 6, \"<0xA9>\": 7", StringComparison.Ordinal),
            "decoder", """{"type": "ByteFallback"}""");
        Assert.Equal("aéb\uFFFD", decoding.Decode([1, 6, 7, 2, 6]));
    }

    [Fact]
    public void Ignored_merges_take_whole_pieces() => Assert.Equal([3],
        Open(Bpe.Replace("\"a b\", \"ab a\"", "", StringComparison.Ordinal), "model.ignore_merges", "true").Encode("ab"));

    [Fact]
    public void Unigram_takes_the_likeliest_path()
    {
        const string model = """
            {"type": "Unigram", "unk_id": 0, "vocab": [["?", 0], ["a", -2], ["b", -2], ["ab", -3], ["ba", -2.5], ["<0xC3>", 0], ["<0xA9>", 0]]}
            """;
        var tokenizer = Open(Bpe.Replace("\"id\": 5", "\"id\": 9", StringComparison.Ordinal), "model", model);
        Assert.Equal([1, 4, 4], tokenizer.Encode("ababa"));
        Assert.Equal([3, 0, 9, 1], tokenizer.Encode("ab\u00E9\U0001F600<x>a"));
        Assert.Equal([3, 5, 6], Open(Bpe.Replace("\"id\": 5", "\"id\": 9", StringComparison.Ordinal), "model",
            model.Replace("\"unk_id\"", "\"byte_fallback\": true, \"unk_id\"", StringComparison.Ordinal)).Encode("ab\u00E9"));
    }

    [Fact]
    public void WordPiece_knows_pairs_and_long_words()
    {
        var tokenizer = Open(WordPiece);
        var pair = tokenizer.Encode("Ab,", "a xb", 20);
        Assert.Equal([1, 3, 4, 5, 2, 3, 0, 2], pair.Ids);
        Assert.Equal([0, 0, 0, 0, 0, 1, 1, 1], pair.TypeIds);
        Assert.Equal([3, 4, 4, 4, 4, 0], tokenizer.Encode("abbbb abbbbb", addSpecialTokens: false));
        Assert.Equal("ab, a", tokenizer.Decode([3, 4, 5, 3]));
        Assert.Equal([3, 4], tokenizer.Encode("\u00C1\u200Bb", addSpecialTokens: false));
    }

    [Theory]
    [InlineData("""{"single_word": true}""", "a<x>b <x> b<x>", new[] { 1, 0, 0, 0, 2, 0, 5, 0, 2, 0, 0, 0 })]
    [InlineData("""{"lstrip": true}""", "a  <x> b", new[] { 1, 5, 0, 2 })]
    [InlineData("""{"rstrip": true}""", "a <x>  <x>b", new[] { 1, 0, 5, 5, 2 })]
    [InlineData("""{"normalized": true}""", "<x>", new[] { 5 })]
    public void Added_tokens_follow_their_flags(string flags, string text, int[] ids)
    {
        var root = JsonNode.Parse(Bpe)!;
        foreach (var (name, value) in JsonNode.Parse(flags)!.AsObject())
            root["added_tokens"]![0]![name] = value!.DeepClone();
        Assert.Equal(ids, Open(root.ToJsonString()).Encode(text));
    }

    [Theory]
    [InlineData("""{"type": "NFKC"}""", "\uFB01\uFF21e\u0301\uAC00", "fiA\u00E9\uAC00")]
    [InlineData("""{"type": "NFKD"}""", "\u00BD\uAC01", "1\u20442\u1100\u1161\u11A8")]
    [InlineData("""{"type": "NFD"}""", "\u1EAD\uFB01", "a\u0323\u0302\uFB01")]
    [InlineData("""{"type": "NFC"}""", "q\u0307\u0323\u1100\u1161\u11A8 \u0958", "q\u0323\u0307\uAC01 \u0915\u093C")]
    [InlineData("""{"type": "Lowercase"}""", "\u0130\u03A3 \U00010400", "i\u0307\u03C3 \U00010428")]
    [InlineData("""{"type": "Strip", "strip_left": true, "strip_right": false}""", " a ", "a ")]
    [InlineData("""{"type": "Strip"}""", "\u2003a\n", "a")]
    [InlineData("""{"type": "Prepend", "prepend": "_"}""", "a", "_a")]
    [InlineData("""{"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": "-"}""", "a \n b", "a-b")]
    [InlineData("""{"type": "Replace", "pattern": {"String": "ab"}, "content": ""}""", "cabab", "c")]
    [InlineData("""{"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}""", "\u00E9\u0903", "e")]
    [InlineData("""{"type": "BertNormalizer", "lowercase": false}""", "\u00C9\t\u4F60\u0000!", "\u00C9  \u4F60 !")]
    [InlineData("""{"type": "BertNormalizer", "lowercase": true, "strip_accents": false}""", "\u00C9", "\u00E9")]
    public void Normalizers(string json, string text, string wanted) =>
        Assert.Equal(wanted, Part(json, TokenizerJsonParts.Normalizer)!.Apply(text));

    [Theory]
    [InlineData("""{"type": "Whitespace"}""", "ab_1 !?c", "ab_1|!?|c")]
    [InlineData("""{"type": "WhitespaceSplit"}""", "ab_1 !?c ", "ab_1|!?c")]
    [InlineData("""{"type": "BertPreTokenizer"}""", "a-b  c\u3002", "a|-|b|c|\u3002")]
    [InlineData("""{"type": "Punctuation"}""", "a!? b", "a|!|?| b")]
    [InlineData("""{"type": "Digits", "individual_digits": true}""", "a12\u0663b", "a|1|2|\u0663|b")]
    [InlineData("""{"type": "Digits"}""", "a12b3", "a|12|b|3")]
    [InlineData("""{"type": "Metaspace", "replacement": "_"}""", "a b", "_a|_b")]
    [InlineData("""{"type": "Metaspace", "replacement": "_", "prepend_scheme": "never"}""", "a  b", "a|_|_b")]
    [InlineData("""{"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": false}""", "a b", "_a_b")]
    [InlineData("""{"type": "ByteLevel", "add_prefix_space": true}""", "a's\u00E9 1", "\u0120a|'s|\u00C3\u00A9|\u01201")]
    [InlineData("""{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}""", "a b", "a\u0120b")]
    [InlineData("""{"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed"}""", "-a--b", "a|b")]
    [InlineData("""{"type": "Split", "pattern": {"String": "-"}, "behavior": "Isolated"}""", "-a--b", "-|a|-|-|b")]
    [InlineData("""{"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithPrevious"}""", "-a--b", "-|a-|-|b")]
    [InlineData("""{"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithNext"}""", "-a--b", "-a|-|-b")]
    [InlineData("""{"type": "Split", "pattern": {"String": "-"}, "behavior": "Contiguous"}""", "-a--b", "-|a|--|b")]
    [InlineData("""{"type": "Split", "pattern": {"Regex": "\\p{L}+|\\p{So}"}, "behavior": "Removed", "invert": true}""",
        "x\U00020BB7\u4E00 1\U0001F600", "x\U00020BB7\u4E00|\U0001F600")]
    public void PreTokenizers(string json, string text, string wanted)
    {
        var pieces = new List<string>();
        Part(json, TokenizerJsonParts.PreTokenizer)!.Split(text, first: true, pieces);
        Assert.Equal(wanted, string.Join('|', pieces));
    }

    [Theory]
    [InlineData("""{"type": "Metaspace", "replacement": "_"}""", "_a|_b_", "a b ")]
    [InlineData("""{"type": "BPEDecoder"}""", "a|b</w>|c</w>", "ab c")]
    [InlineData("""{"type": "Strip", "content": "_", "start": 1, "stop": 2}""", "__a___", "_a_")]
    [InlineData("""{"type": "WordPiece", "cleanup": false}""", "a|##b|,", "ab ,")]
    [InlineData("""{"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "Fuse"}]}""",
        "a|_b", "a b")]
    public void Decoders(string json, string tokens, string wanted) =>
        Assert.Equal(wanted, string.Concat(Part(json, TokenizerJsonParts.Decoder)!.Apply([.. tokens.Split('|')])));

    [Theory]
    [InlineData("model", "null", "'model' is missing")]
    [InlineData("model.type", "\"WordLevel\"", "not supported")]
    [InlineData("model", """{"type": "Unigram", "vocab": [["a"]], "unk_id": 0}""", "a token and its score")]
    [InlineData("model", """{"type": "Unigram", "vocab": [["a", 0.5]], "unk_id": 1}""", "unk_id 1")]
    [InlineData("model", """{"type": "Unigram", "vocab": [["a", "x"]], "unk_id": 0}""", "should be a number")]
    [InlineData("model.type", "3", "should be a string")]
    [InlineData("model.vocab", "null", "'vocab' is missing")]
    [InlineData("model.vocab", "{}", "no token")]
    [InlineData("model.vocab", """{"a": "1"}""", "should be an integer")]
    [InlineData("model.vocab", """{"a": 1.5}""", "should be an integer")]
    [InlineData("model.vocab", """{"a": -1}""", "id -1")]
    [InlineData("model.vocab", """{"a": 2000000000}""", "id 2000000000")]
    [InlineData("model.vocab", """{"a": 1, "b": 1}""", "id 1 belongs to both")]
    [InlineData("model.vocab", """{"?": 0, "a": 1}""", "the vocabulary lacks")]
    [InlineData("model.merges", "null", "'merges' is missing")]
    [InlineData("model.merges", """["a b c"]""", "merges[0]: should name two tokens")]
    [InlineData("model.merges", """[["a"]]""", "merges[0]: should name two tokens")]
    [InlineData("model.merges", """["a b", "b b"]""", "entry 1")]
    [InlineData("model.merges", "[7]", "should be an array")]
    [InlineData("model.unk_token", "\"none\"", "unknown token 'none'")]
    [InlineData("model.dropout", "0.1", "dropout")]
    [InlineData("model.fuse_unk", "1", "true or false")]
    [InlineData("added_tokens", """[{"id": 9}]""", "'content' is missing")]
    [InlineData("added_tokens", """[{"id": 1, "content": "z"}]""", "id 1 belongs to both")]
    [InlineData("added_tokens", """[{"id": 9, "content": "a"}]""", "but 1 in the vocabulary")]
    [InlineData("added_tokens", """[{"id": 9, "content": "z"}, {"id": 9, "content": "y"}]""", "stands twice")]
    [InlineData("added_tokens", """[{"id": 2147483647, "content": "z"}]""", "outside")]
    [InlineData("normalizer", """{"type": "Nmt"}""", "'Nmt' is not supported")]
    [InlineData("normalizer", """{"type": "Precompiled", "precompiled_charsmap": "!"}""", "base 64")]
    [InlineData("normalizer", """{"type": "Precompiled", "precompiled_charsmap": "////fwAAAAA="}""", "damaged")]
    [InlineData("normalizer", "{}", "'type' is missing")]
    [InlineData("normalizer", """{"type": "Replace", "pattern": {"Regex": "("}, "content": ""}""", "pattern.Regex")]
    [InlineData("normalizer", """{"type": "Replace", "pattern": {"String": ""}, "content": ""}""", "empty")]
    [InlineData("pre_tokenizer", """{"type": "New"}""", "'New' is not supported")]
    [InlineData("pre_tokenizer", """{"type": "Metaspace", "replacement": "ab"}""", "one character")]
    [InlineData("pre_tokenizer", """{"type": "Split", "pattern": {"String": "x"}, "behavior": "7"}""", "behavior")]
    [InlineData("decoder", """{"type": "CTC"}""", "'CTC' is not supported")]
    [InlineData("post_processor", """{"type": "BertProcessing", "cls": ["a", 1], "sep": ["z", 77]}""", "77")]
    [InlineData("post_processor", """{"type": "TemplateProcessing", "single": [], "pair": []}""", "each text")]
    [InlineData("post_processor", """{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "S"}}], "pair": []}""", "'S'")]
    public void Damage_is_named(string path, string value, string message)
    {
        var error = Assert.Throws<InputException>(() => Open(Bpe, path, value));
        Assert.Contains("tokenizer.json: ", error.Message, StringComparison.Ordinal);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Theory]
    [InlineData("tokenizer.json", "", "not valid JSON")]
    [InlineData("tokenizer.json", "[1]", "no JSON object")]
    [InlineData("tokenizer.json", "{\"model\": {\"type\": \"\\ud800\"}}", "not valid Unicode")]
    [InlineData("tokenizer.json", """{"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}}""", "stands twice")]
    [InlineData("tokenizer.model", "", "no piece")]
    [InlineData("tokenizer.model", "not a protobuf", "not a SentencePiece model")]
    [InlineData("tokenizer.model", "\n\u0003\n\u0001a", "BPE kind")]
    [InlineData("vocab.txt", "a\nb\na\n", "'a' stands twice")]
    [InlineData("vocab.txt", "a\nb\n", "'[CLS]' is missing")]
    public void Damaged_files_are_named(string file, string content, string message)
    {
        using var folder = new TokenizerFolder();
        File.WriteAllText(folder.File(file), content);
        var error = Assert.Throws<InputException>(() => TokenizerLoader.FromFolder(folder.Path));
        Assert.Contains(file + ": ", error.Message, StringComparison.Ordinal);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"a\": 0, \"b\": 1}", "#version: 0.2\na b\n", "merges.txt: line 2: the merge of 'a' and 'b'")]
    [InlineData("{\"a\": 0}", "#version: 0.2\na\n", "merges.txt: line 2: should be two tokens")]
    [InlineData("{\"a\": null}", "", "vocab.json: ")]
    [InlineData("{\"<s>\": 0}", "", "vocab.json: the special token '</s>' is missing")]
    public void Damaged_vocabulary_and_merges_are_named(string vocabulary, string merges, string message)
    {
        using var folder = new TokenizerFolder();
        File.WriteAllText(folder.File("vocab.json"), vocabulary);
        File.WriteAllText(folder.File("merges.txt"), merges);
        var error = Assert.Throws<InputException>(() => TokenizerLoader.FromFolder(folder.Path));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_without_a_tokenizer_says_what_was_looked_for()
    {
        using var folder = new TokenizerFolder();
        var error = Assert.Throws<InputException>(() => TokenizerLoader.FromFolder(folder.Path));
        foreach (var name in new[] { "tokenizer.json", "tokenizer.model", "spm.model", "vocab.json", "merges.txt", "vocab.txt" })
            Assert.Contains(name, error.Message, StringComparison.Ordinal);
        Assert.Throws<InputException>(() => TokenizerLoader.FromFolder(folder.File("none")));
    }

    [Fact]
    public void Roles_may_be_strings_or_objects()
    {
        using var folder = new TokenizerFolder();
        File.WriteAllText(folder.File("tokenizer.json"), Bpe);
        File.WriteAllText(folder.File("tokenizer_config.json"), """{"bos_token": {"content": "a"}, "eos_token": null}""");
        File.WriteAllText(folder.File("special_tokens_map.json"), """{"bos_token": "b", "eos_token": "<x>", "pad_token": "none"}""");
        var tokenizer = TokenizerLoader.FromFolder(folder.Path);
        Assert.Equal((1, 5, null), (tokenizer.BosId, tokenizer.EosId, tokenizer.PadId));
        File.WriteAllText(folder.File("tokenizer_config.json"), """{"bos_token": 3}""");
        Assert.Contains("tokenizer_config.json: bos_token", Assert.Throws<InputException>(
            () => TokenizerLoader.FromFolder(folder.Path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Damaged_bytes_load_or_are_refused()
    {
        foreach (var intact in new[] { Bpe, WordPiece })
        {
            var bytes = Encoding.UTF8.GetBytes(intact);
            using var folder = new TokenizerFolder();
            Gen.Select(Gen.Int[0, bytes.Length - 1], Gen.Byte, Gen.Int[0, 8]).Sample((at, value, cut) =>
            {
                var damaged = bytes.ToArray();
                damaged[at] = value;
                File.WriteAllBytes(folder.File("tokenizer.json"), cut == 0 ? damaged[..at] : damaged);
                try
                {
                    TokenizerLoader.FromFolder(folder.Path).Encode("ab, <x> aba");
                }
                catch (InputException error)
                {
                    Assert.DoesNotContain('\n', error.Message);
                }
            }, iter: 2000, threads: 1);
        }
    }

    [SharedFact]
    public void Damaged_pieces_load_or_are_refused()
    {
        // The first pieces are enough; the end holds the settings.
        var whole = File.ReadAllBytes(Shared.Path("data/tokenizers/llama2/tokenizer.model"));
        using var folder = new TokenizerFolder();
        Gen.Select(Gen.Int[0, 6000], Gen.Byte, Gen.Int[1, 400]).Sample((at, value, tail) =>
        {
            byte[] damaged = [.. whole[..6000], .. whole[^tail..]];
            damaged[Math.Min(at, damaged.Length - 1)] = value;
            File.WriteAllBytes(folder.File("tokenizer.model"), damaged);
            try
            {
                TokenizerLoader.FromFolder(folder.Path).Encode("ab, <s> aba");
            }
            catch (InputException error)
            {
                Assert.Contains("tokenizer.model: ", error.Message, StringComparison.Ordinal);
            }
        }, iter: 500, threads: 1);
    }

    private static ITokenizer Open(string json, string? path = null, string? value = null)
    {
        using var folder = new TokenizerFolder();
        if (path is not null)
        {
            var root = JsonNode.Parse(json)!;
            var parts = path.Split('.');
            var at = parts[..^1].Aggregate(root, (node, name) => node[name]!);
            at[parts[^1]] = JsonNode.Parse(value!);
            json = root.ToJsonString();
        }
        File.WriteAllText(folder.File("tokenizer.json"), json);
        return TokenizerLoader.FromFolder(folder.Path);
    }

    private static T Part<T>(string json, Func<JsonField, T> make)
    {
        using var folder = new TokenizerFolder();
        File.WriteAllText(folder.File("part.json"), json);
        return JsonField.Read(folder.File("part.json"), make);
    }
}
