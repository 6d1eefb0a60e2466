using System.Buffers;
using System.Diagnostics;
using System.Runtime.InteropServices;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;

namespace NativeLora.Training;

/// <summary>How examples are evaluated.</summary>
public sealed record EvaluatorOptions
{
    /// <summary>Sequences of a batch. A language model's loss is a mean of batch means, as Hugging Face's, and so depends on it a little.</summary>
    public int BatchSize { get; init; } = 8;

    /// <summary>A token that attention may not look at: see <see cref="BatchPacker"/>.</summary>
    public int? HiddenKeyId { get; init; }

    /// <summary>Ranks that share the batches out among them; all of them get the whole result. Null: this process alone.</summary>
    public RankGroup? Ranks { get; init; }
}

/// <summary>
/// Forward over examples: loss, logits and metrics. Has a plan of its own and reads the trainable tensors that a training writes, so it
/// can be run again and again in between.
/// </summary>
public sealed class Evaluator : IDisposable
{
    private readonly TrainableModel _model;
    private readonly EncodedExample[] _examples;
    private readonly TaskMetrics? _metrics;
    private readonly BatchOrder _order;
    private readonly BatchPacker _packer;
    private readonly PackedBatch _batch;
    private readonly RankGroup? _ranks;
    private readonly Session _session;
    private readonly Tensor _loss;
    private readonly Tensor? _logits;

    /// <summary>Plans and allocates.</summary>
    /// <param name="model">The model.</param>
    /// <param name="examples">What it is evaluated on.</param>
    /// <param name="metrics">Metrics of a classification or regression; null takes accuracy, or Pearson and Spearman.</param>
    /// <param name="options">Sizes.</param>
    /// <exception cref="InputException">The examples do not fit the model, or the metrics not its head.</exception>
    public Evaluator(TrainableModel model, IReadOnlyList<EncodedExample> examples, TaskMetrics? metrics = null, EvaluatorOptions? options = null)
        : this(model, examples, metrics, options, null) { }

    /// <summary>Plans and allocates, over the arena of a training that stands still meanwhile, if it is large enough.</summary>
    internal Evaluator(TrainableModel model, IReadOnlyList<EncodedExample> examples, TaskMetrics? metrics, EvaluatorOptions? options, Session? training)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(examples);
        options ??= new EvaluatorOptions();
        (_model, _ranks) = (model, options.Ranks is { Size: > 1 } ? options.Ranks : null);
        _examples = [.. examples];
        _order = Order(_examples, options.BatchSize);
        var capacity = Capacity(model, _examples, _order);
        _batch = new PackedBatch(capacity.Tokens, capacity.Sequences, model.Pretrained.Model.Pictures, capacity.Pictures);
        _packer = new BatchPacker(options.HiddenKeyId);
        if (!IsCausal)
        {
            _metrics = metrics ?? Data.Metrics.For(IsRegression);
            if (_metrics.IsRegression != IsRegression)
                throw new InputException($"{_metrics.Main} compares {(_metrics.IsRegression ? "scores" : "classes")}, but the model has {Labels} output{(Labels == 1 ? ", a score" : "s")}; open it with the labels of the task");
        }
        (var plan, _logits) = PlanFor(model, _examples, _order);
        _loss = plan.Graph.Loss!;
        _session = model.NewSession(plan, training);
    }

    /// <summary>The plan that an evaluator would make.</summary>
    internal static MemoryPlan PlanFor(TrainableModel model, IReadOnlyList<EncodedExample> examples, int batchSize) =>
        PlanFor(model, examples, Order(examples, batchSize)).Plan;

    private static (MemoryPlan Plan, Tensor? Logits) PlanFor(TrainableModel model, IReadOnlyList<EncodedExample> examples, BatchOrder order)
    {
        var longest = examples.Max(e => e.Length);
        var (graph, outputs) = model.Build(new BuildOptions { Head = model.Head, Loss = true, MaxLength = longest });
        return (MemoryPlan.For(graph, Capacity(model, examples, order)), outputs.Logits);
    }

    /// <summary>The largest batch of an order.</summary>
    internal static BatchSize Capacity(TrainableModel model, IReadOnlyList<EncodedExample> examples, BatchOrder order)
    {
        var capacity = new BatchSize(order.TokenCapacity, order.SequenceCapacity, (long)order.TokenCapacity * examples.Max(e => e.Length));
        return capacity with { Pictures = model.Pretrained.Model.Pictures?.Capacity(examples.Select(e => e.PictureCount), capacity) ?? 0 };
    }

    private static BatchOrder Order(IReadOnlyList<EncodedExample> examples, int batchSize) =>
        new([.. examples.Select(e => e.Length)], new BatchOrderOptions { BatchSize = batchSize, FileOrder = true });

    /// <summary>Bytes that evaluations take beside the training.</summary>
    internal long Bytes => _session.Bytes;

    /// <summary>The plan.</summary>
    public MemoryPlan Plan => _session.Plan;

    private bool IsCausal => _model.Head == ModelHead.LanguageModel;

    private int Labels => _model.Pretrained.Model.Config.NumLabels;

    private bool IsRegression => Labels == 1;

    /// <summary>Evaluates all examples, in their order.</summary>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public EvaluationResult Run(CancellationToken cancellation = default)
    {
        var start = Stopwatch.GetTimestamp();
        _order.Seek(0, 0);
        var batches = _order.BatchCount;
        var logits = new float[_logits is null ? 0 : checked(_examples.Length * Labels)];
        var (losses, sizes) = (new double[batches], new int[batches]);
        var loss = new float[1];
        for (int b = 0, at = 0; b < batches; b++)
        {
            _ranks?.Check();
            cancellation.ThrowIfCancellationRequested();
            var indices = _order.Next();
            if (!IsOwn(b))
            {
                at += indices.Length;
                continue;
            }
            _packer.Fill(_batch, _examples, indices);
            var labelled = 0;
            foreach (var i in indices)
                labelled += IsLabelled(_examples[i]) ? 1 : 0;
            _session.Load(_batch);
            _session.Run(new RunSettings(1f / Math.Max(1, IsCausal ? _batch.LabelCount : labelled)));
            _session.Read(_loss, loss);
            // A score that is missing is not a number and would spoil the batch; scores come all or not at all.
            (losses[b], sizes[b]) = labelled == 0 ? (0, 0) : (loss[0], labelled);
            if (_logits is not null)
                _session.Read(_logits, logits.AsSpan(at * Labels, indices.Length * Labels));
            at += indices.Length;
        }
        if (_ranks is not null)
            Gather(losses, sizes, logits);
        var result = new EvaluationResult { Examples = _examples.Length };
        if (sizes.Any(s => s > 0))
        {
            var mean = Data.Metrics.EvaluationLoss(losses, sizes);
            result = result with { Loss = mean, Perplexity = IsCausal ? Data.Metrics.Perplexity(mean) : null };
        }
        if (_logits is not null)
            result = Judge(result with { Logits = logits, LabelCount = Labels });
        return result with { Seconds = Stopwatch.GetElapsedTime(start).TotalSeconds };
    }

    // Whole batches, so that each number is that of one process.
    private bool IsOwn(int batch) => _ranks is null || batch % _ranks.Size == _ranks.Rank;

    /// <summary>Takes from each rank what its batches gave: losses, labels and logits, in the order of the batches.</summary>
    private void Gather(double[] losses, int[] sizes, float[] logits)
    {
        var own = new ArrayBufferWriter<byte>();
        ForEach(_ranks!.Rank, (b, rows) =>
        {
            own.Write(BitConverter.GetBytes(losses[b]));
            own.Write(BitConverter.GetBytes(sizes[b]));
            own.Write(MemoryMarshal.AsBytes(logits.AsSpan(rows)));
        });
        var all = _ranks.Gather(own.WrittenSpan);
        for (var rank = 0; rank < all.Length; rank++)
        {
            var at = 0;
            var bytes = all[rank];
            ForEach(rank, (b, rows) =>
            {
                losses[b] = BitConverter.ToDouble(bytes, at);
                sizes[b] = BitConverter.ToInt32(bytes, at + sizeof(double));
                at += sizeof(double) + sizeof(int);
                var to = MemoryMarshal.AsBytes(logits.AsSpan(rows));
                bytes.AsSpan(at, to.Length).CopyTo(to);
                at += to.Length;
            });
        }
    }

    private void ForEach(int rank, Action<int, Range> batch)
    {
        _order.Seek(0, 0);
        var count = _order.BatchCount;
        for (int b = 0, row = 0; b < count; b++)
        {
            var first = row;
            row += _order.Next().Length;
            if (b % _ranks!.Size == rank)
                batch(b, _logits is null ? 0..0 : (first * Labels)..(row * Labels));
        }
    }

    private EvaluationResult Judge(EvaluationResult result)
    {
        var labelled = Enumerable.Range(0, _examples.Length).Where(i => IsLabelled(_examples[i])).ToArray();
        if (IsRegression)
        {
            double[] scores = [.. result.Logits.Select(l => (double)l)];
            return result with
            {
                Scores = scores,
                Metrics = labelled.Length == 0 ? [] : _metrics!.Evaluate(
                    [.. labelled.Select(i => scores[i])], (double[])[.. labelled.Select(i => (double)_examples[i].Target)]),
            };
        }
        var classes = new int[_examples.Length];
        for (var i = 0; i < classes.Length; i++)
            classes[i] = Highest(result.Logits.AsSpan(i * Labels, Labels));
        return result with
        {
            Classes = classes,
            Metrics = labelled.Length == 0 ? [] : _metrics!.Evaluate(
                [.. labelled.Select(i => classes[i])], (int[])[.. labelled.Select(i => _examples[i].ClassLabel)]),
        };
    }

    private bool IsLabelled(EncodedExample example) =>
        IsCausal ? TrainingExamples.LabelCount(example) > 0
        : IsRegression ? !float.IsNaN(example.Target)
        : example.ClassLabel != InstructionPrompt.IgnoredLabel;

    // The first of equal ones, as argmax takes it.
    private static int Highest(ReadOnlySpan<float> logits)
    {
        var best = 0;
        for (var c = 1; c < logits.Length; c++)
            if (logits[c] > logits[best])
                best = c;
        return best;
    }

    /// <inheritdoc/>
    public void Dispose() => _session.Dispose();
}
