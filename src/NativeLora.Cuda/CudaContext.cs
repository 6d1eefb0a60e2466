namespace NativeLora.Devices.Cuda;

/// <summary>The context of one GPU with the one stream that all work is queued on, and what is allocated there.</summary>
internal sealed unsafe class CudaContext : IDisposable
{
    [ThreadStatic]
    private static nint t_current;

    private readonly int _device;
    private readonly nint _context;
    private bool _disposed;

    /// <summary>Takes the primary context.</summary>
    /// <exception cref="InputException">There is no such GPU, or it is too old.</exception>
    public CudaContext(CudaDriver driver, int ordinal)
    {
        Driver = driver;
        (Info, _device) = CudaDeviceInfo.Of(driver, ordinal);
        if (Info.Major < 8)
            throw new InputException($"CUDA: GPU {ordinal}, {Info.Name}, has compute capability {Info.Major}.{Info.Minor}; 8.0 or newer is needed");
        nint context, stream;
        driver.Check(driver.PrimaryContextRetain(&context, _device), "cuDevicePrimaryCtxRetain");
        _context = context;
        // Another context of the same address may have been current before.
        t_current = 0;
        Enter();
        driver.Check(driver.StreamCreate(&stream, 1), "cuStreamCreate");
        Stream = stream;
    }

    public CudaDriver Driver { get; }

    public CudaDeviceInfo Info { get; }

    public nint Stream { get; }

    /// <summary>Changes when scratch moves.</summary>
    public int ScratchVersion { get; set; }

    public bool IsDisposed => _disposed;

    /// <summary>Makes the context the one of this thread: before any call that needs one.</summary>
    public void Enter()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (t_current == _context)
            return;
        Driver.Check(Driver.ContextSetCurrent(_context), "cuCtxSetCurrent");
        t_current = _context;
    }

    /// <summary>Waits for all work that was queued.</summary>
    public void Wait()
    {
        Enter();
        Driver.Check(Driver.StreamSynchronize(Stream), "running kernels");
    }

    public nint Allocate(long bytes)
    {
        Enter();
        nint address;
        var result = Driver.MemoryAllocate(&address, (nuint)Math.Max(bytes, 16));
        return result == 0 ? address : throw Driver.Failure(result, $"{bytes:N0} bytes of GPU memory");
    }

    /// <summary>Frees without a word: what went wrong before has been told.</summary>
    public void Free(nint address)
    {
        if (_disposed)
            return;
        Enter();
        Driver.MemoryFree(address);
    }

    public void Clear(nint address, long bytes)
    {
        Enter();
        if (bytes > 0)
            Driver.Check(Driver.Fill(address, 0, (nuint)bytes, Stream), "cuMemsetD8Async");
    }

    public void Dispose()
    {
        if (_disposed)
            return;
        Enter();
        Driver.StreamSynchronize(Stream);
        Driver.StreamDestroy(Stream);
        _disposed = true;
        Driver.ContextSetCurrent(0);
        t_current = 0;
        Driver.PrimaryContextRelease(_device);
    }
}
