namespace NativeLora.Training;

/// <summary>Why a rank asks all others to stop.</summary>
internal enum RankStop : byte
{
    Failed = 1,
    BadInput = 2,
    Interrupted = 3,
}

/// <summary>Another rank ended the training of all; rank 0 tells why, so there is nothing more to be said here.</summary>
public sealed class RankStoppedException : Exception
{
    internal RankStoppedException(RankStop stop, int from, string text) : base(text) => (Stop, From) = (stop, from);

    internal RankStop Stop { get; }

    /// <summary>The rank that asked for it.</summary>
    public int From { get; }

    /// <summary>Whether it was bad input.</summary>
    public bool IsBadInput => Stop == RankStop.BadInput;

    /// <summary>Whether the training was interrupted.</summary>
    public bool IsInterruption => Stop == RankStop.Interrupted;
}

/// <summary>The process of another rank is no more.</summary>
internal sealed class RankDiedException(int rank, string name) : Exception($"{name} has died: killed, or out of memory")
{
    public int Rank => rank;
}
