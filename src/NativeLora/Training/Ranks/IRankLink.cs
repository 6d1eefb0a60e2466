namespace NativeLora.Training;

/// <summary>
/// What carries bytes between the processes (or threads) that train together, its ranks. Messages from one rank to another with one tag
/// arrive in the order in which they were sent. Used by one thread.
/// </summary>
public interface IRankLink : IDisposable
{
    /// <summary>Stands for the sender of <see cref="Receive"/>: whoever it is.</summary>
    const int Anyone = -1;

    /// <summary>Number of this rank, from 0.</summary>
    int Rank { get; }

    /// <summary>How many ranks there are.</summary>
    int Size { get; }

    /// <summary>What carries the bytes, for people.</summary>
    string Description { get; }

    /// <summary>Begins to send; the bytes may not change before <see cref="IsDone"/> says so.</summary>
    /// <param name="to">The receiver.</param>
    /// <param name="tag">What the message is for, from 0.</param>
    /// <param name="bytes">The message.</param>
    /// <returns>A ticket.</returns>
    /// <exception cref="RunException">The link is broken.</exception>
    int Send(int to, int tag, ReadOnlyMemory<byte> bytes);

    /// <summary>Begins to receive a message of just that length.</summary>
    /// <param name="from">The sender, or <see cref="Anyone"/>.</param>
    /// <param name="tag">What the message is for.</param>
    /// <param name="bytes">Where to.</param>
    /// <returns>A ticket.</returns>
    /// <exception cref="RunException">The link is broken.</exception>
    int Receive(int from, int tag, Memory<byte> bytes);

    /// <summary>Moves what is under way, and says whether that is done; its ticket is then void.</summary>
    /// <param name="ticket">What <see cref="Send"/> or <see cref="Receive"/> gave.</param>
    /// <exception cref="RunException">The link is broken.</exception>
    bool IsDone(int ticket);

    /// <summary>All ranks leave the link together, nothing being under way. Without this <see cref="IDisposable.Dispose"/> just lets go.</summary>
    void Close();
}
