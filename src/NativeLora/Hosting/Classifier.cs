using System.Buffers;
using System.Numerics.Tensors;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Models;

namespace NativeLora.Hosting;

/// <summary>What a text was classified as.</summary>
/// <param name="Class">Number of the class, from 0; 0 for regression.</param>
/// <param name="Label">Its name.</param>
/// <param name="Value">Its probability; for regression the score.</param>
public readonly record struct Prediction(int Class, string Label, float Value);

/// <summary>
/// A classifier, or a regression, over a model with any number of adapters. Safe to call from any number of threads: at most
/// <see cref="InferenceOptions.Sessions"/> calls run at once, the others wait for their turn or are cancelled.
/// </summary>
public sealed class Classifier : IDisposable
{
    private const string Operation = "classify";
    private readonly HostedModel _model;

    private Classifier(HostedModel model) => _model = model;

    /// <summary>Loads a classifier.</summary>
    /// <param name="folder">The model: a Hugging Face folder, or a <c>.safetensors</c> or <c>.gguf</c> file.</param>
    /// <param name="options">Adapters, threads, limits.</param>
    /// <exception cref="InputException">Something is missing, not valid or does not fit; the message is one line that says what to do.</exception>
    /// <exception cref="RunException">There is not enough memory.</exception>
    public static Classifier Open(string folder, InferenceOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        options ??= new InferenceOptions();
        return Opening.Told(nameof(Classifier), folder, options.Adapters.Count, options.Observer, () => Load(folder, options));
    }

    private static Classifier Load(string folder, InferenceOptions options)
    {
        options.Validate();
        var opened = OpenWithHead(folder, options);
        try
        {
            var config = opened.Model.Model.Config;
            var model = new HostedModel(folder, options, opened, ModelHead.SequenceClassification, opened.Model.Model.IsEncoder ? PickedRow.First : PickedRow.Last,
                (_, outputs) => outputs.Logits!, nameof(Classifier), adapter => AdapterLabels.Of(adapter, options, config));
            return new Classifier(model);
        }
        catch
        {
            HostedModel.Close(opened, options);
            throw;
        }
    }

    /// <summary>Opens the model with as many classes as its adapters have.</summary>
    private static (Device Home, PretrainedModel Model) OpenWithHead(string folder, InferenceOptions options)
    {
        var opened = HostedModel.Open(folder, options, options.Labels);
        IReadOnlyList<string>? wanted;
        try
        {
            var model = opened.Model.Model;
            if (options.Adapters.Count == 0 && model.OwnHead != ModelHead.SequenceClassification)
                throw new InputException($"{folder} is no classifier: give a model, or an adapter, with a classification head");
            wanted = AdapterLabels.ToOpen(options, model.Config);
            if (wanted is null || wanted.Count == model.Config.NumLabels)
                return opened;
        }
        catch
        {
            HostedModel.Close(opened, options);
            throw;
        }
        HostedModel.Close(opened, options);
        return HostedModel.Open(folder, options, wanted);
    }

    /// <summary>Number of classes; 1 for regression.</summary>
    public int Classes => _model.Columns;

    /// <summary>Whether results are scores and not probabilities.</summary>
    public bool IsRegression => Classes == 1;

    /// <summary>Names of the classes that calls without the name of an adapter have, in the order of their probabilities.</summary>
    public IReadOnlyList<string> Labels => LabelsOf(null);

    /// <summary>Names of the adapters.</summary>
    public IReadOnlyList<string> Adapters => _model.Adapters;

    /// <summary>Tokens of a sequence, at most.</summary>
    public int MaxLength => _model.MaxLength;

    /// <summary>The model's tokenizer.</summary>
    /// <exception cref="InputException">The model's folder holds none.</exception>
    public ITokenizer Tokenizer => _model.Tokenizer;

    /// <summary>Names of an adapter's classes.</summary>
    /// <exception cref="InputException">There is no adapter of that name.</exception>
    public IReadOnlyList<string> LabelsOf(string? adapter) => _model.AdapterOf(adapter).Labels;

    /// <summary>Classifies a text; one that is longer than <see cref="MaxLength"/> is cut.</summary>
    /// <param name="text">The text.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session.</param>
    /// <exception cref="InputException">There is no such adapter, or the text has no tokens.</exception>
    /// <exception cref="OperationCanceledException">The wait was cancelled.</exception>
    /// <exception cref="ObjectDisposedException">The classifier was disposed of.</exception>
    public Prediction Predict(string text, string? adapter = null, CancellationToken cancellation = default)
    {
        var values = Classes <= 256 ? stackalloc float[Classes] : new float[Classes];
        return Predict(text, null, values, adapter, cancellation);
    }

    /// <summary>Classifies a text, or a pair of texts.</summary>
    /// <param name="text">The text.</param>
    /// <param name="pair">The second text of a pair; null for none.</param>
    /// <param name="probabilities">Gets the probability of each class: [<see cref="Classes"/>]; for regression the score.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session.</param>
    /// <exception cref="ArgumentException">The span is too short.</exception>
    /// <inheritdoc cref="Predict(string, string?, CancellationToken)" path="/exception"/>
    public Prediction Predict(string text, string? pair, Span<float> probabilities, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(text);
        var tokens = Tokenizer.Encode(text, pair, MaxLength);
        var best = Predict(tokens.Ids, probabilities, adapter, tokens.TypeIds, cancellation);
        return new Prediction(best, _model.AdapterOf(adapter).Labels[best], probabilities[best]);
    }

    /// <summary>Classifies token ids. Allocates nothing on the managed heap once the session that it runs on is made.</summary>
    /// <param name="tokenIds">Ids of one sequence, special tokens included: [tokens].</param>
    /// <param name="probabilities">Gets the probability of each class: [<see cref="Classes"/>]; for regression the score.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="typeIds">Segment of each token: [tokens], or empty for all 0.</param>
    /// <param name="cancellation">Ends the wait for a session.</param>
    /// <returns>Number of the most probable class.</returns>
    /// <exception cref="InputException">There is no such adapter, no token, or an id that the model does not know, or there are too many tokens.</exception>
    /// <exception cref="ArgumentException">The spans' lengths do not fit.</exception>
    /// <exception cref="OperationCanceledException">The wait was cancelled.</exception>
    /// <exception cref="ObjectDisposedException">The classifier was disposed of.</exception>
    public int Predict(ReadOnlySpan<int> tokenIds, Span<float> probabilities, string? adapter = null, ReadOnlySpan<int> typeIds = default, CancellationToken cancellation = default)
    {
        var length = tokenIds.Length;
        PredictBatch(tokenIds, new ReadOnlySpan<int>(in length), probabilities, adapter, typeIds, cancellation);
        return TensorPrimitives.IndexOfMax(probabilities[..Classes]);
    }

    /// <summary>Classifies several sequences of token ids, as many at a time as fit. Allocates nothing, like the call for one.</summary>
    /// <param name="tokenIds">Ids of all sequences, one after another: [tokens].</param>
    /// <param name="lengths">Tokens of each: [sequences].</param>
    /// <param name="probabilities">Gets the probabilities, row by row: [sequences, <see cref="Classes"/>]; for regression the scores.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="typeIds">Segment of each token: [tokens], or empty for all 0.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between batches.</param>
    /// <inheritdoc cref="Predict(ReadOnlySpan{int}, Span{float}, string?, ReadOnlySpan{int}, CancellationToken)" path="/exception"/>
    public void PredictBatch(ReadOnlySpan<int> tokenIds, ReadOnlySpan<int> lengths, Span<float> probabilities, string? adapter = null, ReadOnlySpan<int> typeIds = default, CancellationToken cancellation = default)
    {
        var call = Telemetry.Begin(Operation);
        try
        {
            _model.Run(tokenIds, typeIds, lengths, _model.AdapterOf(adapter), probabilities, ref call, cancellation);
            for (var s = 0; s < lengths.Length; s++)
                Normalize(probabilities.Slice(s * Classes, Classes));
        }
        catch (Exception error)
        {
            call.End(error);
            throw;
        }
        call.End();
    }

    /// <summary>
    /// Classifies several sequences of token ids, each with an adapter of its own, in batches that mix adapters. Allocates nothing, like the
    /// call for one. Neighbours with the same adapter share its products: put them side by side.
    /// </summary>
    /// <param name="tokenIds">Ids of all sequences, one after another: [tokens].</param>
    /// <param name="lengths">Tokens of each: [sequences].</param>
    /// <param name="adapters">Name of the adapter of each; null: the first, or the model itself where there is none: [sequences].</param>
    /// <param name="probabilities">Gets the probabilities, row by row: [sequences, <see cref="Classes"/>]; for regression the scores.</param>
    /// <param name="typeIds">Segment of each token: [tokens], or empty for all 0.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between batches.</param>
    /// <inheritdoc cref="Predict(ReadOnlySpan{int}, Span{float}, string?, ReadOnlySpan{int}, CancellationToken)" path="/exception"/>
    public void PredictBatch(ReadOnlySpan<int> tokenIds, ReadOnlySpan<int> lengths, ReadOnlySpan<string?> adapters, Span<float> probabilities, ReadOnlySpan<int> typeIds = default, CancellationToken cancellation = default)
    {
        var call = Telemetry.Begin(Operation);
        var named = ArrayPool<HostedAdapter>.Shared.Rent(Math.Max(1, lengths.Length));
        try
        {
            if (adapters.Length != lengths.Length)
                throw new ArgumentException($"{adapters.Length} adapters are named for {lengths.Length} sequences", nameof(adapters));
            for (var s = 0; s < lengths.Length; s++)
                named[s] = _model.AdapterOf(adapters[s]);
            _model.Run(tokenIds, typeIds, lengths, named.AsSpan(0, lengths.Length), probabilities, ref call, cancellation);
            for (var s = 0; s < lengths.Length; s++)
                Normalize(probabilities.Slice(s * Classes, Classes));
        }
        catch (Exception error)
        {
            call.End(error);
            throw;
        }
        finally
        {
            ArrayPool<HostedAdapter>.Shared.Return(named, clearArray: true);
        }
        call.End();
    }

    /// <summary>Classifies several texts, as many at a time as fit.</summary>
    /// <param name="texts">The texts.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between batches.</param>
    /// <returns>One for each text, in their order.</returns>
    /// <inheritdoc cref="Predict(string, string?, CancellationToken)" path="/exception"/>
    public IReadOnlyList<Prediction> Predict(IReadOnlyList<string> texts, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(texts);
        var (ids, types, lengths) = _model.Encode(texts);
        var values = new float[texts.Count * Classes];
        PredictBatch(ids, lengths, values, adapter, types, cancellation);
        var names = _model.AdapterOf(adapter).Labels;
        var predictions = new Prediction[texts.Count];
        for (var i = 0; i < predictions.Length; i++)
        {
            var row = values.AsSpan(i * Classes, Classes);
            var best = TensorPrimitives.IndexOfMax<float>(row);
            predictions[i] = new Prediction(best, names[best], row[best]);
        }
        return predictions;
    }

    /// <summary>Classifies a text on a thread of the pool; no thread is held while it waits for a session.</summary>
    /// <param name="text">The text.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session.</param>
    /// <inheritdoc cref="Predict(string, string?, CancellationToken)" path="/exception"/>
    public async Task<Prediction> PredictAsync(string text, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(text);
        var named = _model.AdapterOf(adapter);
        var values = await _model.RunAsync(text, named, Operation, cancellation).ConfigureAwait(false);
        Normalize(values);
        var best = TensorPrimitives.IndexOfMax<float>(values);
        return new Prediction(best, named.Labels[best], values[best]);
    }

    /// <summary>
    /// Loads an adapter beside those that there are. Calls go on meanwhile: no weight of the base or of another adapter is read again, and
    /// each session takes the new plan between two calls.
    /// </summary>
    /// <param name="adapter">Its name and folder; it has as many classes as the classifier.</param>
    /// <exception cref="InputException">It does not fit, or there is one of its name.</exception>
    /// <exception cref="RunException">There is not enough memory.</exception>
    /// <exception cref="ObjectDisposedException">The classifier was disposed of.</exception>
    public void AddAdapter(AdapterSource adapter)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        if (AdapterLabels.Classes(adapter) is { } classes && classes != Classes)
            throw new InputException($"adapter \"{adapter.Name}\" has {classes} classes and the classifier {Classes}: only adapters with as many classes share a model; load it apart");
        _model.Add(adapter);
    }

    /// <summary>Takes an adapter away. Calls that run with it end as they would; calls that wait with it are refused. Its memory is free once no session runs it.</summary>
    /// <param name="name">Its name.</param>
    /// <returns>Whether there was one.</returns>
    /// <exception cref="ObjectDisposedException">The classifier was disposed of.</exception>
    public bool RemoveAdapter(string name)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        return _model.Remove(name);
    }

    /// <summary>Whether there is an adapter of that name; <see cref="AdapterSource.None"/> is the model itself.</summary>
    public bool HasAdapter(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return _model.HasAdapter(name);
    }

    /// <summary>Bytes of an adapter's tensors, a head of its own included.</summary>
    /// <exception cref="InputException">There is no adapter of that name.</exception>
    public long AdapterBytes(string name)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        return _model.BytesOf(name);
    }

    internal HostedModel Model => _model;

    /// <summary>Logits to probabilities; a score stays as it is.</summary>
    internal static void Normalize(Span<float> row)
    {
        if (row.Length == 1)
            return;
        TensorPrimitives.Subtract(row, TensorPrimitives.Max<float>(row), row);
        TensorPrimitives.SoftMax(row, row);
    }

    /// <summary>Waits for the calls that run, refuses those that wait, and frees everything.</summary>
    public void Dispose() => _model.Dispose();
}
