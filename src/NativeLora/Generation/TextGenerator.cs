using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using NativeLora.Data;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Generation;

/// <summary>
/// Continues texts with a decoder, several at a time and of any lengths: where one ends, the next prompt takes its place. The memory of
/// a run is kept for the next one that fits it.
/// </summary>
public sealed class TextGenerator : IDisposable
{
    private readonly PretrainedModel _pretrained;
    private readonly TrainableModel? _adapted;
    private readonly ITokenizer? _tokenizer;
    private readonly HashSet<int> _ends;
    private DecodingSession? _session;

    /// <summary>A generator over a model as it is.</summary>
    /// <param name="model">The model; stays open as long as this.</param>
    /// <param name="tokenizer">Its tokenizer; null where only token ids are wanted: texts are then empty.</param>
    /// <exception cref="InputException">The model is no decoder, or its generation_config.json is malformed.</exception>
    public TextGenerator(PretrainedModel model, ITokenizer? tokenizer) : this(model, null, tokenizer) { }

    /// <summary>A generator over a model with an adapter or trained weights.</summary>
    /// <param name="model">The model; stays open as long as this.</param>
    /// <param name="tokenizer">Its tokenizer; null where only token ids are wanted: texts are then empty.</param>
    /// <exception cref="InputException">The model is no language model, or its generation_config.json is malformed.</exception>
    public TextGenerator(TrainableModel model, ITokenizer? tokenizer) : this((model ?? throw new ArgumentNullException(nameof(model))).Pretrained, model, tokenizer) { }

    private TextGenerator(PretrainedModel pretrained, TrainableModel? adapted, ITokenizer? tokenizer)
    {
        ArgumentNullException.ThrowIfNull(pretrained);
        if (pretrained.Model.IsEncoder)
            throw new InputException($"{pretrained.Model.Config.Source}: {pretrained.Model.Config.ModelType} is an encoder; only decoders generate text");
        (_pretrained, _adapted, _tokenizer) = (pretrained, adapted, tokenizer);
        _ends = Generation.EndTokens.Of(pretrained, tokenizer);
    }

    /// <summary>Tokens that end a text, by the model's files.</summary>
    public IReadOnlyCollection<int> EndTokens => _ends;

    /// <summary>What the last run was planned for; null before the first.</summary>
    public DecodingSession? Session => _session;

    /// <summary>Continues texts.</summary>
    /// <param name="prompts">The texts; the tokenizer adds its special tokens.</param>
    /// <param name="options">How; greedy where null.</param>
    /// <param name="onPiece">Gets the text as it comes.</param>
    /// <param name="cancellation">Stops between two steps.</param>
    /// <exception cref="InputException">A prompt is empty or longer than the model takes, or an option makes no sense.</exception>
    /// <exception cref="RunException">The model's logits are not numbers, or there is not enough memory.</exception>
    public GenerationRun Generate(
        IReadOnlyList<string> prompts, GenerationOptions? options = null, Action<GeneratedPiece>? onPiece = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(prompts);
        var tokenizer = _tokenizer ?? throw new InvalidOperationException("a tokenizer is needed for texts");
        return Generate([.. prompts.Select(p => tokenizer.Encode(p))], options, onPiece, cancellation);
    }

    /// <summary>Continues token ids.</summary>
    /// <param name="prompts">Token ids, special tokens included.</param>
    /// <param name="options">How; greedy where null.</param>
    /// <param name="onPiece">Gets the text as it comes.</param>
    /// <param name="cancellation">Stops between two steps.</param>
    /// <exception cref="InputException">A prompt is empty or longer than the model takes, or an option makes no sense.</exception>
    /// <exception cref="RunException">The model's logits are not numbers, or there is not enough memory.</exception>
    public GenerationRun Generate(
        IReadOnlyList<int[]> prompts, GenerationOptions? options = null, Action<GeneratedPiece>? onPiece = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(prompts);
        return Generate([.. prompts.Select(p => new GenerationPrompt(p))], options, onPiece, cancellation);
    }

    /// <summary>Continues token ids with pictures among them.</summary>
    /// <param name="prompts">Token ids, special tokens included, and pictures.</param>
    /// <param name="options">How; greedy where null.</param>
    /// <param name="onPiece">Gets the text as it comes.</param>
    /// <param name="cancellation">Stops between two steps.</param>
    /// <exception cref="InputException">
    /// A prompt is empty or longer than the model takes, its picture tokens do not fit its pictures, or an option makes no sense.
    /// </exception>
    /// <exception cref="RunException">The model's logits are not numbers, or there is not enough memory.</exception>
    public GenerationRun Generate(
        IReadOnlyList<GenerationPrompt> prompts, GenerationOptions? options = null, Action<GeneratedPiece>? onPiece = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(prompts);
        options ??= new GenerationOptions();
        options.Validate();
        if (options.StopStrings.Count > 0 && _tokenizer is null)
            throw new InvalidOperationException("a tokenizer is needed for stop strings");
        if (options.Streams is { } streams && streams.Count != prompts.Count)
            throw new InputException($"there are {streams.Count} streams for {prompts.Count} prompts; give one for each");
        if (prompts.Count == 0)
            return new GenerationRun([], 0, 0, 0, 0);
        Check(prompts);
        var session = Prepare(prompts, options);
        return new Run(this, session, prompts, options, onPiece).Execute(cancellation);
    }

    /// <summary>Continues a text, and gives the pieces as they come. The work runs on another thread; leaving the loop stops it.</summary>
    public async IAsyncEnumerable<string> StreamAsync(
        string prompt, GenerationOptions? options = null, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var pieces = Channel.CreateUnbounded<string>();
        var work = Task.Run(() =>
        {
            try
            {
                Generate([prompt], options, piece => pieces.Writer.TryWrite(piece.Text), stop.Token);
                pieces.Writer.Complete();
            }
            catch (Exception e)
            {
                pieces.Writer.Complete(e);
            }
        }, CancellationToken.None);
        try
        {
            await foreach (var piece in pieces.Reader.ReadAllAsync(CancellationToken.None).ConfigureAwait(false))
                if (piece.Length > 0)
                    yield return piece;
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await work.ConfigureAwait(false);
        }
    }

    private void Check(IReadOnlyList<GenerationPrompt> prompts)
    {
        var most = _pretrained.Model.MaxPositions;
        for (var p = 0; p < prompts.Count; p++)
        {
            var ids = prompts[p].Ids;
            var length = ids.Length;
            if (length == 0)
                throw new InputException($"prompt {p + 1} is empty; give at least one token to continue");
            if (length > most)
                throw new InputException($"prompt {p + 1} has {length} tokens, the model takes at most {most}; shorten it");
            if (ids.FirstOrDefault(id => (uint)id >= (uint)_pretrained.Model.VocabularySize) is not 0 and var id)
                throw new InputException($"prompt {p + 1}: token {id} lies outside the model's vocabulary of {_pretrained.Model.VocabularySize}; take the model's own tokenizer");
            var pictures = prompts[p].Pictures?.Count ?? 0;
            if (_pretrained.Model.Pictures is { } layout)
                layout.Check(ids, pictures, $"prompt {p + 1}");
            else if (pictures > 0)
                throw new InputException($"prompt {p + 1} has {pictures} pictures, but {_pretrained.Model.Config.ModelType} takes none; leave them out");
        }
    }

    private DecodingSession Prepare(IReadOnlyList<GenerationPrompt> prompts, GenerationOptions options)
    {
        var sequences = Math.Min(prompts.Count, options.MaxBatch);
        // The last token of all is not read any more.
        var length = (int)Math.Min(_pretrained.Model.MaxPositions, prompts.Max(p => p.Ids.Length) + (long)options.MaxNewTokens - 1);
        var tokens = (int)Math.Max(sequences, Math.Min(options.PromptTokens, prompts.Sum(p => (long)p.Ids.Length)));
        // A step's part of a prompt may begin and end within a picture.
        var pictures = _pretrained.Model.Pictures is { } layout ? (int)Math.Min(prompts.Sum(p => (long)(p.Pictures?.Count ?? 0)), tokens / layout.Rows + 2L * sequences) : 0;
        if (_session is { } kept && kept.Capacity.Sequences >= sequences && kept.Capacity.Length >= length && kept.Capacity.Tokens >= tokens && kept.Capacity.Pictures >= pictures)
            return kept;
        _session?.Dispose();
        _session = null;
        return _session = new DecodingSession(_pretrained, _adapted, new DecodingCapacity(sequences, length, tokens) { Pictures = pictures });
    }

    /// <inheritdoc/>
    public void Dispose() => _session?.Dispose();

    /// <summary>A prompt that is being continued.</summary>
    private sealed class Sequence(int prompt, GenerationPrompt given, int slot, TextStream? text, SplitMix64 random)
    {
        public readonly int Prompt = prompt, PromptLength = given.Ids.Length, Slot = slot;
        public readonly List<int> Ids = [.. given.Ids];
        public readonly IReadOnlyList<PictureInput>? Pictures = given.Pictures;
        public readonly TextStream? Text = text;
        public readonly System.Text.StringBuilder Shown = new();
        public readonly SplitMix64 Random = random;
        public int Taken;

        public ReadOnlySpan<int> Tokens => CollectionsMarshal.AsSpan(Ids);
    }

    /// <summary>One call of <see cref="Generate(IReadOnlyList{GenerationPrompt}, GenerationOptions?, Action{GeneratedPiece}?, CancellationToken)"/>.</summary>
    private sealed class Run(TextGenerator owner, DecodingSession session, IReadOnlyList<GenerationPrompt> prompts, GenerationOptions options, Action<GeneratedPiece>? onPiece)
    {
        private readonly GeneratedText[] _results = new GeneratedText[prompts.Count];
        private readonly TokenSampler _sampler = new(options, owner._pretrained.Model.VocabularySize);
        private readonly List<Sequence> _active = [];
        private readonly List<Sequence> _stepped = [];
        private readonly Stack<int> _free = new(Enumerable.Range(0, Math.Min(session.Capacity.Sequences, Math.Min(options.MaxBatch, prompts.Count))).Reverse());

        public GenerationRun Execute(CancellationToken cancellation)
        {
            var next = 0;
            double promptSeconds = 0, newSeconds = 0;
            long newTokens = 0;
            while (next < prompts.Count || _active.Count > 0)
            {
                cancellation.ThrowIfCancellationRequested();
                while (next < prompts.Count && _free.TryPop(out var slot))
                    _active.Add(Start(next++, slot));
                var start = Stopwatch.GetTimestamp();
                var reading = Step();
                var seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
                if (reading)
                    promptSeconds += seconds;
                else
                    (newSeconds, newTokens) = (newSeconds + seconds, newTokens + _stepped.Count);
                for (var i = 0; i < _stepped.Count; i++)
                    if (_stepped[i].Taken == _stepped[i].Ids.Count)
                        Extend(_stepped[i], session.Logits(i));
            }
            return new GenerationRun(_results, prompts.Sum(p => (long)p.Ids.Length), promptSeconds, newTokens, newSeconds);
        }

        private Sequence Start(int prompt, int slot)
        {
            session.Clear(slot);
            var text = owner._tokenizer is { } tokenizer ? new TextStream(tokenizer, prompts[prompt].Ids, options.StopStrings) : null;
            var sequence = new Sequence(prompt, prompts[prompt], slot, text, SplitMix64.Named(options.Seed, $"prompt {options.Streams?[prompt] ?? prompt}"));
            sequence.Ids.EnsureCapacity(Math.Min(session.Capacity.Length + 1, sequence.PromptLength + options.MaxNewTokens));
            return sequence;
        }

        /// <summary>Runs over the next tokens of each sequence; whether prompts were among them. Who continues goes first.</summary>
        private bool Step()
        {
            session.Begin();
            _stepped.Clear();
            var room = session.Capacity.Tokens;
            var reading = false;
            foreach (var prompt in (ReadOnlySpan<bool>)[false, true])
                foreach (var sequence in _active)
                {
                    if (sequence.Taken < sequence.PromptLength != prompt || room == 0)
                        continue;
                    var count = Math.Min(room, sequence.Ids.Count - sequence.Taken);
                    session.Add(sequence.Slot, sequence.Tokens.Slice(sequence.Taken, count), sequence.Pictures);
                    sequence.Taken += count;
                    room -= count;
                    reading |= prompt;
                    _stepped.Add(sequence);
                }
            session.Run();
            return reading;
        }

        private void Extend(Sequence sequence, ReadOnlySpan<float> logits)
        {
            var id = _sampler.Next(logits, sequence.Tokens, sequence.Random);
            sequence.Ids.Add(id);
            var ends = !options.IgnoreEos && (owner._ends.Contains(id) || options.EndTokens.Contains(id));
            if (!ends && sequence.Text is { } text)
                Show(sequence, text.Add(id));
            FinishReason? reason = ends ? FinishReason.EndToken
                : sequence.Text is { Stopped: true } ? FinishReason.StopString
                : sequence.Ids.Count - sequence.PromptLength == options.MaxNewTokens || sequence.Ids.Count > owner._pretrained.Model.MaxPositions ? FinishReason.Length
                : null;
            if (reason is { } why)
                Finish(sequence, why);
        }

        private void Finish(Sequence sequence, FinishReason reason)
        {
            var rest = sequence.Text?.Finish() ?? "";
            if (sequence.Text is { Stopped: true } && reason != FinishReason.StopString)
                reason = FinishReason.StopString;
            sequence.Shown.Append(rest);
            var result = new GeneratedText([.. sequence.Tokens[sequence.PromptLength..]], sequence.Shown.ToString(), reason);
            _results[sequence.Prompt] = result;
            onPiece?.Invoke(new GeneratedPiece(sequence.Prompt, rest, result));
            _active.Remove(sequence);
            _free.Push(sequence.Slot);
        }

        private void Show(Sequence sequence, string text)
        {
            if (text.Length == 0)
                return;
            sequence.Shown.Append(text);
            onPiece?.Invoke(new GeneratedPiece(sequence.Prompt, text, null));
        }
    }
}
