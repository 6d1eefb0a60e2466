using NativeLora.Data;
using NativeLora.Models;

namespace NativeLora.Selection;

/// <summary>A selection to be made.</summary>
public sealed record SelectionRequest
{
    /// <summary>The model, as the user named it.</summary>
    public required string Model { get; init; }

    /// <summary>The task or data set; null if none.</summary>
    public string? Task { get; init; }

    /// <summary>Which layers to choose.</summary>
    public required SelectionOptions Options { get; init; }

    /// <summary>How features are taken.</summary>
    public required FeatureOptions Features { get; init; }

    /// <summary>Resamples for stability; 0 for none.</summary>
    public int Resamples { get; init; } = 100;

    /// <summary>Whether all layers are compared with all, and not only neighbours.</summary>
    public bool AllPairs { get; init; }

    /// <summary>Token that attention may not look at in training, as for the paper's decoders; only gradients depend on it.</summary>
    public int? HiddenKeyId { get; init; }

    /// <summary>Training whose cost is predicted, and whose adapters gradients are measured of; null for neither.</summary>
    public CostRequest? Cost { get; init; }

    /// <summary>What that training may take, in place of a ratio; then there is no bootstrap. Null: the ratio counts.</summary>
    public TrainingBudget? Budget { get; init; }
}

/// <summary>What a selection came to.</summary>
/// <param name="Report">What is written down.</param>
/// <param name="Selection">The choice.</param>
/// <param name="Similarities">What was measured; null for a strategy that measures nothing.</param>
/// <param name="Bootstrap">Stability, if it was estimated.</param>
/// <param name="Cost">Predicted cost with the choice; null if not asked for.</param>
/// <param name="AllLayers">Predicted cost with all layers; null if not asked for.</param>
public sealed record SelectionResult(
    SelectionReport Report, LayerSelection Selection, LayerSimilarities? Similarities, Bootstrap? Bootstrap, TrainingCost? Cost, TrainingCost? AllLayers)
{
    /// <summary>Numbers of the chosen layers, ascending.</summary>
    public IReadOnlyList<int> Layers { get; } = [.. Selection.Selected.Order()];

    /// <summary>Gradients of the layers' adapters; null where the strategy does not look at them.</summary>
    public LayerGradients? Gradients { get; init; }

    /// <summary>All layers against all, if asked for and compared; null otherwise.</summary>
    public SimilarityMatrix? Matrix { get; init; }

    /// <summary>What layers were ranked by; null for a strategy that measures nothing.</summary>
    public LayerScores? Scores => Gradients?.Scores ?? Similarities?.Scores;
}

/// <summary>Forward pass, similarities, choice, stability and predicted cost in one.</summary>
public static class SelectionPipeline
{
    /// <summary>Whether a strategy looks at features.</summary>
    public static bool NeedsFeatures(SelectionStrategy strategy) =>
        strategy is SelectionStrategy.Cka or SelectionStrategy.CkaDebiased or SelectionStrategy.Cosine or SelectionStrategy.Suggest;

    /// <summary>Whether a strategy looks at gradients, and so at labels.</summary>
    public static bool NeedsGradients(SelectionStrategy strategy) =>
        strategy is SelectionStrategy.Gradient or SelectionStrategy.GradientPerByte or SelectionStrategy.SuggestGradient;

    /// <summary>Whether a strategy measures something on samples.</summary>
    public static bool NeedsScores(SelectionStrategy strategy) => NeedsFeatures(strategy) || NeedsGradients(strategy);

    /// <summary>Chooses layers.</summary>
    /// <param name="model">The model.</param>
    /// <param name="examples">Samples; used only by strategies that look at features or gradients.</param>
    /// <param name="request">What is wanted.</param>
    /// <param name="progress">Told after each batch of the forward pass.</param>
    /// <param name="cancellation">Stops between batches.</param>
    /// <exception cref="InputException">Settings, samples and model do not fit together. Settings are checked before anything runs.</exception>
    /// <exception cref="OperationCanceledException">It was stopped.</exception>
    public static SelectionResult Run(
        PretrainedModel model, IReadOnlyList<EncodedExample> examples, SelectionRequest request,
        IProgress<FeatureProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(request);
        var layers = model.Model.Layers;
        var options = request.Options;
        var ranks = NeedsFeatures(options.Strategy);
        var byGradient = NeedsGradients(options.Strategy);
        if (byGradient && request.Cost is null)
            throw new ArgumentException("gradients are of the adapters of a training: give its cost request", nameof(request));
        if (request.Budget is not null && request.Cost is null)
            throw new ArgumentException("a budget is of a training: give its cost request", nameof(request));
        var blueprint = ModelBlueprint.Of(model);
        var selection = ranks || byGradient ? null : Choose(null);
        if (selection is null && request.Budget is null)
            LayerSelection.CheckOptions(options, layers);
        var all = request.Cost is { } cost ? CostPredictor.Predict(blueprint, cost, [.. Enumerable.Range(0, layers)]) : null;

        LayerSimilarities? similarities = null;
        Bootstrap? bootstrap = null;
        SimilarityMatrix? matrix = null;
        if (ranks)
        {
            (similarities, var features) = Measure(model, examples, request, progress, cancellation);
            selection = Choose(similarities.Scores);
            if (request.Resamples > 0 && request.Budget is null && features is not null && features[0].Rows >= 4)
                bootstrap = Bootstrap.Run(features, options, request.Resamples, options.Seed);
            matrix = request.AllPairs && features is not null ? SimilarityMatrix.Of(features, options.Seed) : null;
        }
        LayerGradients? gradients = null;
        if (byGradient)
        {
            gradients = LayerGradients.Measure(model, request.Cost!, examples, new GradientOptions { BatchTokens = request.Features.BatchTokens, HiddenKeyId = request.HiddenKeyId, Seed = options.Seed }, progress, cancellation);
            selection = Choose(gradients.Scores);
        }
        var chosen = request.Cost is { } training ? CostPredictor.Predict(blueprint, training, [.. selection!.Selected]) : null;
        var report = SelectionReport.Create(
            request.Model, request.Task, ranks ? TokenRules.NameOf(request.Features.Token) : null, options, selection!, similarities, bootstrap, gradients)
            with
        { Predicted = chosen?.ToReport() };
        return new SelectionResult(report, selection!, similarities, bootstrap, chosen, all) { Gradients = gradients, Matrix = matrix };

        LayerSelection Choose(LayerScores? scores) => request.Budget is { } budget
            ? new BudgetSelector(blueprint, request.Cost!).Select(scores, options with { Ratio = null, Count = null }, budget, cancellation).Selection
            : LayerSelection.Select(layers, scores, options);
    }

    /// <summary>Similarities, and features for resampling; null if they are not wanted.</summary>
    private static (LayerSimilarities Similarities, IReadOnlyList<FeatureMatrix>? Features) Measure(
        PretrainedModel model, IReadOnlyList<EncodedExample> examples, SelectionRequest request,
        IProgress<FeatureProgress>? progress, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(examples);
        if (!FeatureExtractor.ShouldStream(model.Model, examples.Count))
        {
            var features = FeatureExtractor.Extract(model, examples, request.Features, progress, cancellation);
            return (LayerSimilarities.Compute(features), features);
        }
        var random = new SplitMix64(request.Options.Seed);
        int[] keep = request.Resamples == 0 && !request.AllPairs ? [] : Bootstrap.Subset(examples.Count, random) ?? [.. Enumerable.Range(0, examples.Count)];
        var (similarities, kept) = FeatureExtractor.Stream(model, examples, request.Features, keep, progress, cancellation);
        return (similarities, kept.Count == 0 ? null : kept);
    }
}
