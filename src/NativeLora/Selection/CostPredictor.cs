using NativeLora.Adapters;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Selection;

/// <summary>A training to be planned, all but the choice of layers.</summary>
public sealed record CostRequest
{
    /// <summary>Settings of the adapters, as if for all layers.</summary>
    public required LoraConfig Lora { get; init; }

    /// <summary>What stands on top.</summary>
    public required ModelHead Head { get; init; }

    /// <summary>Largest micro-batch.</summary>
    public required BatchSize Capacity { get; init; }

    /// <summary>Tokens of the longest sequence.</summary>
    public required int MaxLength { get; init; }

    /// <summary>Capacity for the batch with the most tokens that rows may be put into.</summary>
    /// <param name="model">The model.</param>
    /// <param name="examples">The rows.</param>
    /// <param name="batchSize">Sequences of a batch.</param>
    public static BatchSize CapacityOf(Model model, IReadOnlyList<EncodedExample> examples, int batchSize)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(examples);
        var order = new BatchOrder([.. examples.Select(e => e.Length)], new BatchOrderOptions { BatchSize = batchSize });
        var capacity = new BatchSize(order.TokenCapacity, order.SequenceCapacity, (long)order.TokenCapacity * order.TokenCapacity / order.SequenceCapacity);
        return capacity with { Pictures = model.Pictures?.Capacity(examples.Select(e => e.PictureCount), capacity) ?? 0 };
    }

    /// <summary>Whether the base model's own dropouts act.</summary>
    public bool BaseDropout { get; init; } = true;

    /// <summary>Where it will be trained; a CPU where null.</summary>
    public Device? Device { get; init; }

    /// <summary>Threads of a CPU whose working memory is counted; all processors where null.</summary>
    public int? Threads { get; init; }

    /// <summary>How the optimizer holds its moments.</summary>
    public OptimizerKind Optimizer { get; init; }

    /// <summary>Whether frozen weights are copied into the order that the forward's products read them in.</summary>
    public bool PackWeights { get; init; }

    /// <summary>Layers whose forward is run again before their backward.</summary>
    public RecomputeLayers Recompute { get; init; } = RecomputeLayers.None;

    /// <summary>Bytes that all that is planned may take: layers are recomputed as that needs. Null: no bound.</summary>
    public long? MemoryBudget { get; init; }
}

/// <summary>What a training with adapters on some layers takes.</summary>
/// <param name="Mask">One digit a layer, 1 for an adapted one.</param>
/// <param name="LowestAdaptedLayer">The lowest adapted layer; null if there is none.</param>
/// <param name="Plan">The training graph with its memory.</param>
/// <param name="Memory">Bytes by category.</param>
/// <param name="TrainableParameters">Trainable parameters, the head included.</param>
/// <param name="Layers">What each layer costs.</param>
public sealed record TrainingCost(
    string Mask, int? LowestAdaptedLayer, MemoryPlan Plan, MemoryReport Memory, long TrainableParameters, IReadOnlyList<LayerCost> Layers)
{
    /// <summary>Which layers are recomputed, and what that saves; null where neither layers nor a budget were given.</summary>
    public RecomputeChoice? Recomputation { get; init; }

    /// <summary>Whether it is within the request's budget, if there is one.</summary>
    public bool Fits { get; init; } = true;

    /// <summary>Floating-point operations of a step over a batch at capacity.</summary>
    public long FlopsPerStep => Layers.Sum(l => l.ForwardFlops + l.BackwardFlops);

    /// <summary>As a report writes it.</summary>
    public PredictedCost ToReport() => new()
    {
        MemoryBytes = new Dictionary<string, long>
        {
            ["weights"] = Memory.Weights,
            ["weights_packed"] = Memory.Packed,
            ["trainable"] = Memory.Parameters,
            ["gradients"] = Memory.Gradients,
            ["optimizer"] = Memory.Optimizer,
            ["activations"] = Memory.Arena,
            ["activations_saved"] = Memory.Saved,
            ["tables"] = Memory.Constants,
            ["inputs"] = Memory.Inputs,
            ["kernels"] = Memory.Scratch,
            ["total"] = Memory.Total,
        },
        TrainableParameters = TrainableParameters,
        FlopsPerStep = FlopsPerStep,
    };
}

/// <summary>Plans a training without weights: what it would take, to the byte.</summary>
public static class CostPredictor
{
    /// <summary>What a training with adapters on the given layers takes.</summary>
    /// <param name="model">The model.</param>
    /// <param name="request">The training.</param>
    /// <param name="layers">Layers that get adapters; none: only what is trained in full.</param>
    /// <exception cref="InputException">The settings do not fit the model, or nothing would be trained.</exception>
    public static TrainingCost Predict(ModelBlueprint model, CostRequest request, IReadOnlyCollection<int> layers)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(layers);
        var trainables = Trained(model.Model, request, layers);
        RecomputeChoice? choice = null;
        if (request.MemoryBudget is { } budget)
            choice = RecomputePlanner.Choose(model.Model.Layers, budget, Plan);
        else if (request.Recompute != RecomputeLayers.None)
            choice = RecomputePlanner.Measure(request.Recompute.Of(model.Model.Layers), Plan);
        var plan = choice?.With.Plan ?? PlanOf(model, request, trainables, []);
        var memory = Memory(plan, request);
        return new TrainingCost(
            LayerSelection.MaskOf(layers, model.Model.Layers),
            layers.Count == 0 ? null : layers.Min(),
            plan,
            memory,
            plan.Graph.Trainable.Sum(p => p.Shape.Elements(request.Capacity)),
            plan.Layers(request.Capacity))
        {
            Recomputation = choice,
            Fits = request.MemoryBudget is not { } most || memory.Total <= most,
        };

        PlannedTraining Plan(IReadOnlyCollection<int> recompute)
        {
            var tried = PlanOf(model, request, trainables, recompute);
            return new PlannedTraining(tried, Memory(tried, request).Total);
        }
    }

    /// <summary>The largest number of sequences of a batch that fits the request's budget, whatever that recomputes; 0 if none does.</summary>
    /// <inheritdoc cref="Predict"/>
    public static int LargestBatch(ModelBlueprint model, CostRequest request, IReadOnlyCollection<int> layers)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(request);
        var budget = request.MemoryBudget ?? throw new ArgumentException("the request has no budget", nameof(request));
        var trainables = Trained(model.Model, request, layers);
        return RecomputePlanner.LargestThatFits(request.Capacity.Sequences, sequences =>
        {
            var smaller = request with { Capacity = BatchSize.Of(sequences, request.MaxLength) with { Pictures = (int)((long)request.Capacity.Pictures * sequences / request.Capacity.Sequences) } };
            return RecomputePlanner.Choose(model.Model.Layers, budget, recompute =>
            {
                var plan = PlanOf(model, smaller, trainables, recompute);
                return new PlannedTraining(plan, Memory(plan, smaller).Total);
            }).With.Bytes <= budget;
        });
    }

    private static MemoryPlan PlanOf(ModelBlueprint model, CostRequest request, Trainables trainables, IReadOnlyCollection<int> recompute)
    {
        var graph = new Graph(trainables, training: true, model.WeightType) { Activations = model.Precision, Quantize = model.Quantize };
        model.Model.Build(graph, new BuildOptions
        {
            Head = request.Head,
            Loss = true,
            BaseDropout = request.BaseDropout,
            MaxLength = request.MaxLength,
        });
        if (graph.Trainable.Count == 0)
            throw new InputException("nothing would be trained: choose at least one layer, or name modules to train in full");
        Differentiate.Loss(graph, recompute);
        return MemoryPlan.For(graph, request.Capacity);
    }

    private static Trainables Trained(Model model, CostRequest request, IReadOnlyCollection<int> layers)
    {
        var modules = PretrainedModel.Modules(model, request.Head);
        // Settings that fit no layer are an error for every choice of layers.
        var (_, _, everywhere) = TrainableModel.Resolve(modules, TargetResolver.WithinLayers(request.Lora, modules) with { LayersToTransform = null, LayersPattern = null });
        if (layers.Count == model.Layers)
            return everywhere;
        var some = layers.Count == 0 ? TargetResolver.WithoutAdapters(request.Lora) : TargetResolver.ForLayers(request.Lora, modules, layers);
        return TrainableModel.Resolve(modules, some).Trainables;
    }

    private static MemoryReport Memory(MemoryPlan plan, CostRequest request)
    {
        using var device = request.Device?.NewPlanner() ?? new CpuDevice(request.Threads);
        var scratch = device.ScratchOf(out var packed, plan);
        return plan.Report(scratch, request.Optimizer, request.PackWeights ? packed : 0);
    }
}
