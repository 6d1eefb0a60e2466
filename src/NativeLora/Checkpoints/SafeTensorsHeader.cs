using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Unicode;
using NativeLora.Tensors;

namespace NativeLora.Checkpoints;

/// <summary>Reads and checks the header of a safetensors file: 8 bytes of length, then JSON.</summary>
internal static class SafeTensorsHeader
{
    // The reference's own limit.
    private const long LongestHeader = 100_000_000;
    private const int MostDimensions = 64;

    private static readonly Dictionary<string, ElementType> Types = new(StringComparer.Ordinal)
    {
        ["F32"] = ElementType.F32,
        ["F16"] = ElementType.F16,
        ["BF16"] = ElementType.BF16,
        ["F64"] = ElementType.F64,
        ["I64"] = ElementType.I64,
        ["I32"] = ElementType.I32,
        ["I16"] = ElementType.I16,
        ["I8"] = ElementType.I8,
        ["U8"] = ElementType.U8,
        ["BOOL"] = ElementType.Bool,
    };

    /// <summary>The name of a type in the header.</summary>
    public static string NameOf(ElementType type) =>
        Types.FirstOrDefault(pair => pair.Value == type).Key
        ?? throw new ArgumentException($"safetensors files cannot hold {type}", nameof(type));

    public static (Dictionary<string, TensorInfo> Tensors, Dictionary<string, string> Metadata) Read(MappedFile file)
    {
        if (file.Length < 8)
            throw Reject.At(file.Path, $"{file.Length} bytes are too few for a safetensors file; it is empty or cut off");
        var length = BinaryPrimitives.ReadUInt64LittleEndian(file.Span(0, 8));
        if (length > LongestHeader)
            throw Reject.At(file.Path, $"header length {length} is over the limit of {LongestHeader}; not a safetensors file?");
        if ((long)length > file.Length - 8)
            throw Reject.At(file.Path, $"header length {length} reaches past the end of the file of {file.Length} bytes");
        var json = file.Span(8, (long)length);
        if (!Utf8.IsValid(json))
            throw Reject.At(file.Path, "the header is not UTF-8");
        if (json.Length == 0 || json[0] != (byte)'{')
            throw Reject.At(file.Path, "the header is not a JSON object; not a safetensors file?");

        try
        {
            var parsed = Parse(file.Path, json, 8 + (long)length);
            return (CheckLayout(file, parsed.Tensors, 8 + (long)length), parsed.Metadata);
        }
        catch (JsonException e)
        {
            throw Reject.At(file.Path, $"the header is not valid JSON: {Reject.Json(e)}", e);
        }
        catch (InvalidOperationException e)
        {
            // The JSON reader's answer to an escaped half of a surrogate pair.
            throw Reject.At(file.Path, "the header has a string that is not valid Unicode", e);
        }
    }

    private static (List<TensorInfo> Tensors, Dictionary<string, string> Metadata) Parse(
        string path, ReadOnlySpan<byte> json, long dataStart)
    {
        var reader = new Utf8JsonReader(json, new JsonReaderOptions { MaxDepth = 8 });
        var tensors = new List<TensorInfo>();
        var metadata = new Dictionary<string, string>(StringComparer.Ordinal);
        var seen = new HashSet<string>(StringComparer.Ordinal);
        reader.Read();
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var name = reader.GetString()!;
            if (!seen.Add(name))
                throw Reject.At(path, $"the header names {Reject.Quote(name)} twice");
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartObject)
                throw Reject.At(path, $"the header's entry {Reject.Quote(name)} is not an object");
            if (name == "__metadata__")
                ReadMetadata(path, ref reader, metadata);
            else
                tensors.Add(ReadTensor(path, ref reader, name, dataStart));
        }
        // Anything but spaces after the object makes the reader throw here.
        reader.Read();
        return (tensors, metadata);
    }

    private static void ReadMetadata(string path, ref Utf8JsonReader reader, Dictionary<string, string> metadata)
    {
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var key = reader.GetString()!;
            reader.Read();
            if (reader.TokenType != JsonTokenType.String)
                throw Reject.At(path, $"__metadata__ {Reject.Quote(key)} is not a string");
            if (!metadata.TryAdd(key, reader.GetString()!))
                throw Reject.At(path, $"__metadata__ names {Reject.Quote(key)} twice");
        }
    }

    private static TensorInfo ReadTensor(string path, ref Utf8JsonReader reader, string name, long dataStart)
    {
        string? dtype = null;
        List<long>? shape = null, offsets = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var key = reader.GetString()!;
            reader.Read();
            var again = false;
            switch (key)
            {
                case "dtype":
                    again = dtype is not null;
                    dtype = reader.TokenType == JsonTokenType.String
                        ? reader.GetString()!
                        : throw Reject.At(path, $"tensor {Reject.Quote(name)}: dtype is not a string");
                    break;
                case "shape":
                    again = shape is not null;
                    shape = ReadIntegers(path, ref reader, name, key);
                    break;
                case "data_offsets":
                    again = offsets is not null;
                    offsets = ReadIntegers(path, ref reader, name, key);
                    break;
                default:
                    throw Reject.At(path, $"tensor {Reject.Quote(name)}: unknown key {Reject.Quote(key)}");
            }
            if (again)
                throw Reject.At(path, $"tensor {Reject.Quote(name)}: {key} is given twice");
        }
        if (dtype is null || shape is null || offsets is null)
        {
            var missing = dtype is null ? "dtype" : shape is null ? "shape" : "data_offsets";
            throw Reject.At(path, $"tensor {Reject.Quote(name)} has no {missing}");
        }
        if (!Types.TryGetValue(dtype, out var type))
            throw Reject.At(path,
                $"tensor {Reject.Quote(name)}: dtype {Reject.Quote(dtype)} is not supported (known: {string.Join(", ", Types.Keys)})");
        if (offsets.Count != 2 || offsets[0] > offsets[1])
            throw Reject.At(path,
                $"tensor {Reject.Quote(name)}: data_offsets [{string.Join(", ", offsets)}] are not a begin and an end");

        long bytes;
        try
        {
            bytes = type.Bytes(TensorInfo.Product([.. shape]));
        }
        catch (OverflowException e)
        {
            throw Reject.At(path, $"tensor {Reject.Quote(name)}: shape [{string.Join(", ", shape)}] is too large", e);
        }
        if (bytes != offsets[1] - offsets[0])
            throw Reject.At(path,
                $"tensor {Reject.Quote(name)}: shape [{string.Join(", ", shape)}] of {dtype} takes {bytes} bytes, " +
                $"data_offsets give {offsets[1] - offsets[0]}");
        if (offsets[1] > long.MaxValue - dataStart)
            throw Reject.At(path, $"tensor {Reject.Quote(name)}: data_offsets reach past the end of the file");
        return new TensorInfo(name, type, [.. shape], dataStart + offsets[0], bytes);
    }

    private static List<long> ReadIntegers(string path, ref Utf8JsonReader reader, string name, string key)
    {
        if (reader.TokenType != JsonTokenType.StartArray)
            throw Reject.At(path, $"tensor {Reject.Quote(name)}: {key} is not an array");
        var values = new List<long>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt64(out var value) || value < 0)
                throw Reject.At(path, $"tensor {Reject.Quote(name)}: {key} holds something else than integers from 0");
            if (values.Count == MostDimensions)
                throw Reject.At(path, $"tensor {Reject.Quote(name)}: {key} has more than {MostDimensions} entries");
            values.Add(value);
        }
        return values;
    }

    /// <summary>Tensors must follow each other without holes or overlap and end where the file ends.</summary>
    private static Dictionary<string, TensorInfo> CheckLayout(MappedFile file, List<TensorInfo> tensors, long dataStart)
    {
        tensors.Sort((a, b) => (a.Offset, a.Bytes).CompareTo((b.Offset, b.Bytes)));
        var byName = new Dictionary<string, TensorInfo>(tensors.Count, StringComparer.Ordinal);
        var end = dataStart;
        foreach (var tensor in tensors)
        {
            if (tensor.Offset != end)
                throw Reject.At(file.Path,
                    $"tensor {Reject.Quote(tensor.Name)} begins at data byte {tensor.Offset - dataStart}, expected {end - dataStart}: " +
                    (tensor.Offset < end ? "tensors overlap" : "bytes belong to no tensor"));
            if (tensor.Bytes > file.Length - end)
                throw Reject.At(file.Path,
                    $"tensor {Reject.Quote(tensor.Name)} reaches past the end of the file of {file.Length} bytes; the file is cut off");
            end += tensor.Bytes;
            byName.Add(tensor.Name, tensor);
        }
        if (end != file.Length)
            throw Reject.At(file.Path, $"{file.Length - end} bytes after the last tensor belong to no tensor");
        return byName;
    }
}
