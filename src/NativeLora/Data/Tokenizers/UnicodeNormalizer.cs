using System.Globalization;
using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>The four Unicode normalization forms, from tables of our own so that results depend on no system library.</summary>
internal static class UnicodeNormalizer
{
    private const int HangulS = 0xAC00, HangulL = 0x1100, HangulV = 0x1161, HangulT = 0x11A7;
    private const int VowelCount = 21, TrailCount = 28, SyllableCount = 11172;

    private static readonly Lazy<Tables> Shared = new(() => new Tables());

    /// <summary>The text in the asked form.</summary>
    /// <param name="text">Well-formed UTF-16.</param>
    /// <param name="compose">NFC or NFKC rather than NFD or NFKD.</param>
    /// <param name="compatibility">NFKD or NFKC rather than NFD or NFC.</param>
    public static string Normalize(string text, bool compose, bool compatibility)
    {
        if (Ascii.IsValid(text))
            return text;
        var tables = Shared.Value;
        var points = new List<int>(text.Length + 8);
        foreach (var rune in text.EnumerateRunes())
            Decompose(tables, rune.Value, compatibility, points);
        Reorder(tables, points);
        if (compose)
            Compose(tables, points);
        var built = new StringBuilder(points.Count);
        Span<char> units = stackalloc char[2];
        foreach (var point in points)
            built.Append(units[..new Rune(point).EncodeToUtf16(units)]);
        return built.ToString();
    }

    private static void Decompose(Tables tables, int point, bool compatibility, List<int> into)
    {
        if (point < 0xA0)
        {
            into.Add(point);
            return;
        }
        var syllable = point - HangulS;
        if ((uint)syllable < SyllableCount)
        {
            into.Add(HangulL + syllable / (VowelCount * TrailCount));
            into.Add(HangulV + syllable % (VowelCount * TrailCount) / TrailCount);
            if (syllable % TrailCount != 0)
                into.Add(HangulT + syllable % TrailCount);
        }
        else if (tables.Canonical.TryGetValue(point, out var parts)
                 || (compatibility && tables.Compatibility.TryGetValue(point, out parts)))
        {
            foreach (var part in parts)
                Decompose(tables, part, compatibility, into);
        }
        else
            into.Add(point);
    }

    /// <summary>Sorts each run of combining marks by class, keeping the order within a class.</summary>
    private static void Reorder(Tables tables, List<int> points)
    {
        for (var at = 1; at < points.Count; at++)
        {
            var point = points[at];
            var mark = tables.ClassOf(point);
            if (mark == 0)
                continue;
            var to = at;
            for (; to > 0 && tables.ClassOf(points[to - 1]) > mark; to--)
                points[to] = points[to - 1];
            points[to] = point;
        }
    }

    private static void Compose(Tables tables, List<int> points)
    {
        int starter = -1, kept = 0, lastClass = 0;
        for (var at = 0; at < points.Count; at++)
        {
            var point = points[at];
            var mark = tables.ClassOf(point);
            // Blocked if something of the same or a higher class, or another starter, stands between.
            var adjacent = starter == kept - 1;
            if (starter >= 0 && (adjacent || (lastClass < mark && lastClass != 0))
                && tables.TryCompose(points[starter], point, out var whole))
            {
                points[starter] = whole;
                continue;
            }
            if (mark == 0)
                starter = kept;
            lastClass = mark;
            points[kept++] = point;
        }
        points.RemoveRange(kept, points.Count - kept);
    }

    private sealed class Tables
    {
        private readonly Dictionary<int, byte> _classes = [];
        private readonly Dictionary<(int, int), int> _pairs = [];

        public Tables()
        {
            foreach (var entry in UnicodeTable.CombiningClasses.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries))
            {
                var parts = entry.Split('*', '=');
                var first = Hex(parts[0]);
                for (var i = 0; i < int.Parse(parts[1], CultureInfo.InvariantCulture); i++)
                    _classes[first + i] = byte.Parse(parts[2], CultureInfo.InvariantCulture);
            }
            Canonical = Read(UnicodeTable.Canonical, _pairs);
            Compatibility = Read(UnicodeTable.Compatibility, null);
        }

        public Dictionary<int, int[]> Canonical { get; }

        public Dictionary<int, int[]> Compatibility { get; }

        public int ClassOf(int point) => point < 0x300 ? 0 : _classes.GetValueOrDefault(point);

        public bool TryCompose(int first, int second, out int whole)
        {
            int lead = first - HangulL, vowel = second - HangulV, syllable = first - HangulS, trail = second - HangulT;
            if ((uint)lead < 19 && (uint)vowel < VowelCount)
                whole = HangulS + (lead * VowelCount + vowel) * TrailCount;
            else if ((uint)syllable < SyllableCount && syllable % TrailCount == 0 && trail is > 0 and < TrailCount)
                whole = first + trail;
            else
                return _pairs.TryGetValue((first, second), out whole);
            return true;
        }

        private static int Hex(string digits) => int.Parse(digits, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

        private static Dictionary<int, int[]> Read(string table, Dictionary<(int, int), int>? pairs)
        {
            var read = new Dictionary<int, int[]>();
            var at = 0;
            foreach (var entry in table.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries))
            {
                if (entry[0] == '@')
                {
                    at = Hex(entry[1..]);
                    continue;
                }
                var parts = Array.ConvertAll(entry.TrimStart('!').Split('+'), Hex);
                read[at] = parts;
                if (parts.Length == 2 && entry[0] != '!')
                    pairs?.Add((parts[0], parts[1]), at);
                at++;
            }
            return read;
        }
    }
}
