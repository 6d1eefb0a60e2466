using NativeLora.Data;

namespace NativeLora.Generation;

/// <summary>A message of a user and what was answered.</summary>
/// <param name="User">The message.</param>
/// <param name="Assistant">The answer; null where it is still to come.</param>
public sealed record ChatTurn(string User, string? Assistant = null);

public sealed partial record ChatTemplate
{
    /// <summary>What stands between an answer and the next message.</summary>
    private string Between => Name switch
    {
        "chatml" or "gemma" or "phi3" or "zephyr" => "\n",
        "llama2" => "{bos}",
        "alpaca" => "\n\n",
        _ => "",
    };

    /// <summary>Token ids of what a model continues to answer the last message of a conversation.</summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="turns">The conversation; the last turn is not answered yet, the others are.</param>
    /// <param name="system">A system message in place of the template's; it goes before the first message.</param>
    /// <exception cref="InputException">There is no turn, or an answer is missing or too many.</exception>
    public int[] ConversationIds(ITokenizer tokenizer, IReadOnlyList<ChatTurn> turns, string? system = null)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(turns);
        if (turns.Count == 0 || turns[^1].Assistant is not null || turns.SkipLast(1).Any(t => t.Assistant is null))
            throw new InputException("a conversation ends in a message that is not answered, and has answers to all before it");
        var (prefix, bos, eos) = Ends(tokenizer);
        var parts = new List<PromptPart>();
        for (var t = 0; t < turns.Count; t++)
        {
            var template = t == 0 ? this : this with { System = null };
            var (prompt, answer) = template.Parts(new InstructionExample(turns[t].User, turns[t].Assistant ?? "", 1), t == 0 ? system : null, bos, eos);
            parts.AddRange(prompt);
            if (turns[t].Assistant is null)
                continue;
            parts.AddRange(answer);
            parts.Add(new PromptPart(Between.Replace("{bos}", bos, StringComparison.Ordinal)));
        }
        return [.. prefix, .. tokenizer.Encode(parts)];
    }
}
