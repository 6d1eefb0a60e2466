using NativeLora.Adapters;
using NativeLora.Checkpoints;

namespace NativeLora.Hosting;

/// <summary>How many classes the heads of adapters have, and what they are called.</summary>
internal static class AdapterLabels
{
    private static readonly string[] s_heads = ["classifier.out_proj.weight", "classifier.weight", "score.weight"];

    private const string Prefix = "base_model.model.";

    /// <summary>Outputs of the classifier that is saved with an adapter; null if there is none.</summary>
    public static int? Classes(AdapterSource adapter)
    {
        if (adapter.Trained is { } trained)
            return s_heads.Select(h => trained.Weights.Tensors.GetValueOrDefault(h)?.Shape[0]).FirstOrDefault(c => c is not null);
        var folder = adapter.Folder;
        var path = Path.Combine(folder, "adapter_model.safetensors");
        if (!File.Exists(path))
            return null;
        using var file = SafeTensorsFile.Open(path);
        foreach (var name in s_heads)
            if (file.Tensors.TryGetValue(Prefix + name, out var tensor) && tensor.Shape.Length == 2)
                return (int)Math.Clamp(tensor.Shape[0], 1, 1_000_000);
        return null;
    }

    /// <summary>Labels to open a model with so that the adapters' heads fit; null where the model's own do.</summary>
    /// <exception cref="InputException">The adapters have different numbers of classes, or other labels were given.</exception>
    public static IReadOnlyList<string>? ToOpen(InferenceOptions options, HfConfig config)
    {
        int? count = null;
        string? first = null;
        foreach (var adapter in options.Adapters)
        {
            if (Classes(adapter) is not { } classes)
                continue;
            if (count is not null && count != classes)
                throw new InputException($"adapter \"{adapter.Name}\" has {classes} classes and \"{first}\" has {count}: only adapters with as many classes share a model; load them apart");
            (count, first) = (classes, first ?? adapter.Name);
        }
        if (options.Labels is { } given)
            return count is null || count == given.Count ? given : throw new InputException($"{given.Count} labels are given, but adapter \"{first}\" has {count} classes");
        return count is null || count == config.NumLabels ? null : Numbered(count.Value);
    }

    /// <summary>Names of the classes of an adapter, or of the model where it is null.</summary>
    /// <exception cref="InputException">Its <c>labels.json</c> names others than it has.</exception>
    public static string[] Of(AdapterSource? adapter, InferenceOptions options, HfConfig config)
    {
        var count = config.NumLabels;
        if (options.Labels is { } given)
            return [.. given];
        if (adapter is not null && (adapter.Trained is { } trained ? trained.Labels : LabelsFile.Load(adapter.Folder)) is { } saved)
        {
            return saved.Count == count ? [.. saved]
                : throw new InputException($"{Path.Combine(adapter.Folder, LabelsFile.Name)} names {saved.Count} classes, but there are {count}; mend it, or remove it");
        }
        return config.Id2Label.Count == count ? [.. config.Id2Label.OrderBy(l => l.Key).Select(l => l.Value)] : Numbered(count);
    }

    private static string[] Numbered(int count) => [.. Enumerable.Range(0, count).Select(i => $"LABEL_{i}")];
}
