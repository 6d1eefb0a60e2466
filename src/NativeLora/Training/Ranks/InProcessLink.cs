namespace NativeLora.Training;

/// <summary>Ranks that are threads of one process: what is exchanged, and in which order it is added, is the same as between processes.</summary>
internal sealed class InProcessLink : IRankLink
{
    private readonly Dictionary<(int From, int To, int Tag), Queue<byte[]>> _messages;
    private readonly Dictionary<int, (int From, int Tag, Memory<byte> To)> _pending = [];
    private int _tickets;

    private InProcessLink(int rank, int size, Dictionary<(int, int, int), Queue<byte[]>> messages) => (Rank, Size, _messages) = (rank, size, messages);

    /// <summary>A link for each of so many threads.</summary>
    public static InProcessLink[] Create(int size)
    {
        var messages = new Dictionary<(int, int, int), Queue<byte[]>>();
        return [.. Enumerable.Range(0, size).Select(rank => new InProcessLink(rank, size, messages))];
    }

    public int Rank { get; }

    public int Size { get; }

    public string Description => "threads of one process";

    public int Send(int to, int tag, ReadOnlyMemory<byte> bytes)
    {
        lock (_messages)
        {
            if (!_messages.TryGetValue((Rank, to, tag), out var queue))
                _messages[(Rank, to, tag)] = queue = new Queue<byte[]>();
            queue.Enqueue(bytes.ToArray());
        }
        return ++_tickets;
    }

    public int Receive(int from, int tag, Memory<byte> bytes)
    {
        _pending[++_tickets] = (from, tag, bytes);
        return _tickets;
    }

    public bool IsDone(int ticket)
    {
        // What was sent lies with the receiver already.
        if (!_pending.TryGetValue(ticket, out var wanted))
            return true;
        lock (_messages)
            for (var from = 0; from < Size; from++)
                if ((wanted.From == IRankLink.Anyone || wanted.From == from) && _messages.TryGetValue((from, Rank, wanted.Tag), out var queue) && queue.TryDequeue(out var message))
                {
                    message.CopyTo(wanted.To);
                    _pending.Remove(ticket);
                    return true;
                }
        return false;
    }

    public void Close() { }

    public void Dispose() { }
}
