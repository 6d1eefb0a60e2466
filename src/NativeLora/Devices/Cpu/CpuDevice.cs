using System.Runtime.InteropServices;
using NativeLora.Graphs;

namespace NativeLora.Devices.Cpu;

/// <summary>The CPU: managed SIMD kernels on a fixed set of threads.</summary>
public sealed class CpuDevice : Device
{
    private readonly CpuBinder _binder;

    /// <summary>Starts the threads.</summary>
    /// <param name="threads">Worker threads, the caller included; all processors where null.</param>
    /// <exception cref="InputException">Fewer than 1 or more than 1024 threads, or a forced instruction set that is not there.</exception>
    public CpuDevice(int? threads = null) : this(threads, CpuPaths.Best) { }

    internal CpuDevice(int? threads, CpuPath path)
    {
        var count = threads ?? Environment.ProcessorCount;
        if (count is < 1 or > 1024)
            throw new InputException($"{count} threads: give 1 to 1024");
        Threads = new CpuThreads(count);
        _binder = new CpuBinder(Threads, path);
    }

    /// <summary>Why products of bf16 are made in fp32 on this machine: native kernels not built, or not for this processor; null where they are not.</summary>
    public string? WhyNoBrainProducts => _binder.Path == CpuPath.Avx512 && NativeCpu.HasBrainProducts ? null : $"native kernels: {NativeCpu.Status}";

    internal CpuThreads Threads { get; }

    internal override int Workers => Threads.Count;

    internal override bool PlacesDropout => true;

    /// <inheritdoc/>
    public override string Name => "cpu";

    /// <inheritdoc/>
    public override string Description => $"{_binder.Path}, {Threads.Count} thread{(Threads.Count == 1 ? "" : "s")}";

    /// <inheritdoc/>
    public override long ScratchBytes => _binder.ScratchBytes;

    internal override Device NewPlanner() => new CpuDevice(Threads.Count, _binder.Path);

    internal override DeviceBuffer Allocate(long bytes) => new Buffer(this, bytes);

    internal override DeviceBuffer? Share(nint host, long bytes) => null;

    internal override long PackedBytes(Tensor weight, bool turned, bool brain) => _binder.PackedBytes(weight, turned, brain);

    internal override DeviceBuffer? Pack(Tensor weight, nint address, bool turned, bool brain) => _binder.Pack(this, weight, address, turned, brain);

    internal override Kernel Bind(Node node, ITensorAddresses addresses, BatchSize capacity) => _binder.Bind(node, addresses, capacity);

    internal override OptimizerKernel Optimizer(ParameterStore parameters) => new CpuOptimizer(Threads, parameters);

    /// <inheritdoc/>
    public override void Dispose()
    {
        _binder.Dispose();
        Threads.Dispose();
        base.Dispose();
    }

    private sealed unsafe class Buffer : DeviceBuffer
    {
        private readonly CpuDevice _device;
        private byte* _at;

        public Buffer(CpuDevice device, long bytes)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(bytes);
            _device = device;
            Bytes = bytes;
            try
            {
                _at = (byte*)NativeMemory.AlignedAlloc((nuint)Math.Max(bytes, 64), 64);
            }
            catch (OutOfMemoryException e)
            {
                throw new RunException($"{bytes:N0} bytes of memory are not to be had; make the batch or the model smaller", e);
            }
            device.CountAllocated(bytes);
        }

        public override long Bytes { get; }

        public override nint Address => (nint)_at;

        public override void Write(long offset, ReadOnlySpan<byte> source) => source.CopyTo(Part(offset, source.Length));

        public override void Read(long offset, Span<byte> destination) => Part(offset, destination.Length).CopyTo(destination);

        public override void Clear() => NativeMemory.Clear(_at, (nuint)Bytes);

        public override void Dispose()
        {
            if (_at is null)
                return;
            NativeMemory.AlignedFree(_at);
            _at = null;
            _device.CountAllocated(-Bytes);
        }

        private Span<byte> Part(long offset, int length)
        {
            ObjectDisposedException.ThrowIf(_at is null, this);
            if (offset < 0 || offset + length > Bytes)
                throw new ArgumentOutOfRangeException(nameof(offset));
            return new Span<byte>(_at + offset, length);
        }
    }
}
