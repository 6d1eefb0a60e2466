using System.Globalization;

namespace NativeLora.Cli.Rows;

/// <summary>What kind of value a field of Thrift has.</summary>
internal enum ThriftKind
{
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List,
    Struct,
}

/// <summary>Which fields a structure has: those that are not listed are passed over.</summary>
internal sealed class ThriftShape(params (int Id, ThriftKind Kind, ThriftShape? Of, ThriftKind Items)[] fields)
{
    private readonly Dictionary<int, (ThriftKind Kind, ThriftShape? Of, ThriftKind Items)> _fields = fields.ToDictionary(f => f.Id, f => (f.Kind, f.Of, f.Items));

    public bool TryGet(int id, out (ThriftKind Kind, ThriftShape? Of, ThriftKind Items) field) => _fields.TryGetValue(id, out field);

    public static (int, ThriftKind, ThriftShape?, ThriftKind) Of(int id, ThriftKind kind) => (id, kind, null, default);

    public static (int, ThriftKind, ThriftShape?, ThriftKind) Of(int id, ThriftShape shape) => (id, ThriftKind.Struct, shape, default);

    public static (int, ThriftKind, ThriftShape?, ThriftKind) ListOf(int id, ThriftShape shape) => (id, ThriftKind.List, shape, ThriftKind.Struct);

    public static (int, ThriftKind, ThriftShape?, ThriftKind) ListOf(int id, ThriftKind items) => (id, ThriftKind.List, null, items);
}

/// <summary>A structure that was read: integers and truth values as numbers, and what holds others.</summary>
internal sealed class ThriftStruct
{
    private readonly Dictionary<int, object> _values = [];

    public void Set(int id, object value) => _values[id] = value;

    public long? Number(int id) => _values.TryGetValue(id, out var value) && value is long number ? number : null;

    public int? Length(int id) => _values.TryGetValue(id, out var value) && value is byte[] bytes ? bytes.Length : null;

    public string? Text(int id) => _values.TryGetValue(id, out var value) && value is byte[] bytes ? System.Text.Encoding.UTF8.GetString(bytes) : null;

    public IReadOnlyList<object>? List(int id) => _values.TryGetValue(id, out var value) ? value as List<object> : null;

    public ThriftStruct? Struct(int id) => _values.TryGetValue(id, out var value) ? value as ThriftStruct : null;
}

/// <summary>
/// Reads Thrift's compact protocol, as Parquet's metadata are written in it: every length is checked against what is left, and every field
/// that is known against its kind, so that what is read from the same bytes later, by whatever reader, ends.
/// </summary>
internal ref struct ThriftReader(ReadOnlySpan<byte> bytes)
{
    private const int Deepest = 24;
    private readonly ReadOnlySpan<byte> _bytes = bytes;

    public int Position { get; private set; }

    private readonly int Left => _bytes.Length - Position;

    /// <summary>A structure.</summary>
    /// <exception cref="InvalidDataException">It is none, or has a field of another kind.</exception>
    public ThriftStruct Read(ThriftShape? shape, int depth = 0)
    {
        if (depth > Deepest)
            throw new InvalidDataException("metadata are nested too deep");
        var read = new ThriftStruct();
        var id = 0;
        while (true)
        {
            var head = Byte();
            if (head == 0)
                return read;
            id = head >> 4 is var step and > 0 ? id + step : (int)Zigzag(16);
            var (kind, of, items) = (KindOf(head & 15), (ThriftShape?)null, default(ThriftKind));
            if (shape is not null && shape.TryGet(id, out var known))
            {
                if (known.Kind != kind)
                    throw new InvalidDataException(string.Create(CultureInfo.InvariantCulture, $"field {id} of the metadata is a {kind}, expected a {known.Kind}"));
                (of, items) = (known.Of, known.Items);
                read.Set(id, Value(head & 15, of, items, isKnown: true, depth));
            }
            else
            {
                _ = Value(head & 15, null, default, isKnown: false, depth);
            }
        }
    }

    private object Value(int type, ThriftShape? of, ThriftKind items, bool isKnown, int depth)
    {
        switch (KindOf(type))
        {
            case ThriftKind.Bool:
                return type == 1 ? 1L : 0L;
            case ThriftKind.Byte:
                return (long)Byte();
            case ThriftKind.I16:
                return Zigzag(16);
            case ThriftKind.I32:
                return Zigzag(32);
            case ThriftKind.I64:
                return Zigzag(64);
            case ThriftKind.Double:
                Take(8);
                return 0.0;
            case ThriftKind.Binary:
                var length = Varint();
                return length <= (ulong)Left ? Take((int)length).ToArray() : throw new InvalidDataException("a text of the metadata reaches past their end");
            case ThriftKind.Struct:
                return Read(of, depth + 1);
            default:
                return Items(of, items, isKnown, depth + 1);
        }
    }

    private List<object> Items(ThriftShape? of, ThriftKind items, bool isKnown, int depth)
    {
        if (depth > Deepest)
            throw new InvalidDataException("metadata are nested too deep");
        var head = Byte();
        var count = head >> 4 is var few and < 15 ? (ulong)few : Varint();
        // Each takes a byte at least.
        if (count > (ulong)Left)
            throw new InvalidDataException("a list of the metadata reaches past their end");
        var type = head & 15;
        if (isKnown && count > 0 && KindOf(type) != items)
            throw new InvalidDataException($"a list of the metadata holds a {KindOf(type)}, expected a {items}");
        var list = new List<object>((int)count);
        for (var i = 0UL; i < count; i++)
            list.Add(KindOf(type) == ThriftKind.Bool ? (long)Byte() : Value(type, of, default, isKnown: false, depth));
        return list;
    }

    private static ThriftKind KindOf(int type) => type switch
    {
        1 or 2 => ThriftKind.Bool,
        3 => ThriftKind.Byte,
        4 => ThriftKind.I16,
        5 => ThriftKind.I32,
        6 => ThriftKind.I64,
        7 => ThriftKind.Double,
        8 => ThriftKind.Binary,
        9 => ThriftKind.List,
        12 => ThriftKind.Struct,
        _ => throw new InvalidDataException(string.Create(CultureInfo.InvariantCulture, $"the metadata have a value of type {type}")),
    };

    private byte Byte() => Take(1)[0];

    private ReadOnlySpan<byte> Take(int count)
    {
        if (count > Left)
            throw new InvalidDataException("the metadata end too early");
        var taken = _bytes.Slice(Position, count);
        Position += count;
        return taken;
    }

    private ulong Varint()
    {
        ulong value = 0;
        for (var shift = 0; shift < 64; shift += 7)
        {
            var next = Byte();
            value |= (ulong)(next & 127) << shift;
            if (next < 128)
                return value;
        }
        throw new InvalidDataException("a number of the metadata has no end");
    }

    private long Zigzag(int bits)
    {
        var value = Varint();
        var number = (long)(value >> 1) ^ -(long)(value & 1);
        return bits == 64 || (number >= -(1L << (bits - 1)) && number < 1L << (bits - 1)) ? number
            : throw new InvalidDataException(string.Create(CultureInfo.InvariantCulture, $"a number of the metadata does not fit {bits} bits"));
    }
}
