using System.Globalization;
using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>Classes of characters as the reference tokenizers know them.</summary>
internal static class CharacterClasses
{
    /// <summary>Control, format, surrogate and private use; unassigned characters are not among them.</summary>
    public static bool IsOther(Rune rune) => Rune.GetUnicodeCategory(rune) is UnicodeCategory.Control or UnicodeCategory.Format
        or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse;

    /// <summary>ASCII symbols count as punctuation too.</summary>
    public static bool IsPunctuation(Rune rune) =>
        rune.IsAscii ? rune.Value is > 32 and < 127 && !Rune.IsLetterOrDigit(rune) : Rune.IsPunctuation(rune);

    /// <summary>Blocks that BERT splits into single characters; Hangul, Hiragana and Katakana are not among them.</summary>
    public static bool IsCjkIdeograph(Rune rune) => rune.Value is >= 0x4E00 and <= 0x9FFF or >= 0x3400 and <= 0x4DBF
        or >= 0x20000 and <= 0x2A6DF or >= 0x2A700 and <= 0x2B73F or >= 0x2B740 and <= 0x2B81F or >= 0x2B920 and <= 0x2CEAF
        or >= 0xF900 and <= 0xFAFF or >= 0x2F800 and <= 0x2FA1F;

    /// <summary>A character of a word, in the sense of the pattern <c>\w</c>.</summary>
    public static bool IsWord(Rune rune) => Rune.IsLetterOrDigit(rune) || rune.Value is 0x200C or 0x200D
        || Rune.GetUnicodeCategory(rune) is UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark
            or UnicodeCategory.EnclosingMark or UnicodeCategory.ConnectorPunctuation or UnicodeCategory.LetterNumber;

    /// <summary>Lower case character by character, so a final sigma is not told from another.</summary>
    public static string ToLower(string text) => text.Contains('\u0130')
        ? text.Replace("\u0130", "i\u0307", StringComparison.Ordinal).ToLowerInvariant()
        : text.ToLowerInvariant();

    /// <summary>The text with each half of a broken surrogate pair replaced by U+FFFD.</summary>
    public static string WellFormed(string text)
    {
        for (var i = 0; i < text.Length; i++)
        {
            if (!char.IsSurrogate(text[i]))
                continue;
            if (char.IsHighSurrogate(text[i]) && i + 1 < text.Length && char.IsLowSurrogate(text[i + 1]))
            {
                i++;
                continue;
            }
            var built = new StringBuilder(text.Length);
            foreach (var rune in text.EnumerateRunes())
                built.Append(rune.ToString());
            return built.ToString();
        }
        return text;
    }
}
