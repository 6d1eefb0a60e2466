using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Runtime.InteropServices;
using System.Text.Encodings.Web;
using System.Text.Json;
using NativeLora.Tensors;

namespace NativeLora.Checkpoints;

/// <summary>A tensor to be written, with its bytes or something that produces them.</summary>
public sealed class TensorToWrite
{
    private readonly Action<Stream> _write;

    private TensorToWrite(string name, ElementType type, IEnumerable<long> shape, Action<Stream> write)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        if (name == "__metadata__")
            throw new ArgumentException("a tensor cannot be called __metadata__", nameof(name));
        (Name, Type, Shape, _write) = (name, type, [.. shape], write);
        foreach (var size in Shape)
            ArgumentOutOfRangeException.ThrowIfNegative(size, nameof(shape));
        Bytes = type.Bytes(TensorInfo.Product(Shape));
    }

    /// <summary>Name in the file.</summary>
    public string Name { get; }

    /// <summary>Element type in the file.</summary>
    public ElementType Type { get; }

    /// <summary>Sizes, the slowest varying first.</summary>
    public ImmutableArray<long> Shape { get; }

    /// <summary>Size in bytes.</summary>
    public long Bytes { get; }

    /// <summary>An fp32 tensor from its values.</summary>
    public static TensorToWrite From(string name, IEnumerable<long> shape, ReadOnlyMemory<float> values)
    {
        var tensor = new TensorToWrite(name, ElementType.F32, shape, to => to.Write(MemoryMarshal.AsBytes(values.Span)));
        return tensor.Bytes == 4L * values.Length
            ? tensor
            : throw new ArgumentException($"{values.Length} values do not fill the shape of {name}", nameof(values));
    }

    /// <summary>A tensor from its bytes, little-endian.</summary>
    public static TensorToWrite From(string name, ElementType type, IEnumerable<long> shape, ReadOnlyMemory<byte> bytes)
    {
        var tensor = new TensorToWrite(name, type, shape, to => to.Write(bytes.Span));
        return tensor.Bytes == bytes.Length
            ? tensor
            : throw new ArgumentException($"{bytes.Length} bytes do not fill the shape of {name}", nameof(bytes));
    }

    /// <summary>A tensor whose bytes are produced when its turn comes; the callback must write exactly its size.</summary>
    public static TensorToWrite Streamed(string name, ElementType type, IEnumerable<long> shape, Action<Stream> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        return new TensorToWrite(name, type, shape, write);
    }

    internal void WriteTo(Stream stream) => _write(stream);
}

/// <summary>Writes safetensors files, byte for byte as the reference library does.</summary>
public static class SafeTensorsWriter
{
    // The reference's order of types; files list the later ones first, which keeps tensors aligned.
    private static readonly ElementType[] Order =
    [
        ElementType.Bool, ElementType.U8, ElementType.I8, ElementType.I16, ElementType.F16, ElementType.BF16,
        ElementType.I32, ElementType.F32, ElementType.F64, ElementType.I64,
    ];

    /// <summary>Writes a file atomically: see <see cref="AtomicFile"/>.</summary>
    /// <param name="path">The file to write or replace.</param>
    /// <param name="tensors">The tensors, in any order.</param>
    /// <param name="metadata">The header's strings; null for <c>{"format": "pt"}</c>.</param>
    /// <exception cref="RunException">The file cannot be written.</exception>
    /// <exception cref="ArgumentException">Two tensors share a name, or a type is not one of safetensors.</exception>
    public static void Write(
        string path, IReadOnlyList<TensorToWrite> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        AtomicFile.Write(path, Content(tensors, metadata));
    }

    /// <summary>What is in such a file.</summary>
    internal static Action<Stream> Content(IReadOnlyList<TensorToWrite> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        var sorted = tensors
            .OrderByDescending(tensor => Array.IndexOf(Order, tensor.Type))
            .ThenBy(tensor => tensor.Name, StringComparer.Ordinal)
            .ToList();
        var header = Header(sorted, metadata ?? new Dictionary<string, string> { ["format"] = "pt" });
        return stream =>
        {
            Span<byte> length = stackalloc byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(length, header.Length);
            stream.Write(length);
            stream.Write(header);
            foreach (var tensor in sorted)
            {
                var start = stream.Position;
                tensor.WriteTo(stream);
                if (stream.Position - start != tensor.Bytes)
                    throw new InvalidOperationException(
                        $"{tensor.Name}: {stream.Position - start} bytes written, {tensor.Bytes} expected");
            }
        };
    }

    private static byte[] Header(List<TensorToWrite> tensors, IReadOnlyDictionary<string, string> metadata)
    {
        using var header = new MemoryStream();
        using (var json = new Utf8JsonWriter(header, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            if (metadata.Count > 0)
            {
                json.WriteStartObject("__metadata__");
                foreach (var (key, value) in metadata.OrderBy(pair => pair.Key, StringComparer.Ordinal))
                    json.WriteString(key, value);
                json.WriteEndObject();
            }
            var seen = new HashSet<string>(StringComparer.Ordinal);
            long at = 0;
            foreach (var tensor in tensors)
            {
                if (!seen.Add(tensor.Name))
                    throw new ArgumentException($"two tensors are called {tensor.Name}", nameof(tensors));
                json.WriteStartObject(tensor.Name);
                json.WriteString("dtype", SafeTensorsHeader.NameOf(tensor.Type));
                json.WriteStartArray("shape");
                foreach (var size in tensor.Shape)
                    json.WriteNumberValue(size);
                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(at);
                json.WriteNumberValue(at = checked(at + tensor.Bytes));
                json.WriteEndArray();
                json.WriteEndObject();
            }
            json.WriteEndObject();
        }
        while (header.Length % 8 != 0)
            header.WriteByte((byte)' ');
        return header.ToArray();
    }
}
