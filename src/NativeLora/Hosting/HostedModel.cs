using NativeLora.Adapters;
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
    private readonly AdapterSet? _adapters;
    private readonly Lazy<ITokenizer> _tokenizer;
    private readonly string[] _names;
    private readonly bool[] _usable;
    private readonly MemoryPlan _plan;
    private readonly Tensor _output;
    private readonly SessionPool<Lane> _lanes;
    private readonly PickedRow _row;
    private int _homeTaken;
    private readonly int? _pad;

    /// <param name="folder">The model.</param>
    /// <param name="options">Settings; the device is of the model's own where they name none.</param>
    /// <param name="opened">The model, opened on the device that is given with it.</param>
    /// <param name="head">What stands on top.</param>
    /// <param name="row">Which row the graph picks of a sequence.</param>
    /// <param name="output">Gives what is read of the built model: a row for each sequence.</param>
    /// <param name="owner">Who is disposed of when this is.</param>
    public HostedModel(string folder, InferenceOptions options, (Device Home, PretrainedModel Model) opened, ModelHead head, PickedRow row, Func<Graph, ModelOutputs, Tensor> output, string owner)
    {
        (_options, _row) = (options, row);
        (_home, _pretrained) = opened;
        var model = _pretrained.Model;
        _tokenizer = new(() => TokenizerLoader.FromFolder(Directory.Exists(folder) ? folder : Path.GetDirectoryName(Path.GetFullPath(folder))!));
        if (model.Pictures is not null)
            throw new InputException($"{folder}: {model.Config.ModelType} reads pictures and writes text; take a model of text alone");
        MaxLength = Math.Min(options.MaxLength ?? 512, model.MaxPositions);
        _pad = !model.IsEncoder && model.TextConfig.Has("pad_token_id") ? model.TextConfig.GetInt("pad_token_id") : null;
        _names = [.. options.Adapters.Select(a => a.Name)];
        try
        {
            var loaded = Load(head);
            if (_names.Distinct(StringComparer.Ordinal).Count() < _names.Length)
                throw new InputException("two adapters have the same name; give each one of its own");
            if (loaded.Count > 0)
                _adapters = new AdapterSet(_pretrained, head, [.. loaded.Select((l, i) => new NamedAdapter(_names[i], l.Config, l.Weights))]);
            var build = new BuildOptions { Head = head, MaxLength = MaxLength };
            var (graph, outputs) = _adapters?.Build(build) ?? Plain(build);
            _output = graph.Keep(output(graph, outputs));
            _pretrained.Weights.Check(graph);
            _usable = [Missing(graph, null) is null, .. loaded.Select(l => Missing(graph, l) is null)];
            if (Missing(graph, loaded.Count > 0 ? loaded[0] : null) is { } lost)
                throw new InputException($"{folder}: there is no {lost} in the model{(loaded.Count > 0 ? $" or the adapter \"{_names[0]}\"" : "")}; give an adapter that was trained with one");
            _plan = MemoryPlan.For(graph, new BatchSize(Math.Max(MaxLength, options.BatchTokens), BatchSequences, 0));
            _lanes = new SessionPool<Lane>(options.Sessions, owner, NewLane);
            // The first is made at once, so that files that cannot be read are found now.
            _lanes.Return(_lanes.Rent(CancellationToken.None));
        }
        catch
        {
            _adapters?.Dispose();
            throw;
        }

        (Graph, ModelOutputs) Plain(BuildOptions options)
        {
            var graph = _pretrained.NewGraph(Trainables.None);
            return (graph, model.Build(graph, options with { Head = head }));
        }

        // A weight made up at random that the adapter has not in its own place.
        string? Missing(Graph graph, LoadedAdapter? adapter) => graph.Weights
            .Where(w => _pretrained.Weights.FreshlyInitialised.Contains(w.Name))
            .Select(w => w.Name[..Math.Max(0, w.Name.LastIndexOf('.'))])
            .FirstOrDefault(m => adapter is null || !adapter.Targets.SavedLeaves.Any(l => l.Name == m) || !adapter.Weights.Tensors.ContainsKey($"{m}.weight"));
    }

    public Model Model => _pretrained.Model;

    public ITokenizer Tokenizer => _tokenizer.Value;

    public IReadOnlyList<string> Adapters => _names;

    public int MaxLength { get; }

    /// <summary>Numbers of each result.</summary>
    public int Columns => _output.Shape.Columns;

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

    /// <summary>Number of the adapter that a call means.</summary>
    /// <exception cref="InputException">There is none of that name, or it has no head.</exception>
    public int AdapterOf(string? name)
    {
        var number = name is null ? (_names.Length > 0 ? 0 : AdapterBank.None) : name.Length == 0 ? AdapterBank.None : Array.IndexOf(_names, name);
        if (number < 0 && !string.IsNullOrEmpty(name))
            throw new InputException($"there is no adapter \"{name}\" here; there are {(_names.Length == 0 ? "none" : string.Join(", ", _names))}");
        return _usable[number + 1] ? number
            : throw new InputException(number < 0 ? "the model without an adapter has no trained head; name an adapter" : $"adapter \"{_names[number]}\" has no trained head, nor has the model; take one that was saved with its head");
    }

    /// <summary>Runs sequences that lie one after another, as many at a time as fit.</summary>
    /// <param name="ids">Token ids of all sequences.</param>
    /// <param name="types">Segment of each token, or empty.</param>
    /// <param name="lengths">Tokens of each sequence.</param>
    /// <param name="adapter">Number of the adapter.</param>
    /// <param name="results">[sequences, columns].</param>
    /// <param name="call">What is told of the call.</param>
    /// <param name="cancellation">Stops the wait for a lane, and between two batches.</param>
    public void Run(ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths, int adapter, Span<float> results, ref Telemetry.Call call, CancellationToken cancellation)
    {
        Check(ids, types, lengths, results);
        (call.Sequences, call.Tokens) = (lengths.Length, ids.Length);
        if (lengths.Length == 0)
            return;
        var lane = _lanes.Rent(cancellation);
        try
        {
            Run(lane, ids, types, lengths, adapter, results, cancellation);
        }
        finally
        {
            _lanes.Return(lane);
        }
    }

    /// <summary>Waits for a lane without holding a thread, then runs a text on a thread of the pool.</summary>
    public async Task<float[]> RunAsync(string text, int adapter, string operation, CancellationToken cancellation)
    {
        var call = Telemetry.Begin(operation);
        try
        {
            var tokens = Tokenizer.Encode(text, null, MaxLength);
            int[] lengths = [tokens.Ids.Length];
            var results = new float[Columns];
            Check(tokens.Ids, tokens.TypeIds, lengths, results);
            (call.Sequences, call.Tokens) = (1, tokens.Ids.Length);
            var lane = await _lanes.RentAsync(cancellation).ConfigureAwait(false);
            try
            {
                await Task.Run(() => Run(lane, tokens.Ids, tokens.TypeIds, lengths, adapter, results, cancellation), cancellation).ConfigureAwait(false);
            }
            finally
            {
                _lanes.Return(lane);
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

    private void Run(Lane lane, ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths, int adapter, Span<float> results, CancellationToken cancellation)
    {
        var batch = lane.Batch;
        for (int from = 0, to, token = 0; from < lengths.Length; from = to)
        {
            cancellation.ThrowIfCancellationRequested();
            var tokens = 0;
            for (to = from; to < lengths.Length && to - from < batch.SequenceCapacity && tokens + lengths[to] <= batch.TokenCapacity; to++)
                tokens += lengths[to];
            Fill(batch, ids.Slice(token, tokens), types.IsEmpty ? types : types.Slice(token, tokens), lengths[from..to]);
            if (_adapters is null)
            {
                lane.Session.Load(batch);
            }
            else
            {
                var rows = lane.Adapters.AsSpan(0, to - from);
                rows.Fill(adapter);
                lane.Session.Load(batch, rows);
            }
            lane.Session.Run();
            lane.Session.Read(_output, results.Slice(from * Columns, (to - from) * Columns));
            token += tokens;
        }
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

    private void Check(ReadOnlySpan<int> ids, ReadOnlySpan<int> types, ReadOnlySpan<int> lengths, Span<float> results)
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
        if (results.Length < (long)lengths.Length * Columns)
            throw new ArgumentException($"{lengths.Length} sequences give {(long)lengths.Length * Columns} numbers, there is room for {results.Length}");
    }

    private List<LoadedAdapter> Load(ModelHead head)
    {
        if (_options.Adapters.Count == 0)
            return [];
        var modules = _pretrained.Modules(head);
        return [.. _options.Adapters.Select(a => AdapterFile.Load(a.Folder, modules))];
    }

    private Lane NewLane()
    {
        // A kernel's scratch belongs to its device, so that each lane has one of its own; the first has the model's.
        var first = _options.Device is not null || Interlocked.Exchange(ref _homeTaken, 1) == 0;
        var device = first ? _home : new CpuDevice(_options.ThreadsOfSession);
        try
        {
            var session = new Session(device, _plan, _pretrained.Weights, _adapters?.Parameters, _options.PackWeights);
            var batch = new PackedBatch(_plan.Capacity.Tokens, _plan.Capacity.Sequences);
            batch.KeyVisible.AsSpan().Fill(1);
            batch.Labels.AsSpan().Fill(InstructionPrompt.IgnoredLabel);
            batch.ClassLabels.AsSpan().Fill(InstructionPrompt.IgnoredLabel);
            batch.Targets.AsSpan().Fill(float.NaN);
            return new Lane(device, !first, session, batch);
        }
        catch
        {
            if (first)
                _homeTaken = 0;
            else
                device.Dispose();
            throw;
        }
    }

    /// <summary>Waits for the calls that run, and frees everything.</summary>
    public void Dispose()
    {
        _lanes.Dispose();
        _adapters?.Dispose();
        _pretrained.Dispose();
        Close(_home, _options);
    }
}
