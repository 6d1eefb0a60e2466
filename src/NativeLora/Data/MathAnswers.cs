using System.Globalization;
using System.Numerics;
using System.Text;

namespace NativeLora.Data;

/// <summary>
/// Numbers in the answers to GSM8K's problems, read by MetaMath's rule: after the last "The answer is: " the first match of
/// <c>[\-+]?\d*[\.,/]?\d+</c>, a fraction divided, commas dropped, rounded half to even.
/// </summary>
/// <remarks>The rule reads one separator only, so 1,234,567 is 1234.</remarks>
public static class MathAnswers
{
    private const string AnswerMark = "The answer is: ";
    private const string GoldMark = "#### ";

    /// <summary>The number that a completion answers with, of a double's 53 bits; null where the rule finds none.</summary>
    public static BigInteger? Number(string completion)
    {
        ArgumentNullException.ThrowIfNull(completion);
        var mark = completion.LastIndexOf(AnswerMark, StringComparison.Ordinal);
        if (mark < 0)
            return null;
        var text = Plain(completion.AsSpan(mark + AnswerMark.Length));
        for (var start = 0; start < text.Length; start++)
        {
            var first = text[start] is '+' or '-' ? start + 1 : start;
            var middle = SkipDigits(text, first);
            var end = middle;
            if (middle < text.Length && text[middle] is '.' or ',' or '/')
                end = SkipDigits(text, middle + 1);
            // A separator without digits behind it is no part of the number.
            if (end > middle + 1)
                return Signed(Value(text[first..middle], text[middle], text[(middle + 1)..end]), text[start]);
            if (middle > first)
                return Signed(Rounded(Integer(text[first..middle]), BigInteger.One), text[start]);
        }
        return null;
    }

    /// <summary>The integer after "#### " in a reference answer, commas dropped.</summary>
    /// <exception cref="InputException">There is no such integer.</exception>
    public static BigInteger Gold(string answer) => TryGold(answer, out var gold)
        ? gold
        : throw new InputException("a reference answer has no integer after \"#### \"; end each answer with a line such as \"#### 42\"");

    /// <summary>The integer after "#### " in a reference answer, commas dropped; false where there is none.</summary>
    public static bool TryGold(string answer, out BigInteger gold)
    {
        ArgumentNullException.ThrowIfNull(answer);
        gold = default;
        var mark = answer.IndexOf(GoldMark, StringComparison.Ordinal);
        if (mark < 0)
            return false;
        var rest = answer.AsSpan(mark + GoldMark.Length);
        var next = rest.IndexOf(GoldMark, StringComparison.Ordinal);
        var text = Plain(next < 0 ? rest : rest[..next]).Replace(",", "", StringComparison.Ordinal).Trim();
        var first = text is ['+' or '-', ..] ? 1 : 0;
        if (first == text.Length || SkipDigits(text, first) < text.Length)
            return false;
        gold = Signed(Integer(text[first..]), text[0]);
        return true;
    }

    /// <summary>Whether a completion's number is that of the reference answer, both as doubles of any size.</summary>
    /// <exception cref="InputException">The reference answer has no integer after "#### ".</exception>
    public static bool IsCorrect(string completion, string answer)
    {
        var gold = Gold(answer);
        return Number(completion) is { } number
            && number == gold.Sign * Rounded(BigInteger.Abs(gold), BigInteger.One);
    }

    /// <summary>Share of completions whose number is that of the reference answer; NaN for none.</summary>
    /// <exception cref="InputException">The counts differ, or a reference answer has no integer after "#### ".</exception>
    public static double ExactMatch(IReadOnlyList<string> completions, IReadOnlyList<string> answers)
    {
        ArgumentNullException.ThrowIfNull(completions);
        ArgumentNullException.ThrowIfNull(answers);
        if (completions.Count != answers.Count)
            throw new InputException($"there are {completions.Count} completions for {answers.Count} reference answers; give one for each");
        var right = 0;
        for (var i = 0; i < answers.Count; i++)
        {
            if (!TryGold(answers[i], out _))
                throw new InputException($"reference answer {i + 1} has no integer after \"#### \"; end each answer with a line such as \"#### 42\"");
            right += IsCorrect(completions[i], answers[i]) ? 1 : 0;
        }
        return answers.Count == 0 ? double.NaN : (double)right / answers.Count;
    }

    /// <summary>The number of three parts; null for a fraction with no top. A bottom of 0 in any writing is left out.</summary>
    private static BigInteger? Value(string before, char separator, string after)
    {
        switch (separator)
        {
            case ',':
                return Rounded(Integer(before + after), BigInteger.One);
            case '.':
                return Rounded(Integer(before + after), BigInteger.Pow(10, after.Length));
            default:
                if (before.Length == 0)
                    return null;
                var bottom = Integer(after);
                return Rounded(Integer(before), bottom.IsZero ? BigInteger.One : bottom);
        }
    }

    /// <summary>
    /// The quotient rounded first to a double's 53 bits, as the reference does, then half to even to an integer. The exponent
    /// has no limit, so nothing overflows.
    /// </summary>
    private static BigInteger Rounded(BigInteger top, BigInteger bottom)
    {
        if (top.IsZero)
            return top;
        // 55 or 56 bits of quotient; the last one also stands for the remainder, so that the cast rounds as the whole would.
        var shift = (int)(55 - (top.GetBitLength() - bottom.GetBitLength()));
        var quotient = BigInteger.DivRem(shift > 0 ? top << shift : top, shift < 0 ? bottom << -shift : bottom, out var remainder);
        var rounded = (double)((long)quotient | (remainder.IsZero ? 0L : 1L));
        return shift <= 0
            ? new BigInteger(rounded) << -shift
            : new BigInteger(Math.Round(Math.ScaleB(rounded, -shift), MidpointRounding.ToEven));
    }

    private static BigInteger? Signed(BigInteger? value, char sign) => sign == '-' ? -value : value;

    private static BigInteger Signed(BigInteger value, char sign) => sign == '-' ? -value : value;

    private static BigInteger Integer(string digits) => BigInteger.Parse(digits, NumberStyles.None, CultureInfo.InvariantCulture);

    private static int SkipDigits(string text, int at)
    {
        while (at < text.Length && char.IsAsciiDigit(text[at]))
            at++;
        return at;
    }

    /// <summary>The text with the decimal digits of every script as ASCII ones: <c>\d</c> takes them all.</summary>
    private static string Plain(ReadOnlySpan<char> text)
    {
        var plain = new StringBuilder(text.Length);
        foreach (var rune in text.EnumerateRunes())
        {
            if (Rune.GetUnicodeCategory(rune) == UnicodeCategory.DecimalDigitNumber)
                plain.Append((char)('0' + (int)Rune.GetNumericValue(rune)));
            else
                plain.Append(rune.ToString());
        }
        return plain.ToString();
    }
}
