using System.Text.Json;
using System.Text.Json.Nodes;

namespace NativeLora.Adapters;

/// <summary>The config.json of a merged model.</summary>
internal static class MergedConfig
{
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true, NewLine = "\n" };

    /// <param name="json">The base's config.json.</param>
    /// <param name="model">The merged model: its class and, for a classifier, its number of labels.</param>
    /// <param name="labels">Names of the labels; null keeps the base's if their number fits, else numbers them.</param>
    /// <param name="untied">Whether embeddings and LM head became different tensors.</param>
    public static string Write(string json, ModelModules model, IReadOnlyList<string>? labels, bool untied)
    {
        var root = JsonNode.Parse(json)!.AsObject();
        root["architectures"] = new JsonArray(model.Architecture);
        if (untied)
            root["tie_word_embeddings"] = false;
        if (model.Architecture.EndsWith("ForSequenceClassification", StringComparison.Ordinal)
            && model.Modules.LastOrDefault(m => m.IsOutputHead && m.Kind == ModuleKind.Linear) is { OutFeatures: var count })
            Label(root, count, labels);
        return root.ToJsonString(Indented) + "\n";
    }

    // Hugging Face takes the number of labels from id2label, and two if there is none.
    private static void Label(JsonObject root, int count, IReadOnlyList<string>? labels)
    {
        root.Remove("num_labels");
        if (labels is null && ((root["id2label"] as JsonObject)?.Count ?? 2) == count)
            return;
        if (labels is not null && labels.Count != count)
            throw new InputException($"{labels.Count} label names are given, the head has {count} outputs");
        var (names, ids) = (new JsonObject(), new JsonObject());
        for (var i = 0; i < count; i++)
        {
            var name = labels?[i] ?? $"LABEL_{i}";
            names[i.ToString()] = name;
            ids[name] = i;
        }
        (root["id2label"], root["label2id"]) = (names, ids);
    }
}
