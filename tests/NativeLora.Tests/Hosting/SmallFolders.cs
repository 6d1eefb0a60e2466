using System.Text.Json.Nodes;
using NativeLora.Hosting;
using NativeLora.Models;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Training;

namespace NativeLora.Tests.Hosting;

/// <summary>Small models of random weights with tokenizers beside them, made here: an encoder of words, a decoder of characters; and rows for them.</summary>
internal sealed class SmallFolders : IDisposable
{
    public const int Layers = 4;

    private static readonly string[] s_words = [.. Enumerable.Range(0, 40).Select(i => $"{(char)('a' + (i % 20))}{(char)('a' + (i / 20))}")];

    private readonly TemporaryFolder _folder = new();

    public SmallFolders()
    {
        Encoder = _folder.File("encoder");
        TinyModel.Write(Encoder, $$"""
            {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 32, "num_hidden_layers": {{Layers}},
             "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": {{s_words.Length + 5}}, "max_position_embeddings": 32, "type_vocab_size": 2,
             "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02, "hidden_dropout_prob": 0.1,
             "attention_probs_dropout_prob": 0.1, "pad_token_id": 0, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1} }
            """, ModelHead.SequenceClassification, 0.1);
        File.WriteAllLines(Path.Combine(Encoder, "vocab.txt"), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. s_words]);
        Decoder = _folder.File("decoder");
        TinyModel.Write(Decoder, $$"""
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_hidden_layers": {{Layers}}, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 100, "max_position_embeddings": 64, "hidden_act": "silu",
             "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2}
            """, ModelHead.LanguageModel, 0.1);
        File.WriteAllText(Path.Combine(Decoder, "tokenizer_config.json"), """{"bos_token": "<s>", "eos_token": "</s>"}""");
        WriteCharacters(Path.Combine(Decoder, "tokenizer.json"));
    }

    public string Encoder { get; }

    public string Decoder { get; }

    public string Place(string name) => _folder.File(name);

    public string Write(string name, string text) => _folder.Write(name, text);

    /// <summary>Words, in which the first says the class.</summary>
    public static TrainingRow[] Rows(int count, int seed = 0) =>
        [.. Enumerable.Range(seed, count).Select(i => TrainingRow.Classified(Text(i), i % 3 == 0 ? "yes" : "no"))];

    /// <summary>A letter, and what follows it in the alphabet.</summary>
    public static TrainingRow[] Prompts(int count) =>
        [.. Enumerable.Range(0, count).Select(i => TrainingRow.Completed($"{(char)('a' + (i % 20))}:", $"{(char)('b' + (i % 20))}"))];

    public static string Text(int i) =>
        string.Join(' ', Enumerable.Range(0, 3 + (i % 7)).Select(j => j == 0 ? s_words[i % 3 == 0 ? 0 : 1] : s_words[((i * 31) + (j * 13)) % s_words.Length]));

    private static void WriteCharacters(string path)
    {
        var vocabulary = new JsonObject { ["<unk>"] = 0, ["<s>"] = 1, ["</s>"] = 2, ["\n"] = 3 };
        for (var c = ' '; c <= '~'; c++)
            vocabulary[c.ToString()] = vocabulary.Count;
        var added = new JsonArray();
        foreach (var (token, id) in ((string, int)[])[("<unk>", 0), ("<s>", 1), ("</s>", 2)])
            added.Add((JsonNode)new JsonObject { ["id"] = id, ["content"] = token, ["special"] = true, ["normalized"] = false });
        File.WriteAllText(path, new JsonObject
        {
            ["added_tokens"] = added,
            ["model"] = new JsonObject { ["type"] = "BPE", ["unk_token"] = "<unk>", ["vocab"] = vocabulary, ["merges"] = new JsonArray() },
            ["decoder"] = new JsonObject { ["type"] = "Fuse" },
            ["post_processor"] = JsonNode.Parse("""
                {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                 "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                 "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
                """),
        }.ToJsonString());
    }

    public void Dispose() => _folder.Dispose();
}
