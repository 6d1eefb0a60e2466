using System.Globalization;
using NativeLora.Data;
using Parquet;
using Parquet.Schema;

namespace NativeLora.Cli.Rows;

/// <summary>Rows of a Parquet file, a row group at a time. What is asked for are columns of single values.</summary>
internal sealed class ParquetRows(string path) : IRowSource
{
    private IReadOnlyList<string>? _fields;

    public string Path => path;

    public IReadOnlyList<string> Fields => _fields ??= ReadFields();

    public IEnumerable<DataRow> Read(IReadOnlyList<FieldRequest> fields)
    {
        using var file = Open();
        var reader = Wait(() =>
        {
            new ParquetCheck(file).Pages(fields.Select(f => f.Name).ToHashSet(StringComparer.Ordinal));
            return ParquetReader.CreateAsync(file);
        });
        try
        {
            var columns = Wait(() => Task.FromResult<DataField?[]>([.. fields.Select(f => Column(reader.Schema, f))]));
            var number = 0;
            for (var g = 0; g < reader.RowGroupCount; g++)
            {
                var group = g;
                var (rows, values) = Wait(() => Group(reader, group, columns));
                for (var r = 0; r < rows; r++)
                {
                    number++;
                    var row = new string?[fields.Count];
                    for (var c = 0; c < row.Length; c++)
                        row[c] = values[c]?[r] ?? (fields[c].Kind == FieldKind.OptionalText ? null
                            : throw new InputException($"{path}: row {number} has no {fields[c].Name}; leave such rows out"));
                    yield return new DataRow(path, number, row);
                }
            }
            if (number == 0)
                throw new InputException($"{path}: the file has no rows; give one with some");
        }
        finally
        {
            Wait(async () =>
            {
                await reader.DisposeAsync().ConfigureAwait(false);
                return 0;
            });
        }
    }

    private DataField? Column(ParquetSchema schema, FieldRequest request)
    {
        if (schema.Fields.FirstOrDefault(f => f.Name == request.Name) is not { } found)
            return request.Kind == FieldKind.OptionalText ? null : throw new InputException(
                $"{path} has no column {request.Name}; its columns are {string.Join(", ", schema.Fields.Select(f => f.Name))}");
        if (found is not DataField field || field.IsArray || field.MaxRepetitionLevel > 0 || !IsReadable(field, request.Kind))
            throw new InputException($"{path}: the column {request.Name} holds {(found is not DataField { IsArray: false, MaxRepetitionLevel: 0 } single ? "lists or groups" : IsText(single) ? "text" : single.ClrType.IsPrimitive ? "numbers" : "other things")}; give a column of text{(request.Kind == FieldKind.Scalar ? " or numbers" : "")}");
        return field;
    }

    // The library's name for text.
    private static bool IsText(DataField field) => field.ClrType == typeof(string) || field.ClrType == typeof(ReadOnlyMemory<char>);

    private static bool IsReadable(DataField field, FieldKind kind) => IsText(field) || (kind == FieldKind.Scalar
        && (field.ClrType == typeof(bool) || field.ClrType == typeof(int) || field.ClrType == typeof(long) || field.ClrType == typeof(short) || field.ClrType == typeof(byte)
            || field.ClrType == typeof(sbyte) || field.ClrType == typeof(ushort) || field.ClrType == typeof(uint) || field.ClrType == typeof(ulong)
            || field.ClrType == typeof(float) || field.ClrType == typeof(double)));

    private static async Task<(int Rows, string?[]?[] Values)> Group(ParquetReader reader, int index, DataField?[] columns)
    {
        using var group = reader.OpenRowGroupReader(index);
        var rows = checked((int)group.RowCount);
        var values = new string?[]?[columns.Length];
        for (var c = 0; c < columns.Length; c++)
            if (columns[c] is { } column)
                values[c] = await Texts(group, column, rows).ConfigureAwait(false);
        return (rows, values);
    }

    private static async Task<string?[]> Texts(ParquetRowGroupReader group, DataField column, int rows)
    {
        if (IsText(column))
        {
            var texts = new string?[rows];
            await group.ReadAsync(column, texts.AsMemory()!).ConfigureAwait(false);
            return texts;
        }
        return Type.GetTypeCode(column.ClrType) switch
        {
            TypeCode.Boolean => await Numbers<bool>().ConfigureAwait(false),
            TypeCode.SByte => await Numbers<sbyte>().ConfigureAwait(false),
            TypeCode.Byte => await Numbers<byte>().ConfigureAwait(false),
            TypeCode.Int16 => await Numbers<short>().ConfigureAwait(false),
            TypeCode.UInt16 => await Numbers<ushort>().ConfigureAwait(false),
            TypeCode.Int32 => await Numbers<int>().ConfigureAwait(false),
            TypeCode.UInt32 => await Numbers<uint>().ConfigureAwait(false),
            TypeCode.Int64 => await Numbers<long>().ConfigureAwait(false),
            TypeCode.UInt64 => await Numbers<ulong>().ConfigureAwait(false),
            TypeCode.Single => await Numbers<float>().ConfigureAwait(false),
            _ => await Numbers<double>().ConfigureAwait(false),
        };

        async Task<string?[]> Numbers<T>() where T : struct
        {
            if (!column.IsNullable)
            {
                var all = new T[rows];
                await group.ReadAsync<T>(column, all.AsMemory()).ConfigureAwait(false);
                return [.. all.Select(Text)];
            }
            var some = new T?[rows];
            await group.ReadAsync(column, some.AsMemory()).ConfigureAwait(false);
            return [.. some.Select(v => v is { } value ? Text(value) : null)];
        }

        // As JSON writes them.
        static string? Text<T>(T value) where T : struct =>
            value is bool truth ? truth ? "true" : "false" : ((IFormattable)value).ToString(null, CultureInfo.InvariantCulture);
    }

    private IReadOnlyList<string> ReadFields()
    {
        using var file = Open();
        return Wait(async () =>
        {
            _ = new ParquetCheck(file);
            await using var reader = await ParquetReader.CreateAsync(file).ConfigureAwait(false);
            return (IReadOnlyList<string>)[.. reader.Schema.Fields.Select(f => f.Name)];
        });
    }

    private FileStream Open()
    {
        try
        {
            return File.OpenRead(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{path}: cannot be opened: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }

    /// <summary>The library throws many kinds of exception for a file that is damaged.</summary>
    private T Wait<T>(Func<Task<T>> work)
    {
        try
        {
            return work().GetAwaiter().GetResult();
        }
        catch (Exception e) when (e is not (InputException or OutOfMemoryException))
        {
            throw new InputException($"{path}: is damaged, or no Parquet file that can be read: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }
}
