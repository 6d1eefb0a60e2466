using System.Text.Json;
using NativeLora.Checkpoints;
using NativeLora.Cli.Show;
using NativeLora.Selection;

namespace NativeLora.Cli.Study;

/// <summary>A task's layer scores as a file, so that a study that goes on does not measure them again.</summary>
internal static class StudyScores
{
    private const string FileName = "scores.json";

    public static void Save(string folder, LayerScores scores) =>
        AtomicFile.WriteAllText(Path.Combine(folder, FileName), JsonSerializer.Serialize(scores, JsonText.Indented) + "\n");

    /// <summary>The scores; null if they were not measured yet.</summary>
    /// <exception cref="InputException">The file is malformed.</exception>
    public static LayerScores? Find(string folder, int layers)
    {
        var path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
            return null;
        try
        {
            return JsonSerializer.Deserialize<LayerScores>(File.ReadAllBytes(path)) is { Cka: not null } scores && Fits(scores, layers)
                ? scores : throw new JsonException($"there are no scores of {layers} layers in it");
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{path}: cannot be read: {e.Message.ReplaceLineEndings(" ")}; remove it to measure anew", e);
        }
    }

    // A list that is shorter than another would end in the middle of the ranking.
    private static bool Fits(LayerScores scores, int layers) =>
        new[] { scores.Cka.Count, scores.CkaClamped?.Count, scores.CkaDebiased?.Count, scores.Cosine?.Count, scores.Gradient?.Count, scores.GradientPerByte?.Count, scores.ConstantInput?.Count }
            .All(count => count is null || count == layers);
}
