using NativeLora.Data;
using NativeLora.Devices;

namespace NativeLora.Hosting;

/// <summary>What one call at a time runs on: threads, an arena and the buffers of a batch.</summary>
internal sealed class Lane : IDisposable
{
    private readonly Device _device;
    private readonly bool _ownsDevice;

    /// <param name="device">Its threads.</param>
    /// <param name="ownsDevice">Whether it disposes of them.</param>
    /// <param name="session">Over the plan.</param>
    /// <param name="batch">Of the plan's capacity.</param>
    /// <param name="serving">The plan, which is held from now on.</param>
    public Lane(Device device, bool ownsDevice, Session session, PackedBatch batch, ServingPlan serving)
    {
        (_device, _ownsDevice, Session, Batch, Serving) = (device, ownsDevice, session, batch, serving);
        Adapters = new int[batch.SequenceCapacity];
        serving.Hold();
    }

    public Session Session { get; private set; }

    public PackedBatch Batch { get; }

    /// <summary>What the session runs.</summary>
    public ServingPlan Serving { get; private set; }

    /// <summary>Number of the adapter of each sequence.</summary>
    public int[] Adapters { get; }

    /// <summary>Goes over to another plan of the same capacity.</summary>
    public void Follow(ServingPlan serving)
    {
        serving.Hold();
        try
        {
            var next = Session.Successor(serving.Plan, serving.Set?.Parameters);
            Session.Dispose();
            Session = next;
        }
        catch
        {
            serving.LetGo();
            throw;
        }
        Serving.LetGo();
        Serving = serving;
    }

    public void Dispose()
    {
        Session.Dispose();
        Serving.LetGo();
        if (_ownsDevice)
            _device.Dispose();
    }
}
