using System.Runtime.CompilerServices;
using System.Text;
using Microsoft.Extensions.AI;
using NativeLora.Generation;
using NativeLora.Hosting;

namespace NativeLora.Extensions;

/// <summary>
/// <see cref="IChatClient"/> over a <see cref="Generator"/> with the model's chat format. <see cref="ChatOptions.ModelId"/> may name one of
/// its adapters. Text only: tools, JSON output and other contents are refused. Greedy where no temperature is given.
/// </summary>
public sealed class NativeLoraChatClient : IChatClient
{
    private readonly Generator _generator;
    private readonly ChatTemplate _template;
    private readonly bool _owns;
    private readonly ChatClientMetadata _metadata;

    /// <summary>Wraps a generator.</summary>
    /// <param name="generator">The generator.</param>
    /// <param name="template">The chat format; the model's own where null.</param>
    /// <param name="modelId">What the model is called to who asks; null for nothing.</param>
    /// <param name="ownsGenerator">Whether the generator is disposed of with this.</param>
    /// <exception cref="InputException">The model has no chat format that is known, and none is given.</exception>
    public NativeLoraChatClient(Generator generator, ChatTemplate? template = null, string? modelId = null, bool ownsGenerator = false)
    {
        ArgumentNullException.ThrowIfNull(generator);
        (_generator, _owns) = (generator, ownsGenerator);
        _template = template ?? generator.Template
            ?? throw new InputException($"the model has no chat template that is known; give one of {string.Join(", ", ChatTemplate.Names)} with ChatTemplate.Named");
        _metadata = new ChatClientMetadata("nativelora", null, modelId);
    }

    /// <inheritdoc/>
    /// <exception cref="InputException">There is no message to answer, or the conversation is longer than the model takes.</exception>
    /// <exception cref="NotSupportedException">Something other than text is given or asked for.</exception>
    public async Task<ChatResponse> GetResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
    {
        var updates = new List<ChatResponseUpdate>();
        await foreach (var update in GetStreamingResponseAsync(messages, options, cancellationToken).ConfigureAwait(false))
            updates.Add(update);
        return updates.ToChatResponse();
    }

    /// <inheritdoc/>
    /// <exception cref="InputException">There is no message to answer, or the conversation is longer than the model takes.</exception>
    /// <exception cref="NotSupportedException">Something other than text is given or asked for.</exception>
    public async IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(messages);
        var (system, turns) = Conversation(messages, options?.Instructions);
        var prompt = _template.ConversationIds(_generator.Tokenizer, turns, system);
        var settings = Settings(options, prompt.Length);
        var adapter = _generator.Adapters.Contains(options?.ModelId) ? options!.ModelId : null;
        var (id, made) = (Guid.NewGuid().ToString("N"), DateTimeOffset.UtcNow);
        await foreach (var piece in _generator.StreamAsync(prompt, settings, adapter, cancellationToken).ConfigureAwait(false))
        {
            var update = new ChatResponseUpdate(ChatRole.Assistant, piece.Text) { ResponseId = id, MessageId = id, CreatedAt = made, ModelId = _metadata.DefaultModelId };
            if (piece.Result is { } result)
            {
                update.FinishReason = result.Reason == FinishReason.Length ? ChatFinishReason.Length : ChatFinishReason.Stop;
                update.Contents.Add(new UsageContent(new UsageDetails
                {
                    InputTokenCount = prompt.Length,
                    OutputTokenCount = result.Ids.Count,
                    TotalTokenCount = prompt.Length + result.Ids.Count,
                }));
            }
            yield return update;
        }
    }

    /// <summary>Messages as turns: neighbours of the same role are one message, and what the system says goes first.</summary>
    private static (string? System, List<ChatTurn> Turns) Conversation(IEnumerable<ChatMessage> messages, string? instructions)
    {
        var system = new StringBuilder(instructions);
        var turns = new List<ChatTurn>();
        foreach (var message in messages)
        {
            var text = TextOf(message);
            if (message.Role == ChatRole.System)
                system.Append(system.Length > 0 ? "\n\n" : "").Append(text);
            else if (message.Role == ChatRole.User)
                turns = turns is [.., { Assistant: null } open] ? [.. turns.SkipLast(1), open with { User = $"{open.User}\n\n{text}" }] : [.. turns, new ChatTurn(text)];
            else if (message.Role == ChatRole.Assistant)
                turns = turns is [.., var last] ? [.. turns.SkipLast(1), last with { Assistant = last.Assistant is null ? text : $"{last.Assistant}\n\n{text}" }]
                    : throw new InputException("a conversation begins with a message of the user; put one before the assistant's");
            else
                throw new NotSupportedException($"messages of the role \"{message.Role}\" are not supported; only system, user and assistant are");
        }
        return turns is [.., { Assistant: null }] ? (system.Length > 0 ? system.ToString() : null, turns)
            : throw new InputException("there is no message to answer; end the conversation with one of the user");
    }

    private static string TextOf(ChatMessage message) => message.Contents.FirstOrDefault(c => c is not (TextContent or UsageContent)) is { } other
        ? throw new NotSupportedException($"{other.GetType().Name} is not supported; only text is") : message.Text;

    private GenerationOptions Settings(ChatOptions? options, int prompt)
    {
        if (options?.Tools is { Count: > 0 })
            throw new NotSupportedException("tools are not supported; leave ChatOptions.Tools out");
        if (options?.ResponseFormat is ChatResponseFormatJson)
            throw new NotSupportedException("JSON output is not supported; leave ChatOptions.ResponseFormat out");
        if (options?.FrequencyPenalty is not (null or 0) || options?.PresencePenalty is not (null or 0))
            throw new NotSupportedException("frequency and presence penalties are not supported; leave them out");
        return new GenerationOptions
        {
            MaxNewTokens = options?.MaxOutputTokens ?? Math.Clamp(_generator.MaxPositions - prompt, 1, 512),
            Temperature = options?.Temperature ?? 0,
            TopK = options?.TopK ?? 0,
            TopP = options?.TopP ?? 1,
            Seed = options?.Seed is { } seed ? unchecked((ulong)seed) : options?.Temperature > 0 ? (ulong)Random.Shared.NextInt64() : 0,
            StopStrings = options?.StopSequences is { Count: > 0 } stops ? [.. stops] : [],
            EndTokens = _template.EndOfTurn is { } end && _generator.Tokenizer.TokenId(end) is { } token ? [token] : [],
        };
    }

    /// <inheritdoc/>
    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(ChatClientMetadata) ? _metadata
            : serviceType.IsInstanceOfType(_generator) ? _generator
            : serviceType.IsInstanceOfType(this) ? this : null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_owns)
            _generator.Dispose();
    }
}
