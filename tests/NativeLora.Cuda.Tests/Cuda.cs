using System.Runtime.InteropServices;
using NativeLora.Devices.Cpu;
using NativeLora.Devices.Cuda;

namespace NativeLora.Cuda.Tests;

/// <summary>
/// The device that tests run on: the stand-in that interprets PTX (built by CMake into <c>build/cuda-emulator</c>), or a GPU where
/// <c>NATIVELORA_CUDA_REAL</c> is 1. Tests that use it are of the collection <see cref="Collection"/>, and so never run side by side.
/// </summary>
internal static unsafe class Cuda
{
    public const string Collection = "cuda";

    private static CudaDevice? s_device;

    /// <summary>Whether a GPU is tested, not the stand-in.</summary>
    public static bool IsReal { get; } = Environment.GetEnvironmentVariable("NATIVELORA_CUDA_REAL") == "1";

    /// <summary>Folder of the stand-in's libraries; null where they are not built, or a GPU is tested.</summary>
    public static string? Libraries { get; } = IsReal ? null : Find();

    /// <summary>Why there is nothing to test on; null where there is.</summary>
    public static string? Missing { get; } = IsReal || Libraries is not null ? null
        : "the stand-in for CUDA is not built (cmake -S . -B build && cmake --build build; or NATIVELORA_CUDA_REAL=1 with a GPU)";

    /// <summary>The CPU that results are compared with.</summary>
    public static CpuDevice Cpu { get; } = new(1);

    /// <summary>Opened when first asked for.</summary>
    public static CudaDevice Device => s_device ??= Open();

    public static CudaDevice Open()
    {
        var device = new CudaDevice(0, Libraries);
        // Two blocks at a time: as many as a small machine has processors.
        if (!IsReal)
            ((delegate* unmanaged<int, void>)Function("nlEmulatorSetWorkers"))(Math.Min(2, Environment.ProcessorCount));
        return device;
    }

    /// <summary>Gives the device back, with all that a failure left on it.</summary>
    public static void Reset()
    {
        s_device?.Dispose();
        s_device = null;
        if (!IsReal && Libraries is not null)
            ((delegate* unmanaged<void>)Function("nlEmulatorReset"))();
    }

    /// <summary>The order in which the stand-in does what a GPU may do in any order.</summary>
    public static void Take(Schedule schedule)
    {
        if (!IsReal)
            ((delegate* unmanaged<int, void>)Function("nlEmulatorSetSchedule"))((int)schedule);
    }

    /// <summary>What the stand-in has counted since it was reset.</summary>
    public static Counters Count()
    {
        Counters counters;
        ((delegate* unmanaged<Counters*, void>)Function("nlEmulatorCounters"))(&counters);
        return counters;
    }

    /// <summary>What was not freed, a line each; empty where all was.</summary>
    public static string Leaks() => Marshal.PtrToStringUTF8((nint)((delegate* unmanaged<byte*>)Function("nlEmulatorLeaks"))())!;

    private static nint Function(string name) => CudaDriver.Open(Libraries).Find(name) is var found and not 0
        ? found
        : throw new InvalidOperationException($"the stand-in has no {name}");

    private static string? Find()
    {
        for (var at = new DirectoryInfo(AppContext.BaseDirectory); at is not null; at = at.Parent)
            if (File.Exists(Path.Combine(at.FullName, "NativeLora.sln")))
            {
                var folder = Path.Combine(at.FullName, "build", "cuda-emulator");
                return File.Exists(Path.Combine(folder, "libcuda.so.1")) ? folder : null;
            }
        return null;
    }

    /// <summary>Mirrors NlEmulatorCounters of tests/cuda-emulator/cuda_api.h.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public readonly struct Counters
    {
        public readonly ulong Launches, WarpInstructions, GlobalBytesRead, GlobalBytesWritten;
        public readonly ulong CopiesToDevice, BytesToDevice, CopiesToHost, BytesToHost, CopiesOnDevice, BytesOnDevice;
        public readonly ulong Fills, BytesFilled;
        public readonly ulong BlasCalls, BlasFlops;
        public readonly ulong LiveAllocations, LiveBytes, PeakBytes;
        public readonly ulong Synchronizations, GraphLaunches, Allocations;
    }
}

/// <summary>Eager: in order, as early as may be. Deferred: the other way round, as late as may be.</summary>
internal enum Schedule
{
    Eager,
    Deferred,
}

/// <summary>Gives the device back after the last test.</summary>
public sealed class CudaFixture : IDisposable
{
    public void Dispose() => Cuda.Reset();
}

[CollectionDefinition(Cuda.Collection)]
public sealed class CudaCollection : ICollectionFixture<CudaFixture>;

/// <summary>A fact that needs the stand-in or a GPU; without them it is skipped and says so.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class CudaFactAttribute : FactAttribute
{
    public CudaFactAttribute() => Skip = Cuda.Missing;
}

/// <summary>A theory that needs the stand-in or a GPU; without them it is skipped and says so.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class CudaTheoryAttribute : TheoryAttribute
{
    public CudaTheoryAttribute() => Skip = Cuda.Missing;
}

/// <summary>A fact that needs the stand-in, for it asks what only that knows.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class InterpretedFactAttribute : FactAttribute
{
    public InterpretedFactAttribute() => Skip = Cuda.Missing ?? (Cuda.IsReal ? "a GPU counts nothing" : null);
}
