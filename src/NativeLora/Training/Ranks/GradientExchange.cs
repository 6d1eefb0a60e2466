using System.Diagnostics;
using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using NativeLora.Devices;
using NativeLora.Graphs;

namespace NativeLora.Training;

/// <summary>
/// Adds the gradients of all ranks. They lie in one block; a range of it (the tensors of a layer, mostly) is exchanged from the moment its
/// last gradient is there, while the backward of the layers below goes on. Each rank owns a part of a range: it receives that part from all,
/// adds in the order of the ranks, and sends the sum to all. So the bits depend on the number of ranks alone, and not on who came first.
/// </summary>
internal sealed class GradientExchange : IRunObserver
{
    private const int FirstTag = 16;
    private readonly RankGroup _group;
    private readonly DeviceBuffer _gradients;
    private readonly Range[] _ranges;
    private readonly RankRecords _records;
    private readonly int _lastNode;
    private int _begun, _inFlight, _late;
    private bool _armed;
    private long _sentBefore, _firstBegan;
    private double _norm;

    /// <summary>Plans the ranges.</summary>
    /// <param name="group">The ranks.</param>
    /// <param name="parameters">The gradients.</param>
    /// <param name="graph">What makes them.</param>
    /// <param name="least">Bytes below which a layer's range is joined with the next one's.</param>
    /// <param name="most">Bytes above which a range is cut.</param>
    public GradientExchange(RankGroup group, ParameterStore parameters, Graph graph, int least, int most = 64 << 20)
    {
        (_group, _gradients, _records) = (group, parameters.Gradients!, new RankRecords(group));
        _lastNode = graph.Nodes.Count - 1;
        var done = new Dictionary<string, int>();
        for (var n = 0; n < graph.Nodes.Count; n++)
            foreach (var output in graph.Nodes[n].Outputs)
                if (output.Category == TensorCategory.Gradient)
                    done[output.Name["grad.".Length..]] = n;
        var ranges = new List<(long First, long Count, int Done)>();
        (long First, long Count, int Done, int Layer) open = (0, 0, -1, -1);
        foreach (var tensor in graph.Trainable)
        {
            var (offset, count) = (parameters.Place(tensor.Name).Offset, parameters.Count(tensor.Name));
            if (open.Count > 0 && (open.Layer != tensor.Layer && 4 * open.Count >= least || 4 * (open.Count + count) > most))
            {
                ranges.Add((open.First, open.Count, open.Done));
                open = (offset, 0, -1, tensor.Layer);
            }
            open = (open.First, open.Count + count, Math.Max(open.Done, done.GetValueOrDefault(tensor.Name, -1)), tensor.Layer);
        }
        if (open.Count > 0)
            ranges.Add((open.First, open.Count, open.Done));
        var cut = ranges.SelectMany(r => Pieces(r.First, r.Count, most / 4).Select(p => (p.First, p.Count, r.Done)));
        // All ranks have the same graph, so all of them come to the ranges in the same order.
        _ranges = [.. cut.OrderBy(r => r.Done).ThenByDescending(r => r.First).Select((r, i) => new Range(group, _gradients, r.First, (int)r.Count, r.Done, FirstTag + 2 * i))];
    }

    /// <summary>Ranges that are exchanged one by one.</summary>
    public int Ranges => _ranges.Length;

    /// <summary>Bytes of the buffers that ranges are exchanged over.</summary>
    public long BufferBytes => _ranges.Sum(r => r.BufferBytes);

    /// <summary>Bytes that all ranks together sent for the last update.</summary>
    public long StepBytes => _records.SentBytes;

    /// <summary>Bytes that this rank sent for it.</summary>
    public long OwnBytes { get; private set; }

    /// <summary>Seconds in which something was under way.</summary>
    public double ExchangeSeconds { get; private set; }

    /// <summary>Of them, those in which this rank had nothing else to do.</summary>
    public double WaitSeconds { get; private set; }

    /// <summary>Ranges that were begun while the backward went on.</summary>
    public long Early { get; private set; }

    /// <summary>Ranges that were through before the backward was.</summary>
    public long Hidden { get; private set; }

    /// <summary>A new update begins.</summary>
    public void Begin()
    {
        (_begun, _inFlight, _late, _armed) = (0, 0, 0, false);
        _sentBefore = _group.SentBytes;
    }

    /// <summary>The update's last backward is about to begin: from here on gradients are sent as they come.</summary>
    public void Arm() => _armed = true;

    /// <inheritdoc/>
    public void AfterNode(int node)
    {
        _group.Check();
        if (!_armed)
            return;
        while (_begun < _ranges.Length && _ranges[_begun].Done <= node)
        {
            Start();
            _late += node == _lastNode ? 1 : 0;
        }
        Move();
    }

    /// <summary>Waits until the gradients are the sums over all ranks.</summary>
    /// <param name="loss">This rank's part of the loss.</param>
    /// <param name="step">Number of the step, for people.</param>
    /// <returns>The loss of all ranks.</returns>
    /// <exception cref="RunException">The ranks' replicas have come apart.</exception>
    public double Finish(double loss, int step)
    {
        var (early, through) = (_begun - _late, _begun - _inFlight);
        var start = Stopwatch.GetTimestamp();
        while (_begun < _ranges.Length)
            Start();
        var pause = new RankGroup.Pause();
        while (_inFlight > 0)
            if (!Move())
            {
                _group.Check();
                pause.Rest();
            }
        _records.Exchange(loss, _group.SentBytes - _sentBefore, _norm);
        Early += early;
        Hidden += through;
        OwnBytes = _group.SentBytes - _sentBefore;
        WaitSeconds += Stopwatch.GetElapsedTime(start).TotalSeconds;
        ExchangeSeconds += Stopwatch.GetElapsedTime(_firstBegan).TotalSeconds;
        if (_records.Apart is { } other)
            throw new RunException($"step {step}: {_group.NameOf(other)} comes to another norm of the same gradients than {_group.NameOf(_group.Rank)}; run all ranks on processors of one kind");
        return _records.Loss;
    }

    /// <summary>Takes the norm of the summed gradients, which all ranks are to find the same.</summary>
    public void Note(double norm) => _norm = norm;

    private void Start()
    {
        if (_begun == 0)
            _firstBegan = Stopwatch.GetTimestamp();
        _ranges[_begun++].Start();
        _inFlight++;
    }

    private bool Move()
    {
        var moved = false;
        if (_inFlight > 0)
            for (var i = 0; i < _begun; i++)
                if (_ranges[i].IsUnderWay)
                {
                    moved |= _ranges[i].Move();
                    _inFlight -= _ranges[i].IsUnderWay ? 0 : 1;
                }
        return moved;
    }

    private static IEnumerable<(long First, long Count)> Pieces(long first, long count, long most)
    {
        for (long at = 0; at < count; at += most)
            yield return (first + at, Math.Min(most, count - at));
    }

    /// <summary>A range on its way: to the owners, then from them.</summary>
    private sealed class Range
    {
        private readonly RankGroup _group;
        private readonly DeviceBuffer _gradients;
        private readonly long _first;
        private readonly int _count, _tag;
        private readonly Memory<byte> _own;
        private readonly Memory<byte>[] _received;
        private readonly int[] _tickets;
        private int _stage;

        public Range(RankGroup group, DeviceBuffer gradients, long first, int count, int done, int tag)
        {
            (_group, _gradients, _first, _count, _tag, Done) = (group, gradients, first, count, tag, done);
            _own = MemoryMarshal.CreateFromPinnedArray(GC.AllocateUninitializedArray<byte>(4 * count, pinned: true), 0, 4 * count);
            var piece = Part(group.Rank).Length;
            var pieces = MemoryMarshal.CreateFromPinnedArray(GC.AllocateUninitializedArray<byte>(group.Size * piece, pinned: true), 0, group.Size * piece);
            _received = [.. Enumerable.Range(0, group.Size).Select(r => pieces.Slice(r * piece, piece))];
            _tickets = new int[2 * group.Size];
            BufferBytes = 4L * count + (long)group.Size * piece;
        }

        /// <summary>The node after which its gradients are there.</summary>
        public int Done { get; }

        public long BufferBytes { get; }

        public bool IsUnderWay => _stage > 0;

        // What each rank owns.
        private Memory<byte> Part(int rank)
        {
            var (from, to) = ((int)((long)_count * rank / _group.Size), (int)((long)_count * (rank + 1) / _group.Size));
            return _own.Slice(4 * from, 4 * (to - from));
        }

        public void Start()
        {
            _gradients.Read(4 * _first, _own.Span);
            _stage = 1;
            for (var r = 0; r < _group.Size; r++)
                Begin(r, _received[r], Part(r), _tag);
        }

        /// <summary>Goes a stage further if all of this one is through.</summary>
        public bool Move()
        {
            var left = 0;
            for (var i = 0; i < _tickets.Length; i++)
                if (_tickets[i] >= 0)
                {
                    if (_group.Link.IsDone(_tickets[i]))
                        _tickets[i] = -1;
                    else
                        left++;
                }
            if (left > 0)
                return false;
            if (_stage == 1)
            {
                Add();
                _stage = 2;
                for (var r = 0; r < _group.Size; r++)
                    Begin(r, Part(r), Part(_group.Rank), _tag + 1);
                return true;
            }
            _gradients.Write(4 * _first, _own.Span);
            _stage = 0;
            return true;
        }

        private void Add()
        {
            var own = Part(_group.Rank);
            own.CopyTo(_received[_group.Rank]);
            var sum = MemoryMarshal.Cast<byte, float>(own.Span);
            MemoryMarshal.Cast<byte, float>(_received[0].Span).CopyTo(sum);
            for (var r = 1; r < _group.Size; r++)
                TensorPrimitives.Add(sum, MemoryMarshal.Cast<byte, float>(_received[r].Span), sum);
        }

        private void Begin(int other, Memory<byte> receive, Memory<byte> send, int tag)
        {
            var isOther = other != _group.Rank;
            _tickets[2 * other] = isOther && receive.Length > 0 ? _group.Link.Receive(other, tag, receive) : -1;
            _tickets[2 * other + 1] = isOther && send.Length > 0 ? _group.Send(other, tag, send) : -1;
        }
    }
}
