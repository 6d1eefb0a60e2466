using System.Buffers.Binary;
using System.Globalization;
using static NativeLora.Cli.Rows.ThriftKind;
using static NativeLora.Cli.Rows.ThriftShape;

namespace NativeLora.Cli.Rows;

/// <summary>
/// Looks through a Parquet file before the library reads it, which believes what a file says of itself: with metadata that are damaged it
/// can run for ever, and it takes as much memory as a page claims to need.
/// </summary>
internal sealed class ParquetCheck
{
    private const int MostRows = 1 << 24;
    private const int MostPages = 1 << 20;
    private const int DeepestSchema = 16;

    // What packs better than this is no text. Small pages may.
    private const long MostRatio = 1024;
    private const long SmallPage = 64 << 20;

    private static readonly ThriftShape Empty = new();
    private static readonly ThriftShape Unit = new(Of(1, Empty), Of(2, Empty), Of(3, Empty));
    private static readonly ThriftShape Time = new(Of(1, ThriftKind.Bool), Of(2, Unit));
    private static readonly ThriftShape Logical = new(
        Of(1, Empty), Of(2, Empty), Of(3, Empty), Of(4, Empty), Of(5, new ThriftShape(Of(1, I32), Of(2, I32))), Of(6, Empty), Of(7, Time), Of(8, Time),
        Of(10, new ThriftShape(Of(1, ThriftKind.Byte), Of(2, ThriftKind.Bool))), Of(11, Empty), Of(12, Empty), Of(13, Empty), Of(14, Empty), Of(15, Empty), Of(16, new ThriftShape(Of(1, ThriftKind.Byte))),
        Of(17, new ThriftShape(Of(1, Binary))), Of(18, new ThriftShape(Of(1, Binary), Of(2, I32))));
    private static readonly ThriftShape Element = new(Of(1, I32), Of(2, I32), Of(3, I32), Of(4, Binary), Of(5, I32), Of(6, I32), Of(7, I32), Of(8, I32), Of(9, I32), Of(10, Logical));
    private static readonly ThriftShape Statistics = new(
        Of(1, Binary), Of(2, Binary), Of(3, I64), Of(4, I64), Of(5, Binary), Of(6, Binary), Of(7, ThriftKind.Bool), Of(8, ThriftKind.Bool));
    private static readonly ThriftShape KeyValue = new(Of(1, Binary), Of(2, Binary));
    private static readonly ThriftShape Box = new(Of(1, ThriftKind.Double), Of(2, ThriftKind.Double), Of(3, ThriftKind.Double), Of(4, ThriftKind.Double), Of(5, ThriftKind.Double), Of(6, ThriftKind.Double), Of(7, ThriftKind.Double), Of(8, ThriftKind.Double));
    private static readonly ThriftShape Column = new(
        Of(1, I32), ListOf(2, I32), ListOf(3, Binary), Of(4, I32), Of(5, I64), Of(6, I64), Of(7, I64), ListOf(8, KeyValue), Of(9, I64), Of(10, I64), Of(11, I64), Of(12, Statistics),
        ListOf(13, new ThriftShape(Of(1, I32), Of(2, I32), Of(3, I32))), Of(14, I64), Of(15, I32), Of(16, new ThriftShape(Of(1, I64), ListOf(2, I64), ListOf(3, I64))), Of(17, new ThriftShape(Of(1, Box), ListOf(2, I32))));
    private static readonly ThriftShape Chunk = new(Of(1, Binary), Of(2, I64), Of(3, Column), Of(4, I64), Of(5, I32), Of(6, I64), Of(7, I32), Of(8, Empty), Of(9, Binary));
    private static readonly ThriftShape Group = new(
        ListOf(1, Chunk), Of(2, I64), Of(3, I64), ListOf(4, new ThriftShape(Of(1, I32), Of(2, ThriftKind.Bool), Of(3, ThriftKind.Bool))), Of(5, I64), Of(6, I64), Of(7, I16));
    private static readonly ThriftShape Footer = new(
        Of(1, I32), ListOf(2, Element), Of(3, I64), ListOf(4, Group), ListOf(5, KeyValue), Of(6, Binary), ListOf(7, new ThriftShape(Of(1, Empty))), Of(8, Empty), Of(9, Binary));
    private static readonly ThriftShape Page = new(
        Of(1, I32), Of(2, I32), Of(3, I32), Of(4, I32), Of(5, new ThriftShape(Of(1, I32), Of(2, I32), Of(3, I32), Of(4, I32), Of(5, Statistics))), Of(6, Empty), Of(7, new ThriftShape(Of(1, I32), Of(2, I32), Of(3, ThriftKind.Bool))),
        Of(8, new ThriftShape(Of(1, I32), Of(2, I32), Of(3, I32), Of(4, I32), Of(5, I32), Of(6, I32), Of(7, ThriftKind.Bool), Of(8, Statistics))));

    private readonly FileStream _file;
    private readonly long _end;
    private readonly IReadOnlyList<ThriftStruct> _groups;

    /// <summary>Reads the metadata at the end of a file and checks that they agree with themselves and with it.</summary>
    /// <exception cref="InvalidDataException">They do not.</exception>
    public ParquetCheck(FileStream file)
    {
        _file = file;
        var length = file.Length;
        Span<byte> tail = stackalloc byte[8];
        if (length < 16)
            throw new InvalidDataException("it is too short");
        ReadAt(length - 8, tail);
        var size = BinaryPrimitives.ReadUInt32LittleEndian(tail);
        if (!tail[4..].SequenceEqual("PAR1"u8) || size > length - 12)
            throw new InvalidDataException("it does not end as a Parquet file does; it is cut off, or encrypted");
        _end = length - 8 - size;
        var bytes = new byte[size];
        ReadAt(_end, bytes);
        var footer = new ThriftReader(bytes).Read(Footer);
        if (footer.Struct(8) is not null)
            throw new InvalidDataException("it is encrypted");
        var leaves = Leaves(footer.List(2) ?? throw new InvalidDataException("it has no schema"));
        _groups = [.. (footer.List(4) ?? []).Cast<ThriftStruct>()];
        foreach (var group in _groups)
            CheckGroup(group, leaves);
    }

    /// <summary>Looks through the pages of columns of single values: those that are going to be read.</summary>
    /// <exception cref="InvalidDataException">One is no page, or claims more than there can be.</exception>
    public void Pages(IReadOnlySet<string> columns)
    {
        foreach (var group in _groups)
            foreach (var chunk in group.List(1)!.Cast<ThriftStruct>())
                if (chunk.Struct(3)! is var column && column.List(3) is [byte[] name] && columns.Contains(System.Text.Encoding.UTF8.GetString(name)))
                    CheckPages(column, group.Number(3)!.Value);
    }

    // The schema is a tree, written down in order: how many children each has says where it ends.
    private static int Leaves(IReadOnlyList<object> elements)
    {
        var (at, leaves) = (0, 0);
        Walk(0);
        return at == elements.Count ? leaves : throw new InvalidDataException("its schema has more columns than it says");

        void Walk(int depth)
        {
            if (at == elements.Count || depth > DeepestSchema)
                throw new InvalidDataException("its schema does not end");
            var element = (ThriftStruct)elements[at++];
            var children = element.Number(5) ?? 0;
            if (children < 0 || children > elements.Count - at || element.Length(4) is null || element.Number(2) < 0)
                throw new InvalidDataException("its schema does not end");
            if (depth > 0 && children == 0)
                leaves++;
            for (var i = 0; i < children; i++)
                Walk(depth + 1);
        }
    }

    private void CheckGroup(ThriftStruct group, int leaves)
    {
        var rows = group.Number(3) ?? -1;
        if (rows < 0 || rows > MostRows)
            throw new InvalidDataException(string.Create(CultureInfo.InvariantCulture, $"a group has {rows} rows, at most {MostRows} are read; write it with smaller groups"));
        if (group.List(1) is not { } chunks || chunks.Count != leaves)
            throw new InvalidDataException("a group has not all columns of the schema");
        foreach (var chunk in chunks.Cast<ThriftStruct>())
        {
            if (chunk.Length(1) > 0)
                throw new InvalidDataException("its columns lie in other files");
            if (chunk.Struct(3) is not { } column || column.List(3) is not { Count: > 0 and <= DeepestSchema })
                throw new InvalidDataException("a column is not described");
            var (start, size) = (Start(column), column.Number(7) ?? -1);
            if (start < 4 || size < 0 || size > _end - start || column.Number(5) is not >= 0 || column.Number(6) is not >= 0)
                throw new InvalidDataException("a column reaches past the end of the file");
        }
    }

    private static long Start(ThriftStruct column)
    {
        var data = column.Number(9) ?? -1;
        return column.Number(11) is { } dictionary and > 0 ? Math.Min(dictionary, data) : data;
    }

    private void CheckPages(ThriftStruct column, long rows)
    {
        var values = column.Number(5)!.Value;
        if (values != rows)
            throw new InvalidDataException(string.Create(CultureInfo.InvariantCulture, $"a column has {values} values in {rows} rows"));
        var (at, seen) = (Start(column), 0L);
        var end = at + column.Number(7)!.Value;
        var isPacked = column.Number(4) is not (null or 0);
        for (var pages = 0; at < end && seen < values; pages++)
        {
            if (pages == MostPages)
                throw new InvalidDataException("a column has too many pages");
            var (page, header) = PageAt(at, end);
            var (unpacked, packed) = (page.Number(2) ?? -1, page.Number(3) ?? -1);
            if (unpacked < 0 || packed < 0 || packed > end - at - header)
                throw new InvalidDataException("a page reaches past its column");
            if (isPacked ? unpacked > SmallPage && unpacked / MostRatio > packed : unpacked != packed)
                throw new InvalidDataException(string.Create(CultureInfo.InvariantCulture, $"a page of {packed} bytes claims to hold {unpacked}"));
            var part = page.Number(1) switch
            {
                0 => page.Struct(5)?.Number(1),
                1 => 0,
                // A dictionary has no more entries than bytes.
                2 => page.Struct(7)?.Number(1) is { } entries && entries >= 0 && entries <= Math.Max(unpacked, 1) ? 0 : null,
                3 when page.Struct(8) is { } second && second.Number(5) is >= 0 and { } definitions && second.Number(6) is >= 0 and { } repetitions && definitions + repetitions <= packed => second.Number(1),
                _ => null,
            };
            if (part is not { } count || count < 0 || count > values - seen)
                throw new InvalidDataException("a page has more values than its column");
            seen += count;
            at += header + packed;
        }
        if (seen != values)
            throw new InvalidDataException(string.Create(CultureInfo.InvariantCulture, $"the pages of a column hold {seen} of {values} values"));
    }

    private (ThriftStruct Page, int Header) PageAt(long at, long end)
    {
        // Statistics make headers long; most are not.
        foreach (var most in new[] { 256, 1 << 16, 1 << 24 })
        {
            var bytes = new byte[Math.Min(most, end - at)];
            ReadAt(at, bytes);
            try
            {
                var reader = new ThriftReader(bytes);
                var page = reader.Read(Page);
                return (page, reader.Position);
            }
            catch (InvalidDataException) when (bytes.Length == most)
            {
                // It may go on.
            }
        }
        throw new InvalidDataException("a page has no header");
    }

    private void ReadAt(long at, Span<byte> bytes)
    {
        while (bytes.Length > 0)
        {
            var read = RandomAccess.Read(_file.SafeFileHandle, bytes, at);
            if (read == 0)
                throw new InvalidDataException("it is cut off");
            at += read;
            bytes = bytes[read..];
        }
    }
}
