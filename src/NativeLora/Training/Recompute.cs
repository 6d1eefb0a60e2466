using System.Globalization;
using NativeLora.Graphs;

namespace NativeLora.Training;

/// <summary>Layers whose forward is run again before their backward, rather than kept: none, all, or some.</summary>
public sealed record RecomputeLayers
{
    private readonly IReadOnlyList<int>? _some;
    private readonly bool _all;

    private RecomputeLayers(bool all, IReadOnlyList<int>? some) => (_all, _some) = (all, some);

    /// <summary>No layer.</summary>
    public static RecomputeLayers None { get; } = new(false, null);

    /// <summary>Every layer.</summary>
    public static RecomputeLayers All { get; } = new(true, null);

    /// <summary>These layers.</summary>
    public static RecomputeLayers Of(IReadOnlyList<int> layers) => new(false, layers);

    /// <summary>The layers, of a model with that many.</summary>
    /// <exception cref="InputException">One is not among them.</exception>
    public IReadOnlyList<int> Of(int count)
    {
        foreach (var layer in _some ?? [])
            if ((uint)layer >= (uint)count)
                throw new InputException($"layer {layer} cannot be recomputed: the model has layers 0 to {count - 1}");
        return _all ? [.. Enumerable.Range(0, count)] : _some ?? [];
    }
}

/// <summary>A training as planned: its memory, and what a step over a batch at capacity costs.</summary>
/// <param name="Plan">Nodes and arena.</param>
/// <param name="Bytes">All that is planned, weights included.</param>
public sealed record PlannedTraining(MemoryPlan Plan, long Bytes)
{
    /// <summary>What each layer costs.</summary>
    public IReadOnlyList<LayerCost> Layers { get; } = Plan.Layers(Plan.Capacity);

    /// <summary>Floating-point operations of a step.</summary>
    public long Operations => Layers.Sum(l => l.ForwardFlops + l.BackwardFlops);
}

/// <summary>Which layers are recomputed, and what that saves and costs.</summary>
/// <param name="Layers">The layers, ascending.</param>
/// <param name="Of">Layers that could be: those with a backward.</param>
/// <param name="With">The training with it.</param>
/// <param name="Without">The training without.</param>
public sealed record RecomputeChoice(IReadOnlyList<int> Layers, int Of, PlannedTraining With, PlannedTraining Without)
{
    /// <summary>Operations of a step over those without recomputation, less 1.</summary>
    public double ExtraOperations => (double)With.Operations / Without.Operations - 1;
}

/// <summary>
/// Chooses the layers to recompute so that a training fits into a budget. Every candidate is planned as it would run, so what it says
/// is what is allocated.
/// </summary>
public static class RecomputePlanner
{
    /// <summary>What recomputing these layers saves and costs.</summary>
    /// <param name="layers">Layers to recompute; those without a backward do not count.</param>
    /// <param name="plan">Plans the training with layers recomputed.</param>
    public static RecomputeChoice Measure(IReadOnlyCollection<int> layers, Func<IReadOnlyCollection<int>, PlannedTraining> plan)
    {
        ArgumentNullException.ThrowIfNull(layers);
        ArgumentNullException.ThrowIfNull(plan);
        var none = plan([]);
        if (layers.Count == 0)
            return new RecomputeChoice([], 0, none, none);
        var with = plan(layers);
        var worth = Candidates(none, with);
        return new RecomputeChoice([.. worth.Order()], worth.Count, with, none);
    }

    /// <summary>
    /// The fewest operations that make the training fit: layers by what they save for each operation, as many of them as are needed. Of
    /// layers that are alike the lower go first: when their turn comes, what the upper ones kept is free again. The uppermost is the last
    /// to go: its backward follows its forward at once, so there is next to nothing to be saved.
    /// </summary>
    /// <param name="count">Layers of the model.</param>
    /// <param name="budget">Bytes.</param>
    /// <param name="plan">Plans the training with layers recomputed.</param>
    /// <returns>The choice; where nothing fits, the one that takes least, over the budget.</returns>
    public static RecomputeChoice Choose(int count, long budget, Func<IReadOnlyCollection<int>, PlannedTraining> plan)
    {
        ArgumentNullException.ThrowIfNull(plan);
        var none = plan([]);
        if (none.Bytes <= budget)
            return new RecomputeChoice([], 0, none, none);
        var all = plan([.. Enumerable.Range(0, count)]);
        var order = Candidates(none, all);
        // The first `low` layers are too few; the first `high` are enough, or those that take least.
        var (low, high, best) = (0, order.Count, all);
        if (order.Count > 1 && plan([.. order.SkipLast(1)]) is var but && but.Bytes <= all.Bytes)
            (high, best) = (order.Count - 1, but);
        while (best.Bytes <= budget && high - low > 1)
        {
            var middle = (low + high) / 2;
            var tried = plan([.. order.Take(middle)]);
            if (tried.Bytes <= budget)
                (high, best) = (middle, tried);
            else
                low = middle;
        }
        return new RecomputeChoice([.. order.Take(high).Order()], order.Count, best, none);
    }

    /// <summary>The largest size from 1 on that fits, or 0.</summary>
    /// <param name="most">A size that does not fit.</param>
    /// <param name="fits">Whether a size does.</param>
    public static int LargestThatFits(int most, Func<int, bool> fits)
    {
        ArgumentNullException.ThrowIfNull(fits);
        var (low, high) = (0, most);
        while (high - low > 1)
        {
            var middle = low + (high - low) / 2;
            if (fits(middle))
                low = middle;
            else
                high = middle;
        }
        return low;
    }

    /// <summary>Says that nothing fits.</summary>
    /// <param name="budget">Bytes there are.</param>
    /// <param name="least">Least bytes that the training takes.</param>
    /// <param name="fits">A size that would fit; 0 if there is none.</param>
    /// <param name="size">What that is a size of.</param>
    public static InputException TooLittle(long budget, long least, int fits, string size) => new(
        $"the training takes at least {Text(least)} with layers recomputed, more than the memory budget of {Text(budget)}; "
        + (fits > 0 ? $"{size} {fits.ToString(CultureInfo.InvariantCulture)} would fit" : $"no {size} fits: give a larger budget or shorter sequences"));

    /// <summary>An amount of memory as messages write it.</summary>
    internal static string Text(long bytes) => bytes switch
    {
        >= 1L << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 30):0.00} GiB"),
        >= 1L << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 20):0.0} MiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes} bytes"),
    };

    /// <summary>Layers that keep less when they are recomputed, by what they save for each operation.</summary>
    private static List<int> Candidates(PlannedTraining none, PlannedTraining recomputed)
    {
        var without = none.Layers.ToDictionary(l => l.Layer);
        List<int> order = [.. recomputed.Layers
            .Select(l => (l.Layer, Saved: without[l.Layer].SavedBytes - l.SavedBytes, Operations: l.BackwardFlops - without[l.Layer].BackwardFlops))
            .Where(l => l.Operations > 0)
            .OrderByDescending(l => (double)l.Saved / l.Operations).ThenBy(l => l.Layer)
            .Select(l => l.Layer)];
        if (order.Count > 1)
        {
            var top = order.Max();
            order.Remove(top);
            order.Add(top);
        }
        return order;
    }
}
