using System.Numerics.Tensors;
using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Models;

namespace NativeLora.Hosting;

/// <summary>What of the last hidden state stands for a text.</summary>
public enum Pooling
{
    /// <summary>The mean over all tokens.</summary>
    Mean,

    /// <summary>The first token, which encoders call CLS.</summary>
    Cls,

    /// <summary>The last token that is no padding.</summary>
    LastToken,
}

/// <summary>How embeddings are taken.</summary>
public sealed record EmbedderOptions
{
    /// <summary>How the model is loaded.</summary>
    public InferenceOptions Inference { get; init; } = new();

    /// <summary>What stands for a text; null: what <c>1_Pooling/config.json</c> of sentence-transformers says, else the mean of an encoder and the last token of a decoder.</summary>
    public Pooling? Pooling { get; init; }

    /// <summary>Whether embeddings have length 1; null: whether <c>modules.json</c> of sentence-transformers names a step that does it.</summary>
    public bool? Normalize { get; init; }
}

/// <summary>
/// Embeddings of texts: a pooled row of a model's last hidden state. Safe to call from any number of threads: at most
/// <see cref="InferenceOptions.Sessions"/> calls run at once, the others wait for their turn or are cancelled.
/// </summary>
public sealed class Embedder : IDisposable
{
    private const string Operation = "embed";
    private readonly HostedModel _model;

    private Embedder(HostedModel model, Pooling pooling, bool normalizes) => (_model, Pooling, IsNormalized) = (model, pooling, normalizes);

    /// <summary>Loads a model.</summary>
    /// <param name="folder">The model: a Hugging Face or sentence-transformers folder, or a <c>.safetensors</c> or <c>.gguf</c> file.</param>
    /// <param name="options">Pooling, adapters, threads, limits.</param>
    /// <exception cref="InputException">Something is missing, not valid or does not fit; the message is one line that says what to do.</exception>
    /// <exception cref="RunException">There is not enough memory.</exception>
    public static Embedder Open(string folder, EmbedderOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        options ??= new EmbedderOptions();
        var inference = options.Inference;
        return Opening.Told(nameof(Embedder), folder, inference.Adapters.Count, inference.Observer, () => Load(folder, options, inference));
    }

    private static Embedder Load(string folder, EmbedderOptions options, InferenceOptions inference)
    {
        inference.Validate();
        var saved = SentenceFiles.Read(folder);
        if (inference.MaxLength is null && saved.MaxLength is { } length)
            inference = inference with { MaxLength = length };
        var opened = HostedModel.Open(folder, inference, null);
        try
        {
            var pooling = options.Pooling ?? saved.Pooling ?? (opened.Model.Model.IsEncoder ? Pooling.Mean : Pooling.LastToken);
            var model = new HostedModel(folder, inference, opened, ModelHead.None, pooling == Pooling.Cls ? PickedRow.First : PickedRow.Last,
                (graph, outputs) => Pool(graph, outputs.HiddenStates[^1], pooling), nameof(Embedder));
            return new Embedder(model, pooling, options.Normalize ?? saved.Normalizes);
        }
        catch
        {
            HostedModel.Close(opened, inference);
            throw;
        }

        static Graphs.Tensor Pool(Graph graph, Graphs.Tensor state, Pooling pooling) =>
            pooling == Pooling.Mean ? graph.MeanPool("embedding", state) : graph.Gather("embedding", state);
    }

    /// <summary>Numbers of an embedding: the model's width.</summary>
    public int Dimensions => _model.Columns;

    /// <summary>What stands for a text.</summary>
    public Pooling Pooling { get; }

    /// <summary>Whether embeddings have length 1.</summary>
    public bool IsNormalized { get; }

    /// <summary>Names of the adapters.</summary>
    public IReadOnlyList<string> Adapters => _model.Adapters;

    /// <summary>Tokens of a sequence, at most.</summary>
    public int MaxLength => _model.MaxLength;

    /// <summary>The model's tokenizer.</summary>
    /// <exception cref="InputException">The model's folder holds none.</exception>
    public ITokenizer Tokenizer => _model.Tokenizer;

    /// <summary>Embeds a text; one that is longer than <see cref="MaxLength"/> is cut.</summary>
    /// <param name="text">The text.</param>
    /// <param name="embedding">Gets the embedding: [<see cref="Dimensions"/>].</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session.</param>
    /// <exception cref="InputException">There is no such adapter, or the text has no tokens.</exception>
    /// <exception cref="ArgumentException">The span is too short.</exception>
    /// <exception cref="OperationCanceledException">The wait was cancelled.</exception>
    /// <exception cref="ObjectDisposedException">The embedder was disposed of.</exception>
    public void Embed(string text, Span<float> embedding, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(text);
        var tokens = Tokenizer.Encode(text, null, MaxLength);
        Embed(tokens.Ids, embedding, adapter, cancellation);
    }

    /// <summary>Embeds token ids. Allocates nothing on the managed heap once the session that it runs on is made.</summary>
    /// <param name="tokenIds">Ids of one sequence, special tokens included: [tokens].</param>
    /// <param name="embedding">Gets the embedding: [<see cref="Dimensions"/>].</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session.</param>
    /// <inheritdoc cref="Embed(string, Span{float}, string?, CancellationToken)" path="/exception"/>
    public void Embed(ReadOnlySpan<int> tokenIds, Span<float> embedding, string? adapter = null, CancellationToken cancellation = default)
    {
        var length = tokenIds.Length;
        EmbedBatch(tokenIds, new ReadOnlySpan<int>(in length), embedding, adapter, cancellation);
    }

    /// <summary>Embeds several sequences of token ids, as many at a time as fit. Allocates nothing, like the call for one.</summary>
    /// <param name="tokenIds">Ids of all sequences, one after another: [tokens].</param>
    /// <param name="lengths">Tokens of each: [sequences].</param>
    /// <param name="embeddings">Gets the embeddings, row by row: [sequences, <see cref="Dimensions"/>].</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between batches.</param>
    /// <inheritdoc cref="Embed(string, Span{float}, string?, CancellationToken)" path="/exception"/>
    public void EmbedBatch(ReadOnlySpan<int> tokenIds, ReadOnlySpan<int> lengths, Span<float> embeddings, string? adapter = null, CancellationToken cancellation = default)
    {
        var call = Telemetry.Begin(Operation);
        try
        {
            _model.Run(tokenIds, default, lengths, _model.AdapterOf(adapter), embeddings, ref call, cancellation);
            for (var s = 0; s < lengths.Length; s++)
                Normalize(embeddings.Slice(s * Dimensions, Dimensions));
        }
        catch (Exception error)
        {
            call.End(error);
            throw;
        }
        call.End();
    }

    /// <summary>Embeds several texts, as many at a time as fit.</summary>
    /// <param name="texts">The texts.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between batches.</param>
    /// <returns>[texts, <see cref="Dimensions"/>], row by row.</returns>
    /// <inheritdoc cref="Embed(string, Span{float}, string?, CancellationToken)" path="/exception"/>
    public float[] Embed(IReadOnlyList<string> texts, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(texts);
        var (ids, _, lengths) = _model.Encode(texts);
        var values = new float[texts.Count * Dimensions];
        EmbedBatch(ids, lengths, values, adapter, cancellation);
        return values;
    }

    /// <summary>Embeds a text on a thread of the pool; no thread is held while it waits for a session.</summary>
    /// <param name="text">The text.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session.</param>
    /// <inheritdoc cref="Embed(string, Span{float}, string?, CancellationToken)" path="/exception"/>
    public async Task<float[]> EmbedAsync(string text, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(text);
        var values = await _model.RunAsync(text, _model.AdapterOf(adapter), Operation, cancellation).ConfigureAwait(false);
        Normalize(values);
        return values;
    }

    /// <summary>Loads an adapter beside those that there are. Calls go on meanwhile.</summary>
    /// <param name="adapter">Its name and folder.</param>
    /// <exception cref="InputException">It does not fit, or there is one of its name.</exception>
    /// <exception cref="RunException">There is not enough memory.</exception>
    /// <exception cref="ObjectDisposedException">The embedder was disposed of.</exception>
    public void AddAdapter(AdapterSource adapter)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        _model.Add(adapter);
    }

    /// <summary>Takes an adapter away. Calls that run with it end as they would; its memory is free once no session runs it.</summary>
    /// <param name="name">Its name.</param>
    /// <returns>Whether there was one.</returns>
    /// <exception cref="ObjectDisposedException">The embedder was disposed of.</exception>
    public bool RemoveAdapter(string name)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        return _model.Remove(name);
    }

    private void Normalize(Span<float> row)
    {
        if (IsNormalized && TensorPrimitives.Norm<float>(row) is > 0 and var norm)
            TensorPrimitives.Divide(row, norm, row);
    }

    /// <summary>Waits for the calls that run, refuses those that wait, and frees everything.</summary>
    public void Dispose() => _model.Dispose();
}
