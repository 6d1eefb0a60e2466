using NativeLora.Adapters;
using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Selection;

/// <summary>How gradients are measured.</summary>
public sealed record GradientOptions
{
    /// <summary>Tokens of a batch; a longer sequence is a batch of its own.</summary>
    public int BatchTokens { get; init; } = 2048;

    /// <summary>Token that attention may not look at in training, as for the paper's decoders.</summary>
    public int? HiddenKeyId { get; init; }

    /// <summary>Seed of the A that the gradients are taken at.</summary>
    public ulong Seed { get; init; }
}

/// <summary>
/// How hard the loss pulls at each layer's adapter before the first step: for layer l the Euclidean norm of the gradient of the mean loss
/// over all samples with respect to every LoRA matrix of the layer's modules together, adapters on all layers, no dropout. At the beginning
/// B is 0, so the gradient of A is exactly 0 and what is summed is ‖dB‖² = ‖s·dyᵀ(x Aᵀ)‖² over the modules: it depends on A, which the seed
/// makes, and on the head, which is random where the model has none for the task. DoRA, PiSSA and the like are measured as plain LoRA.
/// </summary>
public sealed class LayerGradients
{
    private LayerGradients(long samples, double loss, IReadOnlyList<double?> norms, IReadOnlyList<long?> bytes) =>
        (Samples, Loss, Norms, Bytes) = (samples, loss, norms, bytes);

    /// <summary>Number of samples, n.</summary>
    public long Samples { get; }

    /// <summary>Mean loss over the samples.</summary>
    public double Loss { get; }

    /// <summary>Norm by layer; null where it has no adapter.</summary>
    public IReadOnlyList<double?> Norms { get; }

    /// <summary>
    /// Bytes by layer that its adapter takes in a training with adapters on all layers: trainable tensors, gradients, moments, and what the
    /// layer keeps for its backward.
    /// </summary>
    public IReadOnlyList<long?> Bytes { get; }

    /// <summary>What layers are ranked by; similarities are undefined.</summary>
    public LayerScores Scores => new()
    {
        Cka = [.. Norms.Select(_ => (double?)null)],
        Gradient = Norms,
        GradientPerByte = [.. Norms.Zip(Bytes, (norm, bytes) => norm / bytes)],
    };

    /// <summary>One backward over the samples, in batches of like lengths.</summary>
    /// <param name="model">The model.</param>
    /// <param name="training">The training whose adapters are meant; its batch counts for the bytes alone.</param>
    /// <param name="examples">Labelled samples.</param>
    /// <param name="options">How.</param>
    /// <param name="progress">Told after each batch.</param>
    /// <param name="cancellation">Stops between batches.</param>
    /// <exception cref="InputException">Settings, samples and model do not fit together.</exception>
    /// <exception cref="RunException">The loss is not finite.</exception>
    public static LayerGradients Measure(
        PretrainedModel model, CostRequest training, IReadOnlyList<EncodedExample> examples, GradientOptions options,
        IProgress<FeatureProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(training);
        ArgumentNullException.ThrowIfNull(examples);
        ArgumentNullException.ThrowIfNull(options);
        if (examples.Count == 0)
            throw new InputException("there are no samples to take gradients of: give a data set with rows");
        if (options.BatchTokens < 1)
            throw new InputException($"a batch of {options.BatchTokens} tokens holds nothing: give at least 1");
        var transformer = model.Model;
        var labels = TrainingExamples.Check(examples, training.Head, transformer.Config.NumLabels, transformer.MaxPositions).Sum(c => (long)c);
        if (labels == 0)
            throw new InputException("no sample has a label that counts in the loss: give rows with answers");

        var config = TargetResolver.WithinLayers(training.Lora with { Dropout = 0, UseDora = false, InitLoraWeights = "true" }, model.Modules(training.Head));
        using var trainable = TrainableModel.WithAdapters(model, training.Head, config, seed: options.Seed);
        var batches = FeatureExtractor.Batches([.. examples.Select(e => e.Length)], options.BatchTokens);
        var capacity = new BatchSize(batches.Max(b => b.Sum(i => examples[i].Length)), batches.Max(b => b.Length), 0)
        {
            Pictures = batches.Max(b => b.Sum(i => examples[i].PictureCount)),
        };
        using var session = new TrainingSession(trainable, capacity, examples.Max(e => e.Length), new AdamWOptions(), baseDropout: false);
        var batch = new PackedBatch(capacity.Tokens, capacity.Sequences, transformer.Pictures, capacity.Pictures);
        var packer = new BatchPacker(options.HiddenKeyId);
        var (loss, samples, tokens, allTokens) = (0.0, 0, 0L, examples.Sum(e => (long)e.Length));
        foreach (var indices in batches)
        {
            cancellation.ThrowIfCancellationRequested();
            packer.Fill(batch, examples, indices);
            loss += session.Accumulate(batch, (float)(1.0 / labels), first: samples == 0);
            samples += indices.Length;
            tokens += batch.TokenCount;
            progress?.Report(new FeatureProgress(samples, examples.Count, tokens, allTokens));
        }
        if (!double.IsFinite(loss))
            throw new RunException($"the loss over the samples is {loss}: gradients say nothing; look at the data and at the model's precision");
        var squares = new double?[transformer.Layers];
        foreach (var tensor in session.Session.Plan.Graph.Trainable)
            if (tensor.Layer >= 0 && tensor.Layer < squares.Length && IsAdapter(tensor))
                squares[tensor.Layer] = (squares[tensor.Layer] ?? 0) + trainable.Parameters.ReadGradient(tensor.Name).Sum(g => (double)g * g);
        return new LayerGradients(samples, loss, [.. squares.Select(s => s is { } sum ? Math.Sqrt(sum) : (double?)null)], BytesOf(model, training));
    }

    /// <summary>Whether a trainable tensor is of an adapter, rather than trained in full.</summary>
    internal static bool IsAdapter(Tensor trainable) => trainable.Name.Contains(".lora_", StringComparison.Ordinal);

    private static IReadOnlyList<long?> BytesOf(PretrainedModel model, CostRequest training)
    {
        var cost = CostPredictor.Predict(ModelBlueprint.Of(model), training, [.. Enumerable.Range(0, model.Model.Layers)]);
        var bytes = new long?[model.Model.Layers];
        foreach (var tensor in cost.Plan.Graph.Trainable)
            if (tensor.Layer >= 0 && tensor.Layer < bytes.Length && IsAdapter(tensor))
                bytes[tensor.Layer] = (bytes[tensor.Layer] ?? 0) + (2 * tensor.Bytes(training.Capacity)) + (2 * training.Optimizer.MomentBytes(tensor.Shape.Elements(training.Capacity)));
        foreach (var layer in cost.Layers)
            if (layer.Layer >= 0 && layer.Layer < bytes.Length && bytes[layer.Layer] is { } trained)
                bytes[layer.Layer] = trained + layer.SavedBytes;
        return bytes;
    }
}
