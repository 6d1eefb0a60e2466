using NativeLora.Data;
using NativeLora.Devices;

namespace NativeLora.Hosting;

/// <summary>What one call at a time runs on: threads, an arena and the buffers of a batch.</summary>
internal sealed class Lane(Device device, bool ownsDevice, Session session, PackedBatch batch) : IDisposable
{
    public Session Session { get; } = session;

    public PackedBatch Batch { get; } = batch;

    /// <summary>Number of the adapter of each sequence.</summary>
    public int[] Adapters { get; } = new int[batch.SequenceCapacity];

    public void Dispose()
    {
        Session.Dispose();
        if (ownsDevice)
            device.Dispose();
    }
}
