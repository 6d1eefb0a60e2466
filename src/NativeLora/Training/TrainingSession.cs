using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Ops;

namespace NativeLora.Training;

/// <summary>AdamW's settings (Loshchilov and Hutter 2017).</summary>
public sealed record AdamWOptions
{
    /// <summary>Decay of the first moment.</summary>
    public double Beta1 { get; init; } = 0.9;

    /// <summary>Decay of the second moment.</summary>
    public double Beta2 { get; init; } = 0.999;

    /// <summary>Added to the root of the second moment.</summary>
    public double Epsilon { get; init; } = 1e-8;

    /// <summary>Decoupled weight decay; biases and norm weights have none.</summary>
    public double WeightDecay { get; init; }

    /// <summary>Whether a tensor of that name decays: not if it ends in <c>bias</c> or belongs to a norm.</summary>
    public static bool Decays(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return !name.EndsWith("bias", StringComparison.Ordinal) && !name.Contains("norm", StringComparison.OrdinalIgnoreCase);
    }
}

/// <summary>Forward, backward and update over one plan. A step allocates nothing on the managed heap.</summary>
public sealed class TrainingSession : IDisposable
{
    private readonly TrainableModel _model;
    private readonly OptimizerKernel _optimizer;
    private readonly Tensor _loss;
    private readonly float[] _scalar = new float[1];

    /// <summary>Plans, allocates and binds.</summary>
    /// <param name="model">What is trained.</param>
    /// <param name="capacity">Largest micro-batch.</param>
    /// <param name="maxLength">Tokens of the longest sequence.</param>
    /// <param name="adam">Settings of the optimizer.</param>
    /// <param name="baseDropout">Whether the base model's own dropouts act.</param>
    /// <param name="recompute">Layers whose forward is run again before their backward; null: none. No bit depends on it.</param>
    /// <param name="packWeights">Whether frozen weights are copied into the order that the forward's products read them in. No bit depends on it.</param>
    public TrainingSession(
        TrainableModel model, BatchSize capacity, int maxLength, AdamWOptions adam, bool baseDropout, IReadOnlyCollection<int>? recompute = null, bool packWeights = false)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(adam);
        _model = model;
        var options = new BuildOptions { Head = model.Head, Loss = true, BaseDropout = baseDropout, MaxLength = maxLength };
        var (graph, _) = model.Build(options, training: true, backward: true, recompute);
        _loss = graph.Loss!;
        Session = model.NewSession(MemoryPlan.For(graph, capacity), packWeights: packWeights);
        var parameters = model.Parameters;
        parameters.WeightDecay = name => AdamWOptions.Decays(name) ? adam.WeightDecay : 0;
        (parameters.Beta1, parameters.Beta2, parameters.Epsilon) = (adam.Beta1, adam.Beta2, adam.Epsilon);
        _optimizer = model.Pretrained.Device.Optimizer(parameters);
    }

    /// <summary>The plan with its bytes.</summary>
    public Session Session { get; }

    /// <summary>Updates made so far; set when training is resumed.</summary>
    public int Updates { get; internal set; }

    /// <summary>Micro-batches run so far: names the dropouts' random numbers.</summary>
    public uint MicroBatches { get; internal set; }

    /// <summary>Seed of the dropouts.</summary>
    public ulong Seed { get; set; }

    /// <summary>Labels of a batch that its loss is a mean of.</summary>
    public int LabelCount(PackedBatch batch)
    {
        ArgumentNullException.ThrowIfNull(batch);
        if (_model.Head == ModelHead.LanguageModel)
            return batch.LabelCount;
        if (_loss.Producer!.Op is SquaredErrorOp)
            return batch.SequenceCount;
        return batch.SequenceCount - batch.ClassLabels.AsSpan(0, batch.SequenceCount).Count(InstructionPrompt.IgnoredLabel);
    }

    /// <summary>Forward and backward of one micro-batch.</summary>
    /// <param name="batch">The micro-batch.</param>
    /// <param name="inverseCount">1 over the labels of the whole accumulated batch.</param>
    /// <param name="first">Whether it is the first of the accumulated batch.</param>
    /// <returns>Its part of the mean loss of the accumulated batch.</returns>
    public float Accumulate(PackedBatch batch, float inverseCount, bool first) => Accumulate(batch, inverseCount, first, default);

    /// <inheritdoc cref="Accumulate(PackedBatch, float, bool)"/>
    /// <param name="batch">The micro-batch, or a part of it.</param>
    /// <param name="inverseCount">1 over the labels of the whole accumulated batch.</param>
    /// <param name="first">Whether it is the first of the accumulated batch.</param>
    /// <param name="before">What of the micro-batch lies before this part of it.</param>
    internal float Accumulate(PackedBatch batch, float inverseCount, bool first, BatchSize before)
    {
        Session.Load(batch);
        Session.Run(new RunSettings(inverseCount, !first, Seed, MicroBatches++) { Before = before });
        Session.Read(_loss, _scalar);
        return _scalar[0];
    }

    /// <summary>Clips and updates, and waits for the norm.</summary>
    /// <param name="learningRate">Learning rate.</param>
    /// <param name="maxNorm">Gradients are scaled down to this norm; 0 for no clipping.</param>
    /// <returns>Norm of the gradients before clipping.</returns>
    public double Update(double learningRate, double maxNorm)
    {
        Apply(learningRate, maxNorm);
        return GradientNorm();
    }

    /// <summary>Clips and updates, with no copy to the host. Where the norm is not finite nothing is updated.</summary>
    /// <param name="learningRate">Learning rate.</param>
    /// <param name="maxNorm">Gradients are scaled down to this norm; 0 for no clipping.</param>
    public void Apply(double learningRate, double maxNorm) => _optimizer.Update(++Updates, learningRate, maxNorm);

    /// <summary>Norm of the gradients before clipping, of the last update.</summary>
    public double GradientNorm() => _optimizer.GradientNorm();

    /// <inheritdoc/>
    public void Dispose()
    {
        _optimizer.Dispose();
        Session.Dispose();
    }
}
