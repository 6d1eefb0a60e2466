using NativeLora.Graphs;

namespace NativeLora.Selection;

/// <summary>What a mask takes.</summary>
/// <param name="Bytes">All that is planned.</param>
/// <param name="Flops">Operations of a step.</param>
internal readonly record struct MaskCost(long Bytes, long Flops);

/// <summary>
/// What masks with the same lowest adapted layer take, as sums over layers, measured on two plans: all layers from it on, and it alone. With
/// the lowest layer fixed, every layer's trainable bytes, kept bytes and operations depend on whether it is adapted itself and on nothing
/// else, so operations are exact. Bytes are a lower bound: while a layer's nodes run, the arena holds at least what all lower layers keep
/// and what the layer itself holds then; only gaps between blocks, which the placement may leave, are not in it.
/// </summary>
internal sealed class MaskBounds
{
    private readonly Part[] _without, _with;
    private readonly long _fixed;

    /// <summary>Takes the two plans apart.</summary>
    /// <param name="layers">Layers of the model.</param>
    /// <param name="lowest">The lowest adapted layer.</param>
    /// <param name="alone">The plan with it alone.</param>
    /// <param name="upward">The plan with all from it on.</param>
    /// <param name="optimizer">How the optimizer's moments are held.</param>
    public MaskBounds(int layers, int lowest, TrainingCost alone, TrainingCost upward, OptimizerKind optimizer)
    {
        (Layers, Lowest, Alone) = (layers, lowest, alone);
        (_without, _with) = (Parts(alone, optimizer), Parts(upward, optimizer));
        // The lowest is adapted in both.
        _without[lowest + 1] = _with[lowest + 1] = Lower(_without[lowest + 1], _with[lowest + 1]);
        // What belongs to no layer, and layers below, are the same in both; if not, the lesser is the bound.
        for (var at = 0; at < _with.Length; at++)
            if (at <= lowest || at == layers + 1)
                _without[at] = _with[at] = Lower(_without[at], _with[at]);
        _fixed = alone.Plan.ConstantBytes + alone.Plan.InputBytes + alone.Memory.Cache
            + Math.Min(alone.Memory.Scratch, upward.Memory.Scratch) + Math.Min(alone.Memory.Packed, upward.Memory.Packed);
    }

    public int Layers { get; }

    public int Lowest { get; }

    /// <summary>The cheapest mask of them: the lowest layer alone.</summary>
    public TrainingCost Alone { get; }

    /// <summary>At least what a mask takes.</summary>
    public MaskCost Of(IReadOnlyList<bool> adapted)
    {
        long resident = _fixed, kept = 0, peak = 0, flops = 0;
        for (var at = 0; at < _with.Length; at++)
        {
            var part = at >= 1 && at <= Layers && adapted[at - 1] ? _with[at] : _without[at];
            peak = Math.Max(peak, kept + part.Working);
            kept += part.Kept;
            resident += part.Resident;
            flops += part.Flops;
        }
        return new MaskCost(resident + Math.Max(peak, kept), flops);
    }

    /// <summary>At least what a layer adds to a mask at the end of its forward, where all layers' kept tensors are held.</summary>
    public MaskCost Added(int layer) => new(
        _with[layer + 1].Resident + _with[layer + 1].Kept - _without[layer + 1].Resident - _without[layer + 1].Kept,
        _with[layer + 1].Flops - _without[layer + 1].Flops);

    /// <summary>At least what a mask takes at the end of its forward: <see cref="Added"/> is linear in this.</summary>
    public MaskCost AtTheHead(IReadOnlyList<bool> adapted)
    {
        long bytes = _fixed, flops = 0;
        for (var at = 0; at < _with.Length; at++)
        {
            var part = at >= 1 && at <= Layers && adapted[at - 1] ? _with[at] : _without[at];
            bytes += part.Resident + (at == Layers + 1 ? Math.Max(part.Kept, part.Working) : part.Kept);
            flops += part.Flops;
        }
        return new MaskCost(bytes, flops);
    }

    /// <summary>What a layer holds: weights and trainable tensors, tensors kept for its backward, and all that is live beside what lower layers keep while its nodes run.</summary>
    private readonly record struct Part(long Resident, long Kept, long Working, long Flops);

    private static Part Lower(Part a, Part b) => new(Math.Min(a.Resident, b.Resident), Math.Min(a.Kept, b.Kept), Math.Min(a.Working, b.Working), Math.Min(a.Flops, b.Flops));

    // Index 0 is the embeddings, the last the head.
    private Part[] Parts(TrainingCost cost, OptimizerKind optimizer)
    {
        var (plan, size) = (cost.Plan, cost.Plan.Capacity);
        var (resident, kept, working, flops) = (new long[Layers + 2], new long[Layers + 2], new long[Layers + 2], new long[Layers + 2]);
        foreach (var weight in plan.Graph.Weights.Where(w => w.Category == TensorCategory.Weight))
            resident[weight.Layer + 1] += weight.Bytes(size);
        foreach (var tensor in plan.Graph.Trainable)
            resident[tensor.Layer + 1] += (2 * tensor.Bytes(size)) + (2 * optimizer.MomentBytes(tensor.Shape.Elements(size)));
        foreach (var saved in plan.Saved)
            kept[plan.SavedFor(saved) + 1] += plan.BlockBytes(saved);
        foreach (var layer in cost.Layers)
            flops[layer.Layer + 1] += layer.ForwardFlops + layer.BackwardFlops;
        var below = new long[Layers + 2];
        for (var at = 1; at < below.Length; at++)
            below[at] = below[at - 1] + kept[at - 1];
        for (var i = 0; i < plan.Graph.Nodes.Count; i++)
        {
            var at = plan.Graph.Nodes[i].Layer + 1;
            working[at] = Math.Max(working[at], plan.LiveBytes[i] - below[at]);
        }
        return [.. Enumerable.Range(0, Layers + 2).Select(at => new Part(resident[at], kept[at], working[at], flops[at]))];
    }
}
