using NativeLora.Generation;
using NativeLora.Hosting;

namespace NativeLora.Sample.Web;

/// <summary>A decoder with its adapters; so many generations run or wait, and no more.</summary>
public sealed class GeneratorService : IDisposable
{
    private readonly Generator _generator;
    private readonly int _capacity;
    private int _taken;

    /// <summary>Loads the decoder and its adapters.</summary>
    /// <exception cref="InputException">Something is missing, not valid or does not fit.</exception>
    public GeneratorService(ServiceOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        _generator = Generator.Open(options.Generator ?? throw new InputException("no decoder is given; use --Generator FOLDER"), options.Inference(options.GeneratorAdapters));
        _capacity = options.GeneratorQueueLength;
    }

    /// <summary>Names of the adapters.</summary>
    public IReadOnlyList<string> Adapters => _generator.Adapters;

    /// <summary>Tokens of a prompt.</summary>
    public int[] Encode(string prompt) => _generator.Tokenizer.Encode(prompt);

    /// <summary>Takes a place; to be given back by disposing of it.</summary>
    /// <exception cref="QueueFullException">There is none.</exception>
    public IDisposable Enter()
    {
        if (Interlocked.Increment(ref _taken) is var taken && taken <= _capacity)
            return new Place(this);
        Interlocked.Decrement(ref _taken);
        throw new QueueFullException(taken - 1, _capacity);
    }

    /// <summary>Generates, and gives the pieces as they come.</summary>
    public IAsyncEnumerable<GeneratedPiece> StreamAsync(int[] prompt, GenerationOptions options, string? adapter, CancellationToken cancellation) =>
        _generator.StreamAsync(prompt, options, adapter, cancellation);

    /// <inheritdoc/>
    public void Dispose() => _generator.Dispose();

    private sealed class Place(GeneratorService service) : IDisposable
    {
        private GeneratorService? _service = service;

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _service, null) is { } left)
                Interlocked.Decrement(ref left._taken);
        }
    }
}
