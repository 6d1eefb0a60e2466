using NativeLora.Graphs;

namespace NativeLora.Devices;

/// <summary>What changes from step to step; kernels read it when they run.</summary>
internal sealed class StepArguments
{
    /// <summary>Sizes of the batch at hand.</summary>
    public BatchSize Size;

    /// <summary>Number of the micro-batch since training began: with <see cref="Seed"/> it names the random numbers.</summary>
    public uint Step;

    /// <summary>Seed of all dropouts.</summary>
    public ulong Seed;

    /// <summary>1 over the labels that the loss is a mean of.</summary>
    public float InverseCount = 1;

    /// <summary>Whether parameter gradients are added to what is there.</summary>
    public bool AccumulateGradients;

    /// <summary>Which adapter acts on which rows, where a graph holds several.</summary>
    public AdapterSegments? Segments;
}

/// <summary>Bytes on a device.</summary>
internal abstract class DeviceBuffer : IDisposable
{
    /// <summary>Size.</summary>
    public abstract long Bytes { get; }

    /// <summary>Address on the device.</summary>
    public abstract nint Address { get; }

    /// <summary>Copies to the device.</summary>
    public abstract void Write(long offset, ReadOnlySpan<byte> source);

    /// <summary>Copies from the device, after all work queued before.</summary>
    public abstract void Read(long offset, Span<byte> destination);

    /// <summary>Sets all bytes to 0.</summary>
    public abstract void Clear();

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>Gives the device address of each tensor of a graph.</summary>
internal interface ITensorAddresses
{
    /// <summary>The address.</summary>
    nint Of(Tensor tensor);

    /// <summary>A frozen weight packed for products that read it, from its address; 0: it is not.</summary>
    /// <param name="weight">The weight.</param>
    /// <param name="turned">Whether products read it transposed.</param>
    /// <param name="brain">Whether products may round it to bf16.</param>
    nint Panels(Tensor weight, bool turned, bool brain) => 0;
}

/// <summary>One node, bound to addresses.</summary>
internal abstract class Kernel
{
    /// <summary>Does, or queues, the node's work for a batch.</summary>
    public abstract void Execute(StepArguments step);
}

/// <summary>Owns memory and runs nodes: one kernel for each op.</summary>
public abstract class Device : IDisposable
{
    /// <summary>Short name, such as <c>cpu</c>.</summary>
    public abstract string Name { get; }

    /// <summary>One line on what runs: instruction set, threads.</summary>
    public abstract string Description { get; }

    /// <summary>Threads of the host that may work at once.</summary>
    internal virtual int Workers => Environment.ProcessorCount;

    /// <summary>Bytes that kernels hold beside the arena.</summary>
    public abstract long ScratchBytes { get; }

    /// <summary>Bytes allocated and not yet freed, <see cref="ScratchBytes"/> left out.</summary>
    public long AllocatedBytes { get; private protected set; }

    /// <summary>What the kernels of these plans hold beside the arena: they are bound to addresses that nothing reads, and never run.</summary>
    internal long ScratchOf(params ReadOnlySpan<MemoryPlan> plans) => ScratchOf(out _, plans);

    /// <inheritdoc cref="ScratchOf(ReadOnlySpan{MemoryPlan})"/>
    /// <param name="packed">Bytes of the weights of the first plan, packed for products.</param>
    /// <param name="plans">The plans.</param>
    internal long ScratchOf(out long packed, params ReadOnlySpan<MemoryPlan> plans)
    {
        packed = 0;
        foreach (var plan in plans)
        {
            var nowhere = new Nowhere(this);
            foreach (var node in plan.Graph.Nodes)
                Bind(node, nowhere, plan.Capacity);
            packed = packed == 0 ? nowhere.Packed : packed;
        }
        return ScratchBytes;
    }

    private sealed class Nowhere(Device device) : ITensorAddresses
    {
        private readonly HashSet<(string, bool, bool)> _packs = [];

        public long Packed { get; private set; }

        public nint Of(Tensor tensor) => 64;

        public nint Panels(Tensor weight, bool turned, bool brain)
        {
            if (_packs.Add((weight.Name, turned, brain)))
                Packed += device.PackedBytes(weight, turned, brain);
            return 0;
        }
    }

    internal abstract DeviceBuffer Allocate(long bytes);

    /// <summary>Makes bytes of the host readable by kernels: the address itself on a CPU, a copy elsewhere.</summary>
    internal abstract nint Share(nint host, long bytes);

    /// <summary>Bytes of what <see cref="Pack"/> makes; 0 where it makes nothing.</summary>
    internal virtual long PackedBytes(Tensor weight, bool turned, bool brain) => 0;

    /// <summary>A copy of a frozen weight in the order that products read it in; null where nothing would be gained.</summary>
    internal virtual DeviceBuffer? Pack(Tensor weight, nint address, bool turned, bool brain) => null;

    internal abstract Kernel Bind(Node node, ITensorAddresses addresses, BatchSize capacity);

    /// <summary>The optimizer over flat buffers.</summary>
    internal abstract OptimizerKernel Optimizer(ParameterStore parameters);

    /// <inheritdoc/>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}

/// <summary>Updates of all parameters at once.</summary>
internal abstract class OptimizerKernel
{
    /// <summary>L2 norm of all gradients.</summary>
    public abstract double GradientNorm();

    /// <summary>One AdamW update (Loshchilov and Hutter 2017) with gradients times <paramref name="gradientScale"/>.</summary>
    /// <param name="step">Number of the update, from 1.</param>
    /// <param name="learningRate">Learning rate of this update.</param>
    /// <param name="gradientScale">Factor on the gradients, from clipping.</param>
    public abstract void Update(int step, double learningRate, float gradientScale);
}
