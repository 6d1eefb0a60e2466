using System.Runtime.CompilerServices;

namespace NativeLora.Devices.Cuda;

/// <summary>A kernel of a loaded module. Its one parameter is a struct that mirrors the one in <c>kernels/cuda</c>.</summary>
internal sealed unsafe class CudaFunction
{
    private const int DynamicSharedAttribute = 8, FreeSharedBytes = 16 << 10;

    private readonly CudaContext _context;
    private readonly nint _handle;
    private readonly int _parameterBytes;
    private int _sharedBytes = FreeSharedBytes;

    internal CudaFunction(CudaContext context, string name, nint handle, int parameterBytes)
    {
        (_context, Name, _handle, _parameterBytes) = (context, name, handle, parameterBytes);
    }

    /// <summary>Name.</summary>
    public string Name { get; }

    /// <summary>Queues a launch on the device's stream; allocates nothing.</summary>
    /// <param name="x">Blocks; nothing is launched where one of the grid's sizes is 0.</param>
    /// <param name="y">Blocks in the second dimension.</param>
    /// <param name="z">Blocks in the third dimension.</param>
    /// <param name="threads">Threads a block, all in the first dimension.</param>
    /// <param name="sharedBytes">Dynamic shared memory a block.</param>
    /// <param name="arguments">The kernel's parameter.</param>
    public void Launch<T>(int x, int y, int z, int threads, int sharedBytes, in T arguments) where T : unmanaged
    {
        if (x == 0 || y == 0 || z == 0)
            return;
        if (sizeof(T) != _parameterBytes || x < 0 || (uint)y > 65_535 || (uint)z > 65_535 || (uint)threads - 1 > 1023)
            throw Misfit<T>(x, y, z, threads);
        _context.Enter();
        var driver = _context.Driver;
        // More than a kernel has unasked must be granted once; kernels may have static shared memory besides.
        if (sharedBytes > _sharedBytes)
        {
            driver.Check(driver.FunctionSetAttribute(_handle, DynamicSharedAttribute, sharedBytes), $"{sharedBytes} bytes of shared memory for {Name}");
            _sharedBytes = sharedBytes;
        }
        fixed (T* parameter = &arguments)
        {
            void* only = parameter;
            var result = driver.LaunchKernel(_handle, (uint)x, (uint)y, (uint)z, (uint)threads, 1, 1, (uint)sharedBytes, _context.Stream, &only, null);
            if (result != 0)
                throw driver.Failure(result, $"launch of {Name}");
        }
    }

    /// <summary>A launch over a grid of one dimension without dynamic shared memory.</summary>
    public void Launch<T>(int blocks, int threads, in T arguments) where T : unmanaged => Launch(blocks, 1, 1, threads, 0, in arguments);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private InvalidOperationException Misfit<T>(int x, int y, int z, int threads) where T : unmanaged => new(
        sizeof(T) != _parameterBytes
            ? $"{Name} takes {_parameterBytes} bytes, {typeof(T).Name} has {sizeof(T)}"
            : $"{Name}: a grid of {x} x {y} x {z} blocks of {threads} threads cannot be launched");
}
