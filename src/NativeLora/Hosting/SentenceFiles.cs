using System.Text.Json;
using NativeLora.Checkpoints;

namespace NativeLora.Hosting;

/// <summary>What the files of sentence-transformers beside a model say of its embeddings.</summary>
internal sealed record SentenceFiles(Pooling? Pooling, bool Normalizes, int? MaxLength)
{
    private static readonly (string Key, Pooling Pooling)[] s_modes =
        [("pooling_mode_mean_tokens", Hosting.Pooling.Mean), ("pooling_mode_cls_token", Hosting.Pooling.Cls), ("pooling_mode_lasttoken", Hosting.Pooling.LastToken)];

    /// <exception cref="InputException">A file is malformed, or asks for a pooling that is not known.</exception>
    public static SentenceFiles Read(string folder)
    {
        var pooling = Path.Combine(folder, "1_Pooling", "config.json");
        var modules = Path.Combine(folder, "modules.json");
        var limits = Path.Combine(folder, "sentence_bert_config.json");
        return new SentenceFiles(
            File.Exists(pooling) ? Mode(pooling) : null,
            File.Exists(modules) && File.ReadAllText(modules).Contains("sentence_transformers.models.Normalize", StringComparison.Ordinal),
            File.Exists(limits) && StrictJson.ReadObject(limits).TryGetProperty("max_seq_length", out var most)
                && most.ValueKind == JsonValueKind.Number && most.TryGetInt32(out var tokens) && tokens > 0 ? tokens : null);
    }

    private static Pooling Mode(string path)
    {
        var json = StrictJson.ReadObject(path);
        string[] on = [.. json.EnumerateObject().Where(p => p.Name.StartsWith("pooling_mode_", StringComparison.Ordinal) && p.Value.ValueKind == JsonValueKind.True).Select(p => p.Name)];
        return on is [var one] && s_modes.FirstOrDefault(m => m.Key == one) is { Key: not null } mode
            ? mode.Pooling
            : throw new InputException($"{path}: asks for {(on.Length == 0 ? "no pooling" : string.Join(" and ", on))}; mean, cls and lasttoken are known: say which with EmbedderOptions.Pooling and take the file away");
    }
}
