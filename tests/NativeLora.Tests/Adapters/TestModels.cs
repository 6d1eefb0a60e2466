using System.Text.Json;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Models;

namespace NativeLora.Tests.Adapters;

/// <summary>The modules of the fixtures' models, from their config.json.</summary>
internal static class TestModels
{
    public static ModelModules Of(string folder)
    {
        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "config.json")));
        var root = document.RootElement;
        return root.GetProperty("model_type").GetString() switch
        {
            "llama" => Llama(root),
            "bert" or "roberta" => Bert(root),
            _ => Of(HfConfig.Open(folder)),
        };
    }

    /// <summary>As the model's own file lists them, with the head that goldens have.</summary>
    private static ModelModules Of(HfConfig config)
    {
        var model = ModelRegistry.Create(config);
        return PretrainedModel.Modules(model, model.IsEncoder ? ModelHead.SequenceClassification : ModelHead.LanguageModel);
    }

    public static ModelModules Case(string name) => Of(Shared.Path("fixtures", "models", name, "model"));

    private static int Size(JsonElement root, string key) => root.GetProperty(key).GetInt32();

    private static ModelModules Bert(JsonElement root)
    {
        var type = root.GetProperty("model_type").GetString()!;
        var (hidden, wide) = (Size(root, "hidden_size"), Size(root, "intermediate_size"));
        var layers = Size(root, "num_hidden_layers");
        var labels = root.TryGetProperty("id2label", out var map) ? map.EnumerateObject().Count() : 2;
        var modules = new List<ModuleInfo>();
        void Linear(string name, int from, int to, bool head = false) => modules.Add(new(name, ModuleKind.Linear, from, to, true, head));
        void Norm(string name) => modules.Add(new(name, ModuleKind.Norm, hidden, hidden, true, false));
        void Table(string name, string rows) => modules.Add(new($"{type}.embeddings.{name}", ModuleKind.Embedding, Size(root, rows), hidden, false, false));

        Table("word_embeddings", "vocab_size");
        Table("position_embeddings", "max_position_embeddings");
        Table("token_type_embeddings", "type_vocab_size");
        Norm($"{type}.embeddings.LayerNorm");
        for (var l = 0; l < layers; l++)
        {
            var at = $"{type}.encoder.layer.{l}";
            foreach (var part in new[] { "query", "key", "value" })
                Linear($"{at}.attention.self.{part}", hidden, hidden);
            Linear($"{at}.attention.output.dense", hidden, hidden);
            Norm($"{at}.attention.output.LayerNorm");
            Linear($"{at}.intermediate.dense", hidden, wide);
            Linear($"{at}.output.dense", wide, hidden);
            Norm($"{at}.output.LayerNorm");
        }
        if (type == "bert")
        {
            modules.Add(new("bert.pooler", ModuleKind.Other, 0, 0, false, false));
            Linear("bert.pooler.dense", hidden, hidden);
            Linear("classifier", hidden, labels, head: true);
            return new(type, "BertForSequenceClassification", modules, layers);
        }
        modules.Add(new("classifier", ModuleKind.Other, 0, 0, false, true));
        Linear("classifier.dense", hidden, hidden, head: true);
        Linear("classifier.out_proj", hidden, labels, head: true);
        return new(type, "RobertaForSequenceClassification", modules, layers);
    }

    private static ModelModules Llama(JsonElement root)
    {
        var (hidden, wide, vocabulary) = (Size(root, "hidden_size"), Size(root, "intermediate_size"), Size(root, "vocab_size"));
        var (layers, heads) = (Size(root, "num_hidden_layers"), Size(root, "num_attention_heads"));
        var head = hidden / heads;
        var narrow = Size(root, "num_key_value_heads") * head;
        var modules = new List<ModuleInfo> { new("model.embed_tokens", ModuleKind.Embedding, vocabulary, hidden, false, false) };
        void Linear(string name, int from, int to) => modules.Add(new(name, ModuleKind.Linear, from, to, false, name == "lm_head"));
        void Norm(string name) => modules.Add(new(name, ModuleKind.Norm, hidden, hidden, false, false));
        for (var l = 0; l < layers; l++)
        {
            var at = $"model.layers.{l}";
            Norm($"{at}.input_layernorm");
            Linear($"{at}.self_attn.q_proj", hidden, heads * head);
            Linear($"{at}.self_attn.k_proj", hidden, narrow);
            Linear($"{at}.self_attn.v_proj", hidden, narrow);
            Linear($"{at}.self_attn.o_proj", heads * head, hidden);
            Norm($"{at}.post_attention_layernorm");
            Linear($"{at}.mlp.gate_proj", hidden, wide);
            Linear($"{at}.mlp.up_proj", hidden, wide);
            Linear($"{at}.mlp.down_proj", wide, hidden);
        }
        Norm("model.norm");
        Linear("lm_head", hidden, vocabulary);
        return new("llama", "LlamaForCausalLM", modules, layers);
    }
}
