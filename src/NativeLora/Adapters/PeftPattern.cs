using System.Text.RegularExpressions;
using NativeLora.Checkpoints;

namespace NativeLora.Adapters;

/// <summary>Python regular expressions of an adapter config, run with a time limit since the file may come from anyone.</summary>
internal sealed class PeftPattern
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(2);
    private readonly Regex regex;
    private readonly string what;

    private PeftPattern(string what, string pattern, string wrapped)
    {
        this.what = $"{what} \"{Show(pattern)}\"";
        try
        {
            regex = new Regex(wrapped, RegexOptions.CultureInvariant, Limit);
        }
        catch (ArgumentException error)
        {
            throw new InputException($"{this.what} is not a valid regular expression: {Show(error.Message)}", error);
        }
    }

    /// <summary>Python's <c>re.fullmatch(pattern, text)</c>.</summary>
    public static PeftPattern FullMatch(string what, string pattern) => new(what, pattern, $@"\A(?:{Translate(pattern)})\z");

    /// <summary>PEFT's rule for the keys of rank_pattern and alpha_pattern: <c>re.match(r"(.*\.)?(KEY)$", text)</c>.</summary>
    public static PeftPattern Suffix(string what, string pattern) => new(what, pattern, $@"\A(?:.*\.)?(?:{Translate(pattern)})$");

    /// <summary>PEFT's rule for modules_to_save: the path holds the name, or is inside of it.</summary>
    public static PeftPattern Inside(string what, string pattern) => new(what, pattern, $@"\A(?:\A|.*\.){Translate(pattern)}(?:$|\..*)");

    /// <summary>PEFT's rule for layers_pattern: <c>re.match(r".*\.PATTERN\.(\d+)\.", text)</c>.</summary>
    public static PeftPattern LayerIndex(string what, string pattern) => new(what, pattern, $@"\A.*\.{Translate(pattern)}\.(?<layer>\d+)\.");

    public bool IsMatch(string text)
    {
        try
        {
            return regex.IsMatch(text);
        }
        catch (RegexMatchTimeoutException error)
        {
            throw TooSlow(error);
        }
    }

    /// <summary>The layer index that a <see cref="LayerIndex"/> pattern finds in a module path.</summary>
    public int? Layer(string text)
    {
        try
        {
            var match = regex.Match(text);
            return match.Success && int.TryParse(match.Groups["layer"].ValueSpan, out var layer) ? layer : null;
        }
        catch (RegexMatchTimeoutException error)
        {
            throw TooSlow(error);
        }
    }

    /// <summary>Text from outside, on one line and not too long.</summary>
    public static string Show(string text) => Reject.OneLine(text.Length > 120 ? text[..120] + "…" : text);

    // Named groups are the one common construct that Python spells differently.
    private static string Translate(string pattern) => pattern.Replace("(?P<", "(?<", StringComparison.Ordinal);

    private InputException TooSlow(Exception error) => new($"{what} takes too long to match; write it more simply", error);
}
