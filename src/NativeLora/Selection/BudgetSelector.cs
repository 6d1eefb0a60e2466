using NativeLora.Models;

namespace NativeLora.Selection;

/// <summary>What a choice of layers may take by the plan of its training.</summary>
/// <param name="Bytes">All that is planned, weights included. Null: no bound.</param>
/// <param name="Flops">Operations of a step. Null: no bound.</param>
public readonly record struct TrainingBudget(long? Bytes, long? Flops)
{
    /// <summary>Whether a training is within it.</summary>
    /// <param name="cost">The planned training.</param>
    public bool Holds(TrainingCost cost)
    {
        ArgumentNullException.ThrowIfNull(cost);
        return !(cost.Memory.Total > Bytes) && !(cost.FlopsPerStep > Flops);
    }
}

/// <summary>Layers that a strategy takes within a budget, and what their training takes.</summary>
/// <param name="Selection">The layers.</param>
/// <param name="Cost">The planned training.</param>
public sealed record BudgetedSelection(LayerSelection Selection, TrainingCost Cost);

/// <summary>
/// Chooses layers at equal cost: every strategy takes layers in its own order while the planned training is within the budget. A layer that
/// does not fit is passed over and the next is tried, so that no strategy is left with less than it could use; first and last stay what they
/// are called and end at the first that does not fit; even takes the most evenly spread layers that fit. Plans are kept: a mask is planned once.
/// </summary>
/// <param name="model">The model.</param>
/// <param name="training">The training, all but the choice of layers; it has no budget of its own.</param>
public sealed class BudgetSelector(ModelBlueprint model, CostRequest training)
{
    private readonly Dictionary<string, TrainingCost> _costs = [];
    private readonly CostRequest _training = training.MemoryBudget is null ? training
        : throw new InputException("a memory budget recomputes layers until a mask fits, and here the budget chooses the mask: give one of them");

    private int Layers => model.Model.Layers;

    /// <summary>What a training with adapters on the given layers takes.</summary>
    /// <param name="layers">The layers.</param>
    /// <exception cref="InputException">The settings do not fit the model.</exception>
    public TrainingCost Plan(IReadOnlyCollection<int> layers)
    {
        ArgumentNullException.ThrowIfNull(layers);
        var mask = LayerSelection.MaskOf(layers, Layers);
        if (!_costs.TryGetValue(mask, out var cost))
            _costs[mask] = cost = CostPredictor.Predict(model, _training, [.. layers.Order()]);
        return cost;
    }

    /// <summary>The mask of one layer that takes the least.</summary>
    /// <param name="cost">What is counted.</param>
    public TrainingCost Cheapest(Func<TrainingCost, long> cost) => Enumerable.Range(0, Layers).Select(l => Plan([l])).MinBy(cost)!;

    /// <summary>Chooses layers within a budget.</summary>
    /// <param name="scores">Scores; needed by the strategies that rank or value layers.</param>
    /// <param name="options">How to choose; a ratio or a number of layers is an error.</param>
    /// <param name="budget">The budget.</param>
    /// <param name="cancellation">Stops between plans.</param>
    /// <exception cref="InputException">No layer that the strategy may take fits, or the options do not fit the model.</exception>
    public BudgetedSelection Select(LayerScores? scores, SelectionOptions options, TrainingBudget budget, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.Ratio is not null || options.Count is not null)
            throw new InputException("both a budget and a ratio or a number of layers are given: give one of them");
        if (options.Strategy is SelectionStrategy.Suggest or SelectionStrategy.SuggestGradient)
            return Suggested(scores, options, budget, cancellation);
        if (options.Strategy is SelectionStrategy.All or SelectionStrategy.None or SelectionStrategy.Explicit)
        {
            var fixedChoice = LayerSelection.Select(Layers, scores, options);
            var cost = Plan(fixedChoice.Selected);
            return budget.Holds(cost) ? new BudgetedSelection(fixedChoice, cost) : throw NothingFits(options, [cost], budget);
        }
        if (options.Strategy == SelectionStrategy.Even)
            return Evenly(options, budget);
        var whole = LayerSelection.Select(Layers, scores, options with { Ratio = 1 });
        var contiguous = options.Strategy is SelectionStrategy.First or SelectionStrategy.Last;
        var taken = new List<int>();
        TrainingCost? best = null;
        foreach (var layer in whole.Selected)
        {
            cancellation.ThrowIfCancellationRequested();
            var cost = Plan([.. taken, layer]);
            if (budget.Holds(cost))
                best = cost;
            else if (contiguous)
                break;
            else
                continue;
            taken.Add(layer);
        }
        return best is null ? throw NothingFits(options, contiguous ? [Plan([whole.Selected[0]])] : whole.Selected.Select(l => Plan([l])), budget)
            : new BudgetedSelection(whole with { Selected = taken }, best);
    }

    /// <summary>What an adapter on each layer is worth to the strategies that suggest; null: nothing.</summary>
    /// <param name="layers">Number of layers, L.</param>
    /// <param name="scores">Measured scores.</param>
    /// <param name="options">Which of them: 1 - CKA, where it is defined and the rule does not drop the layer; or the norm of its gradient.</param>
    public static IReadOnlyList<double?> GainsOf(int layers, LayerScores scores, SelectionOptions options)
    {
        ArgumentNullException.ThrowIfNull(scores);
        ArgumentNullException.ThrowIfNull(options);
        if (options.Strategy == SelectionStrategy.SuggestGradient)
            return scores.Gradient ?? throw new InputException("strategy suggest-gradient needs the gradient of each layer: measure the layers first");
        var ranked = LayerSelection.Select(layers, scores, options with { Strategy = SelectionStrategy.Cka, Ratio = 1 });
        return [.. scores.Cka.Select((cka, l) => l == ranked.DroppedFirst || scores.ConstantInput?[l] == true ? null : 1 - cka)];
    }

    private BudgetedSelection Suggested(LayerScores? scores, SelectionOptions options, TrainingBudget budget, CancellationToken cancellation)
    {
        var gains = GainsOf(Layers, scores ?? throw new InputException($"strategy {SelectionOptions.NameOf(options.Strategy)} needs a score of each layer: measure the layers first"), options);
        var found = MaskSuggestion.Find(model, new SuggestionRequest { Cost = _training, Gains = gains, BudgetBytes = budget.Bytes, BudgetFlops = budget.Flops }, cancellation);
        int[] order = [.. found.Layers.OrderByDescending(l => gains[l]).ThenBy(l => l)];
        return new BudgetedSelection(new LayerSelection { Layers = Layers, Order = order, Selected = order }, found.Cost);
    }

    private BudgetedSelection Evenly(SelectionOptions options, TrainingBudget budget)
    {
        for (var k = Layers; k > 0; k--)
        {
            var choice = LayerSelection.Select(Layers, null, options with { Count = k });
            if (Plan(choice.Selected) is var cost && budget.Holds(cost))
                return new BudgetedSelection(choice, cost);
        }
        throw NothingFits(options, [Plan(LayerSelection.Select(Layers, null, options with { Count = 1 }).Selected)], budget);
    }

    private static InputException NothingFits(SelectionOptions options, IEnumerable<TrainingCost> tried, TrainingBudget budget)
    {
        var byBytes = budget.Bytes is not null;
        var least = tried.MinBy(c => byBytes ? c.Memory.Total : c.FlopsPerStep)!;
        var what = byBytes ? FormattableString.Invariant($"{budget.Bytes} bytes, and {least.Mask} takes {least.Memory.Total}")
            : FormattableString.Invariant($"{budget.Flops} operations a step, and {least.Mask} takes {least.FlopsPerStep}");
        return new InputException($"strategy {SelectionOptions.NameOf(options.Strategy)} has no layer that fits the budget of {what}: give more, or another strategy");
    }
}
