namespace NativeLora.Devices.Cuda;

/// <summary>Bytes on the device that grow while nodes are bound; without a context they are only counted.</summary>
internal sealed class CudaScratch : IDisposable
{
    private readonly CudaContext? _context;

    internal CudaScratch(CudaContext? context) => _context = context;

    /// <summary>Address as it is now.</summary>
    public nint Address { get; private set; }

    /// <summary>Size as it is now.</summary>
    public long Bytes { get; private set; }

    /// <summary>Makes it at least so large; what it held is lost.</summary>
    internal void Reserve(long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        if (_context is null)
        {
            Bytes = Math.Max(Bytes, bytes);
            return;
        }
        if (bytes <= Bytes && Address != 0)
            return;
        // Kernels that were queued may still use what is there: freeing waits for them.
        Dispose();
        Address = _context.Allocate(bytes);
        Bytes = bytes;
        _context.ScratchVersion++;
    }

    public void Dispose()
    {
        if (Address != 0)
            _context!.Free(Address);
        (Address, Bytes) = (0, 0);
    }
}
