namespace NativeLora.Selection;

/// <summary>Which row of a sequence stands for it when layers are compared.</summary>
public enum TokenRule
{
    /// <summary>The first token: CLS.</summary>
    Cls,

    /// <summary>The paper's rule for decoders: pad is the end of text, and the token is the one at (tokens that are not pad) - 1.</summary>
    Last,

    /// <summary>The last token, whatever it is.</summary>
    TrueLast,

    /// <summary>The last token that is content, before what a prompt's form adds: the example's own pool index.</summary>
    Content,

    /// <summary>The mean over the visible tokens.</summary>
    Mean,
}

/// <summary>Names of <see cref="TokenRule"/>, and what they pick.</summary>
public static class TokenRules
{
    /// <summary>The names, in the order of the enumeration.</summary>
    public static IReadOnlyList<string> Names { get; } = ["cls", "last", "true-last", "content", "mean"];

    /// <summary>The name of a rule.</summary>
    public static string NameOf(TokenRule rule) => Names[(int)rule];

    /// <summary>The rule of a name.</summary>
    /// <exception cref="InputException">There is none.</exception>
    public static TokenRule Parse(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        for (var i = 0; i < Names.Count; i++)
            if (name.Equals(Names[i], StringComparison.OrdinalIgnoreCase))
                return (TokenRule)i;
        throw new InputException($"\"{name}\" is no token to compare: give one of {string.Join(", ", Names)}");
    }

    /// <summary>What the paper's scripts take, or the plain rule: the last content token for decoders.</summary>
    public static TokenRule Default(ModelFamily family, SelectionRule rule) =>
        family == ModelFamily.Encoder ? TokenRule.Cls : rule == SelectionRule.Paper ? TokenRule.Last : TokenRule.Content;

    /// <summary>Index of the row within the sequence. For the mean it is not used.</summary>
    /// <param name="rule">The rule.</param>
    /// <param name="ids">Tokens of the sequence.</param>
    /// <param name="padId">The token that counts as padding: for decoders the end of text; null for none.</param>
    /// <param name="contentIndex">The last content token.</param>
    public static int Index(TokenRule rule, ReadOnlySpan<int> ids, int? padId, int contentIndex)
    {
        switch (rule)
        {
            case TokenRule.Last:
                var index = ids.Length - (padId is { } pad ? ids.Count(pad) : 0) - 1;
                // With nothing but pads the scripts index with -1: the last token.
                return index < 0 ? ids.Length - 1 : index;
            case TokenRule.TrueLast:
                return ids.Length - 1;
            case TokenRule.Content:
                return contentIndex;
            default:
                return 0;
        }
    }
}
