using NativeLora.Checkpoints;
using NativeLora.Graphs;
using NativeLora.Models;

namespace NativeLora.Sample.Aot;

/// <summary>A BERT classifier of random weights with a vocabulary of single letters, to try the sample with where there is no model.</summary>
internal static class TinyModel
{
    private const string Config = """
        {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 57, "max_position_embeddings": 64, "type_vocab_size": 2,
         "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02, "hidden_dropout_prob": 0.1,
         "attention_probs_dropout_prob": 0.1, "pad_token_id": 0, "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
        """;

    /// <summary>Writes its folder; always the same bytes.</summary>
    public static void Write(string folder)
    {
        Directory.CreateDirectory(folder);
        var letters = Enumerable.Range('a', 26).Select(c => $"{(char)c}");
        File.WriteAllLines(Path.Combine(folder, "vocab.txt"), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. letters, .. letters.Select(l => $"##{l}")]);
        var graph = new Graph(Trainables.None);
        ModelRegistry.Create(HfConfig.Parse(Config)).Build(graph, new BuildOptions { Head = ModelHead.SequenceClassification, MaxLength = 1 });
        SafeTensorsWriter.Write(Path.Combine(folder, "model.safetensors"), [.. graph.Weights.Select((tensor, t) =>
        {
            var shape = tensor.Shape;
            var norm = tensor.Name.EndsWith("LayerNorm.weight", StringComparison.Ordinal) ? 1f : 0f;
            var values = Enumerable.Range(0, shape.FixedRows * shape.Columns).Select(i => norm + (((((uint)((i * 7919) + (t * 104729)) * 2654435761u) >> 8) & 0xFFFF) / 65536f * 0.4f) - 0.2f);
            return TensorToWrite.From(tensor.Name, shape.FixedRows == 1 ? [shape.Columns] : [shape.FixedRows, shape.Columns], values.ToArray());
        })]);
        File.WriteAllText(Path.Combine(folder, "config.json"), Config);
    }
}
