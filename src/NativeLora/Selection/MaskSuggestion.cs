using System.Globalization;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Selection;

/// <summary>A mask that is looked for.</summary>
public sealed record SuggestionRequest
{
    /// <summary>The training, all but the choice of layers; it has no budget of its own.</summary>
    public required CostRequest Cost { get; init; }

    /// <summary>What an adapter on each layer is worth; null or at most 0: nothing, so the layer gets none.</summary>
    public required IReadOnlyList<double?> Gains { get; init; }

    /// <summary>Bytes that all that is planned may take, weights included. Null: no bound.</summary>
    public long? BudgetBytes { get; init; }

    /// <summary>Floating-point operations that a step may take. Null: no bound.</summary>
    public long? BudgetFlops { get; init; }

    /// <summary>Masks that are planned at most; a search that needs more ends with the best so far and says so.</summary>
    public int MostPlans { get; init; } = 2000;
}

/// <summary>The mask that is worth most within a budget.</summary>
/// <param name="Layers">Layers that get adapters, ascending.</param>
/// <param name="Gain">Sum of their gains.</param>
/// <param name="WholeGain">Sum of all layers' gains.</param>
/// <param name="Cost">What it really takes, planned.</param>
/// <param name="AllLayers">What all layers take.</param>
/// <param name="Bound">No mask within the budget is worth more than this; equal to <paramref name="Gain"/> where the search came to its end.</param>
/// <param name="Planned">Masks that were planned for it.</param>
public sealed record MaskSuggestion(
    IReadOnlyList<int> Layers, double Gain, double WholeGain, TrainingCost Cost, TrainingCost AllLayers, double Bound, int Planned)
{
    /// <summary>One digit a layer, 1 for an adapted one.</summary>
    public string Mask => Cost.Mask;

    /// <summary>Whether no mask within the budget is worth more.</summary>
    public bool IsOptimal => Bound <= Gain;

    /// <summary>
    /// Finds the mask of the largest sum of gains within a budget. Costs are those of the planned training, which are no sum over layers:
    /// how far down the backward goes decides what all layers above keep. For each lowest layer the rest is a knapsack over
    /// <see cref="MaskBounds"/>, searched by branch and bound (Land and Doig 1960; the bound is Dantzig's fractional knapsack); every mask
    /// that would be better than the best so far is planned for real before it is taken or refused.
    /// </summary>
    /// <param name="model">The model.</param>
    /// <param name="request">What is wanted.</param>
    /// <param name="cancellation">Stops between plans.</param>
    /// <exception cref="InputException">No mask fits, nothing is worth anything, or the settings do not fit the model.</exception>
    /// <exception cref="OperationCanceledException">It was stopped.</exception>
    public static MaskSuggestion Find(ModelBlueprint model, SuggestionRequest request, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(request);
        if (request.Gains.Count != model.Model.Layers)
            throw new InputException($"gains of {request.Gains.Count} layers, and the model has {model.Model.Layers}: measure layers of this model");
        if (request.Gains.Any(g => g is { } gain && !double.IsFinite(gain)))
            throw new InputException("a layer's gain is not finite: leave it undefined instead");
        if (request.BudgetBytes is null && request.BudgetFlops is null)
            throw new InputException("there is no budget: give bytes, operations, or both");
        return new MaskSearch(model, request, cancellation).Run();
    }
}

/// <summary>One search for the best mask within a budget.</summary>
internal sealed class MaskSearch
{
    private const int MostNodes = 4_000_000;
    private readonly ModelBlueprint _model;
    private readonly SuggestionRequest _request;
    private readonly CostRequest _training;
    private readonly CancellationToken _cancellation;
    private readonly int _layers;
    private readonly double[] _gains;
    private readonly long _bytes, _flops;
    private readonly Dictionary<string, TrainingCost> _costs = [];
    private MaskBounds _bounds = null!;
    private int[] _items = [], _byBytes = [], _byFlops = [];
    private MaskCost[] _added = [];
    private bool[] _adapted = [], _open = [];
    private TrainingCost? _best;
    private double _bestGain;
    private int _nodes;
    private bool _stopped;

    public MaskSearch(ModelBlueprint model, SuggestionRequest request, CancellationToken cancellation)
    {
        (_model, _request, _cancellation, _layers) = (model, request, cancellation, model.Model.Layers);
        _training = request.Cost with { MemoryBudget = null };
        (_bytes, _flops) = (request.BudgetBytes ?? long.MaxValue, request.BudgetFlops ?? long.MaxValue);
        _gains = [.. request.Gains.Select(g => Math.Max(0, g ?? 0))];
    }

    public MaskSuggestion Run()
    {
        var all = Plan([.. Enumerable.Range(0, _layers)]);
        var adaptable = all.Plan.Graph.Trainable.Where(LayerGradients.IsAdapter).Select(t => t.Layer).ToHashSet();
        int[] candidates = [.. Enumerable.Range(0, _layers).Where(l => adaptable.Contains(l) && _gains[l] > 0)];
        if (candidates.Length == 0)
            throw new InputException("no layer that can get an adapter is worth anything by these scores: choose layers by another score");
        List<(MaskBounds Bounds, double Most)> lowest = [.. candidates.Select(l =>
        {
            var bounds = new MaskBounds(_layers, l, Plan([l]), Plan([.. candidates.Where(c => c >= l)]), _training.Optimizer);
            Begin(bounds, candidates);
            return (bounds, Most(_gains[l]));
        })];
        // What is planned already may fit.
        foreach (var cost in _costs.Values)
            if (Enumerable.Range(0, _layers).All(l => cost.Mask[l] == '0' || candidates.Contains(l)))
                Take(cost, candidates.Sum(l => cost.Mask[l] == '1' ? _gains[l] : 0));
        // The most promising first, so that the others can be left out.
        foreach (var (bounds, most) in lowest.OrderByDescending(l => l.Most).ThenByDescending(l => l.Bounds.Lowest))
        {
            if (_stopped || !IsBetter(most))
                break;
            Begin(bounds, candidates);
            Search(0, _gains[bounds.Lowest]);
        }
        if (_best is null)
            throw TooLittle(lowest.Select(l => l.Bounds.Alone));
        int[] chosen = [.. Enumerable.Range(0, _layers).Where(l => _best.Mask[l] == '1')];
        return new MaskSuggestion(chosen, _bestGain, candidates.Sum(l => _gains[l]), _best, all, _stopped ? Math.Max(_bestGain, lowest.Max(l => l.Most)) : _bestGain, _costs.Count);
    }

    private TrainingCost Plan(IReadOnlyCollection<int> layers)
    {
        _cancellation.ThrowIfCancellationRequested();
        var mask = LayerSelection.MaskOf(layers, _layers);
        if (!_costs.TryGetValue(mask, out var cost))
            _costs[mask] = cost = CostPredictor.Predict(_model, _training, layers);
        return cost;
    }

    private void Begin(MaskBounds bounds, int[] candidates)
    {
        _bounds = bounds;
        _added = [.. Enumerable.Range(0, _layers).Select(bounds.Added)];
        _adapted = new bool[_layers];
        _open = new bool[_layers];
        _adapted[bounds.Lowest] = true;
        int[] above = [.. candidates.Where(c => c > bounds.Lowest)];
        foreach (var layer in above)
            _open[layer] = true;
        _byBytes = [.. above.OrderByDescending(l => Worth(l, _added[l].Bytes))];
        _byFlops = [.. above.OrderByDescending(l => Worth(l, _added[l].Flops))];
        // Branch on what is worth most of the budget that binds more.
        var least = bounds.AtTheHead(_adapted);
        _items = [.. above.OrderByDescending(l => _gains[l] / (Share(_added[l].Bytes, _bytes, least.Bytes) + Share(_added[l].Flops, _flops, least.Flops) + 1e-12)).ThenByDescending(l => l)];

        double Worth(int layer, long cost) => cost <= 0 ? double.PositiveInfinity : _gains[layer] / cost;
        static double Share(long cost, long budget, long least) => budget == long.MaxValue ? 0 : Math.Max(0.0, cost) / Math.Max(1, budget - least);
    }

    private void Search(int depth, double gain)
    {
        if (_stopped)
            return;
        if (++_nodes > MostNodes)
        {
            _stopped = true;
            return;
        }
        // Layers that are not decided count as skipped: no mask of this branch takes less.
        var least = _bounds.Of(_adapted);
        if (least.Bytes > _bytes || least.Flops > _flops || !IsBetter(Most(gain)))
            return;
        if (depth == _items.Length)
        {
            TryMask(gain);
            return;
        }
        var layer = _items[depth];
        _open[layer] = false;
        _adapted[layer] = true;
        Search(depth + 1, gain + _gains[layer]);
        _adapted[layer] = false;
        Search(depth + 1, gain);
        _open[layer] = true;
    }

    private void TryMask(double gain)
    {
        int[] chosen = [.. Enumerable.Range(0, _layers).Where(l => _adapted[l])];
        if (_costs.Count >= _request.MostPlans && !_costs.ContainsKey(LayerSelection.MaskOf(chosen, _layers)))
        {
            _stopped = true;
            return;
        }
        Take(Plan(chosen), gain);
    }

    private void Take(TrainingCost cost, double gain)
    {
        if (IsBetter(gain) && cost.Memory.Total <= _bytes && cost.FlopsPerStep <= _flops)
            (_best, _bestGain) = (cost, gain);
    }

    private bool IsBetter(double gain) => _best is null || gain > _bestGain + (1e-12 * Math.Abs(_bestGain));

    /// <summary>What the open layers can add at most, each budget taken by itself and layers by fractions.</summary>
    private double Most(double gain)
    {
        var least = _bounds.AtTheHead(_adapted);
        return gain + Math.Min(Filled(_byBytes, _bytes, least.Bytes, c => c.Bytes), Filled(_byFlops, _flops, least.Flops, c => c.Flops));

        double Filled(int[] order, long budget, long least, Func<MaskCost, long> cost)
        {
            var (sum, left) = (0.0, budget == long.MaxValue ? double.PositiveInfinity : budget - least);
            foreach (var layer in order)
            {
                if (!_open[layer])
                    continue;
                var takes = Math.Max(0, cost(_added[layer]));
                if (takes > left)
                    return left <= 0 ? sum : sum + (_gains[layer] * left / takes);
                left -= takes;
                sum += _gains[layer];
            }
            return sum;
        }
    }

    private InputException TooLittle(IEnumerable<TrainingCost> single)
    {
        var least = single.MinBy(c => _bytes == long.MaxValue ? c.FlopsPerStep : c.Memory.Total)!;
        List<string> budgets = [];
        if (_bytes < long.MaxValue)
            budgets.Add($"{RecomputePlanner.Text(_bytes)}, and the mask of one layer that takes the least, {least.Mask}, takes {RecomputePlanner.Text(least.Memory.Total)}");
        if (_flops < long.MaxValue)
            budgets.Add(string.Create(CultureInfo.InvariantCulture, $"{_flops} operations a step, and {least.Mask} takes {least.FlopsPerStep}"));
        return new InputException($"no mask fits the budget of {string.Join(", and of ", budgets)}: give more, or a smaller batch");
    }
}
