using System.Buffers.Binary;

namespace NativeLora.Training;

/// <summary>A few numbers of each rank after its gradients: its part of the loss, what it sent, and the norm of the step before.</summary>
internal sealed class RankRecords
{
    /// <summary>Bytes of a rank's record.</summary>
    public const int Bytes = 24;

    private const int Tag = 5;
    private readonly RankGroup _group;
    private readonly byte[] _own = GC.AllocateArray<byte>(Bytes, pinned: true);
    private readonly byte[][] _all;
    private readonly int[] _tickets;

    public RankRecords(RankGroup group)
    {
        _group = group;
        _all = [.. Enumerable.Range(0, group.Size).Select(r => r == group.Rank ? _own : GC.AllocateArray<byte>(Bytes, pinned: true))];
        _tickets = new int[2 * group.Size];
    }

    /// <summary>Sum over the ranks, in their order, of their parts of the loss.</summary>
    public double Loss { get; private set; }

    /// <summary>Bytes that all ranks together have sent for the step, these records included.</summary>
    public long SentBytes { get; private set; }

    /// <summary>The rank whose norm of the step before was not this one's; null where all agree.</summary>
    public int? Apart { get; private set; }

    /// <summary>Exchanges them.</summary>
    public void Exchange(double loss, long sent, double norm)
    {
        BinaryPrimitives.WriteDoubleLittleEndian(_own, loss);
        BinaryPrimitives.WriteInt64LittleEndian(_own.AsSpan(8), sent);
        BinaryPrimitives.WriteDoubleLittleEndian(_own.AsSpan(16), norm);
        for (var r = 0; r < _all.Length; r++)
            if (r != _group.Rank)
                (_tickets[2 * r], _tickets[2 * r + 1]) = (_group.Link.Receive(r, Tag, _all[r]), _group.Send(r, Tag, _own));
        for (var r = 0; r < _all.Length; r++)
            if (r != _group.Rank)
            {
                _group.Wait(_tickets[2 * r]);
                _group.Wait(_tickets[2 * r + 1]);
            }
        (Loss, SentBytes, Apart) = (0, (long)_all.Length * (_all.Length - 1) * Bytes, null);
        for (var r = 0; r < _all.Length; r++)
        {
            Loss += BinaryPrimitives.ReadDoubleLittleEndian(_all[r]);
            SentBytes += BinaryPrimitives.ReadInt64LittleEndian(_all[r].AsSpan(8));
            if (!_all[r].AsSpan(16).SequenceEqual(_own.AsSpan(16)))
                Apart ??= r;
        }
    }
}
