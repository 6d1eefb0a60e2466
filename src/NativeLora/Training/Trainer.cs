using System.Diagnostics;
using System.Runtime.ExceptionServices;
using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Models;

namespace NativeLora.Training;

/// <summary>
/// Trains a model over examples: steps, evaluations, metrics and checkpoints. Interrupted at any moment and resumed, it ends with the same
/// bits as undisturbed. A step allocates nothing on the managed heap.
/// </summary>
public sealed class Trainer : IDisposable
{
    private readonly TrainableModel _model;
    private readonly TrainerOptions _options;
    private readonly ITrainingObserver _observer;
    private readonly EncodedExample[] _train;
    private readonly int[] _labels;
    private readonly Evaluator? _evaluator;
    private readonly BatchOrder _order;
    private readonly BatchPacker _packer;
    private readonly PackedBatch _batch;
    private readonly int[] _indices;
    private readonly int[] _counts;
    private readonly TrainingSession _session;
    private readonly LearningRate _schedule;
    private readonly SortedDictionary<string, string>? _alike;
    private readonly CheckpointStore _store;
    private readonly RankGroup? _ranks;
    private readonly RankTraining? _shared;
    private TrainerState _state;
    private MetricsLog? _log;
    private EvaluationResult? _lastEvaluation;
    private string? _lastCheckpoint;
    private bool _unsaved = true;
    private bool _started;
    private long _began, _tokensHere;
    private double _secondsBefore, _stepSeconds;
    private int _stepsHere;
    private readonly StepTimer? _timer;

    /// <summary>Checks everything, plans for the largest batch and allocates; nothing is written before <see cref="Run"/>.</summary>
    /// <param name="model">What is trained.</param>
    /// <param name="train">Examples to learn from.</param>
    /// <param name="options">How.</param>
    /// <param name="dev">Examples to evaluate on; null for none.</param>
    /// <param name="metrics">Metrics of a classification or regression; null takes accuracy, or Pearson and Spearman.</param>
    /// <param name="observer">Is told what happens.</param>
    /// <exception cref="InputException">An option or an example does not fit.</exception>
    public Trainer(
        TrainableModel model, IReadOnlyList<EncodedExample> train, TrainerOptions options, IReadOnlyList<EncodedExample>? dev = null,
        TaskMetrics? metrics = null, ITrainingObserver? observer = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(train);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        if (model.Parameters.Gradients is null)
            throw new ArgumentException("the model was opened without gradients and optimizer state", nameof(model));
        if (model.Parameters.Optimizer != options.Optimizer)
            throw new ArgumentException($"the model was opened for the optimizer {model.Parameters.Optimizer.Name()}, the options name {options.Optimizer.Name()}", nameof(model));
        (_model, _options, _observer) = (model, options, observer ?? new Silent());
        _ranks = options.Ranks is { Size: > 1 } ? options.Ranks : null;
        if (dev is { Count: 0 })
            dev = null;
        _train = [.. train];
        var transformer = model.Pretrained.Model;
        _labels = TrainingExamples.Check(_train, model.Head, transformer.Config.NumLabels, Math.Min(options.MaxLength ?? int.MaxValue, transformer.MaxPositions));
        _order = new BatchOrder([.. _train.Select(e => e.Length)], options.Order);
        _schedule = Schedule();
        CheckBest(options, model.Head, dev is not null, metrics ?? Metrics.For(transformer.Config.NumLabels == 1));
        var longest = _train.Max(e => e.Length);
        var capacity = Evaluator.Capacity(model, _train, _order);
        var sequences = capacity.Sequences;
        if (_ranks is not null)
            capacity = RankShare.Capacity(capacity, _ranks.Size, longest);
        _batch = new PackedBatch(capacity.Tokens, capacity.Sequences, transformer.Pictures, capacity.Pictures);
        _packer = new BatchPacker(options.HiddenKeyId);
        _indices = new int[checked(options.AccumulationSteps * sequences)];
        _counts = new int[options.AccumulationSteps];
        _store = new CheckpointStore(options.OutputFolder, options.KeepCheckpoints);
        _state = new TrainerState { Settings = TrainingSettings.Of(model, _train, dev, options, _schedule), Ranks = _ranks?.Size ?? 1 };
        var batch = options.EvaluationBatchSize ?? (options.BatchTokens is null ? options.BatchSize!.Value : 8);
        Recomputation = new TrainingMemory(model, options, _train, dev is null ? null : Evaluator.PlanFor(model, dev, batch)).Choose(capacity, longest);
        _session = new TrainingSession(model, capacity, longest, options.Adam, options.BaseDropout, Recomputation?.Layers, options.PackWeights) { Seed = options.Seed };
        LongestSequence = longest;
        _timer = options.ProfileSteps > 0 ? new StepTimer(_session.Session, options.ProfileSteps) : null;
        try
        {
            _shared = _ranks is null ? null : new RankTraining(_ranks, model, _session, _train, sequences, options.LeastRangeBytes);
            _alike = _shared is null ? null : Alike(dev);
            if (dev is not null)
                _evaluator = new Evaluator(model, dev, metrics, new EvaluatorOptions { BatchSize = batch, HiddenKeyId = options.HiddenKeyId, Ranks = _ranks }, _session.Session);
        }
        catch
        {
            _session.Dispose();
            throw;
        }
    }

    /// <summary>Examples to learn from.</summary>
    public int Examples => _train.Length;

    /// <summary>Optimizer steps of the whole training.</summary>
    public int TotalSteps => _schedule.TotalSteps;

    /// <summary>Learning rate of each step.</summary>
    public LearningRate LearningRate => _schedule;

    /// <summary>The plan of a training step.</summary>
    public MemoryPlan Plan => _session.Session.Plan;

    /// <summary>What a training step takes, by category.</summary>
    public MemoryReport Memory => Plan.Report(_model.Pretrained.Device.ScratchBytes, _options.Optimizer, _session.Session.PackedBytes);

    /// <summary>Tokens of the longest example.</summary>
    public int LongestSequence { get; }

    /// <summary>Where the time of the steps went that <see cref="TrainerOptions.ProfileSteps"/> asks for; null where it does not, or no step came so far.</summary>
    public StepTimes? Times => _timer?.Times;

    /// <summary>Which layers are recomputed, and what that saves; null where neither layers nor a budget were given.</summary>
    public RecomputeChoice? Recomputation { get; }

    /// <summary>Tokens trained on in this process.</summary>
    internal long TokensHere => _tokensHere;

    /// <summary>Bytes that evaluations take beside the training, kernels left out: they share its arena.</summary>
    public long EvaluationBytes => _evaluator?.Bytes ?? 0;

    /// <summary>The plan of an evaluation; null without examples for it.</summary>
    public MemoryPlan? EvaluationPlan => _evaluator?.Plan;

    /// <summary>Checks that a training may begin (or go on) in its output folder, before any work is done for it.</summary>
    /// <exception cref="InputException">An option is out of range, or the folder holds another training or is written by one.</exception>
    public static void CheckOutput(TrainerOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        if (!Directory.Exists(options.OutputFolder))
        {
            Checkpoints.AtomicFile.CheckFolder(options.OutputFolder);
            return;
        }
        using var folder = new OutputLock(options.OutputFolder);
        CheckNew(options, new CheckpointStore(options.OutputFolder, options.KeepCheckpoints));
    }

    /// <summary>Trains to the end, and writes the adapter (or model) into the output folder. May be called once.</summary>
    /// <exception cref="TrainingInterruptedException">It was cancelled: a checkpoint is written.</exception>
    /// <exception cref="InputException">The output folder holds another training, or one that cannot be resumed with these settings.</exception>
    /// <exception cref="RunException">A file cannot be written, or the loss or a gradient is not a number.</exception>
    public TrainingSummary Run(CancellationToken cancellation = default)
    {
        if (_started)
            throw new InvalidOperationException("a trainer runs once");
        _started = true;
        if (_ranks is null)
            return Train(cancellation);
        try
        {
            _ranks.Cancellation = cancellation;
            return Train(cancellation);
        }
        catch (Exception e)
        {
            // The others are told once a checkpoint is safe.
            ExceptionDispatchInfo.Throw(_ranks.Leave(Ended(e, cancellation)));
            throw;
        }
        finally
        {
            _log?.Dispose();
        }
    }

    private TrainingSummary Train(CancellationToken cancellation)
    {
        using var folder = Leads ? new OutputLock(_options.OutputFolder) : null;
        Begin();
        using (_ranks is null ? _log : null)
        {
            _began = Stopwatch.GetTimestamp();
            _secondsBefore = _state.Seconds;
            if (_state.EvaluationPending)
                FinishStep(cancellation);
            while (_state.Step < TotalSteps)
            {
                _ranks?.Check();
                if (cancellation.IsCancellationRequested)
                    Interrupt(cancellation);
                Step();
                FinishStep(cancellation);
            }
            if (_unsaved)
                Save();
        }
        _log?.Dispose();
        if (_options.KeepBest is not null && _state.BestStep is { } best && best != _state.Step)
            LoadBest(best);
        if (Leads)
            WriteResult();
        return new TrainingSummary(
            _state.Step, _state.Loss, _state.Tokens, _state.Seconds, _lastEvaluation, _state.BestStep, _state.BestValue, _options.OutputFolder)
        { Ranks = _shared?.Summary };
    }

    private void WriteResult()
    {
        TrainedTensors.Save(_model, _options.OutputFolder, plain: !_options.SaveResidual);
        if (_model.Config is null)
            Adapters.AdapterMerger.CopyCompanions(_model.Pretrained.Checkpoint, _options.OutputFolder);
    }

    /// <summary>Whether this process writes files: the only one, or rank 0.</summary>
    private bool Leads => _ranks?.Leads ?? true;

    /// <summary>What all ranks must have been started with.</summary>
    private SortedDictionary<string, string> Alike(IReadOnlyList<EncodedExample>? dev) => new(_state.Settings, StringComparer.Ordinal)
    {
        ["program"] = $"{typeof(Trainer).Assembly.GetName().Version} {typeof(Trainer).Module.ModuleVersionId}",
        ["trainable tensors"] = _shared!.Values(),
        ["evaluation"] = $"{_options.EvaluateEvery}, {_options.EvaluateEachEpoch}, batches of {_options.EvaluationBatchSize}",
        ["evaluation data"] = dev is null ? "none" : Fingerprint.Of(dev),
        ["steps between checkpoints"] = $"{_options.SaveEvery}",
        ["wish to resume"] = _options.Resume ? "yes" : "no",
    };

    /// <summary>What a training of several ranks ends with; where the cause is not here, rank 0 writes what it has.</summary>
    private Exception Ended(Exception e, CancellationToken cancellation)
    {
        var interrupted = e is RankStoppedException { IsInterruption: true } or OperationCanceledException and not TrainingInterruptedException;
        if (!interrupted && e is not (RankStoppedException or RankDiedException))
            return e;
        if (_log is not null && Leads && _unsaved)
            Write();
        // What rank 0 was about to write when it died may not be there.
        if (!Leads && e is RankDiedException)
            _lastCheckpoint = _store.Steps() is [var newest, ..] ? _store.Of(newest) : null;
        var checkpoint = _lastCheckpoint is null ? "; no checkpoint was written" : $"; the checkpoint is {_lastCheckpoint}";
        var again = _lastCheckpoint is null ? "" : ": give the same command again with --resume";
        return interrupted && Leads && _lastCheckpoint is not null ? new TrainingInterruptedException(_state.Step, TotalSteps, _lastCheckpoint, cancellation)
            : e is RankDiedException ? new RunException($"{e.Message}, after step {_state.Step} of {TotalSteps}{checkpoint}{again}", e)
            : e is RankStoppedException stopped && Leads && !interrupted ? new RunException($"{_ranks!.NameOf(stopped.From)}: {e.Message}{checkpoint}{again}", e)
            : e;
    }

    private LearningRate Schedule()
    {
        var total = _options.MaxSteps ?? StepsOf(_options.Epochs);
        return new LearningRate(_options.Schedule, _options.LearningRate, total, _options.WarmupSteps ?? LearningRate.StepsOf(total, _options.WarmupRatio));
    }

    // Updates never reach over the end of an epoch, and epochs measured in tokens may differ in their batches.
    private int StepsOf(int epochs)
    {
        long steps = 0;
        for (var e = 0; e < epochs; e++)
        {
            if (e == 0 || _options.BatchTokens is not null)
                _order.Seek(e, 0);
            steps += (_order.BatchCount + _options.AccumulationSteps - 1) / _options.AccumulationSteps;
        }
        _order.Seek(0, 0);
        return steps <= int.MaxValue ? (int)steps : throw new InputException($"{epochs} epochs are {steps} steps, more than can be counted; lower the number of epochs");
    }

    /// <summary>Checks that there is the metric to keep the best weights by.</summary>
    /// <param name="options">May name one.</param>
    /// <param name="head">What is trained.</param>
    /// <param name="evaluates">Whether there are examples to evaluate on.</param>
    /// <param name="metrics">Metrics of a classification or regression.</param>
    /// <exception cref="InputException">There is none of that name, or nothing to evaluate on.</exception>
    public static void CheckBest(TrainerOptions options, ModelHead head, bool evaluates, TaskMetrics? metrics)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.KeepBest is not { } name)
            return;
        if (!evaluates)
            throw new InputException($"the weights with the best {name} cannot be kept without examples to evaluate on; give some, or keep the last");
        IReadOnlyList<string> known = head == ModelHead.LanguageModel ? ["loss", "perplexity"] : ["loss", .. metrics?.Names ?? []];
        if (!known.Contains(name))
            throw new InputException($"there is no metric {name} to keep the best by; there are {string.Join(", ", known)}");
    }

    /// <summary>Opens the folder: a new training, or one that goes on.</summary>
    private void Begin()
    {
        _shared?.Agree(_alike!);
        if (!Leads)
        {
            Take();
            return;
        }
        var metrics = Path.Combine(_options.OutputFolder, "metrics.jsonl");
        _store.RemoveUnfinished();
        if (_options.Overwrite)
            _store.RemoveAll();
        CheckNew(_options, _store);
        if (_options.Resume)
            Resume();
        Take();
        _log = new MetricsLog(metrics, _state.MetricsBytes);
        if (_log.Length < _state.MetricsBytes)
            _observer.OnWarning($"{metrics}: lines are missing that were there when the checkpoint was written");
    }

    /// <summary>What rank 0 has read of a checkpoint goes to all others.</summary>
    private void Take()
    {
        if (_shared is null)
            return;
        _state = _shared.Share(_state);
        if (_state.Step == 0 && !_state.EvaluationPending)
            return;
        if (Leads)
            return;
        _order.Seek(_state.Epoch, _state.BatchIndex);
        (_session.Updates, _session.MicroBatches) = (_state.Step, _state.MicroBatches);
        (_lastCheckpoint, _unsaved) = (_store.Of(_state.Step), false);
    }

    private static void CheckNew(TrainerOptions options, CheckpointStore store)
    {
        if (!options.Resume && !options.Overwrite && store.Steps().Count > 0)
            throw new InputException($"{options.OutputFolder}: holds checkpoints of a training; resume it, overwrite it, or choose another folder");
    }

    private void Resume()
    {
        var steps = _store.Steps();
        foreach (var step in steps)
        {
            if (_store.Damage(step) is { } damage)
            {
                _observer.OnWarning($"{_store.Of(step)}: the checkpoint is damaged ({damage}); it is put aside as {_store.SetAside(step)}, the one before is taken");
                continue;
            }
            var (folder, now) = (_store.Of(step), _state.Settings);
            var state = TrainerState.Read(folder);
            TrainingSettings.Compare(folder, state.Settings, now);
            var ranks = _ranks?.Size ?? 1;
            if (state.Ranks != ranks)
                _observer.OnWarning($"{folder}: was written by {Processes(state.Ranks)} together, and {Processes(ranks)} go on: what comes is equal to rounding, not to the bit");
            state.Ranks = ranks;
            TrainedTensors.Load(_model, folder);
            TrainedTensors.LoadOptimizer(_model, folder);
            _order.Seek(state.Epoch, state.BatchIndex);
            (_session.Updates, _session.MicroBatches) = (state.Step, state.MicroBatches);
            (_state, _lastCheckpoint, _unsaved) = (state, folder, false);
            _observer.OnResumed(step, folder);
            return;
        }
        if (steps.Count == 0)
            _observer.OnWarning($"{_options.OutputFolder}: there is no checkpoint to go on from: the training begins at its first step");
        else
            throw new InputException($"{_options.OutputFolder}: none of the {steps.Count} checkpoints is whole; begin anew with overwrite");
    }

    private static string Processes(int count) => count == 1 ? "1 process" : $"{count} processes";

    private void Step()
    {
        var start = Stopwatch.GetTimestamp();
        _timer?.BeforeStep(TotalSteps - _state.Step);
        var sequences = _order.SequenceCapacity;
        var (batches, labels) = Gather();
        _shared?.Begin();
        var inverse = 1f / Math.Max(1, labels);
        double loss = 0;
        var tokens = 0;
        for (var i = 0; i < batches; i++)
        {
            var indices = _indices.AsSpan(i * sequences, _counts[i]);
            if (_shared is not null)
            {
                loss += _shared.Accumulate(_packer, _batch, indices, inverse, last: i == batches - 1, out var all);
                tokens += all;
                continue;
            }
            _packer.Fill(_batch, _train, indices);
            tokens += _batch.TokenCount;
            loss += _session.Accumulate(_batch, inverse, first: i == 0);
        }
        if (_shared is not null)
            loss = _shared.Finish(loss, _state.Step + 1);
        var rate = _schedule.At(_state.Step);
        if (!double.IsFinite(loss))
            throw Diverged("the loss", loss, rate);
        // Gradients that are not finite update nothing, and this step is not counted.
        var norm = _session.Update(rate, _options.MaxGradientNorm);
        _shared?.Note(norm);
        if (!double.IsFinite(norm))
            throw Diverged("the norm of the gradients", norm, rate);

        _unsaved = true;
        _state.Step++;
        _state.MicroBatches = _session.MicroBatches;
        (_state.Epoch, _state.BatchIndex) = (_order.Epoch, _order.BatchIndex);
        _state.Passes = _order.Epoch + (double)_order.BatchIndex / _order.BatchCount;
        _state.Tokens += tokens;
        _state.Loss = loss;
        _state.LossSum += loss;
        _state.LossSteps++;
        _state.Seconds = Seconds();
        var seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        _timer?.AfterStep(seconds, tokens, batches);
        _stepSeconds += seconds;
        _stepsHere++;
        _tokensHere += tokens;
        Report(rate, norm);
        _state.EvaluationPending = _evaluator is not null && (_state.Step == TotalSteps
            || (_options.EvaluateEvery > 0 && _state.Step % _options.EvaluateEvery == 0)
            || (_options.EvaluateEachEpoch && _state.BatchIndex == 0));
    }

    /// <summary>Takes the micro-batches of an update; their labels must be counted before the first of them is run.</summary>
    private (int Batches, int Labels) Gather()
    {
        var (first, batches, labels) = (_order.BatchIndex, 1, 0);
        for (var i = 0; i < batches; i++)
        {
            var batch = _order.Next();
            if (i == 0)
                batches = Math.Min(_options.AccumulationSteps, _order.BatchCount - first);
            batch.CopyTo(_indices.AsSpan(i * _order.SequenceCapacity));
            _counts[i] = batch.Length;
            foreach (var example in batch)
                labels += _labels[example];
        }
        return (batches, labels);
    }

    private void Report(double rate, double norm)
    {
        var perStep = _stepSeconds / _stepsHere;
        var progress = new TrainingProgress(
            _state.Step, TotalSteps, _state.Passes, _state.Loss, _state.LossSum / _state.LossSteps, rate, norm, _state.Tokens,
            _tokensHere / Math.Max(_stepSeconds, 1e-9), _state.Seconds, perStep * (TotalSteps - _state.Step))
        { WireBytes = _shared?.StepBytes };
        if (_state.Step % _options.LogEvery == 0 || _state.Step == TotalSteps)
        {
            _log?.Write(progress);
            (_state.LossSum, _state.LossSteps) = (0, 0);
        }
        _observer.OnStep(progress);
    }

    /// <summary>What follows a step: the evaluation that is due, and the checkpoint.</summary>
    private void FinishStep(CancellationToken cancellation)
    {
        var improved = _state.EvaluationPending && Evaluate(cancellation);
        if (improved || _state.Step == TotalSteps || (_options.SaveEvery > 0 && _state.Step % _options.SaveEvery == 0))
            Save();
    }

    /// <summary>Evaluates; true if the weights are the best so far and are to be kept.</summary>
    private bool Evaluate(CancellationToken cancellation)
    {
        EvaluationResult result;
        try
        {
            result = _evaluator!.Run(cancellation);
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The checkpoint says that the evaluation is still to be made.
            Interrupt(cancellation);
            throw;
        }
        _unsaved = true;
        _state.EvaluationPending = false;
        _state.Seconds = Seconds();
        var improved = IsBest(result);
        _lastEvaluation = result;
        var evaluation = new TrainingEvaluation(_state.Step, _state.Passes, result, improved);
        _log?.Write(evaluation, _state.Seconds);
        _observer.OnEvaluation(evaluation);
        return improved;
    }

    private bool IsBest(EvaluationResult result)
    {
        if (_options.KeepBest is not { } name || result.Value(name) is not { } value || !double.IsFinite(value))
            return false;
        if (_state.BestValue is { } best && !(_options.BestIsHigher ? value > best : value < best))
            return false;
        (_state.BestStep, _state.BestValue) = (_state.Step, value);
        return true;
    }

    private void Save()
    {
        _shared?.Compare(_state.Step);
        Write();
    }

    private void Write()
    {
        if (!Leads)
        {
            (_lastCheckpoint, _unsaved) = (_store.Of(_state.Step), false);
            return;
        }
        _log!.Flush();
        _state.MetricsBytes = _log.Length;
        _lastCheckpoint = _store.Save(_model, _state);
        _unsaved = false;
        _observer.OnCheckpoint(_state.Step, _lastCheckpoint);
    }

    private void Interrupt(CancellationToken cancellation)
    {
        if (_unsaved)
            Write();
        throw new TrainingInterruptedException(_state.Step, TotalSteps, _lastCheckpoint!, cancellation);
    }

    private void LoadBest(int step)
    {
        if (Leads && _store.Damage(step) is { } damage)
            throw new RunException($"{_store.Of(step)}: the best checkpoint is damaged ({damage}); the last one, {_lastCheckpoint}, can be used in its place");
        if (Leads)
            TrainedTensors.Load(_model, _store.Of(step));
        _shared?.ShareValues();
    }

    private RunException Diverged(string what, double value, double rate) => new(
        $"step {_state.Step + 1}: {what} is {value}, at learning rate {rate:g4}; try a lower learning rate, a longer warm-up or a lower gradient norm"
        + (_lastCheckpoint is null ? "; no checkpoint was written before" : $"; the last checkpoint, {_lastCheckpoint}, is as it was"));

    private double Seconds() => _secondsBefore + Stopwatch.GetElapsedTime(_began).TotalSeconds;

    /// <inheritdoc/>
    public void Dispose()
    {
        _session.Dispose();
        _evaluator?.Dispose();
    }

    private sealed class Silent : ITrainingObserver;
}
