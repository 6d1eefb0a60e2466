namespace NativeLora.Data.Tokenizers;

/// <summary>One place of a template: the first text, the second, or a token.</summary>
/// <param name="Sequence">0 the first text, 1 the second, -1 a token.</param>
/// <param name="Id">Id of the token.</param>
/// <param name="TypeId">Segment of what stands here.</param>
internal readonly record struct TemplatePart(int Sequence, int Id, int TypeId);

/// <summary>Where texts and special tokens go, for a text alone and for a pair.</summary>
internal sealed class Template(TemplatePart[] single, TemplatePart[] pair)
{
    /// <summary>No special tokens; the second text is segment 1.</summary>
    public static readonly Template Plain = new([Text(0, 0)], [Text(0, 0), Text(1, 1)]);

    public static TemplatePart Text(int sequence, int typeId) => new(sequence, 0, typeId);

    public static TemplatePart Token(int id, int typeId) => new(-1, id, typeId);

    public static Template Bert(int cls, int sep) => new([Token(cls, 0), Text(0, 0), Token(sep, 0)],
        [Token(cls, 0), Text(0, 0), Token(sep, 0), Text(1, 1), Token(sep, 1)]);

    /// <summary>Pairs are joined by two separators, and everything is segment 0.</summary>
    public static Template Roberta(int cls, int sep) => new([Token(cls, 0), Text(0, 0), Token(sep, 0)],
        [Token(cls, 0), Text(0, 0), Token(sep, 0), Token(sep, 0), Text(1, 0), Token(sep, 0)]);

    /// <summary>Llama's: each text begins with the token.</summary>
    public static Template Begin(int bos) =>
        new([Token(bos, 0), Text(0, 0)], [Token(bos, 0), Text(0, 0), Token(bos, 1), Text(1, 1)]);

    /// <summary>Tokens that the template itself takes.</summary>
    public int SpecialTokens(bool isPair)
    {
        var count = 0;
        foreach (var part in isPair ? pair : single)
            count += part.Sequence < 0 ? 1 : 0;
        return count;
    }

    public TokenizedText Fill(ReadOnlySpan<int> first, ReadOnlySpan<int> second, bool isPair)
    {
        List<int> ids = new(first.Length + second.Length + 4), types = new(first.Length + second.Length + 4);
        foreach (var part in isPair ? pair : single)
        {
            if (part.Sequence < 0)
                ids.Add(part.Id);
            else
                ids.AddRange(part.Sequence == 0 ? first : second);
            while (types.Count < ids.Count)
                types.Add(part.TypeId);
        }
        return new TokenizedText([.. ids], [.. types]);
    }
}
