namespace NativeLora.Data;

/// <summary>An instruction with its output, ready for a causal language model.</summary>
/// <param name="Ids">Token ids of prompt, output, newline and end of text, cut to the maximum length.</param>
/// <param name="Labels">The same ids with -100 over the prompt: not yet shifted.</param>
/// <param name="PromptLabels">How many labels are -100.</param>
/// <param name="TokenIndex">
/// Token that layer selection reads by the paper's rule: the number of ids that are not pad (which is the end of text), less one.
/// </param>
/// <param name="ContentIndex">Last token that is content, before the newline and end of text which the prompt adds.</param>
public sealed record CausalExample(int[] Ids, int[] Labels, int PromptLabels, int TokenIndex, int ContentIndex);

/// <summary>The prompt of the paper's decoder scripts (Alpaca's, without an input).</summary>
public static class InstructionPrompt
{
    /// <summary>A label that the loss passes over.</summary>
    public const int IgnoredLabel = -100;

    private const string Before =
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n";

    private const string After = "\n\n### Response:";

    /// <summary>The prompt alone: what a model continues.</summary>
    public static string Source(string instruction) => Before + instruction + After;

    /// <summary>Prompt, output, newline and end of text: what a model learns from.</summary>
    public static string Full(string instruction, string output, string eosText) => Source(instruction) + output + "\n" + eosText;

    /// <summary>
    /// Tokens and labels of an instruction. As in the paper's scripts pad is the end of text, so the prompt's length is counted
    /// without such tokens, and the texts are not protected: an end of text written in them becomes that token.
    /// </summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="eosText">Text of the token that ends a text, such as <c>&lt;/s&gt;</c>.</param>
    /// <param name="instruction">What is asked.</param>
    /// <param name="output">The answer to learn.</param>
    /// <param name="maxLength">Tokens kept, at most.</param>
    /// <exception cref="InputException">The tokenizer does not know <paramref name="eosText"/>, or a length below 1.</exception>
    public static CausalExample Encode(ITokenizer tokenizer, string eosText, string instruction, string output, int maxLength)
    {
        if (maxLength < 1)
            throw new InputException($"the maximum length is {maxLength}; give at least 1 token");
        var pad = tokenizer.TokenId(eosText) ?? throw new InputException(
            $"the tokenizer has no token {LabelSet.Quoted(eosText)}; name the token that ends a text");
        var source = tokenizer.Encode(Source(instruction), null, maxLength).Ids;
        var ids = tokenizer.Encode(Full(instruction, output, eosText), null, maxLength).Ids;

        var prompt = Math.Min(ids.Length, source.Length - source.AsSpan().Count(pad));
        var labels = ids.AsSpan().ToArray();
        labels.AsSpan(0, prompt).Fill(IgnoredLabel);
        // With nothing but pads the index is -1, which the scripts' indexing takes for the last token.
        var token = ids.Length - ids.AsSpan().Count(pad) - 1;
        return new CausalExample(ids, labels, prompt, token < 0 ? ids.Length - 1 : token, LastContent(tokenizer, ids, pad));
    }

    private static int LastContent(ITokenizer tokenizer, int[] ids, int pad)
    {
        var at = ids.Length - 1;
        while (at > 0 && (ids[at] == pad || string.IsNullOrWhiteSpace(tokenizer.Decode(ids.AsSpan(at, 1)))))
            at--;
        return at;
    }
}
