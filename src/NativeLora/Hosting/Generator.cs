using System.Runtime.CompilerServices;
using System.Threading.Channels;
using NativeLora.Adapters;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Generation;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Hosting;

/// <summary>
/// Text of a decoder, with any number of adapters. Safe to call from any number of threads: at most <see cref="InferenceOptions.Sessions"/>
/// calls run at once, the others wait for their turn or are cancelled. Each session maps the model's files anew: the pages of weights that
/// are used as they are stored are shared, those that are converted or quantized are not.
/// </summary>
public sealed class Generator : IDisposable
{
    private const string Operation = "generate";
    private readonly string _folder;
    private readonly InferenceOptions _options;
    private readonly SessionPool<Writer> _writers;

    private Generator(string folder, InferenceOptions options)
    {
        options.Validate();
        (_folder, _options) = (folder, options);
        var files = Directory.Exists(folder) ? folder : Path.GetDirectoryName(Path.GetFullPath(folder))!;
        Tokenizer = TokenizerLoader.FromFolder(files);
        Template = Recognised(files);
        _writers = new SessionPool<Writer>(options.Sessions, nameof(Generator), Opening.Counted(nameof(Generator), options, () => new Writer(_folder, _options, Tokenizer)));
        var writer = _writers.Rent(CancellationToken.None);
        try
        {
            // Adapters that do not fit are found now.
            for (var a = -1; a < options.Adapters.Count; a++)
                writer.For(a);
            MaxPositions = writer.MaxPositions;
            ModelType = writer.ModelType;
        }
        catch
        {
            _writers.Return(writer);
            _writers.Dispose();
            throw;
        }
        _writers.Return(writer);
    }

    /// <summary>Loads a decoder.</summary>
    /// <param name="folder">The model: a Hugging Face folder, or a <c>.safetensors</c> or <c>.gguf</c> file with its tokenizer beside it.</param>
    /// <param name="options">Adapters, threads; lengths, labels and batches are not looked at.</param>
    /// <exception cref="InputException">Something is missing, not valid or does not fit; the message is one line that says what to do.</exception>
    /// <exception cref="RunException">There is not enough memory.</exception>
    public static Generator Open(string folder, InferenceOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        options ??= new InferenceOptions();
        return Opening.Told(nameof(Generator), folder, options.Adapters.Count, options.Observer, () => new Generator(folder, options));
    }

    /// <summary>The model's tokenizer.</summary>
    public ITokenizer Tokenizer { get; }

    /// <summary>The chat format of the model; null where it has none that is known.</summary>
    public ChatTemplate? Template { get; }

    /// <summary>Tokens of prompt and answer together, at most.</summary>
    public int MaxPositions { get; }

    /// <summary>The model's architecture, such as <c>llama</c>.</summary>
    public string ModelType { get; }

    /// <summary>Names of the adapters.</summary>
    public IReadOnlyList<string> Adapters => [.. _options.Adapters.Select(a => a.Name)];

    /// <summary>Continues a text, and gives the pieces as they come. Leaving the loop, or cancelling, stops the work.</summary>
    /// <param name="prompt">The text; the tokenizer adds its special tokens.</param>
    /// <param name="options">How; greedy where null.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between two tokens.</param>
    /// <exception cref="InputException">There is no such adapter, the prompt is empty or too long, or an option makes no sense.</exception>
    /// <exception cref="RunException">The model's logits are not numbers, or there is not enough memory.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    /// <exception cref="ObjectDisposedException">The generator was disposed of.</exception>
    public IAsyncEnumerable<string> StreamAsync(string prompt, GenerationOptions? options = null, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        return StreamTextAsync(Tokenizer.Encode(prompt), options, adapter, cancellation);
    }

    private async IAsyncEnumerable<string> StreamTextAsync(int[] prompt, GenerationOptions? options, string? adapter, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await foreach (var piece in StreamAsync(prompt, options, adapter, cancellation).ConfigureAwait(false))
            if (piece.Text.Length > 0)
                yield return piece.Text;
    }

    /// <summary>Continues token ids, such as those of <see cref="ChatTemplate.ConversationIds"/>, and gives the pieces as they come; the last holds the whole result.</summary>
    /// <param name="prompt">Token ids, special tokens included: [tokens].</param>
    /// <param name="options">How; greedy where null.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between two tokens.</param>
    /// <inheritdoc cref="StreamAsync(string, GenerationOptions?, string?, CancellationToken)" path="/exception"/>
    public async IAsyncEnumerable<GeneratedPiece> StreamAsync(
        int[] prompt, GenerationOptions? options = null, string? adapter = null, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var pieces = Channel.CreateUnbounded<GeneratedPiece>(new UnboundedChannelOptions { SingleReader = true, SingleWriter = true });
        var work = WorkAsync();
        try
        {
            await foreach (var piece in pieces.Reader.ReadAllAsync(CancellationToken.None).ConfigureAwait(false))
                yield return piece;
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await work.ConfigureAwait(false);
        }

        async Task WorkAsync()
        {
            try
            {
                await RunAsync([prompt], options, adapter, piece => pieces.Writer.TryWrite(piece), stop.Token).ConfigureAwait(false);
                pieces.Writer.Complete();
            }
            catch (Exception error)
            {
                pieces.Writer.Complete(error);
            }
        }
    }

    /// <summary>Continues a text.</summary>
    /// <param name="prompt">The text; the tokenizer adds its special tokens.</param>
    /// <param name="options">How; greedy where null.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between two tokens.</param>
    /// <inheritdoc cref="StreamAsync(string, GenerationOptions?, string?, CancellationToken)" path="/exception"/>
    public async Task<GeneratedText> GenerateAsync(string prompt, GenerationOptions? options = null, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        return (await GenerateAsync([Tokenizer.Encode(prompt)], options, adapter, cancellation).ConfigureAwait(false))[0];
    }

    /// <summary>Continues several prompts of token ids at once.</summary>
    /// <param name="prompts">Token ids, special tokens included.</param>
    /// <param name="options">How; greedy where null.</param>
    /// <param name="adapter">Name of the adapter; null: the first, or the model itself where there is none.</param>
    /// <param name="cancellation">Ends the wait for a session, and stops between two tokens.</param>
    /// <inheritdoc cref="StreamAsync(string, GenerationOptions?, string?, CancellationToken)" path="/exception"/>
    public Task<IReadOnlyList<GeneratedText>> GenerateAsync(IReadOnlyList<int[]> prompts, GenerationOptions? options = null, string? adapter = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(prompts);
        return RunAsync(prompts, options, adapter, null, cancellation);
    }

    private async Task<IReadOnlyList<GeneratedText>> RunAsync(
        IReadOnlyList<int[]> prompts, GenerationOptions? options, string? adapter, Action<GeneratedPiece>? onPiece, CancellationToken cancellation)
    {
        var call = Telemetry.Begin(Operation);
        try
        {
            var number = NumberOf(adapter);
            call.Sequences = prompts.Count;
            var writer = await _writers.RentAsync(cancellation).ConfigureAwait(false);
            GenerationRun run;
            try
            {
                run = await Task.Run(() => writer.For(number).Generate(prompts, options, onPiece, cancellation), cancellation).ConfigureAwait(false);
            }
            finally
            {
                _writers.Return(writer);
            }
            call.Tokens = run.PromptTokens + run.Results.Sum(r => (long)r.Ids.Count);
            call.End();
            return run.Results;
        }
        catch (Exception error)
        {
            call.End(error);
            throw;
        }
    }

    private int NumberOf(string? adapter)
    {
        if (string.IsNullOrEmpty(adapter))
            return adapter is null && _options.Adapters.Count > 0 ? 0 : -1;
        for (var a = 0; a < _options.Adapters.Count; a++)
            if (_options.Adapters[a].Name == adapter)
                return a;
        throw new InputException($"there is no adapter \"{adapter}\" here; there are {(_options.Adapters.Count == 0 ? "none" : string.Join(", ", Adapters))}");
    }

    private static ChatTemplate? Recognised(string folder)
    {
        try
        {
            return ChatTemplate.FromFolder(folder);
        }
        catch (InputException)
        {
            // Not every model chats; one that is asked to is told so then.
            return null;
        }
    }

    /// <summary>Waits for the calls that run, refuses those that wait, and frees everything.</summary>
    public void Dispose() => _writers.Dispose();

    /// <summary>A model with a generator for each adapter; one call at a time.</summary>
    private sealed class Writer : IDisposable
    {
        private readonly InferenceOptions _options;
        private readonly Device _device;
        private readonly PretrainedModel _model;
        private readonly ITokenizer _tokenizer;
        private readonly Dictionary<int, (TrainableModel? Adapted, TextGenerator Generator)> _generators = [];

        public Writer(string folder, InferenceOptions options, ITokenizer tokenizer)
        {
            (_options, _tokenizer) = (options, tokenizer);
            (_device, _model) = HostedModel.Open(folder, options, null);
        }

        public int MaxPositions => _model.Model.MaxPositions;

        public string ModelType => _model.Model.Config.ModelType;

        public TextGenerator For(int adapter)
        {
            if (_generators.TryGetValue(adapter, out var known))
                return known.Generator;
            if (adapter < 0)
                return (_generators[adapter] = (null, new TextGenerator(_model, _tokenizer))).Generator;
            var source = _options.Adapters[adapter];
            var loaded = TrainedAdapter.Load(source, _model.Modules(ModelHead.LanguageModel));
            var adapted = TrainableModel.WithAdapters(_model, ModelHead.LanguageModel, loaded.Config, loaded.Weights, training: false);
            return (_generators[adapter] = (adapted, new TextGenerator(adapted, _tokenizer))).Generator;
        }

        public void Dispose()
        {
            foreach (var (adapted, generator) in _generators.Values)
            {
                generator.Dispose();
                adapted?.Dispose();
            }
            _model.Dispose();
            HostedModel.Close(_device, _options);
        }
    }
}
