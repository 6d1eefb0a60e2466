using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>GPT-2's table of a printable character for each byte, in which byte-level vocabularies are written.</summary>
internal static class ByteCharacters
{
    private static readonly char[] OfByte = MakeTable();
    private static readonly Dictionary<char, byte> ToByte = OfByte.Select((c, b) => (c, b)).ToDictionary(p => p.c, p => (byte)p.b);

    public static string Encode(ReadOnlySpan<char> text)
    {
        Span<byte> bytes = text.Length <= 256 ? stackalloc byte[768] : new byte[Encoding.UTF8.GetMaxByteCount(text.Length)];
        bytes = bytes[..Encoding.UTF8.GetBytes(text, bytes)];
        return string.Create(bytes.Length, bytes, static (characters, from) =>
        {
            for (var i = 0; i < from.Length; i++)
                characters[i] = OfByte[from[i]];
        });
    }

    /// <summary>Adds the token's bytes; a token with a character outside the table, such as an added one, is taken as it reads.</summary>
    public static void Decode(string token, List<byte> into)
    {
        var start = into.Count;
        foreach (var c in token)
        {
            if (ToByte.TryGetValue(c, out var value))
            {
                into.Add(value);
                continue;
            }
            into.RemoveRange(start, into.Count - start);
            into.AddRange(Encoding.UTF8.GetBytes(token));
            return;
        }
    }

    private static char[] MakeTable()
    {
        var table = new char[256];
        var next = 256;
        for (var b = 0; b < 256; b++)
            table[b] = b is >= '!' and <= '~' or >= 0xA1 and <= 0xAC or >= 0xAE ? (char)b : (char)next++;
        return table;
    }
}
