using System.Text.Json;
using System.Text.Json.Serialization;
using NativeLora.Checkpoints;

namespace NativeLora.Training;

/// <summary>Where a training stands: with the tensors all that its next step depends on. <c>trainer_state.json</c>.</summary>
internal sealed record TrainerState
{
    public const string File = "trainer_state.json";

    /// <summary>Updates made.</summary>
    public int Step { get; set; }

    /// <summary>Micro-batches run: number the dropouts' random numbers.</summary>
    public uint MicroBatches { get; set; }

    /// <summary>Epoch of the next micro-batch.</summary>
    public int Epoch { get; set; }

    /// <summary>Its number in the epoch.</summary>
    public int BatchIndex { get; set; }

    /// <summary>Passes over the examples.</summary>
    public double Passes { get; set; }

    /// <summary>Tokens trained on.</summary>
    public long Tokens { get; set; }

    /// <summary>Time taken.</summary>
    public double Seconds { get; set; }

    /// <summary>Loss of the last step.</summary>
    public double Loss { get; set; }

    /// <summary>Sum of losses since the last line of metrics.</summary>
    public double LossSum { get; set; }

    /// <summary>Steps since then.</summary>
    public int LossSteps { get; set; }

    /// <summary>Step of the best evaluation.</summary>
    public int? BestStep { get; set; }

    /// <summary>Its value.</summary>
    public double? BestValue { get; set; }

    /// <summary>Whether the evaluation after the last step is still to be made.</summary>
    public bool EvaluationPending { get; set; }

    /// <summary>Bytes of the metrics' file.</summary>
    public long MetricsBytes { get; set; }

    /// <summary>Processes that trained together: another number adds the same gradients in another order.</summary>
    public int Ranks { get; set; } = 1;

    /// <summary>What the result depends on beside this.</summary>
    public SortedDictionary<string, string> Settings { get; set; } = new(StringComparer.Ordinal);

    // A file that somebody wrote by hand: going on from it would end in the middle of a step.
    private string? Wrong() =>
        Step < 0 || Epoch < 0 || BatchIndex < 0 || BestStep < 0 ? "a step, an epoch or a batch is below 0"
        : Tokens < 0 || MetricsBytes < 0 || LossSteps < 0 ? "a count is below 0"
        : !(double.IsFinite(Passes) && Seconds is >= 0 and < 1e12) ? "the time is no time"
        : Settings.Values.Any(v => v is null) ? "a setting is null"
        : null;

    public void Write(string folder) => AtomicFile.WriteAllText(Path.Combine(folder, File), JsonSerializer.Serialize(this, TrainerStateJson.Default.TrainerState));

    /// <exception cref="InputException">The file is missing or malformed.</exception>
    public static TrainerState Read(string folder)
    {
        var path = Path.Combine(folder, File);
        try
        {
            var state = JsonSerializer.Deserialize(System.IO.File.ReadAllText(path), TrainerStateJson.Default.TrainerState) ?? throw new InputException($"{path}: is null");
            return state.Wrong() is { } wrong ? throw new InputException($"{path}: {wrong}: the file is damaged; remove this checkpoint") : state;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            throw new InputException($"{path}: cannot be read: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectRequiredConstructorParameters = true,
    RespectNullableAnnotations = true,
    WriteIndented = true)]
[JsonSerializable(typeof(TrainerState))]
[JsonSerializable(typeof(SortedDictionary<string, string>))]
internal sealed partial class TrainerStateJson : JsonSerializerContext;
