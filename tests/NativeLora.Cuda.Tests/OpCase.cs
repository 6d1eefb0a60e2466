using System.Globalization;
using System.Runtime.InteropServices;
using NativeLora.Checkpoints;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests;

/// <summary>
/// One op over tensors with values, run on any device: on CUDA in memory of its own for each tensor, so that the stand-in sees every access
/// beyond its bounds and every read of what nobody wrote.
/// </summary>
/// <example><code>
/// new OpCase(new AddOp(), new BatchSize(5, 1, 25))
///     .In(OpCase.Tokens("a", 7), OpCase.Random(35, 1))
///     .In(OpCase.Tokens("b", 7), OpCase.Random(35, 2))
///     .Out(OpCase.Tokens("c", 7))
///     .Compare(1e-6, 1e-7);
/// </code></example>
internal sealed class OpCase
{
    private const byte Guard = 0xA5;

    private readonly Op _op;
    private readonly List<Tensor?> _inputs = [];
    private readonly List<Tensor> _outputs = [];
    private readonly Dictionary<Tensor, byte[]> _values = [];
    private readonly Dictionary<Tensor, Tensor> _places = [];
    private readonly HashSet<Tensor> _compared = [];

    public OpCase(Op op, BatchSize size)
    {
        _op = op;
        Capacity = size;
        Step.Size = size;
    }

    /// <summary>What kernels read when they run; dropout's seed and step, accumulation, segments.</summary>
    public StepArguments Step { get; } = new();

    /// <summary>What the node is bound for; the batch's size unless set to a larger one.</summary>
    public BatchSize Capacity { get; set; }

    /// <summary>Phase of the node.</summary>
    public Phase Phase { get; init; } = Phase.Forward;

    /// <summary>Bytes before and behind each tensor that must stay as they are. 0: none, so that the stand-in finds what lies out of bounds.</summary>
    public int GuardBytes { get; init; } = Cuda.IsReal ? 256 : 0;

    /// <summary>Whether CUDA also runs in the stand-in's other order, for the same bits.</summary>
    public bool BothSchedules { get; init; } = true;

    public static Tensor Tokens(string name, int columns, ElementType type = ElementType.F32, TensorCategory category = TensorCategory.Activation) =>
        new(name, Shape.PerToken(columns), type, category, 0);

    public static Tensor Sequences(string name, int columns, ElementType type = ElementType.F32, TensorCategory category = TensorCategory.Activation) =>
        new(name, Shape.PerSequence(columns), type, category, 0);

    public static Tensor Pictures(string name, int rows, int columns, ElementType type = ElementType.F32, TensorCategory category = TensorCategory.Activation) =>
        new(name, Shape.PerPicture(rows, columns), type, category, 0);

    public static Tensor Fixed(string name, int rows, int columns, ElementType type = ElementType.F32, TensorCategory category = TensorCategory.Activation) =>
        new(name, Shape.Fixed(rows, columns), type, category, 0);

    /// <summary>A frozen weight.</summary>
    public static Tensor Weight(string name, int rows, int columns, ElementType type = ElementType.F32) => Fixed(name, rows, columns, type, TensorCategory.Weight);

    /// <summary>A trainable tensor. On the device such lie at multiples of 4 bytes, and no more.</summary>
    public static Tensor Parameter(string name, int rows, int columns) => Fixed(name, rows, columns, ElementType.F32, TensorCategory.Parameter);

    /// <summary>A gradient of a trainable tensor, at a multiple of 4 bytes and no more.</summary>
    public static Tensor Gradient(string name, int rows, int columns) => Fixed(name, rows, columns, ElementType.F32, TensorCategory.Gradient);

    /// <summary>Integers that the host sets: ids, positions, boundaries, labels.</summary>
    public static Tensor Ints(string name, Shape shape) => new(name, shape, ElementType.I32, TensorCategory.Input, -1);

    /// <summary>Values between -spread and spread about a centre, the same for the same seed.</summary>
    public static float[] Random(long count, int seed, double spread = 1, double center = 0)
    {
        var random = new Random(seed * 7919 + 17);
        var values = new float[count];
        for (var i = 0; i < values.Length; i++)
            values[i] = (float)(center + spread * (2 * random.NextDouble() - 1));
        return values;
    }

    /// <summary>An input with values, which are rounded to the tensor's type; quantized where that is a block type.</summary>
    public OpCase In(Tensor tensor, float[] values)
    {
        _inputs.Add(tensor);
        _values[tensor] = Bytes(tensor, values);
        return this;
    }

    /// <summary>An input of integers.</summary>
    public OpCase In(Tensor tensor, params int[] values)
    {
        _inputs.Add(tensor);
        _values[tensor] = MemoryMarshal.AsBytes(values.AsSpan()).ToArray();
        return this;
    }

    /// <summary>An input given by its bytes.</summary>
    public OpCase InBytes(Tensor tensor, byte[] bytes)
    {
        _inputs.Add(tensor);
        _values[tensor] = bytes;
        return this;
    }

    /// <summary>A tensor once more, at the next place of the inputs: one that is an input already, or an output that is read too.</summary>
    public OpCase Again(Tensor tensor)
    {
        _inputs.Add(tensor);
        return this;
    }

    /// <summary>An input that is absent.</summary>
    public OpCase None()
    {
        _inputs.Add(null);
        return this;
    }

    /// <summary>An output; with values to start from where the op adds to what is there.</summary>
    public OpCase Out(Tensor tensor, float[]? start = null)
    {
        _outputs.Add(tensor);
        _compared.Add(tensor);
        if (start is not null)
            _values[tensor] = Bytes(tensor, start);
        return this;
    }

    /// <summary>Scratch of the node: an output that is not compared.</summary>
    public OpCase Work(Tensor tensor)
    {
        _outputs.Add(tensor);
        return this;
    }

    /// <summary>An output in the memory of an input, as a plan lays them out where an op may write over what it reads.</summary>
    public OpCase OutOver(Tensor tensor, Tensor input)
    {
        Out(tensor);
        _places[tensor] = input;
        return this;
    }

    /// <summary>Runs the node; what each output that is compared holds afterwards.</summary>
    public float[][] Run(Device device)
    {
        using var memory = new Memory(this, device);
        var node = new Node("case", _op, [.. _inputs], [.. _outputs], Phase, 0);
        device.Bind(node, memory, Capacity).Execute(Step);
        return [.. _outputs.Where(_compared.Contains).Select(memory.Read)];
    }

    /// <summary>Runs the node on CUDA; in both orders where the stand-in runs, for the same bits.</summary>
    public float[][] RunCuda()
    {
        try
        {
            Cuda.Take(Schedule.Eager);
            var eager = Run(Cuda.Device);
            if (Cuda.IsReal || !BothSchedules)
                return eager;
            Cuda.Take(Schedule.Deferred);
            var deferred = Run(Cuda.Device);
            for (var i = 0; i < eager.Length; i++)
                for (var j = 0; j < eager[i].Length; j++)
                    if (BitConverter.SingleToInt32Bits(eager[i][j]) != BitConverter.SingleToInt32Bits(deferred[i][j]))
                        Assert.Fail(Text($"{_op.Name}: output {i}, value {j} depends on the order of threads: {eager[i][j]:R} and {deferred[i][j]:R}"));
            return eager;
        }
        catch (RunException)
        {
            // A fault stays until the context is given back.
            Cuda.Reset();
            throw;
        }
        finally
        {
            Cuda.Take(Schedule.Eager);
        }
    }

    /// <summary>Runs the node on the CPU and on CUDA. All values agree within <paramref name="absolute"/> + <paramref name="relative"/> · |the CPU's|.</summary>
    public void Compare(double relative, double absolute) => Compare(Run(Cuda.Cpu), RunCuda(), relative, absolute);

    /// <summary>Runs the node on CUDA and compares with values known otherwise.</summary>
    public void Expect(float[][] expected, double relative, double absolute) => Compare(expected, RunCuda(), relative, absolute);

    private void Compare(float[][] expected, float[][] actual, double relative, double absolute)
    {
        var outputs = _outputs.Where(_compared.Contains).ToArray();
        Assert.Equal(expected.Length, actual.Length);
        for (var o = 0; o < expected.Length; o++)
        {
            Assert.Equal(expected[o].Length, actual[o].Length);
            var (first, wrong, worst) = (-1, 0, 0.0);
            for (var i = 0; i < expected[o].Length; i++)
            {
                if (IsClose(expected[o][i], actual[o][i], relative, absolute))
                    continue;
                first = wrong == 0 ? i : first;
                wrong++;
                worst = Math.Max(worst, Math.Abs((double)expected[o][i] - actual[o][i]));
            }
            var columns = Math.Max(1, outputs[o].Shape.Columns);
            if (wrong > 0)
                Assert.Fail(Text($"{_op.Name}, {outputs[o]}, {Step.Size.Tokens} tokens: {wrong} of {expected[o].Length} values differ, by up to {worst:g4}; the first at row {first / columns}, column {first % columns}: {actual[o][first]:R}, the CPU has {expected[o][first]:R}"));
        }
    }

    private static bool IsClose(float expected, float actual, double relative, double absolute)
    {
        if (!float.IsFinite(expected) || !float.IsFinite(actual))
            return expected.Equals(actual);
        return Math.Abs((double)expected - actual) <= absolute + relative * Math.Abs(expected);
    }

    private static byte[] Bytes(Tensor tensor, float[] values)
    {
        switch (tensor.Type)
        {
            case ElementType.F32:
                return MemoryMarshal.AsBytes(values.AsSpan()).ToArray();
            case ElementType.F16 or ElementType.BF16:
                var halves = new ushort[values.Length];
                if (tensor.Type == ElementType.F16)
                    Convert16.F32ToF16(values, halves);
                else
                    Convert16.F32ToBF16(values, halves);
                return MemoryMarshal.AsBytes(halves.AsSpan()).ToArray();
            default:
                var blocks = new byte[tensor.Type.Bytes(values.Length)];
                Assert.True(GgufQuantizer.TryQuantize(tensor.Type, values, blocks));
                return blocks;
        }
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    /// <summary>Each tensor in a buffer of its own.</summary>
    private sealed class Memory : ITensorAddresses, IDisposable
    {
        private readonly OpCase _case;
        private readonly Dictionary<Tensor, (DeviceBuffer Buffer, int Before, long Bytes)> _buffers = [];
        private readonly int _guard;

        public Memory(OpCase owner, Device device)
        {
            _case = owner;
            _guard = device is CpuDevice ? 256 : owner.GuardBytes;
            foreach (var tensor in owner._inputs.OfType<Tensor>().Concat(owner._outputs).Where(t => !owner._places.ContainsKey(t)).Distinct())
            {
                var values = owner._values.GetValueOrDefault(tensor);
                var bytes = Math.Max(tensor.Bytes(owner.Capacity), values?.Length ?? 0);
                // Parameters lie side by side in one block: nothing says that one begins at more than a multiple of 4.
                var before = _guard + (tensor.Category is TensorCategory.Parameter or TensorCategory.Gradient ? 4 : 0);
                var buffer = device.Allocate(before + bytes + _guard);
                _buffers[tensor] = (buffer, before, bytes);
                if (_guard > 0)
                {
                    var fill = new byte[before + bytes + _guard];
                    fill.AsSpan().Fill(Guard);
                    buffer.Write(0, fill);
                }
                if (values is { Length: > 0 })
                    buffer.Write(before, values);
            }
        }

        public nint Of(Tensor tensor)
        {
            var (buffer, before, _) = Place(tensor);
            return buffer.Address + before;
        }

        public unsafe float[] Read(Tensor tensor)
        {
            var (buffer, before, bytes) = Place(tensor);
            var count = (int)tensor.Shape.Elements(_case.Step.Size);
            var values = new float[count];
            var raw = new byte[tensor.Type.Bytes(count)];
            if (count > 0)
                buffer.Read(before, raw);
            if (tensor.Type == ElementType.I32)
                for (var i = 0; i < count; i++)
                    values[i] = BitConverter.ToInt32(raw, 4 * i);
            else
                Widening.ToFloat32(tensor.Type, raw, values);
            return values;
        }

        private (DeviceBuffer Buffer, int Before, long Bytes) Place(Tensor tensor) =>
            _buffers[_case._places.GetValueOrDefault(tensor, tensor)];

        private void CheckGuards()
        {
            foreach (var (tensor, (buffer, before, bytes)) in _buffers)
            {
                var all = new byte[before + bytes + _guard];
                buffer.Read(0, all);
                if (all.AsSpan(0, before).ContainsAnyExcept(Guard) || all.AsSpan((int)(before + bytes)).ContainsAnyExcept(Guard))
                    Assert.Fail($"{_case._op.Name} wrote beyond {tensor}");
            }
        }

        public void Dispose()
        {
            try
            {
                if (_guard > 0)
                    CheckGuards();
            }
            finally
            {
                foreach (var (buffer, _, _) in _buffers.Values)
                    buffer.Dispose();
            }
        }
    }
}
