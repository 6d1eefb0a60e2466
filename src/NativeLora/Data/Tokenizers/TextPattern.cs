using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace NativeLora.Data.Tokenizers;

/// <summary>A string or a regular expression to look for in a text.</summary>
internal abstract class TextPattern
{
    /// <summary>The matches in order, not overlapping, as positions in the text.</summary>
    public abstract IEnumerable<(int Start, int End)> Matches(string text);

    public virtual string Replace(string text, string content)
    {
        StringBuilder? built = null;
        var done = 0;
        foreach (var (start, end) in Matches(text))
        {
            built ??= new StringBuilder(text.Length);
            built.Append(text, done, start - done).Append(content);
            done = end;
        }
        return built is null ? text : built.Append(text, done, text.Length - done).ToString();
    }
}

internal sealed class StringPattern(string sought) : TextPattern
{
    public override IEnumerable<(int Start, int End)> Matches(string text)
    {
        for (var at = text.IndexOf(sought, StringComparison.Ordinal); at >= 0;
             at = text.IndexOf(sought, at + sought.Length, StringComparison.Ordinal))
            yield return (at, at + sought.Length);
    }

    public override string Replace(string text, string content) => text.Replace(sought, content, StringComparison.Ordinal);
}

/// <summary>Two spaces or more in a row.</summary>
internal sealed class SpacesPattern : TextPattern
{
    public override IEnumerable<(int Start, int End)> Matches(string text)
    {
        for (var at = text.IndexOf("  ", StringComparison.Ordinal); at >= 0;)
        {
            var end = at + 2;
            while (end < text.Length && text[end] == ' ')
                end++;
            yield return (at, end);
            at = text.IndexOf("  ", end, StringComparison.Ordinal);
        }
    }
}

/// <summary>
/// A regular expression over characters, where those of .NET go over UTF-16 units: each character outside the basic plane is
/// matched by way of a stand-in of its own category.
/// </summary>
internal sealed class RegexPattern(Regex regex, string? source = null) : TextPattern
{
    // A pattern of a file may take longer than anybody has: exponential time is a matter of four characters.
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(2);

    // One assigned character of the basic plane for each category, in the order of UnicodeCategory; none of them is ASCII,
    // so that no literal of a tokenizer's pattern matches them.
    private const string StandIns = "\u0100\u0101\u01C5\u02B0\u3400\u0300\u0903\u0488\u0660\u2160\u2070\u2003\u2028\u2029"
        + "\u0080\u200B\uE000\uE000\u203F\u2010\u2045\u2046\u2018\u2019\u2020\u2044\u20A0\u02C2\u2300\u0378";

    public override IEnumerable<(int Start, int End)> Matches(string text)
    {
        if (!text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF'))
        {
            for (var match = Next(null, text); match.Success; match = Next(match, text))
                yield return (match.Index, match.Index + match.Length);
            yield break;
        }
        var flat = new StringBuilder(text.Length);
        var positions = new List<int>(text.Length + 1);
        var at = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            positions.Add(at);
            flat.Append(rune.IsBmp ? (char)rune.Value : StandIns[(int)CharUnicodeInfo.GetUnicodeCategory(rune.Value)]);
            at += rune.Utf16SequenceLength;
        }
        positions.Add(at);
        var whole = flat.ToString();
        for (var match = Next(null, whole); match.Success; match = Next(match, whole))
            yield return (positions[match.Index], positions[match.Index + match.Length]);
    }

    private Match Next(Match? before, string text)
    {
        try
        {
            return before is null ? regex.Match(text) : before.NextMatch();
        }
        catch (RegexMatchTimeoutException e)
        {
            throw new InputException($"{source}: the pattern takes more than {Limit.TotalSeconds:0} s on a text; use a tokenizer without it", e);
        }
    }

    public static RegexPattern Parse(JsonField field)
    {
        try
        {
            return new RegexPattern(new Regex(field.Text(), RegexOptions.CultureInvariant, Limit), $"{field.File}: {field.Path}");
        }
        catch (ArgumentException e)
        {
            throw new InputException(
                $"{field.File}: {field.Path}: not a pattern that is understood here ({TextFile.OneLine(e)}); use a tokenizer without it",
                e);
        }
    }
}
