using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>
/// SentencePiece's own map of characters: a double-array trie (of darts-clone) from UTF-8 to positions in a list of replacements.
/// </summary>
internal sealed class CharacterMapNormalizer : Normalizer
{
    private readonly uint[] _units;
    private readonly byte[] _replacements;

    private CharacterMapNormalizer(uint[] units, byte[] replacements)
    {
        _units = units;
        _replacements = replacements;
    }

    /// <summary>Reads the map; null if its sizes do not fit.</summary>
    public static CharacterMapNormalizer? Parse(byte[] map)
    {
        if (map.Length < 8)
            return null;
        var bytes = BinaryPrimitives.ReadUInt32LittleEndian(map);
        if (bytes == 0 || bytes % 4 != 0 || bytes > map.Length - 4)
            return null;
        var units = new uint[bytes / 4];
        for (var i = 0; i < units.Length; i++)
            units[i] = BinaryPrimitives.ReadUInt32LittleEndian(map.AsSpan(4 + 4 * i));
        return new CharacterMapNormalizer(units, map[(4 + (int)bytes)..]);
    }

    /// <summary>
    /// Grapheme by grapheme, as the reference does it: a short one is looked up whole (of its prefixes the shortest in the map
    /// replaces all of it), else each of its characters.
    /// </summary>
    public override string Apply(string text)
    {
        var built = new StringBuilder(text.Length);
        Span<char> buffer = stackalloc char[2];
        for (int at = 0, length; at < text.Length; at += length)
        {
            length = StringInfo.GetNextTextElementLength(text, at);
            var grapheme = text.AsSpan(at, length);
            if (Encoding.UTF8.GetByteCount(grapheme) < 6 && TryReplace(grapheme, built))
                continue;
            foreach (var rune in grapheme.EnumerateRunes())
            {
                var units = buffer[..rune.EncodeToUtf16(buffer)];
                if (!TryReplace(units, built))
                    built.Append(units);
            }
        }
        return built.ToString();
    }

    private bool TryReplace(ReadOnlySpan<char> text, StringBuilder built)
    {
        Span<byte> key = stackalloc byte[8];
        key = key[..Encoding.UTF8.GetBytes(text, key)];
        var node = Offset(_units[0]);
        foreach (var b in key)
        {
            node ^= b;
            if (b == 0 || node >= _units.Length || (_units[node] & 0x800000FF) != b)
                return false;
            var leaf = (_units[node] >> 8 & 1) != 0;
            node ^= Offset(_units[node]);
            if (!leaf)
                continue;
            if (node >= _units.Length || (_units[node] & 0x7FFFFFFF) > _replacements.Length)
                return false;
            var replacement = _replacements.AsSpan((int)(_units[node] & 0x7FFFFFFF));
            var end = replacement.IndexOf((byte)0);
            built.Append(Encoding.UTF8.GetString(end < 0 ? replacement : replacement[..end]));
            return true;
        }
        return false;
    }

    private static uint Offset(uint unit) => unit >> 10 << (int)((unit & 1 << 9) >> 6);
}
