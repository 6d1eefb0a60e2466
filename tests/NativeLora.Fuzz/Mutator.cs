using System.Buffers.Binary;
using System.Text;

namespace NativeLora.Fuzz;

/// <summary>Changes files: bytes, spans, numbers, and the tokens of JSON and other texts. The same seed gives the same changes.</summary>
public sealed class Mutator(Random random, IReadOnlyList<string> words)
{
    /// <summary>Files grow no further: small ones are quick, and say as much.</summary>
    private const int Largest = 6 << 10;

    private static readonly long[] EdgeNumbers =
    [
        0, 1, -1, 2, 7, 8, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535, 65536, 1 << 20, 1 << 24, 1 << 28, 1 << 30,
        int.MaxValue, int.MinValue, uint.MaxValue, 1L << 32, 1L << 40, 1L << 53, 1L << 60, 1L << 62, long.MaxValue, long.MinValue, -2, -128,
    ];

    private static readonly string[] EdgeTexts =
    [
        "0", "-0", "1e999", "-1e999", "1e-999", "NaN", "1.5", "0.1", "1E400", "12345678901234567890123", "2147483648", "9223372036854775808", "null", "true", "false", "[]", "{}", "\"\"",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}", "\"\\ud800\"", "\"\\udc00x\"", "\"\\u0000\"",
        "\"\\n\\r\\t\\u001b[31m\"", "\"\\u2028\\u2029\\u0085\"", "\"../../../etc/passwd\"", "\"/etc/passwd\"", "\"..\\\\..\\\\x\"", "\"C:\\\\x\"", "\"con\"", "\".\"", "\"..\"", "\"~\"", "\"%00\"",
        "\"😀\"", "\"é\"", "\"(a+)+$\"", "\"(\"", "\"\\\\p{L}+\"", "\"(.*)*x\"", "[null]", "[1,2]", "[\"a\"]", "{\"a\":1}", "-", "+", "\t", "\n", "\r\n", "\0", "\"", "\\", ",", ":", "#", "|", "=", "\ufeff",
    ];

    /// <summary>Changes one of the files a few times.</summary>
    public FuzzCase Change(FuzzCase of, IReadOnlyList<FuzzCase> corpus)
    {
        var name = of.Targets[random.Next(of.Targets.Count)];
        var bytes = of.Files[name];
        for (var changes = 1 + Geometric(); changes > 0; changes--)
            bytes = Once(name, bytes, corpus);
        var changed = of.With(name, bytes);
        // Now and then another file of the folder too.
        if (of.Targets.Count > 1 && random.Next(8) == 0)
        {
            var other = of.Targets[random.Next(of.Targets.Count)];
            changed = changed.With(other, Once(other, changed.Files[other], corpus));
        }
        return changed;
    }

    private int Geometric()
    {
        var count = 0;
        while (count < 6 && random.Next(2) == 0)
            count++;
        return count;
    }

    private byte[] Once(string name, byte[] bytes, IReadOnlyList<FuzzCase> corpus)
    {
        var changed = (random.Next(2) == 0 ? Structured(bytes) : null) ?? (IsText(bytes) && random.Next(10) < 7 ? Text(bytes) : Binary(name, bytes, corpus));
        return changed.Length <= Math.Max(Largest, bytes.Length) ? changed : changed[..Math.Max(Largest, bytes.Length)];
    }

    /// <summary>JSON stays JSON, in a line of many and behind a length, too; null where there is none.</summary>
    private byte[]? Structured(byte[] bytes)
    {
        if (bytes.Length > 9 && bytes[8] == '{' && BinaryPrimitives.ReadUInt64LittleEndian(bytes) is var length && length <= (ulong)bytes.Length - 8)
        {
            if (JsonTree.Change(bytes[8..(8 + (int)length)], random, words) is not { } header)
                return null;
            Span<byte> size = stackalloc byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(size, header.Length);
            return [.. size, .. header, .. bytes.AsSpan(8 + (int)length)];
        }
        if (!IsText(bytes))
            return null;
        if (JsonTree.Change(bytes, random, words) is { } whole)
            return whole;
        var lines = Encoding.UTF8.GetString(bytes).Split('\n');
        var at = random.Next(lines.Length);
        if (!lines[at].StartsWith('{') || JsonTree.Change(Encoding.UTF8.GetBytes(lines[at]), random, words) is not { } line)
            return null;
        lines[at] = Encoding.UTF8.GetString(line);
        return Encoding.UTF8.GetBytes(string.Join('\n', lines));
    }

    private static bool IsText(ReadOnlySpan<byte> bytes) => bytes[..Math.Min(bytes.Length, 256)].IndexOfAnyInRange((byte)0, (byte)8) < 0;

    private byte[] Binary(string name, byte[] bytes, IReadOnlyList<FuzzCase> corpus)
    {
        if (bytes.Length == 0)
            return RandomBytes(random.Next(1, 16));
        var at = random.Next(bytes.Length);
        var span = Math.Min(bytes.Length - at, 1 + random.Next(random.Next(4) == 0 ? 256 : 12));
        switch (random.Next(11))
        {
            case 0:
                return Set(bytes, at, (byte)(bytes[at] ^ (1 << random.Next(8))));
            case 1:
                return Set(bytes, at, (byte)random.Next(256));
            case 2:
                return Set(bytes, at, (byte)(bytes[at] + random.Next(-4, 5)));
            case 3:
                return bytes[..at];
            case 4:
                return [.. bytes.AsSpan(0, at), .. RandomBytes(random.Next(1, 9)), .. bytes.AsSpan(at)];
            case 5:
                return [.. bytes.AsSpan(0, at), .. bytes.AsSpan(at + span)];
            case 6:
                return [.. bytes.AsSpan(0, at + span), .. bytes.AsSpan(at, span), .. bytes.AsSpan(at + span)];
            case 7 or 8:
                return Number(bytes, at);
            case 9:
                var from = corpus[random.Next(corpus.Count)].Files;
                if (!from.TryGetValue(name, out var other) || other.Length == 0)
                    other = bytes;
                var cut = random.Next(other.Length);
                return random.Next(2) == 0 ? [.. bytes.AsSpan(0, at), .. other.AsSpan(cut)]
                    : [.. bytes.AsSpan(0, at), .. other.AsSpan(cut, Math.Min(span, other.Length - cut)), .. bytes.AsSpan(at + span)];
            default:
                byte[] filled = [.. bytes];
                filled.AsSpan(at, span).Fill((byte)(random.Next(3) switch { 0 => 0, 1 => 255, _ => random.Next(256) }));
                return filled;
        }
    }

    /// <summary>A number of 1 to 8 bytes of either order, or a varint.</summary>
    private byte[] Number(byte[] bytes, int at)
    {
        var value = EdgeNumbers[random.Next(EdgeNumbers.Length)] + (random.Next(4) == 0 ? random.Next(-2, 3) : 0);
        Span<byte> number = stackalloc byte[8];
        var size = 1 << random.Next(4);
        if (random.Next(5) == 0)
        {
            var length = 0;
            var rest = (ulong)value;
            Span<byte> varint = stackalloc byte[10];
            for (; rest > 127; rest >>= 7)
                varint[length++] = (byte)(rest | 128);
            varint[length++] = (byte)rest;
            return [.. bytes.AsSpan(0, at), .. varint[..length], .. bytes.AsSpan(Math.Min(bytes.Length, at + 1))];
        }
        if (random.Next(3) == 0)
        {
            BinaryPrimitives.WriteInt64BigEndian(number, value);
            number = number[(8 - size)..];
        }
        else
        {
            BinaryPrimitives.WriteInt64LittleEndian(number, value);
            number = number[..size];
        }
        // Formats align their numbers.
        if (random.Next(2) == 0)
            at -= at % size;
        byte[] changed = [.. bytes];
        number[..Math.Min(size, bytes.Length - at)].CopyTo(changed.AsSpan(at));
        return changed;
    }

    private byte[] Text(byte[] bytes)
    {
        var tokens = TextTokens.Of(bytes);
        if (tokens.Count == 0)
            return [.. bytes, .. Encoding.UTF8.GetBytes(Edge())];
        var token = tokens[random.Next(tokens.Count)];
        switch (random.Next(9))
        {
            case 0 or 1:
                return Replace(bytes, token, Edge());
            case 2:
                return Replace(bytes, token, token.Kind == TokenKind.Number ? EdgeNumbers[random.Next(EdgeNumbers.Length)].ToString(System.Globalization.CultureInfo.InvariantCulture) : Edge());
            case 3:
                return Replace(bytes, token, "");
            case 4:
                return [.. bytes.AsSpan(0, token.End), .. bytes.AsSpan(token.Start)];
            case 5:
                var other = tokens[random.Next(tokens.Count)];
                return [.. bytes.AsSpan(0, token.Start), .. bytes.AsSpan(other.Start, other.End - other.Start), .. bytes.AsSpan(token.End)];
            case 6:
                // From one separator to another: entries of lists and objects, fields and lines go, or come twice.
                var last = tokens[Math.Min(tokens.Count - 1, tokens.IndexOf(token) + random.Next(1, 8))];
                return random.Next(2) == 0 ? [.. bytes.AsSpan(0, token.Start), .. bytes.AsSpan(last.Start)]
                    : [.. bytes.AsSpan(0, last.Start), .. bytes.AsSpan(token.Start)];
            case 7 when token.Kind == TokenKind.String:
                return Inside(bytes, token);
            default:
                return [.. bytes.AsSpan(0, token.Start), .. Encoding.UTF8.GetBytes(Edge()), .. bytes.AsSpan(token.Start)];
        }
    }

    /// <summary>Something within the quotes.</summary>
    private byte[] Inside(byte[] bytes, TextToken token)
    {
        string[] pieces = ["../", "..", "/", "\\\\", "\\u0000", "\\ud800", "\\n", "\u2028", " ", "\ud83d\ude00", new string('a', 300), "%", "{", "<", ":", ".safetensors"];
        var at = token.Start + 1 + random.Next(Math.Max(1, token.End - token.Start - 1));
        return [.. bytes.AsSpan(0, at), .. Encoding.UTF8.GetBytes(pieces[random.Next(pieces.Length)]), .. bytes.AsSpan(at)];
    }

    private string Edge()
    {
        var all = EdgeTexts.Length + words.Count;
        var at = random.Next(all);
        return at < EdgeTexts.Length ? EdgeTexts[at] : words[at - EdgeTexts.Length];
    }

    private static byte[] Replace(byte[] bytes, TextToken token, string by) => [.. bytes.AsSpan(0, token.Start), .. Encoding.UTF8.GetBytes(by), .. bytes.AsSpan(token.End)];

    private static byte[] Set(byte[] bytes, int at, byte value)
    {
        byte[] changed = [.. bytes];
        changed[at] = value;
        return changed;
    }

    private byte[] RandomBytes(int count)
    {
        var bytes = new byte[count];
        random.NextBytes(bytes);
        return bytes;
    }
}
