using NativeLora.Data;

namespace NativeLora.Training;

/// <summary>Where a training stands after a step.</summary>
/// <param name="Step">Steps made, from 1.</param>
/// <param name="TotalSteps">Steps of the whole training.</param>
/// <param name="Epoch">Passes over the examples so far, the one at hand as a fraction.</param>
/// <param name="Loss">Mean loss of the step's batch, before the update.</param>
/// <param name="MeanLoss">Mean of the steps' losses since the last line of metrics.</param>
/// <param name="LearningRate">Learning rate of the step.</param>
/// <param name="GradientNorm">Norm of the gradients before clipping.</param>
/// <param name="Tokens">Tokens trained on since the beginning.</param>
/// <param name="TokensPerSecond">Speed of the steps since the process began.</param>
/// <param name="Seconds">Time since the beginning, interruptions left out.</param>
/// <param name="SecondsLeft">Time that the steps left will take at that speed.</param>
public readonly record struct TrainingProgress(
    int Step, int TotalSteps, double Epoch, double Loss, double MeanLoss, double LearningRate, double GradientNorm, long Tokens,
    double TokensPerSecond, double Seconds, double SecondsLeft)
{
    /// <summary>Bytes that all ranks together sent for the step; null where one process trains.</summary>
    public long? WireBytes { get; init; }
}

/// <summary>An evaluation in the course of a training.</summary>
/// <param name="Step">Steps made before it.</param>
/// <param name="Epoch">Passes over the training examples so far.</param>
/// <param name="Result">What came out.</param>
/// <param name="IsBest">Whether it is the best so far, where the best is kept.</param>
public sealed record TrainingEvaluation(int Step, double Epoch, EvaluationResult Result, bool IsBest);

/// <summary>Is told what happens in a training, on the thread that trains.</summary>
public interface ITrainingObserver
{
    /// <summary>The training goes on from a checkpoint.</summary>
    void OnResumed(int step, string checkpoint) { }

    /// <summary>A step was made.</summary>
    void OnStep(in TrainingProgress progress) { }

    /// <summary>An evaluation was made.</summary>
    void OnEvaluation(TrainingEvaluation evaluation) { }

    /// <summary>A checkpoint was written.</summary>
    void OnCheckpoint(int step, string checkpoint) { }

    /// <summary>Something is not as it should be, but the training goes on.</summary>
    void OnWarning(string message) { }
}

/// <summary>How a training ended.</summary>
/// <param name="Steps">Steps made in all.</param>
/// <param name="Loss">Loss of the last step.</param>
/// <param name="Tokens">Tokens trained on.</param>
/// <param name="Seconds">Time taken, interruptions left out.</param>
/// <param name="Evaluation">The last evaluation of this process; null if there was none.</param>
/// <param name="BestStep">Step of the best evaluation, where the best is kept.</param>
/// <param name="BestValue">Its value.</param>
/// <param name="OutputFolder">Where the result lies.</param>
public sealed record TrainingSummary(
    int Steps, double Loss, long Tokens, double Seconds, EvaluationResult? Evaluation, int? BestStep, double? BestValue, string OutputFolder)
{
    /// <summary>What the ranks did for one another; null where one process trained.</summary>
    public RankSummary? Ranks { get; init; }
}

/// <summary>A training was interrupted after a step; its checkpoint is written.</summary>
public sealed class TrainingInterruptedException : OperationCanceledException
{
    internal TrainingInterruptedException(int step, int total, string checkpoint, CancellationToken token)
        : base($"interrupted after step {step} of {total}; the checkpoint is {checkpoint}", token) =>
        (Step, Checkpoint) = (step, checkpoint);

    /// <summary>Steps made.</summary>
    public int Step { get; }

    /// <summary>Folder of the checkpoint.</summary>
    public string Checkpoint { get; }
}

/// <summary>What an evaluation gives.</summary>
public sealed record EvaluationResult
{
    /// <summary>Mean of the batch losses weighted by the batches' labelled sequences; null where nothing is labelled.</summary>
    public double? Loss { get; init; }

    /// <summary>exp of the loss, for language models.</summary>
    public double? Perplexity { get; init; }

    /// <summary>Metrics over the labelled examples; empty for language models and where nothing is labelled.</summary>
    public IReadOnlyList<MetricValue> Metrics { get; init; } = [];

    /// <summary>Logits [examples, <see cref="LabelCount"/>] in the order of the examples; empty for language models.</summary>
    public float[] Logits { get; init; } = [];

    /// <summary>Columns of the logits.</summary>
    public int LabelCount { get; init; }

    /// <summary>Class of each example with the highest logit; empty for scores.</summary>
    public int[] Classes { get; init; } = [];

    /// <summary>Predicted score of each example; empty for classes.</summary>
    public double[] Scores { get; init; } = [];

    /// <summary>Examples.</summary>
    public int Examples { get; init; }

    /// <summary>Time taken.</summary>
    public double Seconds { get; init; }

    /// <summary>A metric by name, <c>loss</c> and <c>perplexity</c> among them; null if there is none of that name.</summary>
    public double? Value(string name) => name switch
    {
        "loss" => Loss,
        "perplexity" => Perplexity,
        _ => Metrics.Where(m => m.Name == name).Select(m => (double?)m.Value).FirstOrDefault(),
    };
}
