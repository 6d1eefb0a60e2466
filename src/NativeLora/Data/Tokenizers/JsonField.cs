using System.Text.Json;

namespace NativeLora.Data.Tokenizers;

/// <summary>A JSON value that knows where it stands, so that whatever is wrong with it can be named.</summary>
internal readonly struct JsonField
{
    private readonly JsonElement _element;

    private JsonField(JsonElement element, string file, string path)
    {
        _element = element;
        File = file;
        Path = path;
    }

    public string File { get; }

    public string Path { get; }

    public bool IsNull => _element.ValueKind is JsonValueKind.Null or JsonValueKind.Undefined;

    public bool IsString => _element.ValueKind == JsonValueKind.String;

    public bool IsObject => _element.ValueKind == JsonValueKind.Object;

    public bool IsArray => _element.ValueKind == JsonValueKind.Array;

    public bool IsNumber => _element.ValueKind == JsonValueKind.Number;

    /// <summary>Reads a file whose root is an object and hands it to <paramref name="use"/>.</summary>
    public static T Read<T>(string file, Func<JsonField, T> use)
    {
        try
        {
            using var document = JsonDocument.Parse(System.IO.File.ReadAllBytes(file));
            var root = new JsonField(document.RootElement, file, "");
            if (!root.IsObject)
                throw new InputException($"{file}: the file holds no JSON object; fetch it again");
            return use(root);
        }
        catch (JsonException e)
        {
            throw new InputException(
                $"{file}: not valid JSON (line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1}); fetch it again", e);
        }
        // What System.Text.Json throws for a \u escape that is half a surrogate pair.
        catch (InvalidOperationException e)
        {
            throw new InputException($"{file}: a string in it is not valid Unicode; fetch it again", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file}: cannot be read ({TextFile.OneLine(e)})", e);
        }
    }

    public InputException Wrong(string what) =>
        new($"{File}: {(Path.Length == 0 ? "" : Path + ": ")}{what}; use the file that was saved with the model");

    /// <summary>The named member; a null <see cref="JsonField"/> if there is none.</summary>
    public JsonField Find(string name)
    {
        if (!IsObject)
            throw Wrong("should be an object");
        var path = Path.Length == 0 ? name : $"{Path}.{name}";
        return new JsonField(_element.TryGetProperty(name, out var found) ? found : default, File, path);
    }

    public JsonField Get(string name)
    {
        var found = Find(name);
        return found.IsNull ? throw Wrong($"'{name}' is missing") : found;
    }

    public string Text() => IsString ? _element.GetString()! : throw Wrong("should be a string");

    public string? TextOrNull(string name)
    {
        var found = Find(name);
        return found.IsNull ? null : found.Text();
    }

    /// <summary>Bytes written in base 64.</summary>
    public byte[] Bytes() => IsString && _element.TryGetBytesFromBase64(out var bytes) ? bytes : throw Wrong("should be base 64");

    public int Number() =>
        IsNumber && _element.TryGetInt32(out var value) ? value : throw Wrong("should be an integer");

    public double Real() =>
        IsNumber && _element.TryGetDouble(out var value) ? value : throw Wrong("should be a number");

    public bool Flag(string name, bool otherwise)
    {
        var found = Find(name);
        return found._element.ValueKind switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            JsonValueKind.Null or JsonValueKind.Undefined => otherwise,
            _ => throw found.Wrong("should be true or false"),
        };
    }

    /// <summary>A string that is exactly one character, as the replacement of Metaspace is.</summary>
    public string OneCharacter()
    {
        var text = Text();
        return text.EnumerateRunes().Count() == 1 ? text : throw Wrong("should be one character");
    }

    public IEnumerable<JsonField> Items()
    {
        if (!IsArray)
            throw Wrong("should be an array");
        var at = 0;
        foreach (var item in _element.EnumerateArray())
            yield return new JsonField(item, File, $"{Path}[{at++}]");
    }

    public IEnumerable<(string Name, JsonField Value)> Members()
    {
        if (!IsObject)
            throw Wrong("should be an object");
        foreach (var member in _element.EnumerateObject())
            yield return (member.Name, new JsonField(member.Value, File, $"{Path}.{member.Name}"));
    }
}
