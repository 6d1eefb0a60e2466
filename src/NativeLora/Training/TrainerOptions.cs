using NativeLora.Data;
using NativeLora.Graphs;

namespace NativeLora.Training;

/// <summary>How a training goes. What changes its result is stored with each checkpoint and compared when it is resumed.</summary>
public sealed record TrainerOptions
{
    /// <summary>Folder of the adapter (or model), the metrics and the checkpoints; made if it is not there.</summary>
    public required string OutputFolder { get; init; }

    /// <summary>Passes over the examples, where <see cref="MaxSteps"/> is not given.</summary>
    public int Epochs { get; init; } = 3;

    /// <summary>Optimizer steps; null trains for <see cref="Epochs"/>.</summary>
    public int? MaxSteps { get; init; }

    /// <summary>Sequences of a micro-batch; exactly one of this and <see cref="BatchTokens"/> is set.</summary>
    public int? BatchSize { get; init; } = 8;

    /// <summary>Tokens of a micro-batch, at most.</summary>
    public int? BatchTokens { get; init; }

    /// <summary>Micro-batches of an update; the last update of an epoch may have fewer.</summary>
    public int AccumulationSteps { get; init; } = 1;

    /// <summary>Learning rate after the warm-up.</summary>
    public double LearningRate { get; init; } = 5e-5;

    /// <summary>How it goes on from there.</summary>
    public LearningRateKind Schedule { get; init; } = LearningRateKind.Linear;

    /// <summary>Share of all steps that is warm-up, where <see cref="WarmupSteps"/> is not given.</summary>
    public double WarmupRatio { get; init; }

    /// <summary>Steps of the warm-up; null takes <see cref="WarmupRatio"/>.</summary>
    public int? WarmupSteps { get; init; }

    /// <summary>Settings of AdamW.</summary>
    public AdamWOptions Adam { get; init; } = new();

    /// <summary>How the optimizer holds its moments: as the model was made.</summary>
    public OptimizerKind Optimizer { get; init; }

    /// <summary>Layers whose forward is run again before their backward. No bit of the result depends on it.</summary>
    public RecomputeLayers Recompute { get; init; } = RecomputeLayers.None;

    /// <summary>Whether frozen weights are copied into the order that the forward's products read them in: some time for their bytes once more.</summary>
    public bool PackWeights { get; init; }

    /// <summary>Bytes that all that is planned may take, evaluations included; layers are recomputed as needed. Null: no bound.</summary>
    public long? MemoryBudget { get; init; }

    /// <summary>Gradients are scaled down to this norm; 0 for no clipping.</summary>
    public double MaxGradientNorm { get; init; } = 1.0;

    /// <summary>Seed of the order of examples and of the dropouts.</summary>
    public ulong Seed { get; init; }

    /// <summary>Keep the order of the file, every epoch alike.</summary>
    public bool FileOrder { get; init; }

    /// <summary>Batches whose examples are sorted by length together: see <see cref="BatchOrderOptions.Window"/>.</summary>
    public int Window { get; init; } = 32;

    /// <summary>Tokens that an example may have at most; null leaves it to the model.</summary>
    public int? MaxLength { get; init; }

    /// <summary>Whether the base model's own dropouts act, as its config says.</summary>
    public bool BaseDropout { get; init; } = true;

    /// <summary>A token that attention may not look at: see <see cref="BatchPacker"/>.</summary>
    public int? HiddenKeyId { get; init; }

    /// <summary>Steps from evaluation to evaluation; 0 for none of this kind. The end is always evaluated, if there are examples for it.</summary>
    public int EvaluateEvery { get; init; }

    /// <summary>Whether each epoch ends with an evaluation.</summary>
    public bool EvaluateEachEpoch { get; init; }

    /// <summary>Sequences of an evaluation's batch; null: as many as a training batch has, or 8 where that is measured in tokens.</summary>
    public int? EvaluationBatchSize { get; init; }

    /// <summary>The metric by which the best evaluation's weights are kept for the end, such as <c>accuracy</c> or <c>loss</c>; null keeps the last.</summary>
    public string? KeepBest { get; init; }

    /// <summary>Whether a higher value is better; null: not for <c>loss</c> and <c>perplexity</c>, else yes.</summary>
    public bool? HigherIsBetter { get; init; }

    /// <summary>Steps from checkpoint to checkpoint; 0: only at the end, when interrupted, and of the best evaluation.</summary>
    public int SaveEvery { get; init; }

    /// <summary>Whether a PiSSA or OLoRA adapter is stored as it is, over a base without its part, and not as plain LoRA over the whole base.</summary>
    public bool SaveResidual { get; init; }

    /// <summary>Checkpoints that stay, beside the best.</summary>
    public int KeepCheckpoints { get; init; } = 2;

    /// <summary>Steps from line to line in <c>metrics.jsonl</c>.</summary>
    public int LogEvery { get; init; } = 1;

    /// <summary>Go on from the newest valid checkpoint of the folder; from the beginning if it has none.</summary>
    public bool Resume { get; init; }

    /// <summary>Begin anew where the folder holds another training, and remove its checkpoints and metrics.</summary>
    public bool Overwrite { get; init; }

    /// <summary>
    /// The ranks that train together, each with a trainer of its own over the same model, examples and options: every batch is shared out
    /// among them. Null: this process alone.
    /// </summary>
    public RankGroup? Ranks { get; init; }

    /// <summary>Bytes below which the gradients of a layer are exchanged together with those of the next.</summary>
    internal int LeastRangeBytes { get; init; } = 64 << 10;

    /// <summary>Steps of which every operation is timed, after two that are not; 0 for none, which costs nothing. No bit of the result depends on it.</summary>
    public int ProfileSteps { get; init; }

    /// <summary>Whether a higher value of the metric to keep the best by is better.</summary>
    internal bool BestIsHigher => HigherIsBetter ?? KeepBest is not ("loss" or "perplexity");

    /// <summary>How examples are put into batches.</summary>
    internal BatchOrderOptions Order => new() { BatchSize = BatchTokens is null ? BatchSize : null, BatchTokens = BatchTokens, FileOrder = FileOrder, Window = Window, Seed = Seed };

    /// <summary>Checks the numbers.</summary>
    /// <exception cref="InputException">One is out of range.</exception>
    public void Validate()
    {
        if (string.IsNullOrWhiteSpace(OutputFolder))
            throw new InputException("there is no output folder; name one");
        Least(Epochs, 1, "the number of epochs");
        Least(MaxSteps ?? 1, 1, "the number of steps");
        Least(BatchSize ?? 1, 1, "the batch size");
        Least(BatchTokens ?? 1, 1, "the number of tokens of a batch");
        Least(AccumulationSteps, 1, "the number of micro-batches of an update");
        Least(EvaluateEvery, 0, "the number of steps between evaluations");
        Least(EvaluationBatchSize ?? 1, 1, "the batch size of evaluations");
        Least(SaveEvery, 0, "the number of steps between checkpoints");
        Least(KeepCheckpoints, 1, "the number of checkpoints to keep");
        Least(LogEvery, 1, "the number of steps between lines of metrics");
        Least(ProfileSteps, 0, "the number of steps to profile");
        Least(WarmupSteps ?? 0, 0, "the number of warm-up steps");
        Least(MaxLength ?? 1, 1, "the maximum length");
        From0(LearningRate, "the learning rate");
        if (WarmupSteps is null)
            _ = Training.LearningRate.StepsOf(1, WarmupRatio);
        From0(MaxGradientNorm, "the gradient norm to clip at");
        From0(Adam.WeightDecay, "the weight decay");
        From0(Adam.Epsilon, "AdamW's epsilon");
        if (!(Adam.Beta1 is >= 0 and < 1) || !(Adam.Beta2 is >= 0 and < 1))
            throw new InputException($"AdamW's betas are {Adam.Beta1} and {Adam.Beta2}; give numbers from 0 to below 1");
        if (MemoryBudget is { } budget && budget < 1)
            throw new InputException($"the memory budget is {budget}; give a number from 1 on");
        if (MemoryBudget is not null && Recompute != RecomputeLayers.None)
            throw new InputException("the layers to recompute are either given or chosen for a memory budget; give one of them");
        if (Resume && Overwrite)
            throw new InputException("a training is either resumed or begun anew; give one of resume and overwrite");
    }

    private static void Least(int value, int least, string what)
    {
        if (value < least)
            throw new InputException($"{what} is {value}; give a number from {least} on");
    }

    private static void From0(double value, string what)
    {
        if (!(value >= 0 && double.IsFinite(value)))
            throw new InputException($"{what} is {value}; give a number from 0 on");
    }
}
