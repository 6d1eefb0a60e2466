using Microsoft.Extensions.Logging;
using NativeLora.Hosting;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Extensions;

/// <summary>
/// Logs what becomes of models: <see cref="InferenceOptions.Observer"/> and <see cref="FineTuningOptions.Observer"/>. Event ids: 1 opened,
/// 2 not opened, 3 session made, 10 comparing layers, 11 layers chosen, 20 training begins, 21 step, 22 evaluation, 23 checkpoint,
/// 24 resumed, 25 warning, 26 trained, 27 interrupted. Steps, sessions and the progress of comparing are of level Debug. Safe to be used by
/// several models and threads.
/// </summary>
public sealed partial class NativeLoraLog : IModelObserver
{
    /// <summary>Category of loggers that are made here.</summary>
    public const string Category = "NativeLora";

    private readonly ILogger _logger;

    /// <summary>Logs to a logger.</summary>
    /// <param name="logger">The logger.</param>
    public NativeLoraLog(ILogger logger)
    {
        ArgumentNullException.ThrowIfNull(logger);
        _logger = logger;
    }

    /// <summary>Logs to a logger of the category <c>NativeLora</c>.</summary>
    /// <param name="factory">Makes it.</param>
    public NativeLoraLog(ILoggerFactory factory)
    {
        ArgumentNullException.ThrowIfNull(factory);
        _logger = factory.CreateLogger(Category);
    }

    /// <inheritdoc/>
    public void OnOpened(ModelOpened opened)
    {
        ArgumentNullException.ThrowIfNull(opened);
        Opened(_logger, opened.Kind, opened.Folder, opened.Adapters, opened.Took.TotalMilliseconds);
    }

    /// <inheritdoc/>
    public void OnOpenFailed(string kind, string folder, Exception error)
    {
        ArgumentNullException.ThrowIfNull(error);
        // Errors of these kinds are one line that says all; of others the stack is wanted.
        NotOpened(_logger, error is InputException or RunException ? null : error, kind, folder, error.Message);
    }

    /// <inheritdoc/>
    public void OnSession(string kind, int number, int sessions, TimeSpan took) => Session(_logger, kind, number, sessions, took.TotalMilliseconds);

    /// <inheritdoc/>
    public void OnSelecting(in FeatureProgress progress) => Selecting(_logger, progress.Samples, progress.AllSamples);

    /// <inheritdoc/>
    public void OnSelected(SelectionResult result, TimeSpan took)
    {
        ArgumentNullException.ThrowIfNull(result);
        if (_logger.IsEnabled(LogLevel.Information))
            Selected(_logger, string.Join(", ", result.Layers), result.Report.Layers.Count, result.Report.Strategy, result.Report.Samples, took.TotalMilliseconds);
    }

    /// <inheritdoc/>
    public void OnTraining(TrainingPlan plan)
    {
        ArgumentNullException.ThrowIfNull(plan);
        if (_logger.IsEnabled(LogLevel.Information))
            Training(_logger, plan.Rows, plan.Steps, string.Join(", ", plan.Layers), plan.TrainableParameters, plan.PlannedBytes);
    }

    /// <inheritdoc/>
    public void OnResumed(int step, string checkpoint) => Resumed(_logger, step, checkpoint);

    /// <inheritdoc/>
    public void OnStep(in TrainingProgress progress) =>
        Step(_logger, progress.Step, progress.TotalSteps, progress.Loss, progress.LearningRate, progress.GradientNorm, progress.TokensPerSecond);

    /// <inheritdoc/>
    public void OnEvaluation(TrainingEvaluation evaluation)
    {
        ArgumentNullException.ThrowIfNull(evaluation);
        if (_logger.IsEnabled(LogLevel.Information))
            Evaluated(_logger, evaluation.Step, evaluation.Result.Loss, string.Join(", ", evaluation.Result.Metrics.Select(m => FormattableString.Invariant($"{m.Name} {m.Value:0.0000}"))));
    }

    /// <inheritdoc/>
    public void OnCheckpoint(int step, string checkpoint) => Checkpoint(_logger, step, checkpoint);

    /// <inheritdoc/>
    public void OnWarning(string message) => Warned(_logger, message);

    /// <inheritdoc/>
    public void OnTrained(TrainingSummary summary)
    {
        ArgumentNullException.ThrowIfNull(summary);
        Trained(_logger, summary.Steps, summary.Loss, summary.Tokens, summary.Seconds);
    }

    /// <inheritdoc/>
    public void OnInterrupted(int step, int steps) => Interrupted(_logger, step, steps);

    [LoggerMessage(1, LogLevel.Information, "{Kind} of {Folder} opened with {Adapters} adapters in {Milliseconds:0} ms")]
    private static partial void Opened(ILogger logger, string kind, string folder, int adapters, double milliseconds);

    [LoggerMessage(2, LogLevel.Error, "{Kind} of {Folder} not opened: {Reason}")]
    private static partial void NotOpened(ILogger logger, Exception? error, string kind, string folder, string reason);

    [LoggerMessage(3, LogLevel.Debug, "session {Number} of {Sessions} of a {Kind} made in {Milliseconds:0} ms")]
    private static partial void Session(ILogger logger, string kind, int number, int sessions, double milliseconds);

    [LoggerMessage(10, LogLevel.Debug, "{Samples} of {AllSamples} samples compared")]
    private static partial void Selecting(ILogger logger, int samples, int allSamples);

    [LoggerMessage(11, LogLevel.Information, "layers {Chosen} of {Layers} chosen by {Strategy} over {Samples} samples in {Milliseconds:0} ms")]
    private static partial void Selected(ILogger logger, string chosen, int layers, string strategy, long samples, double milliseconds);

    [LoggerMessage(20, LogLevel.Information, "training on {Rows} rows begins: {Steps} steps, layers {Layers}, {Parameters} trainable parameters, {PlannedBytes} bytes planned")]
    private static partial void Training(ILogger logger, int rows, int steps, string layers, long parameters, long plannedBytes);

    [LoggerMessage(21, LogLevel.Debug, "step {Step} of {Steps}: loss {Loss:0.0000}, learning rate {LearningRate:0.##e+00}, gradient norm {GradientNorm:0.000}, {TokensPerSecond:0} tokens/s")]
    private static partial void Step(ILogger logger, int step, int steps, double loss, double learningRate, double gradientNorm, double tokensPerSecond);

    [LoggerMessage(22, LogLevel.Information, "evaluation after step {Step}: loss {Loss:0.0000} {Metrics}")]
    private static partial void Evaluated(ILogger logger, int step, double? loss, string metrics);

    [LoggerMessage(23, LogLevel.Information, "checkpoint of step {Step} written: {Checkpoint}")]
    private static partial void Checkpoint(ILogger logger, int step, string checkpoint);

    [LoggerMessage(24, LogLevel.Information, "training goes on after step {Step}: {Checkpoint}")]
    private static partial void Resumed(ILogger logger, int step, string checkpoint);

    [LoggerMessage(25, LogLevel.Warning, "{Message}")]
    private static partial void Warned(ILogger logger, string message);

    [LoggerMessage(26, LogLevel.Information, "trained: {Steps} steps, loss {Loss:0.0000}, {Tokens} tokens in {Seconds:0.0} s")]
    private static partial void Trained(ILogger logger, int steps, double loss, long tokens, double seconds);

    [LoggerMessage(27, LogLevel.Information, "training interrupted after step {Step} of {Steps}")]
    private static partial void Interrupted(ILogger logger, int step, int steps);
}
