using NativeLora.Graphs;

namespace NativeLora.Devices;

/// <summary>What kernels read of a <see cref="StepArguments"/> beside the sizes and the segments.</summary>
[Flags]
internal enum StepReads
{
    None = 0,

    /// <summary>Number of the step or seed: other random numbers each time.</summary>
    Random = 1,
    InverseCount = 2,
    Accumulation = 4,
    LabelledTokens = 8,
}

/// <summary>All that a step's work depends on, beside what lies on the device.</summary>
internal readonly record struct StepKey(BatchSize Size, float InverseCount, bool AccumulateGradients, int LabelledTokens);

/// <summary>What changes from step to step; kernels read it when they run.</summary>
internal sealed class StepArguments
{
    private float _inverseCount = 1;
    private bool _accumulateGradients;
    private int _labelledTokens = -1;

    /// <summary>Sizes of the batch at hand.</summary>
    public BatchSize Size;

    /// <summary>Which adapter acts on which rows, where a graph holds several.</summary>
    public AdapterSegments? Segments;

    /// <summary>What of a larger batch lies before the one at hand, its squares left out: dropouts are those of the larger one.</summary>
    public BatchSize Before;

    /// <summary>Number of the micro-batch since training began: with <see cref="Seed"/> it names the random numbers.</summary>
    public uint Step
    {
        get
        {
            Reads |= StepReads.Random;
            return field;
        }
        set;
    }

    /// <summary>Seed of all dropouts.</summary>
    public ulong Seed
    {
        get
        {
            Reads |= StepReads.Random;
            return field;
        }
        set;
    }

    /// <summary>1 over the labels that the loss is a mean of.</summary>
    public float InverseCount
    {
        get
        {
            Reads |= StepReads.InverseCount;
            return _inverseCount;
        }
        set => _inverseCount = value;
    }

    /// <summary>Whether parameter gradients are added to what is there.</summary>
    public bool AccumulateGradients
    {
        get
        {
            Reads |= StepReads.Accumulation;
            return _accumulateGradients;
        }
        set => _accumulateGradients = value;
    }

    /// <summary>Tokens of the batch that have a label; -1: the host does not know.</summary>
    public int LabelledTokens
    {
        get
        {
            Reads |= StepReads.LabelledTokens;
            return _labelledTokens;
        }
        set => _labelledTokens = value;
    }

    /// <summary>What was read so far.</summary>
    public StepReads Reads { get; private set; }

    /// <summary>The values of what was read so far; the same for what was not.</summary>
    public StepKey Key => new(
        Size,
        (Reads & StepReads.InverseCount) == 0 ? 0 : _inverseCount,
        (Reads & StepReads.Accumulation) != 0 && _accumulateGradients,
        (Reads & StepReads.LabelledTokens) == 0 ? 0 : _labelledTokens);
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

/// <summary>Runs the kernels of one session in a way of the device's own.</summary>
internal abstract class StepTape : IDisposable
{
    /// <summary>Does, or queues, the work of all kernels in their order.</summary>
    public abstract void Run(ReadOnlySpan<Kernel> kernels, StepArguments step);

    /// <inheritdoc/>
    public abstract void Dispose();
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

    /// <summary>Whether dropouts heed <see cref="StepArguments.Before"/>: a part of a batch then drops what the whole would.</summary>
    internal virtual bool PlacesDropout => false;

    /// <summary>Bytes that kernels hold beside the arena.</summary>
    public abstract long ScratchBytes { get; }

    /// <summary>Bytes allocated and not yet freed, <see cref="ScratchBytes"/> left out.</summary>
    public long AllocatedBytes => Interlocked.Read(ref _allocated);

    private long _allocated;

    /// <summary>Counts bytes that were allocated, or freed where they are negative.</summary>
    private protected void CountAllocated(long bytes) => Interlocked.Add(ref _allocated, bytes);

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

    /// <summary>A device like this one to ask for the scratch of plans, with none bound yet; it allocates nothing else.</summary>
    internal abstract Device NewPlanner();

    internal abstract DeviceBuffer Allocate(long bytes);

    /// <summary>Makes bytes of the host readable by kernels: a copy, which is the caller's; null where kernels read them as they lie.</summary>
    internal abstract DeviceBuffer? Share(nint host, long bytes);

    /// <summary>Bytes of what <see cref="Pack"/> makes; 0 where it makes nothing.</summary>
    internal virtual long PackedBytes(Tensor weight, bool turned, bool brain) => 0;

    /// <summary>A copy of a frozen weight in the order that products read it in; null where nothing would be gained.</summary>
    internal virtual DeviceBuffer? Pack(Tensor weight, nint address, bool turned, bool brain) => null;

    internal abstract Kernel Bind(Node node, ITensorAddresses addresses, BatchSize capacity);

    /// <summary>What runs the kernels of a session; null: they are executed one by one.</summary>
    internal virtual StepTape? NewTape() => null;

    /// <summary>Waits for all work that was queued: only times of single ops need that.</summary>
    internal virtual void Finish() { }

    /// <summary>The optimizer over flat buffers.</summary>
    internal abstract OptimizerKernel Optimizer(ParameterStore parameters);

    /// <inheritdoc/>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}

/// <summary>Updates of all parameters at once. The norm of the gradients and what clipping makes of it stay on the device.</summary>
internal abstract class OptimizerKernel : IDisposable
{
    /// <summary>
    /// Takes the norm of all gradients, clips by it and makes one AdamW update (Loshchilov and Hutter 2017), or queues that. Where the norm
    /// is not finite nothing is changed but the norm.
    /// </summary>
    /// <param name="step">Number of the update, from 1.</param>
    /// <param name="learningRate">Learning rate of this update.</param>
    /// <param name="maxNorm">Gradients are scaled down to this norm (<see cref="Training.GradientClipping.Scale"/>); 0 for no clipping.</param>
    public abstract void Update(int step, double learningRate, double maxNorm);

    /// <summary>L2 norm of all gradients before clipping, of the last update. Waits for it; copied from the device only here.</summary>
    public abstract double GradientNorm();

    /// <inheritdoc/>
    public virtual void Dispose() { }
}
