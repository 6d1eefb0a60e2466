using System.Runtime.InteropServices;
using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Tensors;

namespace NativeLora.Devices;

/// <summary>What a run of a session is a part of.</summary>
/// <param name="InverseCount">1 over the labels that the loss is a mean of; 1 where null.</param>
/// <param name="AccumulateGradients">Whether parameter gradients are added to those of the runs before.</param>
/// <param name="Seed">Seed of all dropouts.</param>
/// <param name="Step">Number of the micro-batch: each draws other random numbers.</param>
public readonly record struct RunSettings(float? InverseCount = null, bool AccumulateGradients = false, ulong Seed = 0, uint Step = 0)
{
    /// <summary>What of a larger batch lies before the one that was loaded, where that is a part of one.</summary>
    internal BatchSize Before { get; init; }
}

/// <summary>Is told how far a run is.</summary>
internal interface IRunObserver
{
    /// <summary>That node's work is done.</summary>
    void AfterNode(int node);
}

/// <summary>
/// A plan with bytes: the arena, the inputs and a bound kernel for each node. The only place that allocates; a step allocates nothing.
/// </summary>
public sealed class Session : ITensorAddresses, IDisposable
{
    private readonly MemoryPlan _plan;
    private readonly ModelWeights _weights;
    private readonly ParameterStore? _parameters;
    private readonly Device _device;
    private readonly DeviceBuffer _arena;
    private bool _sharesArena;
    private readonly DeviceBuffer _inputs;
    private readonly DeviceBuffer _constants;
    private readonly DeviceBuffer _caches;
    private readonly Dictionary<Tensor, long> _inputOffsets = [];
    private readonly Dictionary<Tensor, long> _constantOffsets = [];
    private readonly Dictionary<Tensor, long> _cacheOffsets = [];
    private readonly bool[] _slotTaken;
    private readonly PictureUpload? _pictures;
    private readonly Kernel[] _kernels;
    private readonly StepTape? _tape;
    private Dictionary<(string Weight, bool Turned, bool Brain), DeviceBuffer?>? _packs;
    private readonly Session? _packer;
    private readonly string? _sharedRows;
    private readonly int[] _positions;
    private readonly int _idLimit, _typeLimit, _positionLimit, _labelLimit, _classLimit;

    /// <summary>Allocates and binds.</summary>
    /// <param name="device">Where it runs.</param>
    /// <param name="plan">The plan.</param>
    /// <param name="weights">Frozen weights.</param>
    /// <param name="parameters">Trainable tensors; null where the graph has none.</param>
    /// <param name="packWeights">Whether frozen weights are copied into the order that products read them in: quicker for small batches, for their bytes once more. They must not change then.</param>
    /// <exception cref="InputException">A weight is missing or misshapen.</exception>
    public Session(Device device, MemoryPlan plan, ModelWeights weights, ParameterStore? parameters, bool packWeights = false)
        : this(device, plan, weights, parameters, packWeights, beside: null) { }

    /// <summary>
    /// Allocates and binds, over the arena of a session that never runs at the same time, if it is large enough, and with the weights that it
    /// has packed.
    /// </summary>
    internal Session(Device device, MemoryPlan plan, ModelWeights weights, ParameterStore? parameters, bool packWeights, Session? beside)
        : this(device, plan, weights, parameters, packWeights, beside, null) { }

    private Session(Device device, MemoryPlan plan, ModelWeights weights, ParameterStore? parameters, bool packWeights, Session? beside, Session? former)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(weights);
        (_device, _plan, _weights, _parameters) = (device, plan, weights, parameters);
        var graph = plan.Graph;
        if (graph.Trainable.Count > 0 && parameters is null)
            throw new ArgumentNullException(nameof(parameters), "the graph has trainable tensors");
        weights.Check(graph);
        _positions = new int[plan.Capacity.Tokens];
        _sharesArena = beside is not null && beside._arena.Bytes >= plan.ArenaBytes;
        var inherits = former is not null && former._arena.Bytes >= plan.ArenaBytes;
        _arena = _sharesArena ? beside!._arena : inherits ? former!._arena : device.Allocate(plan.ArenaBytes);
        _inputs = device.Allocate(plan.InputBytes);
        long offset = 0;
        foreach (var input in Inputs(graph))
        {
            _inputOffsets[input] = offset;
            offset += input.Bytes(plan.Capacity) + (ReferenceEquals(input, graph.CuSeqlens) || ReferenceEquals(input, graph.Pictures?.Boundaries) ? 4 : 0);
        }
        _constants = device.Allocate(graph.Constants.Keys.Sum(c => c.Bytes(plan.Capacity)));
        offset = 0;
        foreach (var (tensor, values) in graph.Constants)
        {
            _constantOffsets[tensor] = offset;
            _constants.Write(offset, MemoryMarshal.AsBytes(values.AsSpan()));
            offset += tensor.Bytes(plan.Capacity);
        }
        _caches = device.Allocate(plan.CacheBytes);
        offset = 0;
        foreach (var cache in graph.Caches)
        {
            _cacheOffsets[cache] = offset;
            offset += cache.Bytes(plan.Capacity);
        }
        _pictures = graph.Pictures is { } taken ? new PictureUpload(taken, plan.Capacity) : null;
        _slotTaken = new bool[graph.CacheLength > 0 ? plan.Capacity.Sequences : 0];
        (_idLimit, _typeLimit, _positionLimit) = (graph.IdLimit(graph.TokenIds), graph.IdLimit(graph.TypeIds), graph.IdLimit(graph.Positions));
        (_labelLimit, _classLimit) = (graph.LabelLimit(graph.Labels), graph.LabelLimit(graph.ClassLabels));
        if (graph.Trainables.Bank is { } bank)
        {
            Step.Segments = new AdapterSegments(bank, plan.Capacity.Sequences);
            _sharedRows = graph.Nodes.FirstOrDefault(n => n.Op is Ops.GroupedLoraOp && n.Output.Shape.Kind is not (RowKind.Tokens or RowKind.Sequences))?.Name;
        }
        _packs = former is not null ? former._packs : packWeights ? [] : null;
        _packer = beside ?? former?._packer;
        _kernels = [.. graph.Nodes.Select(n => device.Bind(n, this, plan.Capacity))];
        _tape = device.NewTape();
        if (former is null)
            return;
        if (inherits)
            (_sharesArena, former._sharesArena) = (former._sharesArena, true);
        former._packs = null;
    }

    /// <summary>
    /// A session of another plan over the same weights that takes over the arena, where it is large enough, and the packed weights. This one
    /// never runs again, and is to be disposed of; where the other cannot be made it stays as it is.
    /// </summary>
    internal Session Successor(MemoryPlan plan, ParameterStore? parameters) => new(_device, plan, _weights, parameters, false, null, this);

    /// <summary>Whether the sequences of a batch may have different adapters.</summary>
    internal bool MixesAdapters => _sharedRows is null;

    /// <summary>The plan.</summary>
    public MemoryPlan Plan => _plan;

    /// <summary>Sizes of the batch loaded last.</summary>
    public BatchSize Size => Step.Size;

    /// <summary>Bytes of weights that were copied into the order that products read them in.</summary>
    public long PackedBytes => _packs?.Values.Sum(p => p?.Bytes ?? 0) ?? 0;

    /// <summary>Bytes of the arena as allocated; 0 where it is another session's.</summary>
    public long ArenaBytes => _sharesArena ? 0 : _arena.Bytes;

    /// <summary>Bytes that the session has allocated, those of kernels left out.</summary>
    internal long Bytes => ArenaBytes + _inputs.Bytes + _constants.Bytes + _caches.Bytes;

    internal StepArguments Step { get; } = new();

    internal DeviceBuffer Arena => _arena;

    /// <summary>Seconds that each node took in all, if asked for by <see cref="Profile"/>.</summary>
    internal double[]? NodeSeconds { get; private set; }

    /// <summary>Is told after each node; where a device runs all nodes at once, after the last of them.</summary>
    internal IRunObserver? Observer { get; set; }

    /// <summary>Starts to time each node.</summary>
    internal void Profile() => NodeSeconds = new double[_kernels.Length];

    /// <summary>Ends that: runs are as fast as before again.</summary>
    internal void EndProfile() => NodeSeconds = null;

    private static IEnumerable<Tensor> Inputs(Graph g) =>
    [
        g.TokenIds, g.TypeIds, g.Positions, g.KeyVisible, g.Labels, g.CuSeqlens, g.PoolIndex, g.ClassLabels, g.Targets,
        .. g.CacheLength > 0 ? [g.CacheSlots, g.PastLengths] : (Tensor[])[],
        .. g.Pictures is { } pictures ? new[] { pictures.Pixels, pictures.Rows, pictures.Boundaries }.OfType<Tensor>() : [],
    ];

    /// <summary>Copies a batch to the device. Every id, position, boundary and index is checked before a kernel may use it.</summary>
    /// <exception cref="InputException">The batch does not fit the plan, or an id lies outside its table.</exception>
    public void Load(PackedBatch batch)
    {
        ArgumentNullException.ThrowIfNull(batch);
        var (graph, capacity) = (_plan.Graph, _plan.Capacity);
        int tokens = batch.TokenCount, sequences = batch.SequenceCount;
        if (tokens > capacity.Tokens || sequences > capacity.Sequences)
            throw new InputException($"a batch of {sequences} sequences with {tokens} tokens does not fit the plan's {capacity.Sequences} and {capacity.Tokens}");
        long squares = 0;
        if (batch.CuSeqlens[0] != 0 || batch.CuSeqlens[sequences] != tokens)
            throw new InputException("a batch whose boundaries do not begin at 0 and end at its tokens");
        for (var s = 0; s < sequences; s++)
        {
            var length = (long)batch.CuSeqlens[s + 1] - batch.CuSeqlens[s];
            if (length < 0)
                throw new InputException("a batch whose boundaries go down");
            squares += length * length;
            if ((uint)batch.PoolIndex[s] >= (uint)tokens)
                throw new InputException($"sequence {s}: its row {batch.PoolIndex[s]} lies outside the batch of {tokens} tokens");
        }
        if (graph.CacheLength > 0)
            squares = CheckCache(batch);
        _pictures?.Check(batch, capacity.Pictures, graph.CacheLength > 0);
        if (_pictures is null && batch.PictureCount > 0)
            throw new InputException($"a batch with {batch.PictureCount} pictures for a model that takes none");
        Check(batch.TokenIds.AsSpan(0, tokens), _idLimit, "token id");
        Check(batch.TypeIds.AsSpan(0, tokens), _typeLimit, "segment id");
        for (var t = 0; t < tokens; t++)
            _positions[t] = batch.Positions[t] + graph.PositionOffset;
        Check(_positions.AsSpan(0, tokens), _positionLimit, "position");
        Check(batch.Labels.AsSpan(0, tokens), _labelLimit, "label", allowIgnored: true);
        Check(batch.ClassLabels.AsSpan(0, sequences), _classLimit, "class label", allowIgnored: true);

        Step.Size = new BatchSize(tokens, sequences, squares) { Pictures = batch.PictureCount };
        Step.LabelledTokens = tokens - batch.Labels.AsSpan(0, tokens).Count(InstructionPrompt.IgnoredLabel);
        Step.Segments?.Whole(Step.Size);
        Upload(graph.TokenIds, batch.TokenIds.AsSpan(0, tokens));
        Upload(graph.TypeIds, batch.TypeIds.AsSpan(0, tokens));
        Upload(graph.Positions, _positions.AsSpan(0, tokens));
        Upload(graph.KeyVisible, batch.KeyVisible.AsSpan(0, tokens));
        Upload(graph.Labels, batch.Labels.AsSpan(0, tokens));
        Upload(graph.CuSeqlens, batch.CuSeqlens.AsSpan(0, sequences + 1));
        Upload(graph.PoolIndex, batch.PoolIndex.AsSpan(0, sequences));
        Upload(graph.ClassLabels, batch.ClassLabels.AsSpan(0, sequences));
        _inputs.Write(_inputOffsets[graph.Targets], MemoryMarshal.AsBytes(batch.Targets.AsSpan(0, sequences)));
        _pictures?.Upload(batch, _inputs, _inputOffsets);
        if (graph.CacheLength == 0)
            return;
        Upload(graph.CacheSlots, batch.CacheSlots.AsSpan(0, sequences));
        Upload(graph.PastLengths, batch.PastLengths.AsSpan(0, sequences));
    }

    /// <summary>Copies a batch whose sequences have adapters of their own, of the <see cref="AdapterBank"/> that the graph was built over.</summary>
    /// <param name="batch">The batch.</param>
    /// <param name="adapters">Number of each sequence's adapter; <see cref="AdapterBank.None"/> for the base. Neighbours with the same one share their products.</param>
    /// <exception cref="InputException">The batch does not fit the plan, or the model mixes rows of all sequences where adapters act.</exception>
    /// <exception cref="ArgumentException">The graph has not several adapters, or not one is named for each sequence.</exception>
    public void Load(PackedBatch batch, ReadOnlySpan<int> adapters)
    {
        ArgumentNullException.ThrowIfNull(batch);
        if (Step.Segments is not { } segments)
            throw new ArgumentException("the graph was not built over several adapters", nameof(adapters));
        if (adapters.Length != batch.SequenceCount)
            throw new ArgumentException($"{adapters.Length} adapters are given for {batch.SequenceCount} sequences", nameof(adapters));
        if (_sharedRows is not null && adapters.Length > 0 && adapters.ContainsAnyExcept(adapters[0]))
            throw new InputException($"the sequences of a batch share rows at {_sharedRows} (relative positions), so they cannot have different adapters there; run a batch for each adapter");
        Load(batch);
        segments.ByRow(adapters, batch.CuSeqlens, Step.Size);
    }

    /// <summary>
    /// Each sequence has a row of the cache to itself, with room for its new tokens. Returns what stands for the squared lengths: a new
    /// token also sees those before it.
    /// </summary>
    private long CheckCache(PackedBatch batch)
    {
        var length = _plan.Graph.CacheLength;
        Array.Clear(_slotTaken);
        long squares = 0;
        for (var s = 0; s < batch.SequenceCount; s++)
        {
            int slot = batch.CacheSlots[s], past = batch.PastLengths[s], count = batch.CuSeqlens[s + 1] - batch.CuSeqlens[s];
            if ((uint)slot >= (uint)_slotTaken.Length || _slotTaken[slot])
                throw new InputException($"sequence {s}: its cache row {slot} is taken, or lies outside the {_slotTaken.Length} there are");
            if (past < 0 || (long)past + count > length)
                throw new InputException($"sequence {s}: {past} tokens and {count} new ones do not fit the cache of {length}");
            _slotTaken[slot] = true;
            squares += count * (2L * past + count);
        }
        if (batch.KeyVisible.AsSpan(0, batch.TokenCount).IndexOfAnyExcept(1) >= 0)
            throw new InputException("a hidden token: with a cache every token is seen");
        return squares;
    }

    /// <summary>Runs all nodes over the batch that was loaded.</summary>
    /// <param name="settings">What this run is a part of.</param>
    public void Run(in RunSettings settings = default)
    {
        Step.InverseCount = settings.InverseCount ?? 1;
        Step.AccumulateGradients = settings.AccumulateGradients;
        Step.Seed = settings.Seed;
        Step.Step = settings.Step;
        Step.Before = settings.Before;
        Step.Segments?.Begin();
        if (NodeSeconds is null)
        {
            if (_tape is not null)
            {
                _tape.Run(_kernels, Step);
                Observer?.AfterNode(_kernels.Length - 1);
                return;
            }
            for (var i = 0; i < _kernels.Length; i++)
            {
                _kernels[i].Execute(Step);
                Observer?.AfterNode(i);
            }
            return;
        }
        for (var i = 0; i < _kernels.Length; i++)
        {
            var start = System.Diagnostics.Stopwatch.GetTimestamp();
            _kernels[i].Execute(Step);
            _device.Finish();
            NodeSeconds[i] += System.Diagnostics.Stopwatch.GetElapsedTime(start).TotalSeconds;
            Observer?.AfterNode(i);
        }
    }

    /// <summary>Copies a kept tensor to the host: rows of the batch loaded last, row-major.</summary>
    /// <exception cref="ArgumentException">The destination is too short.</exception>
    public void Read(Tensor tensor, Span<float> destination)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        var count = checked((int)tensor.Shape.Elements(Step.Size));
        if (destination.Length < count)
            throw new ArgumentException($"{tensor.Name} holds {count} values", nameof(destination));
        if (tensor.Type == ElementType.F32)
        {
            _arena.Read(_plan.Offset(tensor), MemoryMarshal.AsBytes(destination[..count]));
            return;
        }
        // The bf16 values into the upper half of the destination, then widened from below: none is overwritten before it is read.
        var values = MemoryMarshal.Cast<float, ushort>(destination[..count])[count..];
        _arena.Read(_plan.Offset(tensor), MemoryMarshal.AsBytes(values));
        for (var i = 0; i < count; i++)
            destination[i] = BitConverter.UInt32BitsToSingle((uint)values[i] << 16);
    }

    /// <summary>Copies a kept tensor to a new array.</summary>
    public float[] Read(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        var values = new float[tensor.Shape.Elements(Step.Size)];
        Read(tensor, values);
        return values;
    }

    nint ITensorAddresses.Of(Tensor tensor) => tensor.Category switch
    {
        TensorCategory.Weight => _weights.Address(tensor),
        TensorCategory.Parameter => _parameters!.AddressOf(tensor.Name),
        TensorCategory.Gradient => _parameters!.Gradients!.Address + (nint)(4 * _parameters.Place(tensor.Name["grad.".Length..]).Offset),
        TensorCategory.Input => _inputs.Address + (nint)_inputOffsets[tensor],
        TensorCategory.Constant => _constants.Address + (nint)_constantOffsets[tensor],
        TensorCategory.Cache => _caches.Address + (nint)_cacheOffsets[tensor],
        _ => _arena.Address + (nint)_plan.Offset(tensor),
    };

    nint ITensorAddresses.Panels(Tensor weight, bool turned, bool brain)
    {
        if (_packer?._packs is { } packed && packed.TryGetValue((weight.Name, turned, brain), out var known))
            return known?.Address ?? 0;
        if (_packs is null)
            return 0;
        if (!_packs.TryGetValue((weight.Name, turned, brain), out var pack))
            _packs[(weight.Name, turned, brain)] = pack = _device.Pack(weight, _weights.Address(weight), turned, brain);
        return pack?.Address ?? 0;
    }

    private void Upload(Tensor input, ReadOnlySpan<int> values) => _inputs.Write(_inputOffsets[input], MemoryMarshal.AsBytes(values));

    private static void Check(ReadOnlySpan<int> ids, int limit, string what, bool allowIgnored = false)
    {
        for (var i = 0; i < ids.Length; i++)
            if ((uint)ids[i] >= (uint)limit && !(allowIgnored && ids[i] == InstructionPrompt.IgnoredLabel))
                throw new InputException($"{what} {ids[i]} lies outside 0 to {limit - 1}; check that the tokenizer and the labels belong to this model");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _tape?.Dispose();
        if (!_sharesArena)
            _arena.Dispose();
        _inputs.Dispose();
        _constants.Dispose();
        _caches.Dispose();
        foreach (var pack in _packs?.Values ?? Enumerable.Empty<DeviceBuffer?>())
            pack?.Dispose();
    }
}
