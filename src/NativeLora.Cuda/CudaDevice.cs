using NativeLora.Graphs;

namespace NativeLora.Devices.Cuda;

/// <summary>An NVIDIA GPU: cuBLAS for large products, and kernels of its own. Compute capability 8.0 or newer.</summary>
public sealed class CudaDevice : Device
{
    private readonly CudaStaging _staging;
    private readonly CudaModules _modules;
    private readonly CudaBlas _blas;
    private readonly CudaBinder _binder;
    private bool _disposed;

    /// <summary>Opens a GPU.</summary>
    /// <param name="ordinal">Its number, from 0.</param>
    /// <exception cref="InputException">There is no driver, no cuBLAS or no such GPU; the message says what was looked for.</exception>
    public CudaDevice(int ordinal = 0) : this(ordinal, Environment.GetEnvironmentVariable(CudaLibraries.Variable)) { }

    internal CudaDevice(int ordinal, string? libraries)
    {
        Context = new CudaContext(CudaDriver.Open(libraries), ordinal);
        try
        {
            _blas = new CudaBlas(Context);
            _staging = new CudaStaging(Context);
        }
        catch
        {
            _blas?.Dispose();
            Context.Dispose();
            throw;
        }
        _modules = new CudaModules(Context);
        _binder = new CudaBinder(Context, _modules, _blas);
    }

    internal CudaContext Context { get; }

    /// <summary>Whether the kernels are interpreted on the CPU by the stand-in of the tests; no time it takes says anything of a GPU.</summary>
    public bool IsInterpreted => Context.Driver.IsInterpreted;

    /// <inheritdoc/>
    public override string Name => "cuda";

    /// <inheritdoc/>
    public override string Description => Context.Info.Description;

    /// <inheritdoc/>
    public override long ScratchBytes => _blas.WorkspaceBytes + _binder.ScratchBytes;

    /// <summary>Whether steps that come again are recorded and launched whole; for the sessions that are made afterwards.</summary>
    internal bool RecordsSteps { get; set; }

    /// <summary>Nodes bound from now on take the fused kernels of LoRA for batches of so many rows or more.</summary>
    internal int LeastFusedRows
    {
        get => _binder.LeastFusedRows;
        set => _binder.LeastFusedRows = value;
    }

    /// <summary>cuBLAS.</summary>
    internal CudaBlas Blas => _blas;

    /// <summary>A kernel by its name.</summary>
    internal CudaFunction Function(string name) => _modules.Function(name);

    /// <summary>Waits for all work that was queued.</summary>
    internal void Wait() => Context.Wait();

    internal override DeviceBuffer Allocate(long bytes) => new Buffer(this, bytes);

    internal override unsafe DeviceBuffer Share(nint host, long bytes)
    {
        const int piece = 1 << 28;
        var copy = Allocate(bytes);
        for (long at = 0; at < bytes; at += piece)
            copy.Write(at, new ReadOnlySpan<byte>((byte*)host + at, (int)Math.Min(piece, bytes - at)));
        return copy;
    }

    internal override Kernel Bind(Node node, ITensorAddresses addresses, BatchSize capacity) => _binder.Bind(node, addresses, capacity);

    internal override Device NewPlanner() => new Planner(this);

    internal override void Finish() => Context.Wait();

    internal override StepTape? NewTape() => RecordsSteps ? new CudaTape(Context) : null;

    internal override OptimizerKernel Optimizer(ParameterStore parameters) => new CudaOptimizer(this, Function, parameters);

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        _binder.Dispose();
        _modules.Dispose();
        _blas.Dispose();
        _staging.Dispose();
        Context.Dispose();
        base.Dispose();
    }

    /// <summary>Counts the scratch of nodes that are bound to it.</summary>
    private sealed class Planner(CudaDevice device) : Device
    {
        private readonly CudaBinder _binder = new(device.Context, device._modules, device._blas, plans: true) { LeastFusedRows = device.LeastFusedRows };

        public override string Name => device.Name;

        public override string Description => device.Description;

        public override long ScratchBytes => device._blas.WorkspaceBytes + _binder.ScratchBytes;

        internal override Device NewPlanner() => new Planner(device);

        internal override Kernel Bind(Node node, ITensorAddresses addresses, BatchSize capacity) => _binder.Bind(node, addresses, capacity);

        internal override DeviceBuffer Allocate(long bytes) => throw new NotSupportedException("plans have no memory");

        internal override DeviceBuffer Share(nint host, long bytes) => throw new NotSupportedException("plans have no memory");

        internal override OptimizerKernel Optimizer(ParameterStore parameters) => throw new NotSupportedException("plans update nothing");

        public override void Dispose()
        {
            _binder.Dispose();
            base.Dispose();
        }
    }

    private sealed class Buffer : DeviceBuffer
    {
        private readonly CudaDevice _device;
        private nint _at;

        public Buffer(CudaDevice device, long bytes)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(bytes);
            (_device, Bytes) = (device, bytes);
            _at = device.Context.Allocate(bytes);
            device.CountAllocated(bytes);
        }

        public override long Bytes { get; }

        public override nint Address => _at;

        public override void Write(long offset, ReadOnlySpan<byte> source) => _device._staging.Write(Part(offset, source.Length), source);

        public override void Read(long offset, Span<byte> destination) => _device._staging.Read(Part(offset, destination.Length), destination);

        public override void Clear() => _device.Context.Clear(Part(0, 0), Bytes);

        public override void Dispose()
        {
            if (_at == 0)
                return;
            // With the device, its context and all in it are gone already.
            if (!_device._disposed)
                _device.Context.Free(_at);
            _at = 0;
            _device.CountAllocated(-Bytes);
        }

        private nint Part(long offset, int length)
        {
            ObjectDisposedException.ThrowIf(_at == 0 || _device._disposed, this);
            if (offset < 0 || offset + length > Bytes)
                throw new ArgumentOutOfRangeException(nameof(offset));
            return _at + (nint)offset;
        }
    }
}
