using System.Text.Json;
using System.Text.RegularExpressions;
using NativeLora.Checkpoints;

namespace NativeLora.Generation;

/// <summary>
/// The prompt of a chat model in ChatML: <c>&lt;|im_start|&gt;role … &lt;|im_end|&gt;</c>. Templates are programs in Jinja; only whether
/// one writes ChatML, and its fixed system message, are read here.
/// </summary>
/// <param name="System">System message that the template puts first by default; null if it has none.</param>
public sealed partial record ChatTemplate(string? System)
{
    /// <summary>Text of the token that ends a turn.</summary>
    public const string EndOfTurn = "<|im_end|>";

    private const string BeginOfTurn = "<|im_start|>";

    /// <summary>Reads <c>chat_template.jinja</c>, or the template in <c>tokenizer_config.json</c>.</summary>
    /// <param name="folder">The model's folder.</param>
    /// <exception cref="InputException">There is no template, or it is not ChatML.</exception>
    public static ChatTemplate FromFolder(string folder)
    {
        var template = Find(folder) ?? throw new InputException($"{folder}: there is no chat template; give the prompt as the model wants it, without --chat");
        if (!template.Contains(BeginOfTurn, StringComparison.Ordinal) || !template.Contains(EndOfTurn, StringComparison.Ordinal))
            throw new InputException($"{folder}: its chat template is not ChatML, the only one supported; give the prompt as the model wants it, without --chat");
        var found = SystemMessage().Match(template);
        return new ChatTemplate(found.Success ? found.Groups[1].Value.Trim() : null);
    }

    /// <summary>What the model continues to answer a message.</summary>
    /// <param name="message">The user's message.</param>
    /// <param name="system">A system message in place of the template's.</param>
    public string Prompt(string message, string? system = null)
    {
        system ??= System;
        var first = system is null ? "" : $"{BeginOfTurn}system\n{system}{EndOfTurn}\n";
        return $"{first}{BeginOfTurn}user\n{message}{EndOfTurn}\n{BeginOfTurn}assistant\n";
    }

    private static string? Find(string folder)
    {
        var file = Path.Combine(folder, "chat_template.jinja");
        if (File.Exists(file))
            return File.ReadAllText(file);
        var config = Path.Combine(folder, "tokenizer_config.json");
        return File.Exists(config) && StrictJson.ReadObject(config).TryGetProperty("chat_template", out var value) && value.ValueKind == JsonValueKind.String
            ? value.GetString() : null;
    }

    // A literal message: no quote and no brace of Jinja in it.
    [GeneratedRegex(@"<\|im_start\|>system(?:\n|\\n)([^{}'""<]*)<\|im_end\|>")]
    private static partial Regex SystemMessage();
}
