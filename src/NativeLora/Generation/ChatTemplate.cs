using System.Text.Json;
using System.Text.RegularExpressions;
using NativeLora.Checkpoints;
using NativeLora.Data;

namespace NativeLora.Generation;

/// <summary>
/// The prompt of a chat model, or one of one's own: text with the places <c>{instruction}</c>, <c>{input}</c>, <c>{output}</c>,
/// <c>{system}</c>, <c>{bos}</c> and <c>{eos}</c>. A model's own template is a program in Jinja; only which of the known formats it
/// writes, and its fixed system message, are read off it. Special tokens that a template names become those tokens; in what is put into
/// it they stay ordinary text.
/// </summary>
public sealed partial record ChatTemplate
{
    private const string Output = "{output}";

    internal ChatTemplate(string name, string text) => (Name, Text) = (name, text);

    /// <summary>Names of the formats that are known.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. ChatFormats.All.Select(f => f.Name).Order(StringComparer.Ordinal)];

    /// <summary>No format: the instruction as it is, then the output and the end of text.</summary>
    public static ChatTemplate Plain { get; } = new("plain", "{instruction}{output}{eos}");

    /// <summary>Its name, or the file that it comes from.</summary>
    public string Name { get; }

    /// <summary>System message that is put first by default; null if there is none.</summary>
    public string? System { get; init; }

    /// <summary>Text of the token that ends an answer; null where that is the end of text.</summary>
    public string? EndOfTurn => Closing.Trim() is { Length: > 0 } end && !end.Contains("{eos}", StringComparison.Ordinal) ? end : null;

    internal string Text { get; }

    /// <summary>The text for rows with an input; null puts it into the place <c>{input}</c>, or else behind the instruction.</summary>
    internal string? WithInput { get; init; }

    /// <summary>How a system message is written: in the place <c>{system}</c>, else first.</summary>
    internal string? SystemText { get; init; }

    internal IReadOnlyList<string> Marks { get; init; } = [];

    /// <summary>Whether the format drops white space around what is put into it.</summary>
    internal bool Trims { get; init; }

    private string Closing => Text[(Text.IndexOf(Output, StringComparison.Ordinal) + Output.Length)..];

    /// <summary>The format of a name.</summary>
    /// <exception cref="InputException">There is none.</exception>
    public static ChatTemplate Named(string name) => ChatFormats.All.FirstOrDefault(f => f.Name == name)
        ?? throw new InputException($"there is no chat template {LabelSet.Quoted(name)}; the templates are {string.Join(", ", Names)}");

    /// <summary>A template of one's own; the end of a text follows the output where nothing else is written behind it.</summary>
    /// <param name="path">A text file with the places <c>{instruction}</c> and <c>{output}</c>, and perhaps others.</param>
    /// <exception cref="InputException">The file is missing, or has not these places.</exception>
    public static ChatTemplate FromFile(string path)
    {
        var text = string.Join('\n', Utf8Lines.Read(path).Select(l => l.Text));
        if (Count(text, "{instruction}") == 0)
            throw new InputException($"{path}: the template has no place for {{instruction}}; write one where the instruction goes");
        if (Count(text, Output) != 1)
            throw new InputException($"{path}: the template has {Count(text, Output)} places for {{output}}; write one where the answer begins");
        var at = text.IndexOf(Output, StringComparison.Ordinal);
        if (text.LastIndexOf("{instruction}", StringComparison.Ordinal) > at || text.LastIndexOf("{input}", StringComparison.Ordinal) > at)
            throw new InputException($"{path}: the template has {{output}} before what is asked; the answer comes last");
        if (string.IsNullOrWhiteSpace(text[(at + Output.Length)..]))
            text = text[..(at + Output.Length)] + "{eos}";
        return new ChatTemplate(path, text) { SystemText = text.Contains("{system}", StringComparison.Ordinal) ? "{system}" : "{system}\n\n" };
    }

    /// <summary>
    /// The format that <c>chat_template.jinja</c>, <c>chat_template.json</c> or the template in <c>tokenizer_config.json</c> writes.
    /// </summary>
    /// <param name="folder">The model's folder.</param>
    /// <param name="otherwise">The format where there is no template; null for none.</param>
    /// <exception cref="InputException">There is no template, or it writes none of the known formats.</exception>
    public static ChatTemplate FromFolder(string folder, ChatTemplate? otherwise = null)
    {
        if (Find(folder) is not { } template)
            return otherwise ?? throw new InputException($"{folder}: there is no chat template; name one of {string.Join(", ", Names)} with --template");
        var format = ChatFormats.All.FirstOrDefault(f => f.Marks.All(m => template.Contains(m, StringComparison.Ordinal)))
            ?? throw new InputException($"{folder}: its chat template is none of the known ones; name one of {string.Join(", ", Names)} with --template, or give a file");
        var found = format.Name == "chatml" ? SystemMessage().Match(template) : Match.Empty;
        return found.Success ? format with { System = found.Groups[1].Value.Trim() } : format;
    }

    /// <summary>What a model continues to answer a message, as text; tokens that depend on the tokenizer are left out.</summary>
    /// <param name="message">The user's message.</param>
    /// <param name="system">A system message in place of the template's.</param>
    public string Prompt(string message, string? system = null) =>
        string.Concat(Parts(new InstructionExample(message, "", 1), system, "", "").Prompt.Select(p => p.Text));

    /// <summary>Token ids of what a model continues.</summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="row">The instruction; its output is not looked at.</param>
    /// <param name="system">A system message in place of the template's.</param>
    /// <param name="pictureId">The model's id of a picture's token, for which <c>&lt;image&gt;</c> then stands wherever it is written.</param>
    public int[] PromptIds(ITokenizer tokenizer, InstructionExample row, string? system = null, int? pictureId = null)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(row);
        var (prefix, bos, eos) = Ends(tokenizer);
        var parts = Parts(row, system, bos, eos).Prompt;
        return [.. prefix, .. pictureId is { } id ? PicturePrompt.Encode(tokenizer, parts, id) : tokenizer.Encode(parts)];
    }

    /// <summary>Tokens and labels of an instruction: all is learnt from the first token on that the prompt alone does not have.</summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="row">Instruction and output.</param>
    /// <param name="maxLength">Tokens kept, at most.</param>
    /// <exception cref="InputException">The template ends in the end of text, and the tokenizer has none.</exception>
    public CausalExample Encode(ITokenizer tokenizer, InstructionExample row, int maxLength)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(row);
        var (prefix, bos, eos) = Ends(tokenizer);
        var (before, after) = Parts(row, null, bos, eos);
        int[] source = [.. prefix, .. tokenizer.Encode(before)];
        int[] ids = [.. prefix, .. tokenizer.Encode([.. before, .. after])];
        var prompt = source.AsSpan().CommonPrefixLength(ids);
        var closing = tokenizer.Encode([new PromptPart(after[^1].Text)]);
        if (ids.Length > maxLength)
            ids = ids[..maxLength];
        prompt = Math.Min(prompt, ids.Length);
        var labels = ids.AsSpan().ToArray();
        labels.AsSpan(0, prompt).Fill(InstructionPrompt.IgnoredLabel);
        // The last token of the answer, before what closes the turn.
        var content = ids.AsSpan().EndsWith(closing) ? ids.Length - closing.Length - 1 : ids.Length - 1;
        while (content > 0 && string.IsNullOrWhiteSpace(tokenizer.Decode(ids.AsSpan(content, 1))))
            content--;
        content = Math.Max(0, content);
        return new CausalExample(ids, labels, prompt, content, content);
    }

    /// <summary>What the template comes to, up to the output and from there on; the last part closes the answer.</summary>
    private (List<PromptPart> Prompt, List<PromptPart> Answer) Parts(InstructionExample row, string? system, string bos, string eos)
    {
        system ??= System;
        var asked = row.Instruction;
        var text = row.Input is null ? Text : WithInput ?? Text;
        if (row.Input is { } input && !text.Contains("{input}", StringComparison.Ordinal))
            asked = $"{asked}\n\n{input}";
        var start = system is null || SystemText is null ? "" : SystemText;
        text = text.Contains("{system}", StringComparison.Ordinal) ? text.Replace("{system}", start, StringComparison.Ordinal) : start + text;
        if (system is null)
            text = text.Replace("{system}", "", StringComparison.Ordinal);

        var at = text.IndexOf(Output, StringComparison.Ordinal);
        var prompt = Filled(text[..at]);
        // White space between prompt and answer belongs to the answer, where a word has it before it.
        var space = prompt[^1] is { IsLiteral: false, Text: [.., not ' ', ' '] or " " };
        if (space)
            prompt[^1] = new PromptPart(prompt[^1].Text[..^1]);
        var output = Trims ? row.Output.Trim() : row.Output;
        List<PromptPart> answer = [.. space ? (PromptPart[])[new(" ")] : [], new(output, true), new(string.Concat(Filled(text[(at + Output.Length)..]).Select(p => p.Text)))];
        return (prompt, answer);

        List<PromptPart> Filled(string template)
        {
            var parts = new List<PromptPart>();
            var from = 0;
            foreach (var place in Places().EnumerateMatches(template))
            {
                parts.Add(new(template[from..place.Index]));
                from = place.Index + place.Length;
                parts.Add(template[place.Index..from] switch
                {
                    "{instruction}" => new(Trims ? asked.Trim() : asked, true),
                    "{input}" => new(row.Input ?? "", true),
                    "{system}" => new(Trims ? system!.Trim() : system!, true),
                    "{bos}" => new(bos),
                    _ => new(eos),
                });
            }
            parts.Add(new(template[from..]));
            return parts;
        }
    }

    /// <summary>The token that the tokenizer itself begins a text with, if the template does not, and the texts of both ends.</summary>
    private (int[] Prefix, string Bos, string Eos) Ends(ITokenizer tokenizer)
    {
        var eos = tokenizer.EosId is { } end ? tokenizer.Decode([end])
            : Text.Contains("{eos}", StringComparison.Ordinal)
                ? throw new InputException("the tokenizer's files name no token that ends a text (eos_token): add it to tokenizer_config.json") : "";
        var begins = tokenizer.BosId is { } bos && tokenizer.Encode("a") is [var first, ..] && first == bos && tokenizer.Encode("a", addSpecialTokens: false)[0] != bos;
        var named = Text.Contains("{bos}", StringComparison.Ordinal);
        return (begins && !named ? [tokenizer.BosId!.Value] : [], tokenizer.BosId is { } id ? tokenizer.Decode([id]) : "", eos);
    }

    private static int Count(string text, string place) => text.Split(place).Length - 1;

    private static string? Find(string folder)
    {
        var file = Path.Combine(folder, "chat_template.jinja");
        if (File.Exists(file))
            return File.ReadAllText(file);
        foreach (var name in (string[])["chat_template.json", "tokenizer_config.json"])
            if (Path.Combine(folder, name) is var config && File.Exists(config) && StrictJson.ReadObject(config).TryGetProperty("chat_template", out var value))
                return Default(value);
        return null;
    }

    private static string? Default(JsonElement value)
    {
        // Some models have several, by name.
        return value.ValueKind switch
        {
            JsonValueKind.String => value.GetString(),
            JsonValueKind.Array => value.EnumerateArray().FirstOrDefault(t => t.ValueKind == JsonValueKind.Object && Field(t, "name") == "default") is { ValueKind: JsonValueKind.Object } chosen
                ? Field(chosen, "template") : null,
            _ => null,
        };

        static string? Field(JsonElement of, string name) =>
            of.TryGetProperty(name, out var text) && text.ValueKind == JsonValueKind.String ? text.GetString() : null;
    }

    [GeneratedRegex(@"\{(?:instruction|input|system|bos|eos)\}")]
    private static partial Regex Places();

    // A literal message: no quote and no brace of Jinja in it.
    [GeneratedRegex(@"<\|im_start\|>system(?:\n|\\n)([^{}'""<]*)<\|im_end\|>")]
    private static partial Regex SystemMessage();
}
