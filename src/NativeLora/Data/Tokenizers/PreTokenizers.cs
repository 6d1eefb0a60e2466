using System.Text;
using System.Text.RegularExpressions;

namespace NativeLora.Data.Tokenizers;

/// <summary>Cuts a normalized text into the pieces that the model sees one by one.</summary>
internal abstract class PreTokenizer
{
    /// <param name="text">Never empty.</param>
    /// <param name="first">The text begins the input, nothing comes before it.</param>
    /// <param name="pieces">Takes the pieces, none of them empty.</param>
    public abstract void Split(string text, bool first, List<string> pieces);

    protected static void Add(string text, int start, int end, List<string> pieces)
    {
        if (end > start)
            pieces.Add(text[start..end]);
    }
}

internal sealed class SequencePreTokenizer(IReadOnlyList<PreTokenizer> steps) : PreTokenizer
{
    public override void Split(string text, bool first, List<string> pieces)
    {
        List<string> now = [text], next = [];
        foreach (var step in steps)
        {
            next.Clear();
            for (var i = 0; i < now.Count; i++)
                step.Split(now[i], first && i == 0, next);
            (now, next) = (next, now);
        }
        pieces.AddRange(now);
    }
}

/// <summary>Cuts before and after runs, or single characters, of a class.</summary>
internal sealed class ClassPreTokenizer(Func<Rune, CharacterKind> kind) : PreTokenizer
{
    /// <summary>BERT: white space goes, each punctuation mark stands alone.</summary>
    public static readonly ClassPreTokenizer Bert = new(rune => Rune.IsWhiteSpace(rune) ? CharacterKind.Dropped
        : CharacterClasses.IsPunctuation(rune) ? CharacterKind.Alone : CharacterKind.Text);

    public static readonly ClassPreTokenizer WhitespaceSplit =
        new(rune => Rune.IsWhiteSpace(rune) ? CharacterKind.Dropped : CharacterKind.Text);

    /// <summary>Runs of word characters and runs of others.</summary>
    public static readonly ClassPreTokenizer Whitespace = new(rune => CharacterClasses.IsWord(rune) ? CharacterKind.Text
        : Rune.IsWhiteSpace(rune) ? CharacterKind.Dropped : CharacterKind.Run);

    public static readonly ClassPreTokenizer Punctuation =
        new(rune => CharacterClasses.IsPunctuation(rune) ? CharacterKind.Alone : CharacterKind.Text);

    public static readonly ClassPreTokenizer SingleDigits =
        new(rune => Rune.IsNumber(rune) ? CharacterKind.Alone : CharacterKind.Text);

    public static readonly ClassPreTokenizer DigitRuns =
        new(rune => Rune.IsNumber(rune) ? CharacterKind.Run : CharacterKind.Text);

    public override void Split(string text, bool first, List<string> pieces)
    {
        int start = 0, at = 0;
        var run = CharacterKind.Text;
        foreach (var rune in text.EnumerateRunes())
        {
            var now = kind(rune);
            if (now != run || now == CharacterKind.Alone)
            {
                if (run != CharacterKind.Dropped)
                    Add(text, start, at, pieces);
                start = at;
                run = now;
            }
            at += rune.Utf16SequenceLength;
        }
        if (run != CharacterKind.Dropped)
            Add(text, start, at, pieces);
    }
}

internal enum CharacterKind
{
    Text,
    Run,
    Alone,
    Dropped,
}

/// <summary>GPT-2's: cut by its pattern, then write the bytes as characters.</summary>
internal sealed partial class ByteLevelPreTokenizer(bool prefixSpace, bool usePattern) : PreTokenizer
{
    private static readonly RegexPattern Words = new(WordsRegex());

    public override void Split(string text, bool first, List<string> pieces)
    {
        if (prefixSpace && text[0] != ' ')
            text = " " + text;
        if (!usePattern)
        {
            pieces.Add(ByteCharacters.Encode(text));
            return;
        }
        foreach (var (start, end) in Words.Matches(text))
            pieces.Add(ByteCharacters.Encode(text.AsSpan(start, end - start)));
    }

    // Every character is part of some match.
    [GeneratedRegex(@"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", RegexOptions.CultureInvariant)]
    private static partial Regex WordsRegex();
}

internal enum MetaspacePrefix
{
    Always,
    First,
    Never,
}

/// <summary>SentencePiece's way: spaces become a visible mark, which begins each piece.</summary>
internal sealed class MetaspacePreTokenizer(string mark, MetaspacePrefix prefix, bool split) : PreTokenizer
{
    public override void Split(string text, bool first, List<string> pieces)
    {
        text = text.Replace(" ", mark, StringComparison.Ordinal);
        if ((prefix == MetaspacePrefix.Always || (prefix == MetaspacePrefix.First && first))
            && !text.StartsWith(mark, StringComparison.Ordinal))
            text = mark + text;
        if (!split)
        {
            pieces.Add(text);
            return;
        }
        var start = 0;
        for (var at = text.IndexOf(mark, StringComparison.Ordinal); at >= 0;
             at = text.IndexOf(mark, at + mark.Length, StringComparison.Ordinal))
        {
            Add(text, start, at, pieces);
            start = at;
        }
        Add(text, start, text.Length, pieces);
    }
}

internal enum SplitBehavior
{
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// <summary>Cuts at the matches of a pattern; inverted, what lies between the matches counts as match.</summary>
internal sealed class SplitPreTokenizer(TextPattern pattern, SplitBehavior behavior, bool invert) : PreTokenizer
{
    public override void Split(string text, bool first, List<string> pieces)
    {
        var parts = new List<(int Start, int End, bool Match)>();
        var done = 0;
        foreach (var (start, end) in pattern.Matches(text))
        {
            if (start > done)
                parts.Add((done, start, invert));
            parts.Add((start, end, !invert));
            done = end;
        }
        if (done < text.Length)
            parts.Add((done, text.Length, invert));

        for (var i = 0; i < parts.Count; i++)
        {
            var (start, end, match) = parts[i];
            switch (behavior)
            {
                case SplitBehavior.Removed when match:
                    continue;
                // Of several matches in a row only the one beside the text joins it.
                case SplitBehavior.MergedWithPrevious when !match && i + 1 < parts.Count && parts[i + 1].Match:
                    end = parts[++i].End;
                    break;
                case SplitBehavior.MergedWithNext when match && i + 1 < parts.Count && !parts[i + 1].Match:
                    end = parts[++i].End;
                    break;
                case SplitBehavior.Contiguous:
                    while (i + 1 < parts.Count && parts[i + 1].Match == match)
                        end = parts[++i].End;
                    break;
            }
            Add(text, start, end, pieces);
        }
    }
}
