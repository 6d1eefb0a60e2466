using NativeLora.Hosting;

namespace NativeLora.Sample.Web;

/// <summary>What classifies for the service; an interface so that the load test can put another engine behind the same service.</summary>
public interface IClassifierService : IAsyncDisposable
{
    /// <summary>Names of the adapters.</summary>
    IReadOnlyList<string> Adapters { get; }

    /// <summary>Texts that wait.</summary>
    int Waiting { get; }

    /// <summary>Whether there is an adapter of that name.</summary>
    bool HasAdapter(string name);

    /// <summary>Bytes of an adapter's tensors.</summary>
    long AdapterBytes(string name);

    /// <summary>Classifies texts, or pairs of texts.</summary>
    Task<IReadOnlyList<Classification>> ClassifyAsync(IReadOnlyList<(string Text, string? Pair)> texts, string? adapter, CancellationToken cancellation);
}

/// <summary>A model with all its adapters, behind a queue that packs what waits into batches.</summary>
public sealed class ClassifierService : IClassifierService
{
    private readonly Classifier _classifier;
    private readonly ClassifierQueue _queue;

    /// <summary>Loads the model and its adapters.</summary>
    /// <exception cref="InputException">Something is missing, not valid or does not fit.</exception>
    public ClassifierService(ServiceOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        _classifier = Classifier.Open(options.Model ?? throw new InputException("no model is given; use --Model FOLDER"), options.Inference(options.Adapters));
        _queue = new ClassifierQueue(_classifier, new ClassifierQueueOptions { Capacity = options.QueueLength, BatchSequences = options.BatchSequences });
        // The tokenizer is read, and code compiled, before the first request comes.
        if (_classifier.Adapters.Count > 0 || _classifier.HasAdapter(AdapterSource.None))
            _classifier.Predict("ready");
    }

    /// <summary>The classifier itself.</summary>
    public Classifier Classifier => _classifier;

    /// <inheritdoc/>
    public IReadOnlyList<string> Adapters => _classifier.Adapters;

    /// <inheritdoc/>
    public int Waiting => _queue.Depth;

    /// <inheritdoc/>
    public bool HasAdapter(string name) => _classifier.HasAdapter(name);

    /// <inheritdoc/>
    public long AdapterBytes(string name) => _classifier.AdapterBytes(name);

    /// <inheritdoc/>
    public Task<IReadOnlyList<Classification>> ClassifyAsync(IReadOnlyList<(string Text, string? Pair)> texts, string? adapter, CancellationToken cancellation) =>
        _queue.PredictAsync(texts, adapter, cancellation);

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _queue.DisposeAsync().ConfigureAwait(false);
        _classifier.Dispose();
    }
}
