namespace NativeLora.Checkpoints;

/// <summary>What must hold for the sizes of any transformer, whatever its family calls them.</summary>
internal static class ConfigRules
{
    private const int MostLayers = 10_000;
    private const int MostHeads = 1 << 16;
    private const int MostWidth = 1 << 24;
    private const int MostVocabulary = 1 << 28;

    /// <summary>What a family calls its sizes.</summary>
    internal sealed record Names(
        string Hidden, string Layers, string Heads, string Intermediate, string Vocabulary, bool IntermediateOptional = false);

    private static readonly Names Usual =
        new("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size");

    private static readonly Dictionary<string, Names> Families = new(StringComparer.Ordinal)
    {
        ["llama"] = Usual,
        ["mistral"] = Usual,
        ["gemma"] = Usual,
        ["gemma2"] = Usual,
        ["gemma3_text"] = Usual,
        ["qwen2"] = Usual,
        ["qwen3"] = Usual,
        ["phi3"] = Usual,
        ["bert"] = Usual,
        ["roberta"] = Usual,
        ["xlm-roberta"] = Usual,
        ["deberta-v2"] = Usual,
        ["modernbert"] = Usual,
        ["distilbert"] = new Names("dim", "n_layers", "n_heads", "hidden_dim", "vocab_size"),
        ["gpt2"] = new Names("n_embd", "n_layer", "n_head", "n_inner", "vocab_size", IntermediateOptional: true),
    };

    /// <summary>The keys of a config's sizes.</summary>
    public static Names Of(HfConfig config) => Families.GetValueOrDefault(config.ModelType, Usual);

    public static void Check(HfConfig config)
    {
        // Nested configs lean on their family's defaults, so there only what is given is checked.
        foreach (var part in new[] { "text_config", "vision_config" })
            if (config.GetObject(part) is { } nested)
                Check(nested, Usual, required: false);
        var known = Families.TryGetValue(config.ModelType, out var names);
        Check(config, names ?? Usual, required: known);
    }

    private static void Check(HfConfig config, Names names, bool required)
    {
        var hidden = Size(names.Hidden, MostWidth);
        Size(names.Layers, MostLayers);
        var heads = Size(names.Heads, MostHeads);
        if (!names.IntermediateOptional || config.Has(names.Intermediate))
            Size(names.Intermediate, MostWidth);
        Size(names.Vocabulary, MostVocabulary);

        if (config.Has("head_dim"))
            config.GetPositiveInt("head_dim", most: MostWidth);
        else if (hidden is { } width && heads is { } count && width % count != 0)
            throw config.Fail(names.Hidden, $"is {width}, which {count} heads ({names.Heads}) do not divide");
        if (config.Has("num_key_value_heads") && heads is { } queries)
        {
            var shared = config.GetPositiveInt("num_key_value_heads", most: MostHeads);
            if (queries % shared != 0)
                throw config.Fail(names.Heads, $"is {queries}, which {shared} key/value heads (num_key_value_heads) do not divide");
        }

        int? Size(string key, int most) => required || config.Has(key) ? config.GetPositiveInt(key, most: most) : null;
    }
}
