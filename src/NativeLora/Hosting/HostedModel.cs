using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Serving;

namespace NativeLora.Hosting;

/// <summary>Which row of a sequence a result is taken from.</summary>
internal enum PickedRow
{
    First,
    Last,
}

/// <summary>
/// A model with its adapters that gives a row of numbers for each sequence, for callers of any number of threads: the weights are there
/// once, and a pool of lanes runs over them.
/// </summary>
internal sealed class HostedModel : IDisposable
{
    private const int BatchSequences = 64;
    private readonly InferenceOptions _options;
    private readonly Device _home;
    private readonly PretrainedModel _pretrained;
    private readonly Lazy<ITokenizer> _tokenizer;
    private readonly SessionPool<Lane> _lanes;
    private readonly ModelHead _head;
    private readonly PickedRow _row;
    private readonly Func<Graph, ModelOutputs, Tensor> _output;
    private readonly Func<AdapterSource?, string[]> _labels;
    // One change of the adapters at a time; what weights are converted to is looked up by one at a time; which plan is the newest.
    private readonly Lock _changing = new(), _weights = new(), _newest = new();
    private readonly ModelModules _modules;
    private readonly string[] _fresh;
    private readonly string _owner;
    private readonly int? _pad;
    private volatile ServingPlan _serving;
    private int _homeTaken;
    private bool _closed;

    /// <param name="folder">The model.</param>
    /// <param name="options">Settings; the device is of the model's own where they name none.</param>
    /// <param name="opened">The model, opened on the device that is given with it.</param>
    /// <param name="head">What stands on top.</param>
    /// <param name="row">Which row the graph picks of a sequence.</param>
    /// <param name="output">Gives what is read of the built model: a row for each sequence.</param>
    /// <param name="owner">Who is disposed of when this is.</param>
    /// <param name="labels">Names of the classes of an adapter, or of the model itself.</param>
    public HostedModel(string folder, InferenceOptions options, (Device Home, PretrainedModel Model) opened, ModelHead head, PickedRow row,
        Func<Graph, ModelOutputs, Tensor> output, string owner, Func<AdapterSource?, string[]>? labels = null)
    {
        (_options, _head, _row, _output, _owner, _labels) = (options, head, row, output, owner, labels ?? (_ => []));
        (_home, _pretrained) = opened;
        var model = _pretrained.Model;
        _tokenizer = new(() => TokenizerLoader.FromFolder(Directory.Exists(folder) ? folder : Path.GetDirectoryName(Path.GetFullPath(folder))!));
        // Read beside the model; what is wrong with it is told to who asks for it.
        ThreadPool.UnsafeQueueUserWorkItem(Read, _tokenizer, preferLocal: false);
        if (model.Pictures is not null)
            throw new InputException($"{folder}: {model.Config.ModelType} reads pictures and writes text; take a model of text alone");
        MaxLength = Math.Min(options.MaxLength ?? 512, model.MaxPositions);
        _pad = !model.IsEncoder && model.TextConfig.Has("pad_token_id") ? model.TextConfig.GetInt("pad_token_id") : null;
        if (options.Adapters.Select(a => a.Name).Distinct(StringComparer.Ordinal).Count() < options.Adapters.Count)
            throw new InputException("two adapters have the same name; give each one of its own");
        _modules = _pretrained.Modules(head);
        _fresh = Fresh();
        Base = new HostedAdapter("", _labels(null), _fresh.FirstOrDefault(), 0);
        var blocks = new List<AdapterBlock>();
        var adapters = new List<HostedAdapter>();
        try
        {
            foreach (var source in options.Adapters)
            {
                blocks.Add(Load(source));
                adapters.Add(Hosted(source, blocks[^1]));
            }
        }
        catch
        {
            blocks.ForEach(b => b.LetGo());
            throw;
        }
        _serving = Plan(blocks.Count > 0 ? new AdapterSet(_pretrained, head, blocks) : null, adapters);
        try
        {
            if ((adapters.FirstOrDefault() ?? Base).Lost is { } lost)
                throw new InputException($"{folder}: there is no {lost} in the model{(adapters.Count > 0 ? $" or the adapter \"{adapters[0].Name}\"" : "")}; give an adapter that was trained with one");
            _lanes = new SessionPool<Lane>(options.Sessions, owner, Opening.Counted(owner, options, NewLane));
            // The first is made at once, so that files that cannot be read are found now.
            _lanes.Return(_lanes.Rent(CancellationToken.None));
        }
        catch
        {
            _serving.LetGo();
            throw;
        }

        static void Read(Lazy<ITokenizer> tokenizer)
        {
            try
            {
                _ = tokenizer.Value;
            }
            catch (InputException)
            {
            }
        }
    }

    /// <summary>The model without an adapter.</summary>
    public HostedAdapter Base { get; }

    public Model Model => _pretrained.Model;

    public ITokenizer Tokenizer => _tokenizer.Value;

    public IReadOnlyList<string> Adapters => _serving.Names;

    /// <summary>Tokens that are worked on at a time, at most.</summary>
    public int BatchTokens => _serving.Plan.Capacity.Tokens;

    /// <summary>Sequences that are worked on at a time, at most.</summary>
    public int BatchSize => _serving.Plan.Capacity.Sequences;

    internal bool IsClosing => _lanes.IsClosing;

    public int MaxLength { get; }

    /// <summary>Numbers of each result.</summary>
    public int Columns => _serving.Output.Shape.Columns;

    /// <summary>Opens a model on the device of the options, or else on the CPU.</summary>
    public static (Device Home, PretrainedModel Model) Open(string folder, InferenceOptions options, IReadOnlyList<string>? labels)
    {
        var home = options.Device ?? new CpuDevice(options.ThreadsOfSession);
        try
        {
            return (home, PretrainedModel.Open(folder, home, new PretrainedOptions { Labels = labels, Precision = options.Precision, Checkpoint = options.Checkpoint }));
        }
        catch
        {
            if (options.Device is null)
                home.Dispose();
            throw;
        }
    }

    /// <summary>Closes what <see cref="Open"/> opened.</summary>
    public static void Close((Device Home, PretrainedModel Model) opened, InferenceOptions options)
    {
        opened.Model.Dispose();
        Close(opened.Home, options);
    }

    /// <summary>Frees a device that is the model's own.</summary>
    public static void Close(Device home, InferenceOptions options)
    {
        if (options.Device is null)
            home.Dispose();
    }

    /// <summary>Token ids and segments of texts, one after another, each cut to the maximum length.</summary>
    public (int[] Ids, int[] Types, int[] Lengths) Encode(IReadOnlyList<string> texts)
    {
        var tokenizer = Tokenizer;
        List<int> ids = [], types = [];
        var lengths = new int[texts.Count];
        for (var i = 0; i < lengths.Length; i++)
        {
            var tokens = tokenizer.Encode(texts[i], null, MaxLength);
            ids.AddRange(tokens.Ids);
            types.AddRange(tokens.TypeIds);
            lengths[i] = tokens.Ids.Length;
        }
        return ([.. ids], [.. types], lengths);
    }

    /// <summary>The adapter that a call means.</summary>
    /// <exception cref="InputException">There is none of that name, or it has no head.</exception>
    public HostedAdapter AdapterOf(string? name)
    {
        var serving = _serving;
        var adapter = name is null ? (serving.Adapters.Count > 0 ? serving.Adapters[0] : Base) : name.Length == 0 ? Base : serving.Find(name);
        if (adapter is null)
            throw new InputException($"there is no adapter \"{Reject.OneLine(name!)}\" here; there are {Listed(serving.Names)}");
        return adapter.Lost is null ? adapter
            : throw new InputException(adapter == Base ? "the model without an adapter has no trained head; name an adapter" : $"adapter \"{name}\" has no trained head, nor has the model; take one that was saved with its head");
    }

    /// <summary>Whether there is an adapter of that name; the empty one is the model itself.</summary>
    public bool HasAdapter(string name) => name.Length == 0 || _serving.Find(name) is not null;

    private static string Listed(IReadOnlyList<string> names) => names.Count switch
    {
        0 => "none",
        <= 10 => string.Join(", ", names),
        _ => $"{string.Join(", ", names.Take(10))} and {names.Count - 10} more",
    };

    /// <summary>Runs sequences that lie one after another, all with one adapter, as many at a time as fit.</summary>
    /// <param name="ids">Token ids of all sequences.</param>
    /// <param name="types">Segment of each token, or empty.</param>
    /// <param name="lengths">Tokens of each sequence.</param>
    /// <param name="adapter">The adapter.</param>
    /// <param name="results">[sequences, columns].</param>
    /// <param name="call">What is told of the call.</param>
    /// <param name="cancellation">Stops the wait for a lane, and between two batches.</param>
    public void Run(ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths, HostedAdapter adapter, Span<float> results, ref Telemetry.Call call, CancellationToken cancellation) =>
        Run(ids, types, lengths, new ReadOnlySpan<HostedAdapter>(in adapter), results, ref call, cancellation);

    /// <summary>Runs sequences that lie one after another, as many at a time as fit.</summary>
    /// <param name="ids">Token ids of all sequences.</param>
    /// <param name="types">Segment of each token, or empty.</param>
    /// <param name="lengths">Tokens of each sequence.</param>
    /// <param name="adapters">The adapter of each sequence, or one for all.</param>
    /// <param name="results">[sequences, columns].</param>
    /// <param name="call">What is told of the call.</param>
    /// <param name="cancellation">Stops the wait for a lane, and between two batches.</param>
    public void Run(ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths, ReadOnlySpan<HostedAdapter> adapters, Span<float> results, ref Telemetry.Call call, CancellationToken cancellation)
    {
        Check(ids, types, lengths, results);
        (call.Sequences, call.Tokens) = (lengths.Length, ids.Length);
        if (lengths.Length == 0)
            return;
        var lane = _lanes.Rent(cancellation);
        try
        {
            Follow(lane);
            Run(lane, ids, types, lengths, adapters, results, cancellation);
        }
        finally
        {
            _lanes.Return(lane);
        }
    }

    /// <summary>Waits for a lane without holding a thread, then runs a text on a thread of the pool.</summary>
    public async Task<float[]> RunAsync(string text, HostedAdapter adapter, string operation, CancellationToken cancellation)
    {
        var call = Telemetry.Begin(operation);
        try
        {
            var tokens = Tokenizer.Encode(text, null, MaxLength);
            int[] lengths = [tokens.Ids.Length];
            var results = new float[Columns];
            Check(tokens.Ids, tokens.TypeIds, lengths, results);
            (call.Sequences, call.Tokens) = (1, tokens.Ids.Length);
            var lane = await RentAsync(cancellation).ConfigureAwait(false);
            try
            {
                await Task.Run(() => Run(lane, tokens.Ids, tokens.TypeIds, lengths, [adapter], results, cancellation), cancellation).ConfigureAwait(false);
            }
            finally
            {
                Return(lane);
            }
            call.End();
            return results;
        }
        catch (Exception error)
        {
            call.End(error);
            throw;
        }
    }

    /// <summary>Lends a lane that runs the adapters that there are now.</summary>
    public async ValueTask<Lane> RentAsync(CancellationToken cancellation)
    {
        var lane = await _lanes.RentAsync(cancellation).ConfigureAwait(false);
        try
        {
            Follow(lane);
            return lane;
        }
        catch
        {
            _lanes.Return(lane);
            throw;
        }
    }

    /// <summary>Takes a lane back.</summary>
    public void Return(Lane lane) => _lanes.Return(lane);

    /// <summary>Runs sequences on a lane that was lent.</summary>
    /// <param name="lane">The lane.</param>
    /// <param name="ids">Token ids of all sequences.</param>
    /// <param name="types">Segment of each token, or empty.</param>
    /// <param name="lengths">Tokens of each sequence.</param>
    /// <param name="adapters">The adapter of each sequence, or one for all.</param>
    /// <param name="results">[sequences, columns].</param>
    /// <param name="cancellation">Stops between two batches.</param>
    /// <exception cref="InputException">An adapter has been removed.</exception>
    public void Run(Lane lane, ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths, ReadOnlySpan<HostedAdapter> adapters, Span<float> results, CancellationToken cancellation)
    {
        var (batch, columns) = (lane.Batch, Columns);
        for (int from = 0, to, token = 0; from < lengths.Length; from = to)
        {
            cancellation.ThrowIfCancellationRequested();
            var tokens = 0;
            for (to = from; to < lengths.Length && to - from < batch.SequenceCapacity && tokens + lengths[to] <= batch.TokenCapacity; to++)
            {
                if (!lane.Serving.TryNumber(adapters[adapters.Length == 1 ? 0 : to], out var number))
                    throw new InputException($"adapter \"{adapters[adapters.Length == 1 ? 0 : to].Name}\" has been removed; name one that is there");
                // Where the sequences of a batch share rows, each batch has one adapter.
                if (to > from && !lane.Session.MixesAdapters && number != lane.Adapters[0])
                    break;
                lane.Adapters[to - from] = number;
                tokens += lengths[to];
            }
            Fill(batch, ids.Slice(token, tokens), types.IsEmpty ? types : types.Slice(token, tokens), lengths[from..to]);
            if (lane.Serving.Set is null)
                lane.Session.Load(batch);
            else
                lane.Session.Load(batch, lane.Adapters.AsSpan(0, to - from));
            lane.Session.Run();
            lane.Session.Read(lane.Serving.Output, results.Slice(from * columns, (to - from) * columns));
            token += tokens;
        }
    }

    /// <summary>Loads an adapter beside those that there are, while calls go on.</summary>
    /// <exception cref="InputException">It does not fit, or there is one of its name.</exception>
    public void Add(AdapterSource source)
    {
        (_options with { Adapters = [source] }).Validate();
        lock (_changing)
        {
            ObjectDisposedException.ThrowIf(_closed, _owner);
            if (_serving.Find(source.Name) is not null)
                throw new InputException($"there is an adapter \"{source.Name}\" already; remove it first, or give another name");
            // A device of the caller's does one thing at a time.
            var held = _options.Device is null ? null : _lanes.Rent(CancellationToken.None);
            try
            {
                var block = Load(source);
                HostedAdapter adapter;
                try
                {
                    adapter = Hosted(source, block);
                }
                catch
                {
                    block.LetGo();
                    throw;
                }
                AdapterSet set;
                lock (_weights)
                    set = _serving.Set?.With(block) ?? new AdapterSet(_pretrained, _head, [block]);
                Change(set, [.. _serving.Adapters, adapter]);
            }
            finally
            {
                if (held is not null)
                    _lanes.Return(held);
            }
            FollowIdle();
        }
    }

    /// <summary>Takes an adapter away, while calls go on. Its memory is free once no lane runs with it.</summary>
    /// <returns>Whether there was one.</returns>
    public bool Remove(string name)
    {
        lock (_changing)
        {
            ObjectDisposedException.ThrowIf(_closed, _owner);
            if (_serving.Find(name) is not { } gone)
                return false;
            AdapterSet set;
            lock (_weights)
                set = _serving.Set!.Without(name);
            Change(set, [.. _serving.Adapters.Where(a => a != gone)]);
            FollowIdle();
            return true;
        }
    }

    /// <summary>Bytes of an adapter's tensors.</summary>
    public long BytesOf(string name) => AdapterOf(name).Bytes;

    private void Change(AdapterSet set, IReadOnlyList<HostedAdapter> adapters)
    {
        var (former, next) = (_serving, Plan(set, adapters));
        lock (_newest)
            _serving = next;
        former.LetGo();
    }

    /// <summary>Lanes that nobody uses go over at once, so that no call has to wait for it; the others do when they are lent next.</summary>
    private void FollowIdle()
    {
        while (_lanes.TryRent(lane => lane.Serving != _serving) is { } lane)
        {
            try
            {
                Follow(lane);
            }
            finally
            {
                _lanes.Return(lane);
            }
        }
    }

    private void Follow(Lane lane)
    {
        if (lane.Serving == _serving)
            return;
        var serving = HoldNewest();
        try
        {
            lock (_weights)
                lane.Follow(serving);
        }
        finally
        {
            serving.LetGo();
        }
    }

    /// <summary>The plan for the adapters that there are now; whoever asks lets go of it.</summary>
    private ServingPlan HoldNewest()
    {
        lock (_newest)
        {
            _serving.Hold();
            return _serving;
        }
    }

    /// <summary>The plan of a set, which it lets go of where there can be none.</summary>
    private ServingPlan Plan(AdapterSet? set, IReadOnlyList<HostedAdapter> adapters)
    {
        try
        {
            var build = new BuildOptions { Head = _head, MaxLength = MaxLength };
            var (graph, outputs) = set?.Build(build) ?? Plain(build);
            var output = graph.Keep(_output(graph, outputs));
            lock (_weights)
                _pretrained.Weights.Check(graph);
            var plan = MemoryPlan.For(graph, new BatchSize(Math.Max(MaxLength, _options.BatchTokens), BatchSequences, 0));
            return new ServingPlan(set, plan, output, adapters);
        }
        catch
        {
            set?.Dispose();
            throw;
        }
    }

    private (Graph, ModelOutputs) Plain(BuildOptions options)
    {
        var graph = _pretrained.NewGraph(Trainables.None);
        return (graph, _pretrained.Model.Build(graph, options with { Head = _head }));
    }

    /// <summary>Modules whose weights the model's files lack, so that they are made up at random.</summary>
    private string[] Fresh()
    {
        var (graph, outputs) = Plain(new BuildOptions { Head = _head, MaxLength = MaxLength });
        graph.Keep(_output(graph, outputs));
        _pretrained.Weights.Check(graph);
        return [.. graph.Weights.Where(w => _pretrained.Weights.FreshlyInitialised.Contains(w.Name)).Select(w => w.Name[..Math.Max(0, w.Name.LastIndexOf('.'))]).Distinct()];
    }

    private AdapterBlock Load(AdapterSource source)
    {
        var loaded = TrainedAdapter.Load(source, _modules);
        lock (_weights)
            return AdapterBlock.Of(_pretrained, _head, _modules, new NamedAdapter(source.Name, loaded.Config, loaded.Weights));
    }

    private HostedAdapter Hosted(AdapterSource source, AdapterBlock block)
    {
        var own = block.Slots.Where(s => s.Slot.InFull).Select(s => s.Module).ToHashSet();
        return new HostedAdapter(source.Name, _labels(source), _fresh.FirstOrDefault(m => !own.Contains(m)), block.Values.Bytes);
    }

    private void Fill(PackedBatch batch, ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths)
    {
        ids.CopyTo(batch.TokenIds);
        if (types.IsEmpty)
            batch.TypeIds.AsSpan(0, ids.Length).Clear();
        else
            types.CopyTo(batch.TypeIds);
        int row = 0, longest = 0;
        for (var s = 0; s < lengths.Length; s++)
        {
            var length = lengths[s];
            batch.CuSeqlens[s] = row;
            batch.PoolIndex[s] = row + Picked(ids.Slice(row, length));
            for (var t = 0; t < length; t++)
                batch.Positions[row + t] = t;
            row += length;
            longest = Math.Max(longest, length);
        }
        batch.CuSeqlens[lengths.Length] = row;
        (batch.TokenCount, batch.SequenceCount, batch.LongestSequence, batch.LabelCount) = (row, lengths.Length, longest, 0);
    }

    /// <summary>The token that stands for a sequence: the first, or the last one that is no padding.</summary>
    private int Picked(ReadOnlySpan<int> ids) =>
        _row == PickedRow.First ? 0 : Math.Max(0, _pad is { } pad ? ids.LastIndexOfAnyExcept(pad) : ids.Length - 1);

    private void Check(ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths, Span<float> results) =>
        Check(ids, types, lengths, results.Length);

    /// <summary>Checks what is given for so many sequences and room for so many results.</summary>
    public void Check(ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths, int room)
    {
        long tokens = 0;
        for (var s = 0; s < lengths.Length; s++)
        {
            if (lengths[s] < 1)
                throw new InputException($"sequence {s + 1} has {lengths[s]} tokens; leave empty texts out, or let the tokenizer add its special tokens");
            if (lengths[s] > MaxLength)
                throw new InputException($"sequence {s + 1} has {lengths[s]} tokens, at most {MaxLength} are taken; shorten it, or raise MaxLength where the model takes more");
            tokens += lengths[s];
        }
        if (tokens != ids.Length)
            throw new ArgumentException($"the lengths come to {tokens} tokens, {ids.Length} are given");
        if (!types.IsEmpty && types.Length != ids.Length)
            throw new ArgumentException($"{types.Length} segments are given for {ids.Length} tokens");
        if (room < (long)lengths.Length * Columns)
            throw new ArgumentException($"{lengths.Length} sequences give {(long)lengths.Length * Columns} numbers, there is room for {room}");
    }

    private Lane NewLane()
    {
        var serving = HoldNewest();
        // A kernel's scratch belongs to its device, so that each lane has one of its own; the first has the model's.
        var first = _options.Device is not null || Interlocked.Exchange(ref _homeTaken, 1) == 0;
        var device = first ? _home : new CpuDevice(_options.ThreadsOfSession);
        try
        {
            var plan = serving.Plan;
            Session session;
            lock (_weights)
                session = new Session(device, plan, _pretrained.Weights, serving.Set?.Parameters, _options.PackWeights);
            var batch = new PackedBatch(plan.Capacity.Tokens, plan.Capacity.Sequences);
            batch.KeyVisible.AsSpan().Fill(1);
            batch.Labels.AsSpan().Fill(InstructionPrompt.IgnoredLabel);
            batch.ClassLabels.AsSpan().Fill(InstructionPrompt.IgnoredLabel);
            batch.Targets.AsSpan().Fill(float.NaN);
            return new Lane(device, !first, session, batch, serving);
        }
        catch
        {
            if (first)
                _homeTaken = 0;
            else
                device.Dispose();
            throw;
        }
        finally
        {
            serving.LetGo();
        }
    }

    /// <summary>Waits for the calls that run, and frees everything.</summary>
    public void Dispose()
    {
        lock (_changing)
            _closed = true;
        if (!_lanes.Close())
            return;
        _serving.LetGo();
        _pretrained.Dispose();
        Close(_home, _options);
    }
}
