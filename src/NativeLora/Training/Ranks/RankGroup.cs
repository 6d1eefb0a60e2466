using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;

namespace NativeLora.Training;

/// <summary>
/// The ranks that train together. Each works on its share of every batch; their gradients are added in the order of the ranks, so that a
/// number of ranks gives the same bits each time. Used by the one thread that trains.
/// </summary>
public sealed class RankGroup : IDisposable
{
    private const int ControlTag = 1, LengthTag = 2, BytesTag = 3, PieceTag = 4;
    private const int ControlBytes = 1024, ControlHead = 12;
    private const int PieceBytes = 16 << 20;
    private const int MillisecondsBetweenLooks = 250;
    private static readonly TimeSpan PatienceForWord = TimeSpan.FromSeconds(30), PatienceForFarewell = TimeSpan.FromSeconds(2);

    private readonly IRankLink _link;
    private readonly RankIdentity[] _identities;
    private readonly byte[] _control = GC.AllocateUninitializedArray<byte>(ControlBytes, pinned: true);
    private int _controlTicket = -1;
    private long _lookedAt;
    private RankStoppedException? _word;
    private bool _left;

    /// <summary>Meets the other ranks, who do the same.</summary>
    /// <param name="link">What connects them; it is the group's from here on.</param>
    /// <exception cref="RunException">The link is broken.</exception>
    public RankGroup(IRankLink link)
    {
        ArgumentNullException.ThrowIfNull(link);
        _link = link;
        Listen();
        var own = RankIdentity.OfThis();
        _identities = [own];
        var all = Gather(own.ToBytes());
        _identities = [.. all.Select(bytes => RankIdentity.Parse(bytes))];
        SentBytes = 0;
    }

    /// <summary>Number of this rank, from 0. Rank 0 writes files and speaks to people.</summary>
    public int Rank => _link.Rank;

    /// <summary>How many ranks there are.</summary>
    public int Size => _link.Size;

    /// <summary>Whether this is rank 0.</summary>
    public bool Leads => Rank == 0;

    /// <summary>What carries the bytes.</summary>
    public string Description => _link.Description;

    /// <summary>Machines that ranks are on.</summary>
    public int Machines => _identities.Select(i => i.Host).Distinct().Count();

    /// <summary>Bytes that this rank has sent, what the link adds to them left out.</summary>
    public long SentBytes { get; private set; }

    /// <summary>What stops waiting; rank 0 then sees to a checkpoint.</summary>
    public CancellationToken Cancellation { get; set; }

    internal IRankLink Link => _link;

    /// <summary>A rank's number, process and machine.</summary>
    public string NameOf(int rank) =>
        _identities.Length == Size ? $"rank {rank} (process {_identities[rank].Process} on {_identities[rank].Host})" : $"rank {rank}";

    /// <summary>Bytes that all ranks together send in a step: each gradient goes to the rank that adds it up, and its sum to all others.</summary>
    /// <param name="elements">Trainable elements.</param>
    /// <param name="ranks">How many ranks there are.</param>
    public static long StepBytes(long elements, int ranks) => ranks < 2 ? 0 : 2L * (ranks - 1) * 4 * elements + (long)ranks * (ranks - 1) * RankRecords.Bytes;

    /// <summary>Leaves together with all others, after work that went well.</summary>
    public void Close()
    {
        Gather([]);
        _left = true;
        // What listens for bad news is ended by good news.
        var farewell = Size > 1 ? _link.Send((Rank + 1) % Size, ControlTag, GC.AllocateArray<byte>(ControlBytes, pinned: true)) : -1;
        var pause = new Pause();
        foreach (var ticket in (int[])[farewell, _controlTicket])
            while (ticket >= 0 && !_link.IsDone(ticket))
                pause.Rest();
        _link.Close();
    }

    /// <summary>
    /// Tells the others that this rank gives up, and gives the exception to end with: rank 0's says what was wrong, whichever rank it was
    /// on; the others' say nothing more, unless rank 0 cannot.
    /// </summary>
    /// <param name="cause">Why.</param>
    public Exception Leave(Exception cause)
    {
        ArgumentNullException.ThrowIfNull(cause);
        if (_left)
            return cause;
        _left = true;
        var (stop, text) = cause switch
        {
            RankStoppedException stopped => (stopped.Stop, stopped.Message),
            OperationCanceledException => (RankStop.Interrupted, cause.Message),
            InputException => (RankStop.BadInput, cause.Message),
            RunException or RankDiedException => (RankStop.Failed, cause.Message),
            _ => (RankStop.Failed, $"{cause.GetType().Name}: {cause.Message}"),
        };
        try
        {
            if (Leads || cause is not RankStoppedException)
                Tell(stop, text);
            if (!Leads && Heard(cause) is { } word)
                return word;
        }
        catch (RunException)
        {
            // The link is broken: what led here says more.
        }
        return cause switch
        {
            RankStoppedException { IsBadInput: true } s => new InputException($"{NameOf(s.From)}: {s.Message}", s),
            RankStoppedException { IsInterruption: false } s => new RunException($"{NameOf(s.From)}: {s.Message}", s),
            RankStoppedException => new OperationCanceledException(cause.Message, cause),
            RankDiedException => new RunException(cause.Message, cause),
            _ => cause,
        };
    }

    /// <summary>Whether another rank asks to stop, one has died, or this one is to stop.</summary>
    internal void Check()
    {
        if (_left)
            return;
        if (_controlTicket >= 0 && _link.IsDone(_controlTicket) && Read() is { } word)
            throw word;
        if (Cancellation.IsCancellationRequested)
        {
            // Whoever starts ranks ends them all when one of them dies: it is of that that should be told.
            LookForDead();
            throw new OperationCanceledException(Cancellation);
        }
        if (Environment.TickCount64 - _lookedAt >= MillisecondsBetweenLooks)
            LookForDead();
    }

    /// <summary>Waits for something under way.</summary>
    internal void Wait(int ticket)
    {
        var pause = new Pause();
        while (!_link.IsDone(ticket))
        {
            Check();
            pause.Rest();
        }
    }

    /// <summary>Begins to send.</summary>
    internal int Send(int to, int tag, ReadOnlyMemory<byte> bytes)
    {
        SentBytes += bytes.Length;
        return _link.Send(to, tag, bytes);
    }

    /// <summary>What each rank gave, in their order.</summary>
    internal byte[][] Gather(ReadOnlySpan<byte> own)
    {
        var all = new byte[Size][];
        all[Rank] = own.ToArray();
        var length = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(length, own.Length);
        var lengths = Enumerable.Range(0, Size).Select(_ => new byte[4]).ToArray();
        Others((from, to) => (_link.Receive(from, LengthTag, lengths[from]), Send(to, LengthTag, length)));
        Others((from, to) =>
        {
            all[from] = new byte[Math.Max(0, BinaryPrimitives.ReadInt32LittleEndian(lengths[from]))];
            return (_link.Receive(from, BytesTag, all[from]), Send(to, BytesTag, all[Rank]));
        });
        return all;
    }

    /// <summary>Gives all ranks what rank 0 has.</summary>
    internal void Share(long length, Action<long, Memory<byte>> read, Action<long, Memory<byte>> write)
    {
        var piece = new byte[(int)Math.Min(PieceBytes, length)];
        for (long at = 0; at < length; at += piece.Length)
        {
            var part = piece.AsMemory(0, (int)Math.Min(piece.Length, length - at));
            if (!Leads)
            {
                Wait(_link.Receive(0, PieceTag, part));
                write(at, part);
                continue;
            }
            read(at, part);
            var tickets = new int[Size];
            for (var to = 1; to < Size; to++)
                tickets[to] = Send(to, PieceTag, part);
            for (var to = 1; to < Size; to++)
                Wait(tickets[to]);
        }
    }

    /// <summary>Gives all ranks the bytes that rank 0 has.</summary>
    internal byte[] Share(byte[]? bytes)
    {
        var length = new byte[4];
        if (Leads)
            BinaryPrimitives.WriteInt32LittleEndian(length, bytes!.Length);
        Share(4, (_, to) => length.CopyTo(to), (_, from) => from.CopyTo(length));
        bytes ??= new byte[BinaryPrimitives.ReadInt32LittleEndian(length)];
        Share(bytes.Length, (at, to) => bytes.AsMemory((int)at, to.Length).CopyTo(to), (at, from) => from.CopyTo(bytes.AsMemory((int)at)));
        return bytes;
    }

    /// <summary>Gives all ranks a text that rank 0 has.</summary>
    public string Share(string? text) => Encoding.UTF8.GetString(Share(Leads ? Encoding.UTF8.GetBytes(text ?? "") : null));

    private void Others(Func<int, int, (int, int)> begin)
    {
        var tickets = new List<int>();
        for (var other = 0; other < Size; other++)
            if (other != Rank)
            {
                var (receive, send) = begin(other, other);
                tickets.Add(receive);
                tickets.Add(send);
            }
        foreach (var ticket in tickets)
            Wait(ticket);
    }

    private void Listen() => _controlTicket = Size > 1 ? _link.Receive(IRankLink.Anyone, ControlTag, _control) : -1;

    /// <summary>What was said; null for a farewell, after which nothing more comes.</summary>
    private RankStoppedException? Read()
    {
        _controlTicket = -1;
        if (_control[0] == 0)
            return null;
        var stop = (RankStop)_control[0];
        var from = BinaryPrimitives.ReadInt32LittleEndian(_control.AsSpan(4));
        var length = Math.Clamp(BinaryPrimitives.ReadInt32LittleEndian(_control.AsSpan(8)), 0, ControlBytes - ControlHead);
        var word = new RankStoppedException(stop, from, Encoding.UTF8.GetString(_control.AsSpan(ControlHead, length)));
        if (from == 0)
            _word = word;
        Listen();
        return word;
    }

    private void Tell(RankStop stop, string text)
    {
        var message = GC.AllocateUninitializedArray<byte>(ControlBytes, pinned: true);
        message[0] = (byte)stop;
        BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(4), Rank);
        var bytes = Encoding.UTF8.GetBytes(text).AsSpan();
        bytes = bytes[..Math.Min(bytes.Length, ControlBytes - ControlHead)];
        BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(8), bytes.Length);
        bytes.CopyTo(message.AsSpan(ControlHead));
        var tickets = new List<int>();
        for (var to = 0; to < Size; to++)
            if (to != Rank && !IsDead(to))
                tickets.Add(_link.Send(to, ControlTag, message));
        var began = Stopwatch.GetTimestamp();
        var pause = new Pause();
        while (tickets.Count > 0 && Stopwatch.GetElapsedTime(began) < PatienceForFarewell)
        {
            tickets.RemoveAll(_link.IsDone);
            pause.Rest();
        }
    }

    /// <summary>Waits until rank 0 has told it; null if that is not to be expected, and no rank between is left to tell it.</summary>
    private RankStoppedException? Heard(Exception cause)
    {
        if (_word is not null)
            return _word;
        var began = Stopwatch.GetTimestamp();
        var pause = new Pause();
        while (Stopwatch.GetElapsedTime(began) < PatienceForWord && !IsDead(0))
        {
            if (_controlTicket >= 0 && _link.IsDone(_controlTicket) && Read()?.From == 0)
                return _word;
            pause.Rest();
        }
        var speaker = Enumerable.Range(0, Rank).FirstOrDefault(r => !IsDead(r), -1);
        return speaker > 0 ? new RankStoppedException(cause is InputException ? RankStop.BadInput : RankStop.Failed, speaker, cause.Message) : null;
    }

    private bool IsDead(int rank) => _identities.Length == Size && rank != Rank && _identities[rank].IsDead(_identities[Rank]);

    private void LookForDead()
    {
        _lookedAt = Environment.TickCount64;
        for (var rank = 0; rank < _identities.Length; rank++)
            if (IsDead(rank))
                throw new RankDiedException(rank, NameOf(rank));
    }

    /// <inheritdoc/>
    public void Dispose() => _link.Dispose();

    /// <summary>Rests of growing length: whoever is waited for may need this very processor.</summary>
    internal struct Pause
    {
        private int _rests;

        public void Rest()
        {
            if (++_rests < 200)
                Thread.Yield();
            else
                Thread.Sleep(_rests < 2000 ? 0 : 1);
        }
    }
}
