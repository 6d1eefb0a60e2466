using Microsoft.Extensions.AI;
using NativeLora.Hosting;

namespace NativeLora.Extensions;

/// <summary>
/// <see cref="IEmbeddingGenerator{TInput, TEmbedding}"/> over an <see cref="Embedder"/>. <see cref="EmbeddingGenerationOptions.ModelId"/>
/// may name one of its adapters.
/// </summary>
public sealed class NativeLoraEmbeddingGenerator : IEmbeddingGenerator<string, Embedding<float>>
{
    private readonly Embedder _embedder;
    private readonly bool _owns;
    private readonly EmbeddingGeneratorMetadata _metadata;

    /// <summary>Wraps an embedder.</summary>
    /// <param name="embedder">The embedder.</param>
    /// <param name="modelId">What the model is called to who asks; null for nothing.</param>
    /// <param name="ownsEmbedder">Whether the embedder is disposed of with this.</param>
    public NativeLoraEmbeddingGenerator(Embedder embedder, string? modelId = null, bool ownsEmbedder = false)
    {
        ArgumentNullException.ThrowIfNull(embedder);
        (_embedder, _owns) = (embedder, ownsEmbedder);
        _metadata = new EmbeddingGeneratorMetadata("nativelora", null, modelId, embedder.Dimensions);
    }

    /// <summary>Embeds texts on a thread of the pool, as many at a time as fit.</summary>
    /// <param name="values">The texts; those that are too long are cut.</param>
    /// <param name="options">The adapter; the number of dimensions is the model's and may only be repeated.</param>
    /// <param name="cancellationToken">Ends the wait for a session, and stops between batches.</param>
    /// <returns>An embedding of <see cref="Embedder.Dimensions"/> numbers for each text.</returns>
    /// <exception cref="InputException">Other dimensions are asked for, or a text has no tokens.</exception>
    public async Task<GeneratedEmbeddings<Embedding<float>>> GenerateAsync(
        IEnumerable<string> values, EmbeddingGenerationOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(values);
        if (options?.Dimensions is { } wanted && wanted != _embedder.Dimensions)
            throw new InputException($"embeddings of {wanted} dimensions are asked for, the model's have {_embedder.Dimensions}; leave Dimensions out");
        string[] texts = [.. values];
        var adapter = _embedder.Adapters.Contains(options?.ModelId) ? options!.ModelId : null;
        var (numbers, tokens) = await Task.Run(() => Embed(texts, adapter, cancellationToken), cancellationToken).ConfigureAwait(false);
        var embeddings = new GeneratedEmbeddings<Embedding<float>>(texts.Length);
        for (var i = 0; i < texts.Length; i++)
            embeddings.Add(new Embedding<float>(numbers.AsMemory(i * _embedder.Dimensions, _embedder.Dimensions)) { ModelId = _metadata.DefaultModelId, CreatedAt = DateTimeOffset.UtcNow });
        embeddings.Usage = new UsageDetails { InputTokenCount = tokens, TotalTokenCount = tokens };
        return embeddings;
    }

    private (float[] Numbers, int Tokens) Embed(string[] texts, string? adapter, CancellationToken cancellation)
    {
        var lengths = new int[texts.Length];
        var ids = new List<int>();
        for (var i = 0; i < texts.Length; i++)
        {
            var tokens = _embedder.Tokenizer.Encode(texts[i], null, _embedder.MaxLength).Ids;
            lengths[i] = tokens.Length;
            ids.AddRange(tokens);
        }
        var numbers = new float[texts.Length * _embedder.Dimensions];
        _embedder.EmbedBatch([.. ids], lengths, numbers, adapter, cancellation);
        return (numbers, ids.Count);
    }

    /// <inheritdoc/>
    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(EmbeddingGeneratorMetadata) ? _metadata
            : serviceType.IsInstanceOfType(_embedder) ? _embedder
            : serviceType.IsInstanceOfType(this) ? this : null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_owns)
            _embedder.Dispose();
    }
}
