using System.Diagnostics;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Hosting;

/// <summary>
/// Fine-tunes a model on rows of a program: chooses layers, and trains adapters on them. Safe to call from any number of threads; one call
/// runs at a time, the others wait for their turn or are cancelled.
/// </summary>
public sealed class FineTuner : IDisposable
{
    private const string SelectionFile = "selection.json";
    private readonly string _folder;
    private readonly FineTuningOptions _options;
    private readonly TuningRows _rows;
    private readonly Device _device;
    private readonly PretrainedModel _pretrained;
    private readonly ITokenizer _tokenizer;
    private readonly SemaphoreSlim _turn = new(1, 1);
    private SelectionResult? _selection;
    private int _closing;
    private volatile bool _disposed;

    private FineTuner(string folder, TuningRows rows, FineTuningOptions options)
    {
        (_folder, _rows, _options) = (folder, rows, options);
        _device = options.Device ?? new CpuDevice(options.Threads);
        try
        {
            _pretrained = PretrainedModel.Open(folder, _device, new PretrainedOptions { Labels = rows.Labels, Seed = options.Seed, Precision = options.Precision, Checkpoint = options.Checkpoint });
            try
            {
                _tokenizer = TokenizerLoader.FromFolder(Directory.Exists(folder) ? folder : Path.GetDirectoryName(Path.GetFullPath(folder))!);
                _ = options.LengthFor(_pretrained.Model);
                rows.CheckModel(_pretrained.Model);
            }
            catch
            {
                _pretrained.Dispose();
                throw;
            }
        }
        catch
        {
            CloseDevice();
            throw;
        }
    }

    /// <summary>Opens a model to be tuned. Everything that is wrong with rows and options, and can be told without work, is told now.</summary>
    /// <param name="folder">The model: a Hugging Face folder, or a <c>.safetensors</c> or <c>.gguf</c> file with its tokenizer beside it.</param>
    /// <param name="rows">Rows to learn from, all of one kind; they are read at once.</param>
    /// <param name="options">How.</param>
    /// <exception cref="InputException">Something is missing, not valid or does not fit; the message is one line that says what to do.</exception>
    public static FineTuner Open(string folder, IEnumerable<TrainingRow> rows, FineTuningOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        ArgumentNullException.ThrowIfNull(rows);
        options ??= new FineTuningOptions();
        return Opening.Told(nameof(FineTuner), folder, 0, options.Observer, () =>
        {
            options.Validate();
            return new FineTuner(folder, new TuningRows([.. rows], options.Evaluation, options.Labels), options);
        });
    }

    /// <summary>Opens a model to be tuned on rows that come in time, such as those of a database.</summary>
    /// <param name="folder">The model, as for <see cref="Open"/>.</param>
    /// <param name="rows">Rows to learn from, all of one kind; they are held in memory.</param>
    /// <param name="options">How.</param>
    /// <param name="cancellation">Stops the reading of rows.</param>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    /// <inheritdoc cref="Open" path="/exception"/>
    public static async Task<FineTuner> OpenAsync(string folder, IAsyncEnumerable<TrainingRow> rows, FineTuningOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(rows);
        (options ?? new FineTuningOptions()).Validate();
        var read = new List<TrainingRow>();
        await foreach (var row in rows.WithCancellation(cancellation).ConfigureAwait(false))
            read.Add(row);
        return await Task.Run(() => Open(folder, read, options), cancellation).ConfigureAwait(false);
    }

    /// <summary>Rows to learn from.</summary>
    public int Rows => _rows.Count;

    /// <summary>Layers of the model.</summary>
    public int Layers => _pretrained.Model.Layers;

    /// <summary>Names of the classes in the order of their ids; one name for a score; null for language modelling.</summary>
    public IReadOnlyList<string>? Labels => _rows.Labels;

    /// <summary>Chooses the layers that get adapters. In an output folder <c>selection.json</c> is written.</summary>
    /// <param name="progress">Told after each batch, on the thread that works.</param>
    /// <param name="cancellation">Ends the wait for the turn, and stops between two batches.</param>
    /// <returns>The choice, what it is based on, and what training with it takes.</returns>
    /// <exception cref="InputException">Rows, options and model do not fit together.</exception>
    /// <exception cref="RunException">There is not enough memory, or <c>selection.json</c> cannot be written.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    /// <exception cref="ObjectDisposedException">The tuner was disposed of.</exception>
    public Task<SelectionResult> SelectAsync(IProgress<FeatureProgress>? progress = null, CancellationToken cancellation = default) =>
        InTurnAsync("select", (ref Telemetry.Call call) => Select(progress, ref call, cancellation), cancellation);

    /// <summary>
    /// Trains adapters on the layers that <see cref="SelectAsync"/> chose, which is called first where it was not. Cancelled, it leaves a
    /// checkpoint in the output folder; the same call on a tuner of the same rows and options goes on from there, and ends with the same
    /// bits as if it had not been.
    /// </summary>
    /// <param name="progress">Told after each step, on the thread that trains.</param>
    /// <param name="cancellation">Ends the wait for the turn, and stops after a step.</param>
    /// <returns>The adapter, in memory and in the output folder if there is one.</returns>
    /// <exception cref="InputException">Rows, options and model do not fit together, or the output folder holds another training.</exception>
    /// <exception cref="RunException">There is not enough memory, a file cannot be written, or the loss is not a number.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled; a <see cref="TrainingInterruptedException"/> where a checkpoint is written.</exception>
    /// <exception cref="ObjectDisposedException">The tuner was disposed of.</exception>
    public Task<FineTunedModel> TrainAsync(IProgress<TrainingProgress>? progress = null, CancellationToken cancellation = default) =>
        InTurnAsync("train", (ref Telemetry.Call call) => Train(Chosen(ref call, cancellation), progress, ref call, cancellation), cancellation);

    /// <summary>Trains adapters on layers that are given; otherwise as the call without them.</summary>
    /// <param name="layers">Numbers of the layers, from 0; none: only what is trained in full, such as a classifier.</param>
    /// <param name="progress">Told after each step, on the thread that trains.</param>
    /// <param name="cancellation">Ends the wait for the turn, and stops after a step.</param>
    /// <returns>The adapter, in memory and in the output folder if there is one.</returns>
    /// <inheritdoc cref="TrainAsync(IProgress{TrainingProgress}, CancellationToken)" path="/exception"/>
    public Task<FineTunedModel> TrainAsync(IEnumerable<int> layers, IProgress<TrainingProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(layers);
        int[] given = [.. layers.Distinct().Order()];
        if (given.Length > 0 && (given[0] < 0 || given[^1] >= Layers))
            throw new InputException($"layer {(given[0] < 0 ? given[0] : given[^1])} is to be adapted, the model has layers 0 to {Layers - 1}; give some of them");
        return InTurnAsync("train", (ref Telemetry.Call call) => Train((given, null), progress, ref call, cancellation), cancellation);
    }

    private delegate T Work<T>(ref Telemetry.Call call);

    /// <summary>Waits for the turn, then works on a thread of its own: it is busy for long.</summary>
    private async Task<T> InTurnAsync<T>(string operation, Work<T> work, CancellationToken cancellation)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return await Task.Factory.StartNew(Worked, CancellationToken.None, TaskCreationOptions.LongRunning | TaskCreationOptions.DenyChildAttach, TaskScheduler.Default).ConfigureAwait(false);
        }
        finally
        {
            _turn.Release();
        }

        T Worked()
        {
            var call = Telemetry.Begin(operation);
            try
            {
                cancellation.ThrowIfCancellationRequested();
                var result = work(ref call);
                call.End();
                return result;
            }
            catch (Exception error)
            {
                call.End(error);
                throw;
            }
        }
    }

    private SelectionResult Select(IProgress<FeatureProgress>? progress, ref Telemetry.Call call, CancellationToken cancellation)
    {
        var start = Stopwatch.GetTimestamp();
        var model = _pretrained.Model;
        var options = _options.ToSelection(model);
        LayerSelection.CheckOptions(options, model.Layers);
        if (_options.OutputFolder is { } output)
            AtomicFile.CheckFolder(output);
        var ranks = SelectionPipeline.NeedsScores(options.Strategy);
        var samples = _options.Samples ?? (model.IsEncoder ? int.MaxValue : 128);
        var examples = _rows.Train(_tokenizer, model, _options, ranks ? samples : 1024);
        var training = _options.ToTrainer("folder");
        var features = FeatureOptions.For(options.Family, options.Rule);
        var result = SelectionPipeline.Run(_pretrained, examples, new SelectionRequest
        {
            Model = _folder,
            Options = options,
            Features = features,
            Cost = new CostRequest
            {
                Lora = _options.ToLora(_rows.Head, _folder),
                Head = _rows.Head,
                Capacity = CostRequest.CapacityOf(model, examples, training.BatchSize ?? 32),
                MaxLength = examples.Max(e => e.Length),
                Device = _device,
                Threads = _options.Threads,
            },
        }, new Told(progress, _options.Observer), cancellation);
        (call.Sequences, call.Tokens) = ranks ? (examples.Count, examples.Sum(e => (long)e.Length)) : (0, 0);
        if (_options.OutputFolder is { } folder)
            result.Report.Save(Path.Combine(folder, SelectionFile));
        _options.Observer?.OnSelected(result, Stopwatch.GetElapsedTime(start));
        return _selection = result;
    }

    /// <summary>Layers chosen here, or before by a training that goes on, or else now.</summary>
    private (IReadOnlyList<int> Layers, SelectionResult? Selection) Chosen(ref Telemetry.Call call, CancellationToken cancellation)
    {
        if (_options.OutputFolder is { } folder)
            Trainer.CheckOutput(Options(folder));
        if (_selection is null && Kept() is { } kept)
            return ([.. kept.Selected.Order()], null);
        var chosen = _selection ?? Select(null, ref call, cancellation);
        return chosen.Layers.Count > 0 || _options.Strategy == SelectionStrategy.None ? (chosen.Layers, chosen)
            : throw new InputException("no layer was selected, so there is nothing to train; give another strategy or a higher ratio");
    }

    /// <summary>The selection of a training that goes on, where it was made by the same settings.</summary>
    private SelectionReport? Kept()
    {
        if (_options.OutputFolder is not { } folder || !Options(folder).Resume || !File.Exists(Path.Combine(folder, SelectionFile)))
            return null;
        var report = SelectionReport.Load(Path.Combine(folder, SelectionFile));
        var options = _options.ToSelection(_pretrained.Model);
        return report.Layers.Count == Layers && report.Strategy == SelectionOptions.NameOf(options.Strategy) && report.Ratio == options.Ratio
            && report.Rule == (options.Rule == SelectionRule.Plain ? "plain" : "paper") ? report : null;
    }

    private TrainerOptions Options(string folder) => _options.ToTrainer(folder) with
    {
        Overwrite = _options.Overwrite,
        Resume = !_options.Overwrite && new CheckpointStore(folder, 1).Steps().Count > 0,
    };

    private FineTunedModel Train((IReadOnlyList<int> Layers, SelectionResult? Selection) chosen, IProgress<TrainingProgress>? progress, ref Telemetry.Call call, CancellationToken cancellation)
    {
        if (_options.OutputFolder is { } folder)
            return Train(folder, chosen, progress, ref call, cancellation);
        var temporary = Directory.CreateTempSubdirectory("nativelora-");
        try
        {
            return Train(temporary.FullName, chosen, progress, ref call, cancellation);
        }
        catch (TrainingInterruptedException error)
        {
            throw new OperationCanceledException($"interrupted after step {error.Step}; nothing is kept, as there is no output folder", error, cancellation);
        }
        finally
        {
            temporary.Delete(recursive: true);
        }
    }

    private FineTunedModel Train(
        string folder, (IReadOnlyList<int> Layers, SelectionResult? Selection) chosen, IProgress<TrainingProgress>? progress, ref Telemetry.Call call, CancellationToken cancellation)
    {
        var options = Options(folder);
        var metrics = _rows.Metrics;
        Trainer.CheckOutput(options);
        Trainer.CheckBest(options, _rows.Head, _options.Evaluation.Count > 0, metrics);
        var (rows, dev) = (_rows.Train(_tokenizer, _pretrained.Model, _options), _rows.Dev(_tokenizer, _pretrained.Model, _options));
        using var model = TrainableModel.OnLayers(_pretrained, _rows.Head, _options.ToLora(_rows.Head, _folder), chosen.Layers, options.Seed, optimizer: options.Optimizer);
        var told = new Told(progress, _options.Observer);
        using var trainer = new Trainer(model, rows, options, dev, metrics, told);
        var memory = trainer.Memory;
        _options.Observer?.OnTraining(new TrainingPlan(chosen.Layers, trainer.Examples, trainer.TotalSteps, model.Parameters.Elements, memory.Total + trainer.EvaluationBytes));
        TrainingSummary summary;
        try
        {
            summary = trainer.Run(cancellation);
        }
        catch (TrainingInterruptedException error)
        {
            _options.Observer?.OnInterrupted(error.Step, trainer.TotalSteps);
            throw;
        }
        finally
        {
            call.Tokens += trainer.TokensHere;
        }
        var (config, weights) = options.SaveResidual ? (model.Config!, model.Export()) : model.ExportPlain();
        var adapter = new TrainedAdapter(TargetResolver.Complete(config, _pretrained.Modules(_rows.Head)), weights, _rows.Labels);
        // The trainer has evaluated these very weights at its end, unless it went back to better ones, or there was nothing left to do.
        var evaluation = summary.BestStep is null || summary.BestStep == summary.Steps ? summary.Evaluation : null;
        trainer.Dispose();
        if (dev.Count > 0 && evaluation is null)
        {
            using var evaluator = new Evaluator(model, dev, metrics, new EvaluatorOptions { BatchSize = options.EvaluationBatchSize ?? 8 });
            evaluation = evaluator.Run(cancellation);
        }
        summary = summary with { OutputFolder = _options.OutputFolder ?? "", Evaluation = evaluation };
        _options.Observer?.OnTrained(summary);
        return new FineTunedModel(_folder, adapter)
        {
            Layers = chosen.Layers,
            Selection = chosen.Selection,
            Summary = summary,
            Evaluation = evaluation,
            Memory = memory,
            TrainableParameters = model.Parameters.Elements,
            Warnings = [.. model.Targets?.Warnings ?? [], .. told.Warnings],
        };
    }

    /// <summary>Waits for the call that runs, refuses those that wait, and frees everything. What was trained stays.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _closing, 1) != 0)
            return;
        _disposed = true;
        _turn.Wait();
        try
        {
            _pretrained.Dispose();
            CloseDevice();
        }
        finally
        {
            _turn.Release();
        }
    }

    private void CloseDevice()
    {
        if (_options.Device is null)
            _device.Dispose();
    }

    /// <summary>Passes on what happens.</summary>
    private sealed class Told : ITrainingObserver, IProgress<FeatureProgress>
    {
        private readonly IProgress<TrainingProgress>? _steps;
        private readonly IProgress<FeatureProgress>? _features;
        private readonly IModelObserver? _observer;

        public Told(IProgress<TrainingProgress>? progress, IModelObserver? observer) => (_steps, _observer) = (progress, observer);

        public Told(IProgress<FeatureProgress>? progress, IModelObserver? observer) => (_features, _observer) = (progress, observer);

        public List<string> Warnings { get; } = [];

        public void OnResumed(int step, string checkpoint) => _observer?.OnResumed(step, checkpoint);

        public void OnStep(in TrainingProgress progress)
        {
            _observer?.OnStep(progress);
            _steps?.Report(progress);
        }

        public void OnEvaluation(TrainingEvaluation evaluation) => _observer?.OnEvaluation(evaluation);

        public void OnCheckpoint(int step, string checkpoint) => _observer?.OnCheckpoint(step, checkpoint);

        public void OnWarning(string message)
        {
            Warnings.Add(message);
            _observer?.OnWarning(message);
        }

        public void Report(FeatureProgress value)
        {
            _observer?.OnSelecting(value);
            _features?.Report(value);
        }
    }
}
