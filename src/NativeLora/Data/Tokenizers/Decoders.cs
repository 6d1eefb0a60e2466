using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>One step of the way from tokens to text: a list of tokens becomes another list, which is joined in the end.</summary>
internal abstract class Decoder
{
    public abstract List<string> Apply(List<string> tokens);
}

/// <summary>A step that changes each token on its own.</summary>
internal abstract class TokenDecoder : Decoder
{
    public override List<string> Apply(List<string> tokens)
    {
        for (var i = 0; i < tokens.Count; i++)
            tokens[i] = Change(tokens[i], i, tokens.Count);
        return tokens;
    }

    protected abstract string Change(string token, int index, int count);
}

internal sealed class SequenceDecoder(IReadOnlyList<Decoder> steps) : Decoder
{
    public override List<string> Apply(List<string> tokens)
    {
        foreach (var step in steps)
            tokens = step.Apply(tokens);
        return tokens;
    }
}

internal sealed class ByteLevelDecoder : Decoder
{
    public override List<string> Apply(List<string> tokens)
    {
        var bytes = new List<byte>();
        foreach (var token in tokens)
            ByteCharacters.Decode(token, bytes);
        return [Encoding.UTF8.GetString([.. bytes])];
    }
}

internal sealed class WordPieceDecoder(string prefix, bool cleanUp) : TokenDecoder
{
    private static readonly (string From, string To)[] CleanUps =
    [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ];

    protected override string Change(string token, int index, int count)
    {
        if (index > 0)
            token = token.StartsWith(prefix, StringComparison.Ordinal) ? token[prefix.Length..] : " " + token;
        if (!cleanUp)
            return token;
        foreach (var (from, to) in CleanUps)
            token = token.Replace(from, to, StringComparison.Ordinal);
        return token;
    }
}

internal sealed class MetaspaceDecoder(string mark, bool prefixed) : TokenDecoder
{
    protected override string Change(string token, int index, int count) =>
        token.Replace(mark, index == 0 && prefixed ? "" : " ", StringComparison.Ordinal);
}

/// <summary>The mark of a word's end becomes a space, but for the last token.</summary>
internal sealed class SuffixDecoder(string suffix) : TokenDecoder
{
    protected override string Change(string token, int index, int count) =>
        token.Replace(suffix, index == count - 1 ? "" : " ", StringComparison.Ordinal);
}

internal sealed class ReplaceDecoder(TextPattern pattern, string content) : TokenDecoder
{
    protected override string Change(string token, int index, int count) => pattern.Replace(token, content);
}

/// <summary>Takes up to a number of copies of a character off both ends of each token.</summary>
internal sealed class StripDecoder(string content, int start, int stop) : TokenDecoder
{
    protected override string Change(string token, int index, int count)
    {
        for (var i = 0; i < start && token.StartsWith(content, StringComparison.Ordinal); i++)
            token = token[content.Length..];
        for (var i = 0; i < stop && token.EndsWith(content, StringComparison.Ordinal); i++)
            token = token[..^content.Length];
        return token;
    }
}

internal sealed class FuseDecoder : Decoder
{
    public override List<string> Apply(List<string> tokens) => [string.Concat(tokens)];
}

/// <summary>Runs of byte tokens become the text they encode; a run that encodes none becomes U+FFFD for every byte.</summary>
internal sealed class ByteFallbackDecoder : Decoder
{
    private static readonly UTF8Encoding Strict = new(false, throwOnInvalidBytes: true);

    public override List<string> Apply(List<string> tokens)
    {
        var decoded = new List<string>(tokens.Count);
        var bytes = new List<byte>();
        foreach (var token in tokens)
        {
            if (ByteOf(token) is { } value)
            {
                bytes.Add(value);
                continue;
            }
            Flush(bytes, decoded);
            decoded.Add(token);
        }
        Flush(bytes, decoded);
        return decoded;
    }

    private static byte? ByteOf(string token) => token.Length == 6 && token.StartsWith("<0x", StringComparison.Ordinal)
        && token[5] == '>' && char.IsAsciiHexDigit(token[3]) && char.IsAsciiHexDigit(token[4])
        ? Convert.ToByte(token[3..5], 16) : null;

    private static void Flush(List<byte> bytes, List<string> decoded)
    {
        if (bytes.Count == 0)
            return;
        try
        {
            decoded.Add(Strict.GetString([.. bytes]));
        }
        catch (DecoderFallbackException)
        {
            decoded.AddRange(Enumerable.Repeat("\uFFFD", bytes.Count));
        }
        bytes.Clear();
    }
}
