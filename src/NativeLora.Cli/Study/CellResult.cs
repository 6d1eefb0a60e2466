using System.Text.Encodings.Web;
using System.Text.Json;
using NativeLora.Checkpoints;

namespace NativeLora.Cli.Study;

/// <summary>What one training of a study came to: its <c>result.json</c>.</summary>
internal sealed record CellResult
{
    public const string FileName = "result.json";

    private static readonly JsonSerializerOptions Format = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        WriteIndented = true,
        NewLine = "\n",
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        RespectNullableAnnotations = true,
    };

    public required string Task { get; init; }

    public required string Mask { get; init; }

    public required ulong Seed { get; init; }

    /// <summary>Hash of everything else that the result depends on.</summary>
    public required string Settings { get; init; }

    /// <summary>Loss and metrics by split, the one that counts first.</summary>
    public required IReadOnlyList<CellEvaluation> Evaluations { get; init; }

    /// <summary>Mean loss of the last pass over the training rows.</summary>
    public required double? TrainLoss { get; init; }

    /// <summary>Loss of the last step.</summary>
    public required double? LastLoss { get; init; }

    public required int Steps { get; init; }

    public required long Tokens { get; init; }

    /// <summary>Seconds of the training, evaluations included, interruptions left out.</summary>
    public required double Seconds { get; init; }

    /// <summary>Median seconds of a step.</summary>
    public required double? SecondsPerStep { get; init; }

    public required long TrainableParameters { get; init; }

    /// <summary>Elements of the base and of what is trained beside it.</summary>
    public required long AllParameters { get; init; }

    /// <summary>Bytes planned for a step, weights included.</summary>
    public required long PlannedBytes { get; init; }

    /// <summary>Bytes that evaluations take beside it.</summary>
    public required long PlannedEvaluationBytes { get; init; }

    public required long OptimizerBytes { get; init; }

    /// <summary>Bytes of the arena, where all activations lie.</summary>
    public required long ArenaBytes { get; init; }

    /// <summary>Bytes within it that are kept for the backward.</summary>
    public required long SavedBytes { get; init; }

    /// <summary>Bytes that the device had really allocated: arenas, trainable tensors, gradients, optimizer state.</summary>
    public required long AllocatedBytes { get; init; }

    /// <summary>Peak of the whole process during this training; null where the system does not tell.</summary>
    public required long? PeakProcessBytes { get; init; }

    /// <summary>A value of the split that counts; null if there is none.</summary>
    public double? Value(string metric) => Evaluations[0].Values.TryGetValue(metric, out var value) ? value : null;

    public void Save(string folder) => AtomicFile.WriteAllText(Path.Combine(folder, FileName), JsonSerializer.Serialize(this, Format) + "\n");

    /// <summary>The result of a folder; null if its training has not ended.</summary>
    /// <exception cref="InputException">It is malformed, or of another training.</exception>
    public static CellResult? Find(string folder, string task, string mask, ulong seed, string settings)
    {
        var path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
            return null;
        CellResult? result;
        try
        {
            result = JsonSerializer.Deserialize<CellResult>(File.ReadAllBytes(path), Format);
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{path}: cannot be read: {e.Message.ReplaceLineEndings(" ")}; remove this folder to train it anew", e);
        }
        return result is { Evaluations.Count: > 0 } && result.Evaluations.All(e => e is { Split: not null, Values: not null }) && (result.Task, result.Mask, result.Seed, result.Settings) == (task, mask, seed, settings)
            ? result
            : throw new InputException($"{path}: is the result of another training; remove this folder to train it anew");
    }
}

/// <summary>Loss and metrics on a split.</summary>
/// <param name="Split">Its name.</param>
/// <param name="Examples">Its rows.</param>
/// <param name="Values">By name; null where not a number.</param>
internal sealed record CellEvaluation(string Split, int Examples, IReadOnlyDictionary<string, double?> Values);
