using System.Globalization;
using System.Numerics;
using System.Text.Json;
using System.Text.RegularExpressions;
using CsCheck;
using NativeLora.Data;

namespace NativeLora.Tests.Data;

public class AnswerMetricsTests
{
    private const double Tolerance = 1e-12;

    /// <summary>Pieces of which the rules' special cases are made, and characters that break careless readers.</summary>
    private static readonly Gen<string> Text = Gen.OneOf(
        Gen.String,
        Pieces(
            "The answer is: ", "The answer is:", "#### ", "####", "+", "-", ".", ",", "/", "0", "00", "7", "12", "999999999999999999999999",
            new string('9', 400), " ", "\n", "\u001c", "A", "b.", "B. ", "\u0665", "\ud835\udfd3", "\ud835", "\udfd3", "\u00b2", "\u0130", "\0")
            .List[0, 12].Select(parts => string.Concat(parts)));

    [SharedFact]
    public void Math_answers_are_as_the_reference_reads_them()
    {
        var golden = Golden("gsm8k");
        var rows = golden.GetProperty("rows").EnumerateArray().ToArray();
        Assert.True(rows.Length >= 30);
        foreach (var row in rows)
        {
            var (completion, gold) = (String(row, "completion"), String(row, "gold"));
            Assert.Equal((completion, Big(row, "number")), (completion, MathAnswers.Number(completion)));
            Assert.Equal((gold, Big(row, "gold_number")), (gold, (BigInteger?)MathAnswers.Gold(gold)));
            Assert.Equal((completion, row.GetProperty("correct").GetBoolean()), (completion, MathAnswers.IsCorrect(completion, gold)));
        }
        var rate = MathAnswers.ExactMatch([.. rows.Select(r => String(r, "completion"))], [.. rows.Select(r => String(r, "gold"))]);
        Assert.Equal(golden.GetProperty("accuracy").GetDouble(), rate, Tolerance);
    }

    [SharedFact]
    public void Choice_letters_are_as_the_reference_compares_them()
    {
        var golden = Golden("letters");
        var rows = golden.GetProperty("rows").EnumerateArray().ToArray();
        Assert.True(rows.Length >= 16);
        foreach (var (name, rule) in new[] { ("strict", ChoiceRule.Strict), ("lower", ChoiceRule.Lower) })
        {
            foreach (var row in rows)
            {
                var (output, gold) = (String(row, "output"), String(row, "gold"));
                Assert.Equal((name, output, row.GetProperty(name).GetBoolean()), (name, output, ChoiceAnswers.IsCorrect(output, gold, rule)));
            }
            var rate = ChoiceAnswers.Accuracy([.. rows.Select(r => String(r, "output"))], [.. rows.Select(r => String(r, "gold"))], rule);
            Assert.Equal(golden.GetProperty("accuracy").GetProperty(name).GetDouble(), rate, Tolerance);
        }
    }

    [SharedFact]
    public void Pass_at_k_is_as_the_reference_computes_it()
    {
        var rows = Golden("pass_at_k").EnumerateArray().ToArray();
        Assert.True(rows.Length >= 18);
        foreach (var row in rows)
        {
            int n = row.GetProperty("n").GetInt32(), c = row.GetProperty("c").GetInt32(), k = row.GetProperty("k").GetInt32();
            Assert.Equal(row.GetProperty("value").GetDouble(), PassAtK.Estimate(n, c, k), Tolerance);
        }
    }

    [Theory]
    [InlineData("", "", true, true)]
    [InlineData(".", "", false, false)]
    [InlineData("b.", "b", false, false)]
    [InlineData("AB. x", "AB", false, false)]
    [InlineData("\u001cA\u00a0", "a", false, true)]
    [InlineData("\ud835.", "\ud835", false, false)] // half a character
    public void Choice_rules_hold_at_their_edges(string output, string gold, bool strict, bool lower)
    {
        Assert.Equal(strict, ChoiceAnswers.IsCorrect(output, gold, ChoiceRule.Strict));
        Assert.Equal(lower, ChoiceAnswers.IsCorrect(output, gold, ChoiceRule.Lower));
    }

    [Theory]
    [InlineData("9007199254740993", "9007199254740992")] // a double's neighbours are 2 apart here
    [InlineData("9007199254740995", "9007199254740996")]
    [InlineData("-100000000000000000001", "-100000000000000000000")]
    [InlineData("4.4999999999999999999999999", "4")] // the double is 4.5, which goes to the even 4
    [InlineData("5.4999999999999999999999999", "6")] // the double is 5.5
    [InlineData("10999999999999999999999999/2000000000000000000000000", "6")]
    [InlineData("-7/2", "-4")]
    [InlineData("-0.5", "0")]
    [InlineData("7/00", "7")]
    [InlineData("1--2", "1")]
    [InlineData("--2", "-2")]
    [InlineData("-$,.5", "0")]
    [InlineData("3./4", "3")]
    [InlineData("\ud835\udfd3", "5")] // a digit outside the basic plane
    [InlineData("\u00b2", null)] // superscript two is no decimal digit
    [InlineData("-/5", null)]
    public void Numbers_are_rounded_as_doubles_are(string text, string? expected)
    {
        BigInteger? wanted = expected is null ? null : BigInteger.Parse(expected, CultureInfo.InvariantCulture);
        Assert.Equal(wanted, MathAnswers.Number("The answer is: " + text));
    }

    [Fact]
    public void Numbers_beyond_a_double_are_compared_too()
    {
        string huge = new('9', 400), other = new('8', 400);
        Assert.True(MathAnswers.IsCorrect("The answer is: " + huge, "#### " + huge));
        Assert.True(MathAnswers.IsCorrect("The answer is: -" + huge + ".5", "#### -" + huge));
        Assert.False(MathAnswers.IsCorrect("The answer is: " + huge, "#### " + other));
        Assert.False(MathAnswers.IsCorrect("The answer is: -" + huge, "#### " + huge));
        Assert.Equal(BigInteger.One, MathAnswers.Number($"The answer is: {huge}/{huge}"));
    }

    [Fact]
    public void Numbers_are_those_of_the_pattern() =>
        Pieces("+", "-", ".", ",", "/", "0", "1", "2", "5", "12", " ", "x").List[0, 10].Select(parts => string.Concat(parts)).Sample(
            text => Assert.Equal((text, ByPattern(text)), (text, MathAnswers.Number("The answer is: 3 The answer is: " + text))),
            iter: 20_000);

    [Fact]
    public void No_text_throws()
    {
        Gen.Select(Text, Text).Sample((output, gold) =>
        {
            _ = MathAnswers.Number(output);
            _ = MathAnswers.Number("The answer is: " + output);
            foreach (var answer in new[] { gold, "#### " + gold })
            {
                if (MathAnswers.TryGold(answer, out var number))
                    Assert.Equal(number, MathAnswers.Gold(answer));
                else
                    Assert.DoesNotContain('\n', Assert.Throws<InputException>(() => MathAnswers.IsCorrect(output, answer)).Message);
            }
            _ = ChoiceAnswers.IsCorrect(output, gold, ChoiceRule.Strict);
            _ = ChoiceAnswers.IsCorrect(output, gold, ChoiceRule.Lower);
            Assert.True(ChoiceAnswers.IsCorrect(gold, gold, ChoiceRule.Strict));
        }, iter: 5_000);
    }

    [Theory]
    [InlineData("x 3 #### +1,234,567\n", "1234567")]
    [InlineData("#### ,\n-12\u00a0,#### 13", "-12")]
    [InlineData("#### \u0665\ud835\udfd3", "55")]
    public void Reference_answers_are_read_without_commas_and_space(string answer, string expected) =>
        Assert.Equal(BigInteger.Parse(expected, CultureInfo.InvariantCulture), MathAnswers.Gold(answer));

    [Theory]
    [InlineData("5")]
    [InlineData("####5")]
    [InlineData("#### ")]
    [InlineData("#### -")]
    [InlineData("#### 5.0")]
    [InlineData("#### 5 apples")]
    [InlineData("#### #### 5")]
    public void Reference_answers_without_an_integer_are_refused(string answer)
    {
        Assert.Throws<InputException>(() => MathAnswers.Gold(answer));
        var error = Assert.Throws<InputException>(() => MathAnswers.ExactMatch(["x", "y"], ["#### 1", answer]));
        Assert.Contains("reference answer 2", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Counts_that_differ_are_refused_and_nothing_has_no_rate()
    {
        Assert.Throws<InputException>(() => MathAnswers.ExactMatch(["x"], []));
        Assert.Throws<InputException>(() => ChoiceAnswers.Accuracy(["A"], ["A", "B"], ChoiceRule.Strict));
        Assert.Throws<InputException>(() => ChoiceAnswers.IsCorrect("A", "A", (ChoiceRule)7));
        Assert.Equal(double.NaN, MathAnswers.ExactMatch([], []));
        Assert.Equal(double.NaN, ChoiceAnswers.Accuracy([], [], ChoiceRule.Lower));
        Assert.Equal(double.NaN, PassAtK.Mean([], 1));
    }

    [Fact]
    public void Pass_at_k_is_one_less_the_ratio_of_the_binomials()
    {
        for (var n = 1; n <= 24; n++)
        {
            for (var c = 0; c <= n; c++)
            {
                for (var k = 1; k <= n; k++)
                    Assert.Equal(1 - (double)Choose(n - c, k) / (double)Choose(n, k), PassAtK.Estimate(n, c, k), Tolerance);
            }
        }
        Assert.Equal(0.5, PassAtK.Mean([(4, 4), (4, 0), (4, 2), (2, 1)], 1), Tolerance);
    }

    [Theory]
    [InlineData(0, 0, 1)]
    [InlineData(5, -1, 1)]
    [InlineData(5, 6, 1)]
    [InlineData(5, 2, 0)]
    public void Pass_at_k_refuses_counts_that_cannot_be(int n, int c, int k) =>
        Assert.Throws<InputException>(() => PassAtK.Estimate(n, c, k));

    /// <summary>The rule as it is written, by a regular expression and doubles; good for short ASCII numbers.</summary>
    private static BigInteger? ByPattern(string text)
    {
        var match = Regex.Match(text, @"[\-+]?\d*[\.,/]?\d+", RegexOptions.ECMAScript);
        if (!match.Success)
            return null;
        static double Number(string s) => double.Parse(s, NumberStyles.Float, CultureInfo.InvariantCulture);
        if (match.Value.Split('/') is not [var top, var bottom])
            return (BigInteger)Math.Round(Number(match.Value.Replace(",", "", StringComparison.Ordinal)));
        if (top is "" or "+" or "-")
            return null;
        return (BigInteger)Math.Round(Number(bottom) == 0 ? Number(top) : Number(top) / Number(bottom));
    }

    private static Gen<string> Pieces(params string[] pieces) => Gen.Int[0, pieces.Length - 1].Select(i => pieces[i]);

    private static BigInteger Choose(int n, int k)
    {
        var value = BigInteger.One;
        for (var i = 0; i < k; i++)
            value = value * (n - i) / (i + 1);
        return value;
    }

    private static JsonElement Golden(string name)
    {
        using var document = JsonDocument.Parse(File.ReadAllBytes(Shared.Path("fixtures", "text", "metrics", name + ".json")));
        return document.RootElement.Clone();
    }

    private static string String(JsonElement row, string name) => row.GetProperty(name).GetString()!;

    private static BigInteger? Big(JsonElement row, string name) =>
        row.GetProperty(name) is { ValueKind: JsonValueKind.Number } value
            ? BigInteger.Parse(value.GetRawText(), CultureInfo.InvariantCulture)
            : null;
}
