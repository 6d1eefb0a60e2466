using System.Text;

namespace NativeLora.Data;

/// <summary>
/// The lines of a text file as a stream: strict UTF-8, a byte order mark dropped, only the line end (\n or \r\n) stripped. A file that ends
/// in <c>.gz</c> is unpacked on the way.
/// </summary>
internal static class Utf8Lines
{
    /// <summary>A longer line means that this is no text file; without a bound it would be read into memory whole.</summary>
    private const int LongestLine = 64 << 20;

    /// <summary>What is unpacked into memory whole, at most.</summary>
    private const long MostUnpacked = 1L << 30;

    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Line numbers (from 1) and lines, blank ones included.</summary>
    public static IEnumerable<(int Line, string Text)> Read(string path)
    {
        using var file = Open(path);
        var buffer = new byte[64 << 10];
        int start = 0, end = 0, line = 0;
        var atEnd = false;
        while (true)
        {
            var length = buffer.AsSpan(start, end - start).IndexOf((byte)'\n');
            if (length < 0 && !atEnd)
            {
                Refill();
                continue;
            }
            if (length < 0 && start == end)
                yield break;
            line++;
            var next = length < 0 ? end : start + length + 1;
            yield return (line, Decode(path, line, buffer.AsSpan(start, length < 0 ? end - start : length)));
            start = next;
        }

        void Refill()
        {
            buffer.AsSpan(start, end - start).CopyTo(buffer);
            (start, end) = (0, end - start);
            if (end == buffer.Length)
            {
                if (end >= LongestLine)
                    throw new InputException($"{path}: line {line + 1} is longer than {LongestLine >> 20} MiB; give a text file with one row a line");
                Array.Resize(ref buffer, end * 2);
            }
            int read;
            try
            {
                read = file.Read(buffer, end, buffer.Length - end);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidDataException)
            {
                throw new InputException($"{path}: cannot be read: {OneLine(e.Message)}", e);
            }
            if (read == 0)
                atEnd = true;
            end += read;
        }
    }

    /// <summary>The whole file as bytes, the byte order mark dropped, known to be UTF-8.</summary>
    public static ReadOnlyMemory<byte> ReadAll(string path)
    {
        using var file = Open(path);
        if (file is FileStream { Length: var length } && length > Array.MaxLength)
            throw new InputException($"{path}: {length} bytes of one JSON array are too many; write one object a line (.jsonl)");
        byte[] bytes;
        try
        {
            if (file is FileStream)
            {
                bytes = new byte[file.Length];
                file.ReadExactly(bytes);
            }
            else
            {
                using var all = new MemoryStream();
                var buffer = new byte[64 << 10];
                for (int read; (read = file.Read(buffer)) > 0;)
                {
                    all.Write(buffer, 0, read);
                    if (all.Length > MostUnpacked)
                        throw new InputException($"{path}: unpacks to more than {MostUnpacked >> 20} MiB of one JSON array; write one object a line (.jsonl)");
                }
                bytes = all.ToArray();
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidDataException)
        {
            throw new InputException($"{path}: cannot be read: {OneLine(e.Message)}", e);
        }
        if (!System.Text.Unicode.Utf8.IsValid(bytes))
        {
            var line = 1;
            foreach (var _ in Read(path))
                line++;
            throw new InputException($"{path}: line {line} is not UTF-8; save the file as UTF-8");
        }
        return bytes.AsMemory(bytes.AsSpan().StartsWith(Encoding.UTF8.Preamble) ? 3 : 0);
    }

    private static Stream Open(string path)
    {
        try
        {
            var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 1, FileOptions.SequentialScan);
            return path.EndsWith(".gz", StringComparison.OrdinalIgnoreCase) ? new BoundedGZip(path, file) : file;
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new InputException($"{path}: there is no such file; check the path", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw new InputException($"{path}: cannot be opened: {OneLine(e.Message)}", e);
        }
    }

    private static string Decode(string path, int line, ReadOnlySpan<byte> bytes)
    {
        if (line == 1 && bytes.StartsWith(Encoding.UTF8.Preamble))
            bytes = bytes[3..];
        if (bytes.EndsWith("\r"u8))
            bytes = bytes[..^1];
        try
        {
            return Strict.GetString(bytes);
        }
        catch (DecoderFallbackException e)
        {
            throw new InputException($"{path}: line {line} is not UTF-8 (byte {e.Index + 1} of the line); save the file as UTF-8", e);
        }
    }

    /// <summary>Another's message on one line.</summary>
    public static string OneLine(string message) => message.ReplaceLineEndings(" ");
}
