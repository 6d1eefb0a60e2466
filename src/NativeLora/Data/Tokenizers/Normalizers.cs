using System.Globalization;
using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>Changes a text before it is split; added tokens that stand in the text are not seen by it.</summary>
internal abstract class Normalizer
{
    public abstract string Apply(string text);
}

internal sealed class SequenceNormalizer(IReadOnlyList<Normalizer> steps) : Normalizer
{
    public override string Apply(string text)
    {
        foreach (var step in steps)
            text = step.Apply(text);
        return text;
    }
}

internal sealed class UnicodeFormNormalizer(bool compose, bool compatibility) : Normalizer
{
    public override string Apply(string text) => UnicodeNormalizer.Normalize(text, compose, compatibility);
}

internal sealed class LowercaseNormalizer : Normalizer
{
    public override string Apply(string text) => CharacterClasses.ToLower(text);
}

internal sealed class StripNormalizer(bool left, bool right) : Normalizer
{
    public override string Apply(string text)
    {
        if (left)
            text = text.TrimStart();
        return right ? text.TrimEnd() : text;
    }
}

/// <summary>Drops marks of any kind; it decomposes nothing itself.</summary>
internal sealed class StripAccentsNormalizer : Normalizer
{
    public override string Apply(string text) => RuneFilter.Where(text, rune => Rune.GetUnicodeCategory(rune)
        is not (UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark));
}

internal sealed class PrependNormalizer(string prefix) : Normalizer
{
    public override string Apply(string text) => text.Length == 0 ? text : prefix + text;
}

internal sealed class ReplaceNormalizer(TextPattern pattern, string content) : Normalizer
{
    public override string Apply(string text) => pattern.Replace(text, content);
}

/// <summary>BERT's own cleaning; <paramref name="stripAccents"/> follows <paramref name="lowercase"/> where files leave it open.</summary>
internal sealed class BertNormalizer(bool cleanText, bool splitIdeographs, bool stripAccents, bool lowercase) : Normalizer
{
    public override string Apply(string text)
    {
        if (cleanText)
            text = Clean(text);
        if (splitIdeographs && !Ascii.IsValid(text))
            text = SplitIdeographs(text);
        if (stripAccents && !Ascii.IsValid(text))
        {
            text = RuneFilter.Where(UnicodeNormalizer.Normalize(text, compose: false, compatibility: false),
                rune => Rune.GetUnicodeCategory(rune) != UnicodeCategory.NonSpacingMark);
        }
        return lowercase ? CharacterClasses.ToLower(text) : text;
    }

    private static string Clean(string text)
    {
        var built = new StringBuilder(text.Length);
        foreach (var rune in text.EnumerateRunes())
        {
            if (rune.Value is '\t' or '\n' or '\r')
                built.Append(' ');
            else if (rune.Value != 0xFFFD && !CharacterClasses.IsOther(rune))
                RuneFilter.Append(built, Rune.IsWhiteSpace(rune) ? new Rune(' ') : rune);
        }
        return built.ToString();
    }

    private static string SplitIdeographs(string text)
    {
        var built = new StringBuilder(text.Length + 16);
        foreach (var rune in text.EnumerateRunes())
        {
            var apart = CharacterClasses.IsCjkIdeograph(rune);
            if (apart)
                built.Append(' ');
            RuneFilter.Append(built, rune);
            if (apart)
                built.Append(' ');
        }
        return built.ToString();
    }
}

internal static class RuneFilter
{
    public static string Where(string text, Func<Rune, bool> keep)
    {
        var built = new StringBuilder(text.Length);
        foreach (var rune in text.EnumerateRunes())
        {
            if (keep(rune))
                Append(built, rune);
        }
        return built.ToString();
    }

    public static void Append(StringBuilder built, Rune rune)
    {
        Span<char> units = stackalloc char[2];
        built.Append(units[..rune.EncodeToUtf16(units)]);
    }
}
