using System.Text;
using Google.Protobuf;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Generation;
using static NativeLora.Fuzz.CheckpointReaders;

namespace NativeLora.Fuzz;

/// <summary>Readers of tokenizers and of chat templates.</summary>
internal static class TokenizerReaders
{
    private static readonly string[] Texts = ["", "ab hello  Wörld 12, 345!", "a\tb\nc\u00e9\u0301 \ud83d\ude00<s> [CLS]b</s>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"];

    private static readonly string[] Words =
    [
        "\"BPE\"", "\"WordPiece\"", "\"Unigram\"", "\"Sequence\"", "\"ByteLevel\"", "\"Metaspace\"", "\"Split\"", "\"Regex\"", "\"String\"", "\"BertNormalizer\"", "\"NFKC\"", "\"Precompiled\"", "\"precompiled_charsmap\"", "\"AAAAAA==\"",
        "\"TemplateProcessing\"", "\"BertProcessing\"", "\"RobertaProcessing\"", "\"special_tokens\"", "\"added_tokens\"", "\"unk_id\"", "\"byte_fallback\"", "\"ignore_merges\"", "\"continuing_subword_prefix\"", "\"end_of_word_suffix\"",
        "\"Strip\"", "\"Fuse\"", "\"ByteFallback\"", "\"Replace\"", "\"Prepend\"", "\"isolated\"", "\"Removed\"", "\"Isolated\"", "\"MergedWithPrevious\"", "1048576", "1048577", "\"(a|a)*$\"", "\"(a+)+$\"", "\"(?=a)*\"", "\"\\\\s+(?!\\\\S)\"",
    ];

    public static IEnumerable<FuzzReader> All =>
    [
        FuzzReader.Of("tokenizer-json", "tokenizer.json", () => [FuzzCase.Of("tokenizer.json", WordPiece), FuzzCase.Of("tokenizer.json", Bpe), FuzzCase.Of("tokenizer.json", Unigram()), FuzzCase.Of("tokenizer.json", Metaspace)], Use) with
        {
            Words = Words,
            // A token may have an id of a million, and the table of ids is an array.
            Allocates = 64 << 20,
        },
        FuzzReader.Of("tokenizer-config", "tokenizer_config.json, special_tokens_map.json", () => [FuzzCase.Of(
            ("tokenizer_config.json", Utf8("{\"cls_token\": \"[CLS]\", \"sep_token\": {\"content\": \"[SEP]\", \"lstrip\": false}, \"do_lower_case\": true, \"strip_accents\": null, \"tokenize_chinese_chars\": true}")),
            ("special_tokens_map.json", Utf8("{\"pad_token\": \"[PAD]\", \"unk_token\": \"[UNK]\", \"mask_token\": {\"content\": \"[MASK]\"}}"))).Beside(("vocab.txt", Utf8(Vocabulary)))], Use),
        FuzzReader.Of("vocab-txt", "vocab.txt", () => [FuzzCase.Of("vocab.txt", Vocabulary)], Use) with { Words = ["[CLS]", "##a", "\u0000", "[UNK]\n[UNK]"] },
        FuzzReader.Of("vocab-json", "vocab.json with merges.txt", () => [FuzzCase.Of(
            ("vocab.json", Utf8("{\"<s>\": 0, \"<pad>\": 1, \"</s>\": 2, \"<unk>\": 3, \"a\": 4, \"b\": 5, \"ab\": 6, \"\u0120\": 7, \"\u0120a\": 8, \"<mask>\": 9, \"abb\": 10}")),
            ("merges.txt", Utf8("#version: 0.2\na b\n\u0120 a\nab b\n"))).Beside(("config.json", Utf8("{\"model_type\": \"roberta\"}")))], Use) with { Allocates = 64 << 20, Words = ["\"<s>\"", "1048576", "a a", "#version"] },
        FuzzReader.Of("sentencepiece", "tokenizer.model of Llama", () => [FuzzCase.Of("tokenizer.model", Pieces(bpe: true))], Use) with { Allocates = 64 << 20 },
        FuzzReader.Of("sentencepiece-unigram", "spm.model of DeBERTa", () => [FuzzCase.Of("spm.model", Pieces(bpe: false))], Use) with { Allocates = 64 << 20 },
        FuzzReader.Of("chat-template", "chat_template.jinja, tokenizer_config.json", () =>
        [
            FuzzCase.Of("chat_template.jinja", "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}<|im_start|>system\nYou help.<|im_end|>"),
            FuzzCase.Of("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\", \"template\": \"<|start_header_id|>user<|end_header_id|>\\n\\n<|eot_id|>\"}, {\"name\": \"tool\", \"template\": \"x\"}]}"),
            FuzzCase.Of("chat_template.json", "{\"chat_template\": \"<start_of_turn>user\\n<end_of_turn>\"}"),
        ], folder => _ = ChatTemplate.FromFolder(folder, ChatTemplate.Named(ChatTemplate.Names[0])).Prompt("Hi {system} there")) with { Words = ["<|im_start|>", "<|im_end|>", "[INST]", "<start_of_turn>", "\"template\"", "\"default\""] },
        FuzzReader.Of("prompt-template", "a template of one's own", () => [FuzzCase.Of("template.txt", "{system}\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n{output}{eos}"), FuzzCase.Of("template.txt", "{bos}Q: {instruction} A: {output}\n")], folder =>
        {
            var template = ChatTemplate.FromFile(Path.Combine(folder, "template.txt"));
            _ = (template.Prompt("Hello", "be kind"), template.Prompt("{output}"), template.EndOfTurn);
        }) with { Words = ["{instruction}", "{output}", "{input}", "{system}", "{bos}", "{eos}", "{{"] },
    ];

    private static void Use(string folder)
    {
        var tokenizer = TokenizerLoader.FromFolder(folder);
        foreach (var text in Texts)
        {
            var ids = tokenizer.Encode(text);
            if (ids.Any(id => id < 0 || id >= tokenizer.VocabularySize))
                throw new InvalidOperationException($"an id is none of the {tokenizer.VocabularySize} of the vocabulary");
            _ = tokenizer.Decode(ids).Length;
        }
        _ = tokenizer.Encode("ab", "hello b", 8).Ids.Length;
        _ = tokenizer.Encode([new PromptPart("a "), new PromptPart("<s>[CLS]", true)]).Length;
    }

    private const string Vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##b\nhello\nw\n##o\n!\n,\n12\n";

    private const string WordPiece = """
        {"version": "1.0", "truncation": null, "added_tokens": [{"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}, {"id": 2, "content": "[CLS]", "special": true}, {"id": 3, "content": "[SEP]", "special": true}],
         "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"},
         "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
          "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
          "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
         "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
         "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "##b": 5, "hello": 6, "!": 7}}}
        """;

    private const string Bpe = """
        {"added_tokens": [{"id": 6, "content": "</s>", "lstrip": true, "rstrip": true, "special": true}], "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
         "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?\\p{L}+|\\s+(?!\\S)"}, "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
         "post_processor": {"type": "RobertaProcessing", "cls": ["</s>", 6], "sep": ["</s>", 6], "trim_offsets": true}, "decoder": {"type": "ByteLevel"},
         "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": {"a": 0, "b": 1, "ab": 2, "l": 3, "ll": 4, "abb": 5}, "merges": ["a b", "l l", ["ab", "b"]]}}
        """;

    private const string Metaspace = """
        {"added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "normalized": false, "special": true}], "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, {"type": "Strip"}, {"type": "StripAccents"}, {"type": "Lowercase"}]},
         "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
         "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
         "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": {"<unk>": 0, "<s>": 1, "<0x41>": 2, "a": 3, "▁": 4, "▁a": 5}, "merges": ["▁ a"]}}
        """;

    private static string Unigram() => "{\"added_tokens\": [], \"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"" + Convert.ToBase64String(CharacterMap())
        + "\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"WhitespaceSplit\"}, {\"type\": \"Metaspace\", \"replacement\": \"▁\", \"add_prefix_space\": true}, {\"type\": \"Digits\", \"individual_digits\": true}, {\"type\": \"Punctuation\"}]}, "
        + "\"decoder\": {\"type\": \"Metaspace\", \"replacement\": \"▁\"}, \"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"<unk>\", 0.0], [\"▁\", -2.0], [\"a\", -1.5], [\"ab\", -3.25], [\"lo\", -4]]}}";

    // Two units of a trie and two replacements.
    private static byte[] CharacterMap() => [8, 0, 0, 0, 0, 4, 0, 0, 1, 2, 0, 0, .. "a\0b\0"u8];

    private static byte[] Pieces(bool bpe)
    {
        using var stream = new MemoryStream();
        using (var to = new CodedOutputStream(stream, leaveOpen: true))
        {
            (string Text, float Score, int Type)[] pieces = [(bpe ? "<unk>" : "[UNK]", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("<0x41>", 0, 6), ("▁", -1, 1), ("a", -2, 1), ("b", -3, 1), ("ab", -4, 1), ("▁a", -5, 1), ("[CLS]", 0, 4), ("[SEP]", 0, 4), ("[PAD]", 0, 4)];
            foreach (var (text, score, type) in pieces)
                Message(to, 1, piece =>
                {
                    piece.WriteTag(1, WireFormat.WireType.LengthDelimited);
                    piece.WriteString(text);
                    piece.WriteTag(2, WireFormat.WireType.Fixed32);
                    piece.WriteFloat(score);
                    piece.WriteTag(3, WireFormat.WireType.Varint);
                    piece.WriteEnum(type);
                });
            Message(to, 2, trainer =>
            {
                trainer.WriteTag(3, WireFormat.WireType.Varint);
                trainer.WriteEnum(bpe ? 2 : 1);
            });
            Message(to, 3, normalizer =>
            {
                if (!bpe)
                {
                    normalizer.WriteTag(2, WireFormat.WireType.LengthDelimited);
                    normalizer.WriteBytes(ByteString.CopyFrom(CharacterMap()));
                }
                foreach (var (field, value) in new[] { (3, true), (4, !bpe), (5, true) })
                {
                    normalizer.WriteTag(field, WireFormat.WireType.Varint);
                    normalizer.WriteBool(value);
                }
            });
        }
        return stream.ToArray();
    }

    private static void Message(CodedOutputStream to, int field, Action<CodedOutputStream> write)
    {
        using var inner = new MemoryStream();
        using (var stream = new CodedOutputStream(inner, leaveOpen: true))
            write(stream);
        to.WriteTag(field, WireFormat.WireType.LengthDelimited);
        to.WriteBytes(ByteString.CopyFrom(inner.ToArray()));
    }
}
