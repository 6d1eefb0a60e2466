using NativeLora.Ops;

namespace NativeLora.Graphs;

/// <summary>Bytes that a plan needs, by category.</summary>
/// <param name="Weights">Frozen weights that the graph reads, in the file's type (memory-mapped where they can be).</param>
/// <param name="Parameters">Trainable tensors, fp32.</param>
/// <param name="Gradients">Their gradients, fp32.</param>
/// <param name="Optimizer">Optimizer state: two moments a trainable element, in fp32 or as bytes.</param>
/// <param name="Saved">Forward activations that the backward reads; part of <paramref name="Arena"/>.</param>
/// <param name="Arena">The one block that all activations share.</param>
/// <param name="Constants">Tables, such as rotary angles.</param>
/// <param name="Inputs">Ids, boundaries and labels.</param>
/// <param name="Scratch">What the device's kernels hold: packed panels, partial sums.</param>
public sealed record MemoryReport(
    long Weights, long Parameters, long Gradients, long Optimizer, long Saved, long Arena, long Constants, long Inputs, long Scratch)
{
    /// <summary>Keys and values that are kept from step to step.</summary>
    public long Cache { get; init; }

    /// <summary>Copies of frozen weights in the order that products read them in, where they were asked for.</summary>
    public long Packed { get; init; }

    /// <summary>All of it; <see cref="Saved"/> is within <see cref="Arena"/>.</summary>
    public long Total => Weights + Packed + Parameters + Gradients + Optimizer + Arena + Constants + Inputs + Scratch + Cache;
}

/// <summary>What one layer costs in a step.</summary>
/// <param name="Layer">-1: embeddings; the number of layers: head.</param>
/// <param name="ParameterElements">Trainable elements.</param>
/// <param name="SavedBytes">Forward activations that the layer's backward reads.</param>
/// <param name="ForwardFlops">Forward.</param>
/// <param name="BackwardFlops">Backward, recomputation included.</param>
public sealed record LayerCost(int Layer, long ParameterElements, long SavedBytes, long ForwardFlops, long BackwardFlops);

/// <summary>
/// Where every tensor of a graph lies in one arena, made for a capacity before anything runs. Tensors whose lives do not overlap
/// share bytes; an op may write over an input that nothing reads later.
/// </summary>
public sealed class MemoryPlan
{
    private const long Alignment = 64;
    private readonly Dictionary<Tensor, long> _offsets = [];
    private readonly List<Tensor> _saved = [];
    private readonly Dictionary<Tensor, int> _savedBy = [];

    private MemoryPlan(Graph graph, BatchSize capacity)
    {
        Graph = graph;
        Capacity = capacity;
    }

    /// <summary>The graph.</summary>
    public Graph Graph { get; }

    /// <summary>Largest batch that fits.</summary>
    public BatchSize Capacity { get; }

    /// <summary>Bytes of the arena.</summary>
    public long ArenaBytes { get; private set; }

    /// <summary>Forward tensors that a backward node reads.</summary>
    public IReadOnlyList<Tensor> Saved => _saved;

    /// <summary>What a layer keeps for its backward.</summary>
    /// <param name="layer">-1: embeddings; the number of layers: head.</param>
    public IEnumerable<Tensor> SavedBy(int layer) => _saved.Where(s => _savedBy[s] == layer);

    /// <summary>The layer that keeps a saved tensor.</summary>
    internal int SavedFor(Tensor saved) => _savedBy[saved];

    /// <summary>Bytes of the arena that hold something at each node: no place for the blocks makes the arena smaller than their maximum.</summary>
    public IReadOnlyList<long> LiveBytes { get; private set; } = [];

    /// <summary>Offset of an arena tensor in bytes.</summary>
    /// <exception cref="KeyNotFoundException">The tensor is not in the arena.</exception>
    public long Offset(Tensor tensor) => _offsets[tensor];

    /// <summary>Makes the plan.</summary>
    public static MemoryPlan For(Graph graph, BatchSize capacity)
    {
        var plan = new MemoryPlan(graph, capacity);
        plan.Place();
        return plan;
    }

    /// <summary>A stretch of bytes, and the nodes from the first that writes it to the last that reads it.</summary>
    private sealed class Block(long bytes, int first)
    {
        public long Bytes = bytes;
        public int First = first;
        public int Last = first;
        public long Offset = -1;
        public readonly List<Tensor> Tensors = [];
    }

    private void Place()
    {
        var nodes = Graph.Nodes;
        var lastUse = new Dictionary<Tensor, int>();
        for (var i = 0; i < nodes.Count; i++)
        {
            foreach (var input in nodes[i].Inputs)
                if (input is not null)
                    lastUse[input] = i;
            foreach (var output in nodes[i].Outputs)
                lastUse.TryAdd(output, i);
        }
        foreach (var tensor in lastUse.Keys)
            if (tensor.Kept)
                lastUse[tensor] = nodes.Count;

        var blocks = new List<Block>();
        var blockOf = new Dictionary<Tensor, Block>();
        for (var i = 0; i < nodes.Count; i++)
        {
            var node = nodes[i];
            var taken = new HashSet<Block>();
            foreach (var output in node.Outputs)
            {
                if (!output.InArena || blockOf.ContainsKey(output))
                    continue;
                var bytes = BlockBytes(output);
                var block = Overwritten(node, output, i, bytes, lastUse, blockOf, taken);
                if (block is null)
                    blocks.Add(block = new Block(bytes, i));
                taken.Add(block);
                block.Tensors.Add(output);
                block.Last = Math.Max(block.Last, lastUse[output]);
                blockOf[output] = block;
            }
        }
        Assign(blocks);
        var live = new long[nodes.Count];
        foreach (var block in blocks)
            for (var i = block.First; i <= Math.Min(block.Last, nodes.Count - 1); i++)
                live[i] += block.Bytes;
        LiveBytes = live;
        foreach (var block in blocks)
            foreach (var tensor in block.Tensors)
                _offsets[tensor] = block.Offset;
        FindSaved();
    }

    /// <summary>
    /// A tensor is saved by the lowest layer whose backward reads it, whichever made it: the residual that a layer's norm takes in
    /// comes from the layer below.
    /// </summary>
    private void FindSaved()
    {
        foreach (var node in Graph.Nodes)
            if (node.Phase == Phase.Backward)
                foreach (var input in node.Inputs)
                    if (input is { Category: TensorCategory.Activation, Producer: { Phase: Phase.Forward } producer } && !IsGradient(producer, input))
                        _savedBy[input] = Math.Min(node.Layer, _savedBy.GetValueOrDefault(input, int.MaxValue));
        foreach (var tensor in _offsets.Keys)
            if (_savedBy.ContainsKey(tensor))
                _saved.Add(tensor);
    }

    /// <summary>The LM head makes its input's gradient in the forward.</summary>
    private static bool IsGradient(Node producer, Tensor output) =>
        producer.Op is LmHeadLossOp { InputGradient: true } && ReferenceEquals(producer.Outputs[3], output);

    /// <summary>The block of an input that dies at this node and that the op may write over, if there is one.</summary>
    private static Block? Overwritten(
        Node node, Tensor output, int at, long bytes, Dictionary<Tensor, int> lastUse, Dictionary<Tensor, Block> blockOf, HashSet<Block> taken)
    {
        for (var j = 0; j < node.Inputs.Count; j++)
        {
            if (node.Inputs[j] is not { InArena: true } input || input.Shape != output.Shape || input.Type != output.Type || !node.Op.MayOverwrite(j))
                continue;
            if (lastUse[input] != at || !blockOf.TryGetValue(input, out var block) || block.Bytes != bytes || block.Last != at || taken.Contains(block))
                continue;
            // A tensor given twice must not be overwritten while its other reading still needs it, unless the op allows both.
            var safe = true;
            for (var other = 0; other < node.Inputs.Count; other++)
                if (other != j && node.Inputs[other] is { } t && ReferenceEquals(t, input) && !node.Op.MayOverwrite(other))
                    safe = false;
            if (safe)
                return block;
        }
        return null;
    }

    /// <summary>Largest first, each at the lowest offset that is free for as long as it lives.</summary>
    private void Assign(List<Block> blocks)
    {
        var placed = new List<Block>();
        foreach (var block in blocks.OrderByDescending(b => b.Bytes).ThenBy(b => b.First))
        {
            long offset = 0;
            foreach (var other in placed)
            {
                if (other.Last < block.First || other.First > block.Last)
                    continue;
                if (other.Offset >= offset + block.Bytes)
                    break;
                offset = Math.Max(offset, other.Offset + other.Bytes);
            }
            block.Offset = offset;
            ArenaBytes = Math.Max(ArenaBytes, offset + block.Bytes);
            var place = placed.FindIndex(p => p.Offset > offset);
            placed.Insert(place < 0 ? placed.Count : place, block);
        }
    }

    /// <summary>Bytes by category.</summary>
    /// <param name="scratch">What the device's kernels hold.</param>
    /// <param name="optimizer">How the optimizer holds its moments; there are none without a backward.</param>
    /// <param name="packed">Bytes of packed copies of weights.</param>
    public MemoryReport Report(long scratch = 0, OptimizerKind optimizer = OptimizerKind.AdamW, long packed = 0)
    {
        long weights = Graph.Weights.Where(w => w.Category == TensorCategory.Weight).Sum(w => w.Bytes(Capacity));
        var parameters = Graph.Trainable.Sum(p => p.Bytes(Capacity));
        var gradients = Graph.ParameterGradients.Count == 0 ? 0 : parameters;
        var moments = Graph.ParameterGradients.Count == 0 ? 0 : Graph.Trainable.Sum(p => 2 * optimizer.MomentBytes(p.Shape.Elements(Capacity)));
        return new MemoryReport(weights, parameters, gradients, moments, _saved.Sum(s => s.Bytes(Capacity)),
            ArenaBytes, ConstantBytes, InputBytes, scratch)
        {
            Cache = CacheBytes,
            Packed = packed,
        };
    }

    /// <summary>Bytes of the batch's inputs at capacity.</summary>
    public long InputBytes => 4L * (5L * Capacity.Tokens + (Graph.CacheLength > 0 ? 6L : 4L) * Capacity.Sequences + 1)
        + (Graph.Pictures is { } pictures ? 4L * (((long)pictures.Layout.Values + 1) * Capacity.Pictures + Capacity.Tokens + 1) : 0);

    /// <summary>Bytes of the tables.</summary>
    public long ConstantBytes => Graph.Constants.Keys.Sum(c => c.Bytes(Capacity));

    /// <summary>Bytes of the keys and values that are kept from step to step.</summary>
    public long CacheBytes => Graph.Caches.Sum(c => c.Bytes(Capacity));

    /// <summary>What each layer costs for a batch of that size.</summary>
    public IReadOnlyList<LayerCost> Layers(BatchSize size)
    {
        var costs = new SortedDictionary<int, (long P, long S, long F, long B)>();
        void Add(int layer, long p, long s, long f, long b)
        {
            var (p0, s0, f0, b0) = costs.GetValueOrDefault(layer);
            costs[layer] = (p0 + p, s0 + s, f0 + f, b0 + b);
        }
        foreach (var node in Graph.Nodes)
        {
            var flops = node.Op.Flops(node, size);
            if (node.Op is LmHeadLossOp { InputGradient: true } head)
            {
                // One node does both parts of the head.
                var products = 2 + (head.WeightGradient ? 1 : 0);
                Add(node.Layer, 0, 0, flops / products, flops - flops / products);
            }
            else if (node.Phase == Phase.Forward)
                Add(node.Layer, 0, 0, flops, 0);
            else
                Add(node.Layer, 0, 0, 0, flops);
        }
        foreach (var parameter in Graph.Trainable)
            Add(parameter.Layer, parameter.Shape.Elements(size), 0, 0, 0);
        foreach (var saved in _saved)
            Add(_savedBy[saved], 0, saved.Bytes(size), 0, 0);
        return [.. costs.Select(c => new LayerCost(c.Key, c.Value.P, c.Value.S, c.Value.F, c.Value.B))];
    }

    /// <summary>Bytes of the arena that a tensor takes while it lives.</summary>
    internal long BlockBytes(Tensor tensor) => Math.Max(RoundUp(tensor.Bytes(Capacity)), Alignment);

    private static long RoundUp(long bytes) => (bytes + Alignment - 1) / Alignment * Alignment;
}
