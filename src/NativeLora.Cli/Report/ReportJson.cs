using System.Text;
using System.Text.Json;

namespace NativeLora.Cli.Report;

/// <summary>Reads JSON that a run left; whatever is wrong with it becomes one line.</summary>
internal static class ReportJson
{
    private const long MostBytes = 256L << 20;

    /// <exception cref="InputException">It is no JSON object.</exception>
    public static JsonElement Read(string path)
    {
        try
        {
            using var document = JsonDocument.Parse(Text(path, MostBytes), new JsonDocumentOptions { AllowDuplicateProperties = false, MaxDepth = 32 });
            return document.RootElement.ValueKind == JsonValueKind.Object ? document.RootElement.Clone() : throw RunFiles.Bad(path, "it is no JSON object");
        }
        catch (JsonException e)
        {
            throw RunFiles.Bad(path, e.Message, e);
        }
    }

    /// <exception cref="InputException">It cannot be read, is too large or not UTF-8.</exception>
    public static string Text(string path, long most)
    {
        try
        {
            // A training may be writing into it.
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            if (file.Length > most)
                throw RunFiles.Bad(path, $"{file.Length} bytes are more than the {most} that such a file may have");
            using var reader = new StreamReader(file, new UTF8Encoding(false, throwOnInvalidBytes: true));
            return reader.ReadToEnd();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or DecoderFallbackException)
        {
            throw RunFiles.Bad(path, e is DecoderFallbackException ? "it is not UTF-8" : e.Message, e);
        }
    }

    /// <summary>A property of an object; null where it is missing or null.</summary>
    public static JsonElement? Find(this JsonElement at, string name) =>
        at.ValueKind == JsonValueKind.Object && at.TryGetProperty(name, out var found) && found.ValueKind != JsonValueKind.Null ? found : null;

    public static double? Number(this JsonElement at, string name) =>
        at.Find(name) is { ValueKind: JsonValueKind.Number } found && found.TryGetDouble(out var value) && double.IsFinite(value) ? value : null;

    public static string? Text(this JsonElement at, string name)
    {
        try
        {
            return at.Find(name) is { ValueKind: JsonValueKind.String } found ? Words.Clean(found.GetString()!) : null;
        }
        catch (InvalidOperationException e)
        {
            // Half of a surrogate pair.
            throw new JsonException($"{name} is not valid Unicode", e);
        }
    }

    /// <exception cref="JsonException">It is missing or no list.</exception>
    public static JsonElement.ArrayEnumerator List(this JsonElement at, string name) =>
        at.Find(name) is { ValueKind: JsonValueKind.Array } found ? found.EnumerateArray() : throw new JsonException($"it has no list \"{name}\"");
}

/// <summary>Words that come from files.</summary>
internal static class Words
{
    private const int Longest = 300;

    /// <summary>Without what no page can hold: control characters and halves of surrogate pairs; very long ones are cut.</summary>
    public static string Clean(string text, int longest = Longest)
    {
        var clean = new StringBuilder(Math.Min(text.Length, longest + 1));
        foreach (var rune in text.EnumerateRunes())
        {
            if (clean.Length >= longest)
                return clean.Append('…').ToString();
            clean.Append(Rune.IsControl(rune) || rune.Value is 0xFFFE or 0xFFFF ? Rune.ReplacementChar.ToString() : rune.ToString());
        }
        return clean.ToString();
    }

    /// <summary>For ids and files: letters, digits and hyphens of ASCII.</summary>
    public static string Id(string text)
    {
        var id = new StringBuilder();
        foreach (var c in text.ToLowerInvariant())
            if (char.IsAsciiLetterOrDigit(c))
                id.Append(c);
            else if (id.Length > 0 && id[^1] != '-')
                id.Append('-');
        return id.ToString().Trim('-') is { Length: > 0 } made ? made[..Math.Min(made.Length, 40)].TrimEnd('-') : "run";
    }

    /// <summary>a, b and c.</summary>
    public static string And(IReadOnlyList<string> words) =>
        words.Count < 2 ? string.Concat(words) : $"{string.Join(", ", words.Take(words.Count - 1))} and {words[^1]}";
}
