namespace NativeLora.Hosting;

/// <summary>A queue takes no more for now: as many texts wait as may. Try again a little later.</summary>
public sealed class QueueFullException : Exception
{
    /// <summary>Creates the error.</summary>
    /// <param name="waiting">Texts that wait.</param>
    /// <param name="capacity">Texts that may wait.</param>
    public QueueFullException(int waiting, int capacity)
        : base($"the queue is full: {waiting} texts wait, {capacity} may; try again a little later") =>
        (Waiting, Capacity) = (waiting, capacity);

    /// <summary>Texts that wait.</summary>
    public int Waiting { get; }

    /// <summary>Texts that may wait.</summary>
    public int Capacity { get; }
}
