using System.Text.Json;

namespace NativeLora.Data;

/// <summary>
/// Reads JSON objects: one a line (.jsonl), or a file that is one array of them, as MetaMathQA comes.
/// </summary>
public static class JsonLines
{
    /// <summary>The objects in file order, read as they are asked for; blank lines are passed over.</summary>
    /// <exception cref="InputException">The file is missing, empty, not UTF-8, or holds something else.</exception>
    public static IEnumerable<JsonRow> Read(string path)
    {
        var any = false;
        foreach (var row in IsArray(path) ? ReadArray(path) : ReadLines(path))
        {
            any = true;
            yield return row;
        }
        if (!any)
            throw new InputException($"{path}: the file has no rows; give one JSON object a line");
    }

    private static bool IsArray(string path)
    {
        foreach (var (_, text) in Utf8Lines.Read(path))
        {
            if (!string.IsNullOrWhiteSpace(text))
                return text.AsSpan().TrimStart().StartsWith("[");
        }
        return false;
    }

    private static IEnumerable<JsonRow> ReadLines(string path)
    {
        foreach (var (line, text) in Utf8Lines.Read(path))
        {
            if (string.IsNullOrWhiteSpace(text))
                continue;
            JsonElement value;
            try
            {
                using var document = JsonDocument.Parse(text);
                value = document.RootElement.Clone();
            }
            catch (JsonException e)
            {
                throw Malformed(path, line, e);
            }
            yield return Row(path, line, value);
        }
    }

    private static IEnumerable<JsonRow> ReadArray(string path)
    {
        var bytes = Utf8Lines.ReadAll(path);
        var state = new JsonReaderState();
        int at = 0, line = 1;
        while (Next() is { } value)
            yield return Row(path, value.Line, value.Element);

        // A Utf8JsonReader cannot live across a yield: each element has its own, which goes on from the state of the last.
        (int Line, JsonElement Element)? Next()
        {
            var reader = new Utf8JsonReader(bytes.Span[at..], isFinalBlock: true, state);
            try
            {
                reader.Read();
                if (at == 0)
                    reader.Read();
                if (reader.TokenType == JsonTokenType.EndArray)
                {
                    // Reading on finds what should not stand after the array.
                    reader.Read();
                    return null;
                }
                var start = at + (int)reader.TokenStartIndex;
                var first = line + bytes.Span[at..start].Count((byte)'\n');
                using var document = JsonDocument.ParseValue(ref reader);
                var end = at + (int)reader.BytesConsumed;
                line = first + bytes.Span[start..end].Count((byte)'\n');
                at = end;
                state = reader.CurrentState;
                return (first, document.RootElement.Clone());
            }
            catch (JsonException e)
            {
                throw Malformed(path, LineOf(e), e);
            }
        }

        // The reader goes on counting lines across states, from 0.
        int LineOf(JsonException e) => (int)(e.LineNumber ?? line - 1) + 1;
    }

    private static JsonRow Row(string path, int line, JsonElement value) =>
        value.ValueKind == JsonValueKind.Object
            ? new JsonRow(path, line, Touched(path, line, value))
            : throw new InputException($"{path}: line {line} is a JSON {value.ValueKind.ToString().ToLowerInvariant()}; give an object with fields");

    // Names too: looking for a field by its name reads them all.
    private static JsonElement Touched(string path, int line, JsonElement value)
    {
        try
        {
            Checkpoints.StrictJson.TouchStrings(value);
            return value;
        }
        catch (InvalidOperationException e)
        {
            throw new InputException($"{path}: line {line} has a string that is not valid Unicode; mend its \\u escapes", e);
        }
    }

    private static InputException Malformed(string path, int line, JsonException e) =>
        new($"{path}: line {line} is not JSON: {Checkpoints.Reject.Json(e, line: false)}", e);
}

/// <summary>One object of a JSON file, and where it stands.</summary>
public readonly struct JsonRow
{
    private readonly JsonElement value;

    internal JsonRow(string path, int line, JsonElement value)
    {
        Path = path;
        Line = line;
        this.value = value;
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>The line where the object begins, from 1.</summary>
    public int Line { get; }

    /// <summary>Names of its fields.</summary>
    public IReadOnlyList<string> Names => [.. value.EnumerateObject().Select(p => p.Name)];

    /// <summary>Whether there is such a field, and it is not null.</summary>
    public bool HasValue(string field) => value.TryGetProperty(field, out var element) && element.ValueKind != JsonValueKind.Null;

    /// <summary>The texts of a field that is an array of strings.</summary>
    /// <exception cref="InputException">There is no such field or it is something else.</exception>
    public IReadOnlyList<string> Texts(string field)
    {
        var element = Field(field);
        if (element.ValueKind != JsonValueKind.Array || element.EnumerateArray().Any(e => e.ValueKind != JsonValueKind.String))
            throw new InputException($"{Path}: line {Line}: the field {field} is not an array of strings; give one");
        var texts = new List<string>();
        foreach (var item in element.EnumerateArray())
            texts.Add(String(field, item));
        return texts;
    }

    /// <summary>The text of a field.</summary>
    /// <exception cref="InputException">There is no such field or it is not a string.</exception>
    public string Text(string field)
    {
        var element = Field(field);
        if (element.ValueKind != JsonValueKind.String)
            throw new InputException($"{Path}: line {Line}: the field {field} is not a string; give its text in quotes");
        return String(field, element);
    }

    /// <summary>A field that is a string, a number or a truth value, as text.</summary>
    /// <exception cref="InputException">There is no such field or it is something else.</exception>
    public string Scalar(string field)
    {
        var element = Field(field);
        return element.ValueKind switch
        {
            JsonValueKind.String => String(field, element),
            JsonValueKind.Number or JsonValueKind.True or JsonValueKind.False => element.GetRawText(),
            _ => throw new InputException($"{Path}: line {Line}: the field {field} is neither a string nor a number; give one of them"),
        };
    }

    private JsonElement Field(string field) =>
        value.TryGetProperty(field, out var element) ? element : throw new InputException(
            $"{Path}: line {Line} has no field {field}; its fields are {LabelSet.Quoted(string.Join(", ", value.EnumerateObject().Select(p => p.Name)))}");

    private string String(string field, JsonElement element)
    {
        try
        {
            return element.GetString()!;
        }
        catch (InvalidOperationException e)
        {
            // Half of a surrogate pair, written as an escape.
            throw new InputException($"{Path}: line {Line}: the field {field} is not valid Unicode; mend its \\u escapes", e);
        }
    }
}
