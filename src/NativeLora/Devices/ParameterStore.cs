using System.Runtime.InteropServices;
using NativeLora.Graphs;

namespace NativeLora.Devices;

/// <summary>
/// Trainable tensors in one flat fp32 block on a device, with their gradients in one of the same layout and the
/// optimizer's two moments. Shared by all sessions over the same adapters.
/// </summary>
public sealed class ParameterStore : IDisposable
{
    private readonly Dictionary<string, (DeviceBuffer Block, long Offset, Shape Shape)> _places = [];
    private readonly Dictionary<string, long> _moments = [];
    private readonly List<string> _names = [];

    /// <summary>Makes the blocks for the trainable tensors of a graph.</summary>
    /// <param name="device">Where.</param>
    /// <param name="graph">A graph; others with the same trainables can share the store.</param>
    /// <param name="training">Whether gradients and moments are needed.</param>
    /// <param name="optimizer">How the moments are held.</param>
    public ParameterStore(Device device, Graph graph, bool training, OptimizerKind optimizer = OptimizerKind.AdamW)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(graph);
        Values = device.Allocate(4 * graph.Trainable.Sum(t => (long)t.Shape.FixedRows * t.Shape.Columns));
        long offset = 0, moments = 0;
        foreach (var tensor in graph.Trainable)
        {
            _names.Add(tensor.Name);
            _places[tensor.Name] = (Values, offset, tensor.Shape);
            _moments[tensor.Name] = moments;
            var count = (long)tensor.Shape.FixedRows * tensor.Shape.Columns;
            offset += count;
            moments += optimizer.MomentBytes(count);
        }
        Elements = offset;
        Optimizer = optimizer;
        Device = device;
        Values.Clear();
        if (!training)
            return;
        Gradients = device.Allocate(4 * offset);
        FirstMoments = device.Allocate(moments);
        SecondMoments = device.Allocate(moments);
        Gradients.Clear();
        FirstMoments.Clear();
        SecondMoments.Clear();
    }

    private ParameterStore(Device device, Graph graph, Func<string, Shape, (DeviceBuffer Block, long Offset)> place)
    {
        (Device, Values) = (device, device.Allocate(0));
        foreach (var tensor in graph.Trainable)
        {
            var (block, offset) = place(tensor.Name, tensor.Shape);
            _names.Add(tensor.Name);
            _places[tensor.Name] = (block, offset, tensor.Shape);
            Elements += (long)tensor.Shape.FixedRows * tensor.Shape.Columns;
        }
        Borrowed = 4 * Elements;
    }

    /// <summary>A store, not for training, over blocks of others, who keep them as long as this and its sessions are used.</summary>
    /// <param name="device">Where the blocks are.</param>
    /// <param name="graph">The graph.</param>
    /// <param name="place">Where a tensor of that name and shape lies, in elements.</param>
    internal static ParameterStore Over(Device device, Graph graph, Func<string, Shape, (DeviceBuffer Block, long Offset)> place) => new(device, graph, place);

    internal Device Device { get; }

    /// <summary>Bytes in blocks of others.</summary>
    private long Borrowed { get; }

    internal DeviceBuffer Values { get; }

    internal DeviceBuffer? Gradients { get; }

    internal DeviceBuffer? FirstMoments { get; }

    internal DeviceBuffer? SecondMoments { get; }

    /// <summary>Trainable elements.</summary>
    public long Elements { get; }

    /// <summary>Bytes of all blocks.</summary>
    public long Bytes => Borrowed + Values.Bytes + (Gradients?.Bytes ?? 0) + (FirstMoments?.Bytes ?? 0) + (SecondMoments?.Bytes ?? 0);

    /// <summary>Names of the tensors, in the order of the block.</summary>
    public IReadOnlyList<string> Names => _names;

    /// <summary>Weight decay by tensor name; set before the optimizer is made.</summary>
    internal Func<string, double> WeightDecay { get; set; } = _ => 0;

    internal double Beta1 { get; set; } = 0.9;

    internal double Beta2 { get; set; } = 0.999;

    internal double Epsilon { get; set; } = 1e-8;

    /// <summary>Rows and columns of a tensor.</summary>
    public (int Rows, int Columns) Size(string name) => (Place(name).Shape.FixedRows, Place(name).Shape.Columns);

    /// <summary>Copies a tensor's values, row-major.</summary>
    public float[] Read(string name) => Copy(_places[name].Block, name);

    /// <summary>Copies a tensor's gradient, row-major.</summary>
    public float[] ReadGradient(string name) => Copy(Gradients ?? throw new InvalidOperationException("no gradients here"), name);

    /// <summary>Sets a tensor's values.</summary>
    /// <exception cref="ArgumentException">The length is not the tensor's.</exception>
    public void Write(string name, ReadOnlySpan<float> values)
    {
        var (offset, shape) = Place(name);
        if (values.Length != (long)shape.FixedRows * shape.Columns)
            throw new ArgumentException($"{name} holds {(long)shape.FixedRows * shape.Columns} values, not {values.Length}", nameof(values));
        _places[name].Block.Write(4 * offset, MemoryMarshal.AsBytes(values));
    }

    /// <summary>How the moments are held.</summary>
    public OptimizerKind Optimizer { get; }

    /// <summary>Where each moment of a tensor begins in its block, in bytes.</summary>
    internal long MomentOffset(string name) => _moments[name];

    /// <summary>Elements of a tensor.</summary>
    internal long Count(string name) => (long)Place(name).Shape.FixedRows * Place(name).Shape.Columns;

    internal (long Offset, Shape Shape) Place(string name) => (_places[name].Offset, _places[name].Shape);

    /// <summary>Where a tensor lies on the device.</summary>
    internal nint AddressOf(string name) => _places[name].Block.Address + (nint)(4 * _places[name].Offset);

    internal bool Has(string name) => _places.ContainsKey(name);

    private float[] Copy(DeviceBuffer from, string name)
    {
        var (offset, shape) = Place(name);
        var values = new float[(long)shape.FixedRows * shape.Columns];
        from.Read(4 * offset, MemoryMarshal.AsBytes(values.AsSpan()));
        return values;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Values.Dispose();
        Gradients?.Dispose();
        FirstMoments?.Dispose();
        SecondMoments?.Dispose();
    }
}
