using System.Text.Json;
using System.Text.Unicode;

namespace NativeLora.Checkpoints;

/// <summary>JSON files from outside: bounded size and depth, valid UTF-8, no key twice, an object at the top.</summary>
internal static class StrictJson
{
    private const int Depth = 32;

    /// <summary>Reads a file whose top is an object. All its strings are then known to be valid Unicode.</summary>
    /// <exception cref="InputException">The file is missing, unreadable, too large or not such JSON.</exception>
    public static JsonElement ReadObject(string path, long mostBytes = 16 << 20)
    {
        using var file = MappedFile.Open(path);
        if (file.Length > mostBytes)
            throw Reject.At(path, $"{file.Length} bytes are more than the {mostBytes} that such a file may have");
        return ParseObject(path, file.Span(0, file.Length));
    }

    /// <summary>Parses bytes that came from <paramref name="source"/>.</summary>
    /// <exception cref="InputException">Not such JSON.</exception>
    public static JsonElement ParseObject(string source, ReadOnlySpan<byte> utf8)
    {
        if (!Utf8.IsValid(utf8))
            throw Reject.At(source, "is not UTF-8");
        try
        {
            using var document = JsonDocument.Parse(
                utf8.ToArray(), new JsonDocumentOptions { MaxDepth = Depth, AllowDuplicateProperties = false });
            if (document.RootElement.ValueKind != JsonValueKind.Object)
                throw Reject.At(source, "is not a JSON object");
            TouchStrings(document.RootElement);
            return document.RootElement.Clone();
        }
        catch (JsonException e)
        {
            throw Reject.At(source, $"is not valid JSON: {Reject.Json(e)}", e);
        }
        catch (InvalidOperationException e)
        {
            throw Reject.At(source, "has a string that is not valid Unicode", e);
        }
    }

    /// <summary>A value as it stands in the file, for messages.</summary>
    public static string Show(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "an array",
        JsonValueKind.String => $"the string {Reject.Quote(value.GetString()!)}",
        _ => Reject.Quote(value.GetRawText()).Trim('\''),
    };

    // An escaped half of a surrogate pair is only noticed when the string is taken.
    /// <exception cref="InvalidOperationException">A string is half of a surrogate pair.</exception>
    internal static void TouchStrings(JsonElement element)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.String:
                _ = element.GetString();
                break;
            case JsonValueKind.Array:
                foreach (var item in element.EnumerateArray())
                    TouchStrings(item);
                break;
            case JsonValueKind.Object:
                foreach (var property in element.EnumerateObject())
                {
                    _ = property.Name;
                    TouchStrings(property.Value);
                }
                break;
        }
    }
}
