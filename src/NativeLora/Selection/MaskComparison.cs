using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Selection;

/// <summary>Why a forward tensor is kept: what of the backward reads it.</summary>
public enum KeptFor
{
    /// <summary>Only the gradients of what is trained: inputs of adapters and of modules trained in full, x Aᵀ.</summary>
    TrainedTensors,

    /// <summary>Attention: queries, keys, values, its output, log-sum-exp, relative positions.</summary>
    Attention,

    /// <summary>Norms: their inputs or outputs, means, inverse deviations.</summary>
    Norms,

    /// <summary>Activation functions and gates.</summary>
    Activations,

    /// <summary>Anything else: pooling, loss, pictures.</summary>
    Others,
}

/// <summary>What a layer takes with a mask.</summary>
/// <param name="Adapted">Whether the mask adapts it.</param>
/// <param name="Parameters">Trainable elements.</param>
/// <param name="ParameterBytes">Their bytes.</param>
/// <param name="GradientBytes">Bytes of their gradients.</param>
/// <param name="OptimizerBytes">Bytes of their moments.</param>
/// <param name="Kept">Bytes kept for the backward, by what reads them there.</param>
/// <param name="ForwardFlops">Operations of the forward.</param>
/// <param name="BackwardFlops">Operations of the backward, recomputation included.</param>
public sealed record LayerDetail(
    bool Adapted, long Parameters, long ParameterBytes, long GradientBytes, long OptimizerBytes, IReadOnlyDictionary<KeptFor, long> Kept, long ForwardFlops, long BackwardFlops)
{
    /// <summary>Bytes kept for the backward.</summary>
    public long KeptBytes => Kept.Values.Sum();
}

/// <summary>A layer with one mask and with another.</summary>
/// <param name="Layer">-1: embeddings; the number of layers: head.</param>
/// <param name="First">With the first mask.</param>
/// <param name="Second">With the second.</param>
/// <param name="Reason">Why what the second leaves there remains.</param>
public sealed record LayerDifference(int Layer, LayerDetail First, LayerDetail Second, string Reason);

/// <summary>What each layer takes with two masks, and why.</summary>
/// <param name="First">The first mask's training.</param>
/// <param name="Second">The second mask's.</param>
/// <param name="Layers">From the embeddings to the head.</param>
public sealed record MaskComparison(TrainingCost First, TrainingCost Second, IReadOnlyList<LayerDifference> Layers)
{
    private static readonly KeptFor[] s_kinds = Enum.GetValues<KeptFor>();

    /// <summary>Compares two planned trainings of one model.</summary>
    /// <param name="first">One.</param>
    /// <param name="second">The other, whose savings are looked at.</param>
    /// <param name="optimizer">How the optimizer's moments are held.</param>
    public static MaskComparison Of(TrainingCost first, TrainingCost second, OptimizerKind optimizer)
    {
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        if (first.Mask.Length != second.Mask.Length)
            throw new ArgumentException("masks of two models", nameof(second));
        var (a, b) = (Details(first, optimizer), Details(second, optimizer));
        return new MaskComparison(first, second, [.. a.Select((detail, i) => new LayerDifference(i - 1, detail, b[i], Reason(i - 1, detail, b[i], second)))]);
    }

    /// <summary>Bytes that a training keeps for its backward, by what reads them there.</summary>
    public static IReadOnlyDictionary<KeptFor, long> KeptOf(TrainingCost cost)
    {
        ArgumentNullException.ThrowIfNull(cost);
        var kinds = Kinds(cost.Plan);
        return s_kinds.ToDictionary(k => k, k => cost.Plan.Saved.Where(s => kinds[s] == k).Sum(s => s.Bytes(cost.Plan.Capacity)));
    }

    private static LayerDetail[] Details(TrainingCost cost, OptimizerKind optimizer)
    {
        var (plan, size, layers) = (cost.Plan, cost.Plan.Capacity, cost.Mask.Length);
        var kinds = Kinds(plan);
        var kept = plan.Saved.ToLookup(plan.SavedFor);
        var trained = plan.Graph.Trainable.ToLookup(t => t.Layer);
        var flops = cost.Layers.ToDictionary(l => l.Layer);
        return [.. Enumerable.Range(-1, layers + 2).Select(layer =>
        {
            var bytes = trained[layer].Sum(t => t.Bytes(size));
            return new LayerDetail(
                layer >= 0 && layer < layers && cost.Mask[layer] == '1',
                trained[layer].Sum(t => t.Shape.Elements(size)), bytes, bytes, trained[layer].Sum(t => 2 * optimizer.MomentBytes(t.Shape.Elements(size))),
                s_kinds.ToDictionary(k => k, k => kept[layer].Where(s => kinds[s] == k).Sum(s => s.Bytes(size))),
                flops.TryGetValue(layer, out var costs) ? costs.ForwardFlops : 0, costs?.BackwardFlops ?? 0);
        })];
    }

    private static string Reason(int layer, LayerDetail before, LayerDetail now, TrainingCost second)
    {
        var (layers, lowest) = (second.Mask.Length, second.LowestAdaptedLayer);
        var kept = string.Join(", ", s_kinds.Where(k => k != KeptFor.TrainedTensors && now.Kept[k] > 0).Select(NameOf));
        if (layer < 0 || layer == layers)
        {
            var what = layer < 0 ? "embeddings" : "head";
            return now.Parameters > 0 ? $"{what}: trained whatever the mask"
                : now.BackwardFlops > 0 || now.KeptBytes > 0 ? $"{what}: the gradient passes" : $"{what}: no backward";
        }
        if (now.Adapted && layer == lowest && now.BackwardFlops > 0)
            return "the lowest adapted one: trains, and the backward ends here";
        if (now.Adapted)
            return before.Adapted ? "adapted in both: trains, and passes the gradient on" : "adapted in the second alone: trains, and passes the gradient on";
        if (now.BackwardFlops == 0 && now.KeptBytes == 0)
            return lowest is null ? "no layer is adapted: no backward, nothing is kept" : $"below layer {lowest}, the lowest adapted one: no backward, nothing is kept";
        var beneath = lowest is { } bottom && layer > bottom ? $"layer {bottom}" : "what is trained beneath it";
        return $"skipped, but the gradient passes to {beneath}: its backward reads what is kept for {(kept.Length > 0 ? kept : "that")}";
    }

    /// <summary>In words.</summary>
    public static string NameOf(KeptFor kind) => kind switch
    {
        KeptFor.TrainedTensors => "trained tensors",
        KeptFor.Attention => "attention",
        KeptFor.Norms => "norms",
        KeptFor.Activations => "activations",
        _ => "others",
    };

    private static Dictionary<Tensor, KeptFor> Kinds(MemoryPlan plan)
    {
        var readers = new Dictionary<Tensor, List<Node>>();
        foreach (var node in plan.Graph.Nodes)
            if (node.Phase == Phase.Backward)
                foreach (var input in node.Inputs)
                    if (input is not null)
                        (readers.TryGetValue(input, out var found) ? found : readers[input] = []).Add(node);
        var known = new Dictionary<Tensor, HashSet<KeptFor>>();
        // Kept for training alone only if nothing else reads it: else it stays without the adapter too.
        return plan.Saved.ToDictionary(s => s, s =>
        {
            var kinds = For(s);
            return kinds.Count == 0 ? KeptFor.Others : kinds.Any(k => k != KeptFor.TrainedTensors) ? kinds.Where(k => k != KeptFor.TrainedTensors).Min() : KeptFor.TrainedTensors;
        });

        HashSet<KeptFor> For(Tensor tensor)
        {
            if (known.TryGetValue(tensor, out var kinds))
                return kinds;
            known[tensor] = kinds = [];
            if (readers.TryGetValue(tensor, out var nodes))
                foreach (var node in nodes)
                    if (KindOf(node.Op) is { } kind)
                        kinds.Add(kind);
                    else
                        // Computed again from what is kept: what reads that counts.
                        foreach (var output in node.Outputs)
                            kinds.UnionWith(For(output));
            return kinds;
        }
    }

    private static KeptFor? KindOf(Op op) => op switch
    {
        WeightGradOp or ColumnSumOp or LoraDownGradOp or LoraInputGradOp => KeptFor.TrainedTensors,
        _ when op.Name is "magnitude_grad" or "dora_grad" or "embedding_grad" => KeptFor.TrainedTensors,
        _ when op.Name.Contains("norm", StringComparison.Ordinal) && op.Name.EndsWith("_grad", StringComparison.Ordinal) => KeptFor.Norms,
        _ when op.Name.EndsWith("attention_grad", StringComparison.Ordinal) || op.Name is "softcap_grad" or "rotary_grad" or "table_grad" => KeptFor.Attention,
        _ when op.Name is "mean_pool_grad" or "picture_rows_grad" or "embedding_columns_grad" or "linear_input_grad" => KeptFor.Others,
        _ when op.Name.EndsWith("_grad", StringComparison.Ordinal) => KeptFor.Activations,
        _ => null,
    };
}
