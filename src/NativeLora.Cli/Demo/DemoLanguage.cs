using NativeLora.Data;

namespace NativeLora.Cli.Demo;

/// <summary>
/// A generated language: "rule word = answer", such as <c>reverse b d a = a d b</c>. The base learns some rules; the shifted task is one
/// that it has not seen, made of two that it knows.
/// </summary>
internal sealed class DemoLanguage(int word)
{
    public const int EndOfText = 0;
    private const int Equal = 1;
    private const int FirstRule = 2;
    public const int Alphabet = 16;

    public enum Rule
    {
        Copy,
        Reverse,
        Next,
        Sort,
        Swap,
    }

    /// <summary>What the base is trained on.</summary>
    public static IReadOnlyList<Rule> BaseRules { get; } = [Rule.Copy, Rule.Reverse, Rule.Next, Rule.Sort, Rule.Swap];

    private static int FirstSymbol => FirstRule + Enum.GetValues<Rule>().Length;

    public static int Vocabulary => FirstSymbol + Alphabet;

    /// <summary>Tokens of a sequence: rule, word, =, answer, end of text.</summary>
    public int Length => (2 * word) + 3;

    /// <summary>First token of the answer.</summary>
    public int AnswerAt => word + 2;

    public int Word => word;

    /// <summary>Share of right symbols by guessing.</summary>
    public static double Chance => 1.0 / Alphabet;

    public EncodedExample[] Examples(SplitMix64 random, int count, IReadOnlyList<Rule> rules, int[]? cipher = null)
    {
        var examples = new EncodedExample[count];
        for (var i = 0; i < count; i++)
            examples[i] = Example(random, rules[random.NextInt32(rules.Count)], cipher);
        return examples;
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
