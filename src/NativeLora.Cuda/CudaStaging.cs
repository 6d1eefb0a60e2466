namespace NativeLora.Devices.Cuda;

/// <summary>
/// Copies over pinned memory. To the device: two halves in turn, so that the host fills one while the other is copied; a half is waited
/// for only before it is filled again. To the host: blocking. May be called from any thread.
/// </summary>
internal sealed unsafe class CudaStaging : IDisposable
{
    private const int Half = 2 << 20;
    private const int ReadBytes = 1 << 20;

    private readonly Lock _gate = new();
    private readonly CudaContext _context;
    private readonly nint _host;
    private readonly nint[] _events = new nint[2];
    private readonly bool[] _pending = new bool[2];
    private int _half;
    private int _at;

    public CudaStaging(CudaContext context)
    {
        _context = context;
        context.Enter();
        var driver = context.Driver;
        nint host;
        driver.Check(driver.HostAllocate(&host, 2 * Half + ReadBytes), "pinned host memory");
        _host = host;
        for (var i = 0; i < 2; i++)
        {
            nint made;
            driver.Check(driver.EventCreate(&made, 2), "cuEventCreate");
            _events[i] = made;
        }
    }

    /// <summary>Queues a copy to the device; the source may change once this returns.</summary>
    public void Write(nint address, ReadOnlySpan<byte> source)
    {
        lock (_gate)
        {
            _context.Enter();
            while (source.Length > 0)
            {
                if (_at == Half)
                    Turn();
                var part = source[..Math.Min(source.Length, Half - _at)];
                var from = (byte*)_host + _half * Half + _at;
                part.CopyTo(new Span<byte>(from, part.Length));
                var driver = _context.Driver;
                driver.Check(driver.CopyToDevice(address, from, (nuint)part.Length, _context.Stream), "a copy to the GPU");
                // The next one begins at a multiple of 64.
                _at = Math.Min(Half, (_at + part.Length + 63) & ~63);
                address += part.Length;
                source = source[part.Length..];
            }
        }
    }

    /// <summary>Copies to the host, after all that was queued.</summary>
    public void Read(nint address, Span<byte> destination)
    {
        lock (_gate)
        {
            _context.Enter();
            var driver = _context.Driver;
            var host = (byte*)_host + 2 * Half;
            while (destination.Length > 0)
            {
                var count = Math.Min(destination.Length, ReadBytes);
                driver.Check(driver.CopyToHost(host, address, (nuint)count, _context.Stream), "a copy from the GPU");
                driver.Check(driver.StreamSynchronize(_context.Stream), "running kernels");
                new ReadOnlySpan<byte>(host, count).CopyTo(destination);
                address += count;
                destination = destination[count..];
            }
        }
    }

    private void Turn()
    {
        var driver = _context.Driver;
        driver.Check(driver.EventRecord(_events[_half], _context.Stream), "cuEventRecord");
        _pending[_half] = true;
        (_half, _at) = (1 - _half, 0);
        if (_pending[_half])
            driver.Check(driver.EventSynchronize(_events[_half]), "a copy to the GPU");
    }

    public void Dispose()
    {
        _context.Enter();
        foreach (var made in _events)
            _context.Driver.EventDestroy(made);
        _context.Driver.HostFree(_host);
    }
}
