using System.Diagnostics;
using System.Numerics.Tensors;
using System.Runtime.InteropServices;

namespace NativeLora.Hosting;

/// <summary>What a text was classified as, with all there is to know.</summary>
/// <param name="Best">The most probable class.</param>
/// <param name="Labels">Names of the classes.</param>
/// <param name="Probabilities">The probability of each; for regression the score.</param>
public sealed record Classification(Prediction Best, IReadOnlyList<string> Labels, IReadOnlyList<float> Probabilities);

/// <summary>
/// A bounded queue before a classifier, for hosts: as soon as a session is free it takes what waits, of whichever adapters, as one packed
/// batch. Under little load a text goes at once and alone; under much load batches grow by themselves. Safe to call from any number of threads.
/// The classifier stays the caller's, and is disposed of after the queue.
/// </summary>
public sealed class ClassifierQueue : IDisposable, IAsyncDisposable
{
    private const string Operation = "classify";
    private readonly Classifier _classifier;
    private readonly HostedModel _model;
    private readonly ClassifierQueueOptions _options;
    private readonly int _batchSequences, _batchTokens;
    private readonly Lock _lock = new();
    private readonly LinkedList<Request> _waiting = new();
    private readonly Stack<Batch> _batches = new();
    private readonly SemaphoreSlim _arrived = new(0, 1);
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _idle = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task _dispatcher;
    private int _running;
    private bool _closed;

    /// <summary>Makes a queue before a classifier.</summary>
    /// <param name="classifier">The classifier.</param>
    /// <param name="options">Limits.</param>
    /// <exception cref="InputException">A limit makes no sense.</exception>
    public ClassifierQueue(Classifier classifier, ClassifierQueueOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(classifier);
        _options = options ?? new ClassifierQueueOptions();
        _options.Validate();
        (_classifier, _model) = (classifier, classifier.Model);
        _batchSequences = Math.Min(_options.BatchSequences, _model.BatchSize);
        _batchTokens = Math.Min(_options.BatchTokens ?? _model.BatchTokens, _model.BatchTokens);
        _dispatcher = Task.Run(DispatchAsync);
    }

    /// <summary>Texts that wait.</summary>
    public int Depth
    {
        get
        {
            lock (_lock)
                return _waiting.Count;
        }
    }

    /// <summary>Texts that may wait.</summary>
    public int Capacity => _options.Capacity;

    /// <summary>Classifies a text; one that is longer than <see cref="Classifier.MaxLength"/> is cut.</summary>
    /// <param name="text">The text.</param>
    /// <param name="pair">The second text of a pair; null for none.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Takes the text out of the queue; once a batch has taken it, its result is no longer waited for.</param>
    /// <exception cref="QueueFullException">As many texts wait as may; nothing was taken.</exception>
    /// <exception cref="InputException">There is no such adapter, or no more, or the text has no tokens.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    /// <exception cref="ObjectDisposedException">The queue takes nothing more.</exception>
    public async Task<Classification> PredictAsync(string text, string? pair = null, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(text);
        return (await PredictAsync([(text, pair)], adapter, cancellation).ConfigureAwait(false))[0];
    }

    /// <summary>Classifies several texts or pairs: all of them are taken, or none where they do not find room together.</summary>
    /// <param name="texts">The texts, each with the second of its pair or null.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Takes them out of the queue; once a batch has taken one, its result is no longer waited for.</param>
    /// <returns>One for each text, in their order.</returns>
    /// <inheritdoc cref="PredictAsync(string, string?, string?, CancellationToken)" path="/exception"/>
    public Task<IReadOnlyList<Classification>> PredictAsync(IReadOnlyList<(string Text, string? Pair)> texts, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(texts);
        return RunAsync(named =>
        {
            var requests = new Request[texts.Count];
            for (var i = 0; i < requests.Length; i++)
            {
                var tokens = _classifier.Tokenizer.Encode(texts[i].Text, texts[i].Pair, _classifier.MaxLength);
                requests[i] = new Request(this, tokens.Ids, tokens.TypeIds, named);
            }
            return requests;
        }, adapter, cancellation);
    }

    /// <summary>Classifies token ids.</summary>
    /// <param name="tokenIds">Ids of one sequence, special tokens included, which must not change meanwhile: [tokens].</param>
    /// <param name="typeIds">Segment of each token: [tokens], or empty for all 0.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Takes the sequence out of the queue; once a batch has taken it, its result is no longer waited for.</param>
    /// <exception cref="ArgumentException">The lengths do not fit.</exception>
    /// <inheritdoc cref="PredictAsync(string, string?, string?, CancellationToken)" path="/exception"/>
    public async Task<Classification> PredictAsync(ReadOnlyMemory<int> tokenIds, ReadOnlyMemory<int> typeIds = default, string? adapter = null, CancellationToken cancellation = default) =>
        (await RunAsync(named => [new Request(this, tokenIds, typeIds, named)], adapter, cancellation).ConfigureAwait(false))[0];

    private async Task<IReadOnlyList<Classification>> RunAsync(Func<HostedAdapter, Request[]> make, string? adapter, CancellationToken cancellation)
    {
        var call = Telemetry.Begin(Operation);
        Request[] requests = [];
        try
        {
            cancellation.ThrowIfCancellationRequested();
            requests = make(_model.AdapterOf(adapter));
            foreach (var request in requests)
            {
                request.Check(_model);
                call.Tokens += request.Ids.Length;
            }
            call.Sequences = requests.Length;
            Enqueue(requests);
            var results = new Classification[requests.Length];
            using (cancellation.UnsafeRegister(static (state, token) => Array.ForEach((Request[])state!, r => r.Cancel(token)), requests))
                for (var i = 0; i < results.Length; i++)
                    results[i] = await requests[i].Task.ConfigureAwait(false);
            call.End();
            return results;
        }
        catch (Exception error)
        {
            // Where one of several fails the others are not wanted any more.
            foreach (var request in requests)
                request.Cancel(CancellationToken.None);
            call.End(error);
            throw;
        }
    }

    private void Enqueue(Request[] requests)
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_closed, this);
            if (requests.Length > _options.Capacity)
                throw new InputException($"{requests.Length} texts are given at once, the queue holds {_options.Capacity}; give fewer");
            if (_waiting.Count + requests.Length > _options.Capacity)
                throw new QueueFullException(_waiting.Count, _options.Capacity);
            foreach (var request in requests)
                _waiting.AddLast(request.Place);
            Telemetry.Waiting(requests.Length);
            if (_arrived.CurrentCount == 0 && requests.Length > 0)
                _arrived.Release();
        }
    }

    private async Task DispatchAsync()
    {
        try
        {
            while (true)
            {
                await _arrived.WaitAsync(_stop.Token).ConfigureAwait(false);
                while (Depth is > 0 and var depth)
                {
                    if (_options.Delay > TimeSpan.Zero && depth < _batchSequences)
                        await Task.Delay(_options.Delay, _stop.Token).ConfigureAwait(false);
                    Lane lane;
                    try
                    {
                        lane = await _model.RentAsync(_stop.Token).ConfigureAwait(false);
                    }
                    catch (Exception error) when (error is not OperationCanceledException)
                    {
                        // The classifier is gone, or there is no memory for its session.
                        Refuse(error);
                        continue;
                    }
                    if (Gather(lane) is { } batch)
                        _ = Task.Run(() => Run(lane, batch));
                    else
                        _model.Return(lane);
                }
            }
        }
        catch (OperationCanceledException)
        {
            // Closed.
        }
    }

    /// <summary>Takes from the head of the queue what makes a batch; null where nothing is there any more.</summary>
    private Batch? Gather(Lane lane)
    {
        lock (_lock)
        {
            var batch = _batches.Count > 0 ? _batches.Pop() : new Batch();
            while (batch.Requests.Count < _batchSequences && _waiting.First is { Value: var request })
            {
                if (!lane.Serving.TryNumber(request.Adapter, out var number))
                {
                    Leave(request);
                    request.Fail(new InputException($"adapter \"{request.Adapter.Name}\" has been removed; name one that is there"));
                    continue;
                }
                if (batch.Requests.Count > 0 && batch.Tokens + request.Ids.Length > _batchTokens)
                    break;
                Leave(request);
                request.Number = number;
                batch.Requests.Add(request);
                batch.Tokens += request.Ids.Length;
            }
            if (batch.Requests.Count == 0)
            {
                _batches.Push(batch);
                CheckIdle();
                return null;
            }
            _running++;
            return batch;
        }
    }

    private void Run(Lane lane, Batch batch)
    {
        var requests = CollectionsMarshal.AsSpan(batch.Requests);
        Exception? failure = null;
        try
        {
            foreach (var request in requests)
                Telemetry.Waited(Stopwatch.GetElapsedTime(request.Since));
            // Neighbours with the same adapter share its products.
            requests.Sort(static (a, b) => a.Number.CompareTo(b.Number));
            Telemetry.Batch(requests.Length, batch.Tokens, batch.Fill(_model.Columns));
            _model.Run(lane, batch.Ids.AsSpan(0, batch.Tokens), batch.Types.AsSpan(0, batch.Tokens), batch.Lengths.AsSpan(0, requests.Length),
                batch.Adapters.AsSpan(0, requests.Length), batch.Results, CancellationToken.None);
        }
        catch (InputException) when (requests.Length > 1)
        {
            // One of them is bad: each is run alone, so that it harms no other.
            RunApart(lane, batch);
        }
        catch (Exception error)
        {
            failure = error;
        }
        finally
        {
            _model.Return(lane);
        }
        for (var i = 0; i < requests.Length; i++)
            if (failure is not null)
                requests[i].Fail(failure);
            else
                requests[i].Succeed(batch.Results.AsSpan(i * _model.Columns, _model.Columns));
        lock (_lock)
        {
            batch.Clear();
            _batches.Push(batch);
            _running--;
            CheckIdle();
        }
    }

    private void RunApart(Lane lane, Batch batch)
    {
        for (int i = 0, token = 0; i < batch.Requests.Count; i++)
        {
            var length = batch.Lengths[i];
            try
            {
                _model.Run(lane, batch.Ids.AsSpan(token, length), batch.Types.AsSpan(token, length), batch.Lengths.AsSpan(i, 1), batch.Adapters.AsSpan(i, 1),
                    batch.Results.AsSpan(i * _model.Columns, _model.Columns), CancellationToken.None);
            }
            catch (Exception error)
            {
                batch.Requests[i].Fail(error);
            }
            token += length;
        }
    }

    /// <summary>Takes a request out, if it still waits. To be called under the lock.</summary>
    private void Leave(Request request)
    {
        if (request.Place.List is null)
            return;
        _waiting.Remove(request.Place);
        Telemetry.Waiting(-1);
    }

    private void CheckIdle()
    {
        if (_closed && _running == 0 && _waiting.Count == 0)
            _idle.TrySetResult();
    }

    private void Refuse(Exception error)
    {
        Request[] refused;
        lock (_lock)
        {
            refused = [.. _waiting];
            foreach (var request in refused)
                Leave(request);
            CheckIdle();
        }
        foreach (var request in refused)
            request.Fail(error);
    }

    /// <summary>Takes nothing more, and ends when what waits and runs has its results.</summary>
    /// <param name="cancellation">Ends the wait; the queue stays closed and goes on working.</param>
    public Task DrainAsync(CancellationToken cancellation = default)
    {
        lock (_lock)
        {
            _closed = true;
            CheckIdle();
        }
        return _idle.Task.WaitAsync(cancellation);
    }

    /// <summary>Takes nothing more, refuses what waits, and ends when the batches that run have ended.</summary>
    public async ValueTask DisposeAsync()
    {
        lock (_lock)
            _closed = true;
        Refuse(new ObjectDisposedException(nameof(ClassifierQueue)));
        await _idle.Task.ConfigureAwait(false);
        await _stop.CancelAsync().ConfigureAwait(false);
        await _dispatcher.ConfigureAwait(false);
    }

    /// <inheritdoc cref="DisposeAsync"/>
    public void Dispose() => DisposeAsync().AsTask().GetAwaiter().GetResult();

    /// <summary>A sequence that waits for its result.</summary>
    private sealed class Request
    {
        private readonly ClassifierQueue _queue;
        private readonly TaskCompletionSource<Classification> _result = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Request(ClassifierQueue queue, ReadOnlyMemory<int> ids, ReadOnlyMemory<int> types, HostedAdapter adapter)
        {
            (_queue, Ids, Types, Adapter) = (queue, ids, types, adapter);
            Place = new LinkedListNode<Request>(this);
        }

        public ReadOnlyMemory<int> Ids { get; }

        public ReadOnlyMemory<int> Types { get; }

        public HostedAdapter Adapter { get; }

        public LinkedListNode<Request> Place { get; }

        public long Since { get; } = Stopwatch.GetTimestamp();

        /// <summary>Number of the adapter in the batch that takes the request.</summary>
        public int Number { get; set; }

        public Task<Classification> Task => _result.Task;

        public void Check(HostedModel model)
        {
            var length = Ids.Length;
            model.Check(Ids.Span, Types.Span, new ReadOnlySpan<int>(in length), model.Columns);
        }

        public void Succeed(Span<float> row)
        {
            if (_result.Task.IsCompleted)
                return;
            Classifier.Normalize(row);
            var best = TensorPrimitives.IndexOfMax<float>(row);
            _result.TrySetResult(new Classification(new Prediction(best, Adapter.Labels[best], row[best]), Adapter.Labels, row.ToArray()));
        }

        public void Fail(Exception error) => _result.TrySetException(error);

        public void Cancel(CancellationToken cancellation)
        {
            lock (_queue._lock)
            {
                _queue.Leave(this);
                _queue.CheckIdle();
            }
            _result.TrySetCanceled(cancellation);
        }
    }

    /// <summary>Requests that run together, and their buffers, which are used again.</summary>
    private sealed class Batch
    {
        public List<Request> Requests { get; } = [];

        public int Tokens { get; set; }

        public int[] Ids { get; private set; } = [];

        public int[] Types { get; private set; } = [];

        public int[] Lengths { get; private set; } = [];

        public HostedAdapter[] Adapters { get; private set; } = [];

        public float[] Results { get; private set; } = [];

        /// <summary>Puts the sequences one after another; gives the number of different adapters.</summary>
        public int Fill(int columns)
        {
            if (Ids.Length < Tokens)
                (Ids, Types) = (new int[Tokens], new int[Tokens]);
            if (Lengths.Length < Requests.Count)
                (Lengths, Adapters, Results) = (new int[Requests.Count], new HostedAdapter[Requests.Count], new float[Requests.Count * columns]);
            int token = 0, adapters = 0;
            for (var i = 0; i < Requests.Count; i++)
            {
                var request = Requests[i];
                request.Ids.Span.CopyTo(Ids.AsSpan(token));
                var types = Types.AsSpan(token, request.Ids.Length);
                if (request.Types.IsEmpty)
                    types.Clear();
                else
                    request.Types.Span.CopyTo(types);
                (Lengths[i], Adapters[i]) = (request.Ids.Length, request.Adapter);
                adapters += i == 0 || Adapters[i - 1] != request.Adapter ? 1 : 0;
                token += request.Ids.Length;
            }
            return adapters;
        }

        public void Clear()
        {
            Requests.Clear();
            Array.Clear(Adapters);
            Tokens = 0;
        }
    }
}
