namespace NativeLora.Fuzz;

/// <summary>What a token of a text is.</summary>
public enum TokenKind
{
    /// <summary>Letters.</summary>
    Word,

    /// <summary>Digits, with sign, point and exponent.</summary>
    Number,

    /// <summary>What stands in double quotes, with them.</summary>
    String,

    /// <summary>One other character.</summary>
    Mark,
}

/// <summary>A part of a text.</summary>
public readonly record struct TextToken(int Start, int End, TokenKind Kind);

/// <summary>Takes any text apart as if it were JSON, so that a change hits a whole number, string or name.</summary>
public static class TextTokens
{
    /// <summary>The tokens; blanks between them are none.</summary>
    public static List<TextToken> Of(ReadOnlySpan<byte> text)
    {
        var tokens = new List<TextToken>();
        for (var at = 0; at < text.Length;)
        {
            var start = at;
            var first = text[at++];
            if (first == ' ')
                continue;
            if (first == '"')
            {
                while (at < text.Length && text[at] != '"' && text[at] != '\n')
                    at += text[at] == '\\' ? 2 : 1;
                at = Math.Min(text.Length, at + 1);
                tokens.Add(new(start, at, TokenKind.String));
                continue;
            }
            var kind = char.IsAsciiDigit((char)first) || first is (byte)'-' ? TokenKind.Number : char.IsAsciiLetter((char)first) || first >= 128 ? TokenKind.Word : TokenKind.Mark;
            while (at < text.Length && kind != TokenKind.Mark && Goes(kind, text[at]))
                at++;
            tokens.Add(new(start, at, kind));
        }
        return tokens;
    }

    private static bool Goes(TokenKind kind, byte next) => kind == TokenKind.Number
        ? char.IsAsciiDigit((char)next) || next is (byte)'.' or (byte)'e' or (byte)'E' or (byte)'+' or (byte)'-'
        : char.IsAsciiLetterOrDigit((char)next) || next is (byte)'_' or >= 128;
}
