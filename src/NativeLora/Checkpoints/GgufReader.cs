using System.Buffers.Binary;
using System.Text;
using System.Text.Unicode;

namespace NativeLora.Checkpoints;

/// <summary>Takes numbers, strings and values from the front of a GGUF file; whatever is not there is an error, never read.</summary>
internal sealed class GgufReader(MappedFile file)
{
    private const int LongestString = 1 << 24;
    private const int DeepestArray = 4;

    // Bounds what a file of small elements can make of itself in memory.
    private const long MostElements = 1 << 25;

    private long _elements;

    public long Position { get; private set; }

    public long Left => file.Length - Position;

    public uint UInt32(string what) => BinaryPrimitives.ReadUInt32LittleEndian(Take(4, what));

    public ulong UInt64(string what) => BinaryPrimitives.ReadUInt64LittleEndian(Take(8, what));

    /// <summary>A count of things that take at least <paramref name="leastBytes"/> each, so that the file can hold them.</summary>
    public long Count(string what, int leastBytes)
    {
        var count = UInt64(what);
        if (count > (ulong)(Left / leastBytes))
            throw Reject.At(file.Path, $"{what} {count} is more than the {Left} bytes left can hold; the file is damaged");
        return (long)count;
    }

    public string String(string what, int longest = LongestString)
    {
        var length = UInt64($"the length of {what}");
        if (length > (ulong)Math.Min(longest, Left))
            throw Reject.At(file.Path,
                $"the length {length} of {what} is over the limit of {longest} or the {Left} bytes left; the file is damaged");
        var bytes = Take((int)length, what);
        if (!Utf8.IsValid(bytes))
            throw Reject.At(file.Path, $"{what} is not UTF-8");
        return Encoding.UTF8.GetString(bytes);
    }

    public GgufValue Value(string what, uint type, int depth = 0) => type == 9 ? Array(what, depth) : new GgufValue(Scalar(what, type));

    private object Scalar(string what, uint type) => type switch
    {
        0 => (long)Take(1, what)[0],
        1 => (long)(sbyte)Take(1, what)[0],
        2 => (long)BinaryPrimitives.ReadUInt16LittleEndian(Take(2, what)),
        3 => (long)BinaryPrimitives.ReadInt16LittleEndian(Take(2, what)),
        4 => (long)UInt32(what),
        5 => (long)BinaryPrimitives.ReadInt32LittleEndian(Take(4, what)),
        6 => (double)BinaryPrimitives.ReadSingleLittleEndian(Take(4, what)),
        7 => Bool(what),
        8 => String(what),
        10 => UInt64(what) is var large && large <= long.MaxValue ? (object)(long)large : large,
        11 => BinaryPrimitives.ReadInt64LittleEndian(Take(8, what)),
        12 => BinaryPrimitives.ReadDoubleLittleEndian(Take(8, what)),
        _ => throw Reject.At(file.Path, $"{what} has the unknown value type {type}"),
    };

    private GgufValue Array(string what, int depth)
    {
        if (depth == DeepestArray)
            throw Reject.At(file.Path, $"{what} nests arrays more than {DeepestArray} deep");
        var type = UInt32(what);
        var count = Count($"the array length of {what}", LeastBytes(what, type));
        _elements += count;
        if (_elements > MostElements)
            throw Reject.At(file.Path, $"the metadata's arrays have more than {MostElements} elements");
        return new GgufValue(type switch
        {
            9 => Fill(() => Array(what, depth + 1)),
            8 => Fill(() => String(what)),
            7 => Fill(() => Bool(what)),
            6 or 12 => Fill(() => (double)Scalar(what, type)),
            10 => Fill(() => UInt64(what)),
            _ => (object)Fill(() => (long)Scalar(what, type)),
        });

        T[] Fill<T>(Func<T> next)
        {
            var values = new T[count];
            for (var i = 0; i < values.Length; i++)
                values[i] = next();
            return values;
        }
    }

    private int LeastBytes(string what, uint type) => type switch
    {
        0 or 1 or 7 => 1,
        2 or 3 => 2,
        4 or 5 or 6 => 4,
        8 or 10 or 11 or 12 => 8,
        9 => 12,
        _ => throw Reject.At(file.Path, $"{what} has the unknown value type {type}"),
    };

    private bool Bool(string what) => Take(1, what)[0] switch
    {
        0 => false,
        1 => true,
        var other => throw Reject.At(file.Path, $"{what} is the byte {other} where true or false is expected"),
    };

    private ReadOnlySpan<byte> Take(int bytes, string what)
    {
        if (bytes > Left)
            throw Reject.At(file.Path, $"the file ends in {what}; it is cut off");
        var span = file.Span(Position, bytes);
        Position += bytes;
        return span;
    }
}
