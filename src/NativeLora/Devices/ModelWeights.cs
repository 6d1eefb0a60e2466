using System.Runtime.InteropServices;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Tensors;

namespace NativeLora.Devices;

/// <summary>
/// The base model's weights on a device. Matrices stay in the file's type and, on a CPU, in the mapped file, or are quantized once; vectors
/// are widened to fp32 once. What a checkpoint lacks is freshly initialised, as Hugging Face does it, if the model says how.
/// </summary>
public sealed unsafe class ModelWeights : IDisposable
{
    private readonly Device _device;
    private readonly Checkpoint? _checkpoint;
    private readonly string _prefix;
    private readonly ulong _seed;
    private readonly float _scratchStd;
    private readonly ModelWeights? _under;
    private readonly Dictionary<(string Name, ElementType Type), nint> _addresses = [];
    private readonly List<DeviceBuffer> _owned = [];
    private readonly Dictionary<(string Name, ElementType Type), DeviceBuffer> _quantized = [];
    private readonly Dictionary<string, DeviceBuffer> _replaced = [];
    private readonly SortedSet<string> _fresh;
    private readonly Dictionary<string, string> _storedNames = new(StringComparer.Ordinal);

    /// <summary>Weights of a checkpoint.</summary>
    /// <param name="device">Where kernels read them.</param>
    /// <param name="checkpoint">The checkpoint; stays open as long as this.</param>
    /// <param name="backbonePrefix">Prefix such as <c>bert.</c> that a checkpoint of the bare backbone lacks.</param>
    /// <param name="seed">Seed of freshly initialised weights.</param>
    /// <param name="precision">BF16: activations are bf16, and so are the matrices that they are multiplied with, whatever the file has.</param>
    /// <param name="rename">What the graph calls a tensor of the checkpoint, where that may have other names; else null.</param>
    public ModelWeights(
        Device device, Checkpoint checkpoint, string backbonePrefix, ulong seed = 0, ElementType precision = ElementType.F32, Func<string, string>? rename = null)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(checkpoint);
        (_device, _checkpoint, _prefix, _seed, Precision) = (device, checkpoint, backbonePrefix, seed, precision);
        _fresh = new(StringComparer.Ordinal);
        if (rename is null)
            return;
        foreach (var stored in checkpoint.Tensors.Keys)
            if (!_storedNames.TryAdd(rename(stored), stored))
                throw new InputException($"{checkpoint.Path}: tensors {Reject.OneLine(Reject.Quote(_storedNames[rename(stored)]))} and {Reject.OneLine(Reject.Quote(stored))} are the same one of the model; take out one of them");
    }

    /// <summary>A model from scratch: matrices normal with <paramref name="std"/>, norm weights 1, biases 0.</summary>
    public ModelWeights(Device device, float std, ulong seed)
    {
        ArgumentNullException.ThrowIfNull(device);
        (_device, _prefix, _seed, _scratchStd) = (device, "", seed, std);
        _fresh = new(StringComparer.Ordinal);
    }

    /// <summary>The weights <paramref name="under"/>, some of them to be replaced; <paramref name="under"/> must stay as long as this.</summary>
    internal ModelWeights(ModelWeights under)
    {
        (_device, _checkpoint, _prefix, _seed, _scratchStd, _under) = (under._device, under._checkpoint, under._prefix, under._seed, under._scratchStd, under);
        (_fresh, _storedNames) = (under._fresh, under._storedNames);
        Precision = under.Precision;
    }

    /// <summary>Element type of activations: fp32 or bf16.</summary>
    public ElementType Precision { get; } = ElementType.F32;

    /// <summary>
    /// Puts other values in the place of a frozen weight, in the type that graphs read it in. What is bound to the place of values put there
    /// before sees these.
    /// </summary>
    internal void Replace(Tensor weight, ReadOnlySpan<float> values)
    {
        if (weight.Type.IsBlock())
            throw new InputException($"{weight.Name} is held in blocks of {weight.Type}, which cannot take other values: open the model with --weights bf16 and without --quantize");
        if (!_replaced.TryGetValue(weight.Name, out var buffer))
        {
            _replaced[weight.Name] = buffer = _device.Allocate(weight.Type.Bytes(values.Length));
            _owned.Add(buffer);
        }
        Write(values, weight.Type, buffer);
        _addresses[(weight.Name, weight.Type)] = buffer.Address;
    }

    private static void Write(ReadOnlySpan<float> values, ElementType type, DeviceBuffer buffer, long first = 0)
    {
        if (type == ElementType.F32)
        {
            buffer.Write(4 * first, MemoryMarshal.AsBytes(values));
            return;
        }
        Span<ushort> half = stackalloc ushort[1024];
        for (var at = 0; at < values.Length; at += half.Length)
        {
            var part = values.Slice(at, Math.Min(half.Length, values.Length - at));
            if (type == ElementType.F16)
                Cpu.Convert16.F32ToF16(part, half[..part.Length]);
            else
                Cpu.Convert16.F32ToBF16(part, half[..part.Length]);
            buffer.Write(2 * (first + at), MemoryMarshal.AsBytes(half[..part.Length]));
        }
    }

    /// <summary>Copies a stored tensor in another type, a piece at a time.</summary>
    private void Convert(TensorInfo stored, ElementType type, DeviceBuffer buffer)
    {
        var data = _checkpoint!.Get(stored.Name);
        Span<float> piece = stackalloc float[1024];
        for (long at = 0; at < data.Count; at += piece.Length)
        {
            var part = piece[..(int)Math.Min(piece.Length, data.Count - at)];
            Widening.ToFloat32(data.Type, data.Data + data.Type.Bytes(at), part);
            Write(part, type, buffer, at);
        }
        _checkpoint.Forget(stored.Name);
    }

    /// <summary>Seed of freshly initialised weights.</summary>
    internal ulong Seed => _seed;

    /// <summary>Names of the weights that were freshly initialised so far.</summary>
    public IReadOnlyCollection<string> FreshlyInitialised => _fresh;

    /// <summary>Element type of a weight as it is stored; fp32 where the checkpoint lacks it.</summary>
    public ElementType TypeOf(string name) => Find(name)?.Type switch
    {
        ElementType.F16 => ElementType.F16,
        ElementType.BF16 => ElementType.BF16,
        { } type when type.IsBlock() => type,
        _ => ElementType.F32,
    };

    /// <summary>Name in the checkpoint of the tensor that a graph calls <paramref name="name"/>; null if it is not there.</summary>
    public string? StoredName(string name) => Find(name)?.Name;

    private TensorInfo? Find(string name)
    {
        if (_checkpoint is null)
            return null;
        foreach (var candidate in Candidates(name))
            if (_checkpoint.Find(candidate) is { } found)
                return found;
        return null;
    }

    private IEnumerable<string> Candidates(string name)
    {
        yield return _storedNames.GetValueOrDefault(name, name);
        if (_prefix.Length > 0 && name.StartsWith(_prefix, StringComparison.Ordinal))
            yield return name[_prefix.Length..];
        // Checkpoints converted from TensorFlow call a norm's parameters gamma and beta.
        foreach (var (ours, older) in new[] { ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta") })
            if (name.EndsWith(ours, StringComparison.Ordinal))
                foreach (var other in Candidates(name[..^ours.Length] + older))
                    yield return other;
    }

    /// <summary>Checks that every weight of a graph is there in the right shape, or can be made.</summary>
    /// <exception cref="InputException">A tensor is missing or misshapen.</exception>
    public void Check(Graph graph)
    {
        ArgumentNullException.ThrowIfNull(graph);
        if (_under is not null)
        {
            _under.Check(graph);
            return;
        }
        foreach (var weight in graph.Weights)
            _ = Source(weight.Name, weight.Shape, graph.Fresh.TryGetValue(weight, out var fresh) ? fresh : null);
    }

    /// <summary>
    /// The values of a weight in fp32, row-major, freshly initialised where the checkpoint lacks it; of one that is quantized, those that are
    /// left of it.
    /// </summary>
    /// <exception cref="InputException">The tensor is missing or misshapen.</exception>
    internal float[] Values(Tensor weight, FreshWeight? fresh)
    {
        if (!IsQuantized(weight))
            return Values(weight.Name, weight.Shape, fresh);
        var values = new float[(long)weight.Shape.FixedRows * weight.Shape.Columns];
        var (from, columns) = (Quantized(weight), weight.Shape.Columns);
        var rowBytes = weight.Type.Bytes(columns);
        // A few rows at a time: they may lie on another device.
        var step = (int)Math.Clamp((1 << 20) / rowBytes, 1, weight.Shape.FixedRows);
        var piece = new byte[step * rowBytes];
        for (var row = 0; row < weight.Shape.FixedRows; row += step)
        {
            var count = Math.Min(step, weight.Shape.FixedRows - row);
            var part = piece.AsSpan(0, (int)(count * rowBytes));
            from.Read(row * rowBytes, part);
            Widening.ToFloat32(weight.Type, part, values.AsSpan(row * columns, count * columns));
        }
        return values;
    }

    private DeviceBuffer Quantized(Tensor weight)
    {
        if (_under is not null)
            return _under.Quantized(weight);
        Address(weight);
        return _quantized[(weight.Name, weight.Type)];
    }

    /// <summary>Whether blocks of a weight are made here, of a tensor that the checkpoint has in another type.</summary>
    private bool IsQuantized(Tensor weight) => weight.Type.IsBlock() && Find(weight.Name)?.Type != weight.Type;

    /// <summary>The values of the weight of that name in fp32, row-major, freshly initialised where the checkpoint lacks it.</summary>
    /// <exception cref="InputException">The tensor is missing or misshapen.</exception>
    internal float[] Values(string name, Shape shape, FreshWeight? fresh)
    {
        if (Source(name, shape, fresh) is { } stored)
            return _checkpoint!.ReadFloat32(stored.Name);
        return Make(name, shape, fresh ?? FromScratch(name, shape));
    }

    /// <summary>Address of a frozen weight, in the type that the graph's tensor has.</summary>
    internal nint Address(Tensor weight)
    {
        if (_addresses.TryGetValue((weight.Name, weight.Type), out var known))
            return known;
        if (_replaced.ContainsKey(weight.Name))
            throw new InvalidOperationException($"{weight} was replaced in another type");
        if (_under is not null)
            return _under.Address(weight);
        FreshWeight? fresh = _freshRules.TryGetValue(weight.Name, out var rule) ? rule : null;
        var stored = Source(weight.Name, weight.Shape, fresh);
        nint address;
        if (stored is not null && stored.Type == weight.Type)
        {
            var data = _checkpoint!.Get(stored.Name);
            address = (nint)data.Data;
            if (_device.Share(address, data.Bytes) is { } copy)
            {
                _owned.Add(copy);
                address = copy.Address;
                _checkpoint.Forget(stored.Name);
            }
        }
        else if (IsQuantized(weight))
        {
            address = Quantize(weight);
        }
        else
        {
            var buffer = _device.Allocate(weight.Type.Bytes((long)weight.Shape.FixedRows * weight.Shape.Columns));
            _owned.Add(buffer);
            if (stored is not null)
                Convert(stored, weight.Type, buffer);
            else
                Write(Values(weight, fresh), weight.Type, buffer);
            address = buffer.Address;
        }
        return _addresses[(weight.Name, weight.Type)] = address;
    }

    /// <summary>Quantizes a stored matrix a few rows at a time: it never exists in full precision.</summary>
    private nint Quantize(Tensor weight)
    {
        var name = (Source(weight.Name, weight.Shape, null) ?? throw new InvalidOperationException($"{weight} is freshly initialised and not to be quantized")).Name;
        var stored = _checkpoint!.Get(name);
        var (rows, columns) = (weight.Shape.FixedRows, weight.Shape.Columns);
        var (fromBytes, toBytes) = (stored.Type.Bytes(columns), weight.Type.Bytes(columns));
        var buffer = _device.Allocate(toBytes * rows);
        _owned.Add(buffer);
        _quantized[(weight.Name, weight.Type)] = buffer;
        var step = Math.Max(1, (1 << 18) / columns);
        var finite = 1;
        Parallel.For(0, (rows + step - 1) / step, new ParallelOptions { MaxDegreeOfParallelism = _device.Workers }, part =>
        {
            var first = part * step;
            var count = Math.Min(step, rows - first);
            var values = new float[count * columns];
            var blocks = new byte[count * toBytes];
            Widening.ToFloat32(stored.Type, stored.Data + (first * fromBytes), values);
            if (!GgufQuantizer.TryQuantize(weight.Type, values, blocks))
                Volatile.Write(ref finite, 0);
            buffer.Write(first * toBytes, blocks);
        });
        return finite == 1 ? buffer.Address
            : throw new InputException($"{_checkpoint.Path}: tensor \"{name}\" has values that are not finite, or too large for a scale in fp16; open the model without --quantize");
    }

    private readonly Dictionary<string, FreshWeight> _freshRules = [];

    /// <summary>The stored tensor after checks; null if it is to be made.</summary>
    private TensorInfo? Source(string name, Shape shape, FreshWeight? fresh)
    {
        if (fresh is { } rule)
            _freshRules[name] = rule;
        if (Find(name) is not { } stored)
        {
            if (_checkpoint is null)
                return null;
            if (fresh is null)
                throw new InputException($"{_checkpoint.Path}: there is no tensor \"{name}\"; the checkpoint does not belong to its config.json");
            _fresh.Add(name);
            return null;
        }
        var fits = shape.FixedRows == 1 && stored.Shape.Length == 1
            ? stored.Shape[0] == shape.Columns
            : stored.Shape.Length >= 2 && stored.Shape[0] == shape.FixedRows && stored.Shape.Skip(1).Aggregate(1L, (a, b) => a * b) == shape.Columns;
        if (!fits)
            throw new InputException($"{_checkpoint!.Path}: tensor \"{stored.Name}\" is {stored.ShapeText}, its config.json asks for [{(shape.FixedRows == 1 ? "" : $"{shape.FixedRows}, ")}{shape.Columns}]");
        return stored.Type is ElementType.F32 or ElementType.F16 or ElementType.BF16 or ElementType.F64 || stored.Type.IsBlock()
            ? stored
            : throw new InputException($"{_checkpoint!.Path}: tensor \"{stored.Name}\" is {stored.Type}, a floating-point type is expected");
    }

    private FreshWeight FromScratch(string name, Shape shape) =>
        name.EndsWith("bias", StringComparison.Ordinal) ? FreshWeight.Constant(0)
        : shape.FixedRows == 1 ? FreshWeight.Constant(1)
        : FreshWeight.Normal(_scratchStd);

    /// <summary>Values that depend on the seed and the name alone, not on the order of loading.</summary>
    private float[] Make(string name, Shape shape, FreshWeight rule)
    {
        var values = new float[(long)shape.FixedRows * shape.Columns];
        if (rule.Std == 0)
            Array.Fill(values, rule.Value);
        else
        {
            var random = SplitMix64.Named(_seed, name);
            for (var i = 0; i < values.Length; i++)
                values[i] = (float)(rule.Std * random.NextGaussian());
        }
        return values;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var buffer in _owned)
            buffer.Dispose();
        _owned.Clear();
        _quantized.Clear();
        _replaced.Clear();
        _addresses.Clear();
    }
}
