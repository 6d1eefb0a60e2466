using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using NativeLora.Tensors;

namespace NativeLora.Checkpoints;

/// <summary>
/// A Hugging Face <c>config.json</c>. Getters are strict: a value of the wrong type is an error that names file and key. A key
/// that is null counts as absent, as it does in Python.
/// </summary>
public sealed class HfConfig
{
    private readonly JsonElement _json;

    // "text_config." within such an object, else empty.
    private readonly string _prefix;

    internal HfConfig(JsonElement json, string source, string prefix = "")
    {
        (_json, Source, _prefix) = (json, source, prefix);
    }

    /// <summary>The file it came from.</summary>
    public string Source { get; }

    /// <summary>The JSON text as it was read.</summary>
    public string Json => _json.GetRawText();

    /// <summary>Reads a <c>config.json</c>, or that of a folder.</summary>
    /// <exception cref="InputException">The file is missing, unreadable or not a JSON object.</exception>
    public static HfConfig Open(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        var file = Directory.Exists(path) ? Path.Combine(path, "config.json") : path;
        return new HfConfig(StrictJson.ReadObject(file), file);
    }

    /// <summary>Parses a text.</summary>
    /// <param name="json">A JSON object.</param>
    /// <param name="source">What messages call it.</param>
    /// <exception cref="InputException">Not a JSON object.</exception>
    public static HfConfig Parse(string json, string source = "config.json")
    {
        ArgumentNullException.ThrowIfNull(json);
        return new HfConfig(StrictJson.ParseObject(source, Encoding.UTF8.GetBytes(json)), source);
    }

    /// <summary>The architecture's short name, such as <c>llama</c>. Required.</summary>
    public string ModelType => GetString("model_type");

    /// <summary>The class names, such as <c>LlamaForCausalLM</c>; empty if there are none.</summary>
    public IReadOnlyList<string> Architectures => GetStrings("architectures") ?? [];

    /// <summary>The type the weights were saved in (<c>dtype</c>, in older files <c>torch_dtype</c>); null if not said.</summary>
    public ElementType? Dtype
    {
        get
        {
            var key = Has("dtype") ? "dtype" : "torch_dtype";
            if (!Has(key))
                return null;
            var name = GetString(key);
            return name.StartsWith("torch.", StringComparison.Ordinal) ? Known(name[6..]) : Known(name);

            ElementType Known(string type) => type switch
            {
                "float32" => ElementType.F32,
                "bfloat16" => ElementType.BF16,
                "float16" => ElementType.F16,
                "float64" => ElementType.F64,
                _ => throw Wrong(key, "one of float32, bfloat16, float16, float64"),
            };
        }
    }

    /// <summary>Number of classes: <c>num_labels</c>, else as many as <c>id2label</c> has, else 2.</summary>
    public int NumLabels =>
        Has("num_labels") ? GetPositiveInt("num_labels") : Id2Label is { Count: > 0 } labels ? labels.Count : 2;

    /// <summary>Names of the classes by index; empty if the file has none.</summary>
    public IReadOnlyDictionary<int, string> Id2Label
    {
        get
        {
            var labels = new SortedDictionary<int, string>();
            if (!TryGet("id2label", out var json))
                return labels;
            if (json.ValueKind != JsonValueKind.Object)
                throw Wrong("id2label", "an object");
            foreach (var property in json.EnumerateObject())
            {
                if (!int.TryParse(property.Name, NumberStyles.None, CultureInfo.InvariantCulture, out var index))
                    throw Fail("id2label", $"has the key {Reject.Quote(property.Name)}, expected an index from 0");
                if (property.Value.ValueKind != JsonValueKind.String)
                    throw Fail("id2label", $"gives {StrictJson.Show(property.Value)} for {index}, expected a string");
                if (!labels.TryAdd(index, property.Value.GetString()!))
                    throw Fail("id2label", $"has the index {index} twice");
            }
            return labels;
        }
    }

    /// <summary>Whether the key is there and not null.</summary>
    public bool Has(string key) => TryGet(key, out _);

    /// <summary>Whether the file says null: for settings whose absence means a default, and null means off.</summary>
    internal bool IsNull(string key) => _json.TryGetProperty(key, out var json) && json.ValueKind == JsonValueKind.Null;

    /// <summary>An integer.</summary>
    /// <param name="key">The key.</param>
    /// <param name="fallback">The value if the key is absent; null if it is required.</param>
    /// <exception cref="InputException">Absent without fallback, or not an integer of 32 bits.</exception>
    public int GetInt(string key, int? fallback = null)
    {
        if (!TryGet(key, out var json))
            return fallback ?? throw Missing(key, "an integer");
        return json.ValueKind == JsonValueKind.Number && json.TryGetInt32(out var value) ? value : throw Wrong(key, "an integer");
    }

    /// <summary>An integer from 1 to <paramref name="most"/>.</summary>
    /// <exception cref="InputException">Absent without fallback, not an integer, or out of range.</exception>
    public int GetPositiveInt(string key, int? fallback = null, int most = int.MaxValue)
    {
        var value = GetInt(key, fallback);
        return value >= 1 && value <= most
            ? value
            : throw Wrong(key, most == int.MaxValue ? "an integer from 1" : $"an integer from 1 to {most}");
    }

    /// <summary>A finite number, rounded to fp32.</summary>
    /// <exception cref="InputException">Absent without fallback, or not a finite number.</exception>
    public float GetFloat(string key, float? fallback = null)
    {
        if (!TryGet(key, out _))
            return fallback ?? throw Missing(key, "a number");
        var value = (float)GetDouble(key);
        return float.IsFinite(value) ? value : throw Wrong(key, "a number in fp32's range");
    }

    /// <summary>A finite number.</summary>
    /// <exception cref="InputException">Absent without fallback, or not a finite number.</exception>
    public double GetDouble(string key, double? fallback = null)
    {
        if (!TryGet(key, out var json))
            return fallback ?? throw Missing(key, "a number");
        return json.ValueKind == JsonValueKind.Number && json.TryGetDouble(out var value) && double.IsFinite(value)
            ? value
            : throw Wrong(key, "a number");
    }

    /// <summary>True or false.</summary>
    /// <exception cref="InputException">Absent without fallback, or something else.</exception>
    public bool GetBool(string key, bool? fallback = null)
    {
        if (!TryGet(key, out var json))
            return fallback ?? throw Missing(key, "true or false");
        return json.ValueKind switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            _ => throw Wrong(key, "true or false"),
        };
    }

    /// <summary>A string.</summary>
    /// <exception cref="InputException">Absent without fallback, or not a string.</exception>
    public string GetString(string key, string? fallback = null)
    {
        if (!TryGet(key, out var json))
            return fallback ?? throw Missing(key, "a string");
        return json.ValueKind == JsonValueKind.String ? json.GetString()! : throw Wrong(key, "a string");
    }

    /// <summary>An array of strings; null if the key is absent.</summary>
    /// <exception cref="InputException">Something else.</exception>
    public IReadOnlyList<string>? GetStrings(string key) =>
        Items(key, "an array of strings", item => item.ValueKind == JsonValueKind.String ? item.GetString() : null);

    /// <summary>An array of integers; null if the key is absent.</summary>
    /// <exception cref="InputException">Something else.</exception>
    public IReadOnlyList<int>? GetInts(string key) => Items<int?>(
        key, "an array of integers",
        item => item.ValueKind == JsonValueKind.Number && item.TryGetInt32(out var value) ? value : null)
        ?.Select(value => value!.Value).ToArray();

    /// <summary>A nested object, such as <c>text_config</c>; null if the key is absent.</summary>
    /// <exception cref="InputException">Not an object.</exception>
    public HfConfig? GetObject(string key)
    {
        if (!TryGet(key, out var json))
            return null;
        return json.ValueKind == JsonValueKind.Object
            ? new HfConfig(json, Source, $"{_prefix}{key}.")
            : throw Wrong(key, "an object");
    }

    /// <summary>The same with values for keys that are absent; messages still name the file.</summary>
    internal HfConfig With(IReadOnlyDictionary<string, JsonNode> defaults)
    {
        var json = JsonNode.Parse(Json)!.AsObject();
        foreach (var (key, value) in defaults)
            if (json[key] is null)
                json[key] = value.DeepClone();
        return new HfConfig(JsonElement.Parse(json.ToJsonString()), Source, _prefix);
    }

    /// <summary>The rotary settings; see <see cref="RopeParameters"/>.</summary>
    /// <param name="layerType">For models with several kinds of layers: <c>full_attention</c> or <c>sliding_attention</c>.</param>
    /// <param name="defaultTheta">The family's base where the file gives none.</param>
    /// <exception cref="InputException">A value is missing, of the wrong type or out of range.</exception>
    public RopeParameters Rope(string? layerType = null, double defaultTheta = 10000) =>
        RopeParameters.Read(this, layerType, defaultTheta);

    /// <summary>Refuses any other model type.</summary>
    /// <exception cref="InputException">The model type is missing or not one of these.</exception>
    public void RequireModelType(params string[] supported)
    {
        ArgumentNullException.ThrowIfNull(supported);
        if (!supported.Contains(ModelType, StringComparer.Ordinal))
            throw Fail("model_type", $"is {Reject.Quote(ModelType)}, supported are {string.Join(", ", supported)}");
    }

    /// <summary>Checks sizes and their relations, as far as they are the same for all families.</summary>
    /// <exception cref="InputException">A size is missing, of the wrong type, out of range or does not divide.</exception>
    internal void ValidateTransformer() => ConfigRules.Check(this);

    internal bool IsString(string key) => TryGet(key, out var json) && json.ValueKind == JsonValueKind.String;

    internal bool IsObject(string key) => TryGet(key, out var json) && json.ValueKind == JsonValueKind.Object;

    /// <summary>An error about a key of this file.</summary>
    internal InputException Fail(string key, string what) => Reject.At(Source, $"{_prefix}{key} {what}");

    /// <summary>An error that shows the value and says what was expected.</summary>
    internal InputException Wrong(string key, string expected) =>
        Fail(key, $"is {(TryGet(key, out var json) ? StrictJson.Show(json) : "missing")}, expected {expected}");

    private InputException Missing(string key, string expected) => Fail(key, $"is missing, expected {expected}");

    private bool TryGet(string key, out JsonElement json) =>
        _json.TryGetProperty(key, out json) && json.ValueKind != JsonValueKind.Null;

    private T[]? Items<T>(string key, string expected, Func<JsonElement, T?> take)
    {
        if (!TryGet(key, out var json))
            return null;
        if (json.ValueKind != JsonValueKind.Array)
            throw Wrong(key, expected);
        return [.. json.EnumerateArray().Select(item => take(item) ?? throw Fail(key, $"holds {StrictJson.Show(item)}, expected {expected}"))];
    }
}
