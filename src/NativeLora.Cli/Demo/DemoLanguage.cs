using NativeLora.Data;

namespace NativeLora.Cli.Demo;

/// <summary>
/// A generated language: "rule word = answer", such as <c>reverse bda = adb</c>. The base learns the rules. The shifted task has the same
/// rules, but writes its answers in a cipher: each symbol stands for another.
/// </summary>
internal sealed class DemoLanguage(int word)
{
    public const int EndOfText = 0;
    public const int Alphabet = 16;
    private const int Equal = 1;
    private const int FirstRule = 2;

    private enum Rule
    {
        Copy,
        Reverse,
        Next,
        Sort,
        Swap,
    }

    private static readonly int RuleCount = Enum.GetValues<Rule>().Length;

    private static int FirstSymbol => FirstRule + RuleCount;

    public static int Vocabulary => FirstSymbol + Alphabet;

    /// <summary>Tokens of a sequence: rule, word, =, answer, end of text.</summary>
    public int Length => (2 * word) + 3;

    /// <summary>First token of the answer.</summary>
    private int AnswerAt => word + 2;

    public int Word => word;

    /// <summary>Share of right symbols by guessing.</summary>
    public static double Chance => 1.0 / Alphabet;

    /// <summary>Examples of all rules.</summary>
    /// <param name="random">Where they come from.</param>
    /// <param name="count">How many.</param>
    /// <param name="cipher">What each symbol of an answer is written as; null for itself.</param>
    public EncodedExample[] Examples(SplitMix64 random, int count, int[]? cipher = null)
    {
        var examples = new EncodedExample[count];
        for (var i = 0; i < count; i++)
            examples[i] = Example(random, (Rule)random.NextInt32(RuleCount), cipher);
        return examples;
    }

    /// <summary>An example as a person reads it.</summary>
    public string Show(EncodedExample example)
    {
        string Letters(int from) => string.Concat(example.Ids.Skip(from).Take(word).Select(id => (char)('a' + id - FirstSymbol)));
        return $"{((Rule)(example.Ids[0] - FirstRule)).ToString().ToLowerInvariant()} {Letters(1)} = {Letters(AnswerAt)}";
    }

    private EncodedExample Example(SplitMix64 random, Rule rule, int[]? cipher)
    {
        var x = new int[word];
        for (var i = 0; i < word; i++)
            x[i] = random.NextInt32(Alphabet);
        int[] ids = [FirstRule + (int)rule, .. x.Select(s => FirstSymbol + s), Equal, .. Answer(rule, x).Select(s => FirstSymbol + (cipher?[s] ?? s)), EndOfText];
        var labels = new int[ids.Length];
        Array.Fill(labels, InstructionPrompt.IgnoredLabel);
        Array.Copy(ids, AnswerAt, labels, AnswerAt, word);
        return EncodedExample.Causal(ids, labels, AnswerAt + word - 1);
    }

    private static IEnumerable<int> Answer(Rule rule, int[] x) => rule switch
    {
        Rule.Copy => x,
        Rule.Reverse => x.Reverse(),
        Rule.Next => x.Select(Successor),
        Rule.Sort => x.Order(),
        Rule.Swap => x.Select((_, i) => x[(i ^ 1) < x.Length ? i ^ 1 : i]),
        _ => throw new ArgumentOutOfRangeException(nameof(rule)),
    };

    private static int Successor(int symbol) => (symbol + 1) % Alphabet;
}
