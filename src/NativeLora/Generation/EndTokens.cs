using System.Text.Json;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Models;

namespace NativeLora.Generation;

/// <summary>Tokens that end a text: of <c>generation_config.json</c>, else of the config, else the tokenizer's.</summary>
internal static class EndTokens
{
    private const string Key = "eos_token_id";

    /// <exception cref="InputException">A file is malformed.</exception>
    public static HashSet<int> Of(PretrainedModel model, ITokenizer? tokenizer)
    {
        var path = model.Checkpoint.Path;
        if (OfFolder(Directory.Exists(path) ? path : Path.GetDirectoryName(Path.GetFullPath(path))!) is { Count: > 0 } generation)
            return generation;
        foreach (var part in new[] { model.Model.Config, model.Model.TextConfig })
        {
            using var config = JsonDocument.Parse(part.Json);
            if (Read(config.RootElement, part.Source) is { Count: > 0 } named)
                return named;
        }
        return tokenizer?.EosId is { } id ? [id] : [];
    }

    /// <summary>Those of <c>generation_config.json</c>; null where there is no such file.</summary>
    /// <exception cref="InputException">It is malformed.</exception>
    public static HashSet<int>? OfFolder(string folder) =>
        Path.Combine(folder, "generation_config.json") is var file && File.Exists(file) ? Read(StrictJson.ReadObject(file), file) : null;

    /// <summary>A number, a list of them, or null.</summary>
    private static HashSet<int> Read(JsonElement config, string source)
    {
        var ids = new HashSet<int>();
        if (!config.TryGetProperty(Key, out var value) || value.ValueKind == JsonValueKind.Null)
            return ids;
        foreach (var item in value.ValueKind == JsonValueKind.Array ? [.. value.EnumerateArray()] : (JsonElement[])[value])
        {
            if (item.ValueKind != JsonValueKind.Number || !item.TryGetInt32(out var id) || id < 0)
                throw Reject.At(source, $"{Key} is {StrictJson.Show(item)}; a token id or a list of them is expected");
            ids.Add(id);
        }
        return ids;
    }
}
