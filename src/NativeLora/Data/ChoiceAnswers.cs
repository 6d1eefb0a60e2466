using System.Buffers;
using System.Text;

namespace NativeLora.Data;

/// <summary>How a model's output is compared with the letter of the right choice.</summary>
public enum ChoiceRule
{
    /// <summary>The letter as it is, or a capital letter and a dot before anything.</summary>
    Strict,

    /// <summary>The letter alone, in either case, with white space around it.</summary>
    Lower,
}

/// <summary>Letters that answer multiple-choice questions, by the two versions of lmms-eval's ScienceQA rule.</summary>
public static class ChoiceAnswers
{
    /// <summary>Whether an output names the right letter.</summary>
    public static bool IsCorrect(string output, string gold, ChoiceRule rule)
    {
        ArgumentNullException.ThrowIfNull(output);
        ArgumentNullException.ThrowIfNull(gold);
        return rule switch
        {
            ChoiceRule.Strict => Strict(output, gold),
            ChoiceRule.Lower => Strip(output).ToLowerInvariant() == gold.ToLowerInvariant(),
            _ => throw new InputException($"there is no choice rule {(int)rule}; give Strict or Lower"),
        };
    }

    /// <summary>Share of outputs that name the right letter; NaN for none.</summary>
    /// <exception cref="InputException">The counts differ.</exception>
    public static double Accuracy(IReadOnlyList<string> outputs, IReadOnlyList<string> golds, ChoiceRule rule)
    {
        ArgumentNullException.ThrowIfNull(outputs);
        ArgumentNullException.ThrowIfNull(golds);
        if (outputs.Count != golds.Count)
            throw new InputException($"there are {outputs.Count} outputs for {golds.Count} right choices; give one for each");
        var right = 0;
        for (var i = 0; i < golds.Count; i++)
            right += IsCorrect(outputs[i], golds[i], rule) ? 1 : 0;
        return golds.Count == 0 ? double.NaN : (double)right / golds.Count;
    }

    private static bool Strict(string output, string gold)
    {
        if (output == gold)
            return true;
        // Only a letter that is the whole gold text can stand before the dot.
        return Rune.DecodeFromUtf16(gold, out var letter, out var length) == OperationStatus.Done
            && length == gold.Length
            && Rune.IsUpper(letter)
            && output.StartsWith(gold + ".", StringComparison.Ordinal);
    }

    /// <summary>Trims as Python's strip does, which also takes the four separators U+001C to U+001F.</summary>
    private static string Strip(string text)
    {
        static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\u001c' and <= '\u001f';
        int start = 0, end = text.Length;
        while (start < end && IsSpace(text[start]))
            start++;
        while (end > start && IsSpace(text[end - 1]))
            end--;
        return text[start..end];
    }
}
