using System.Text;

namespace NativeLora.Checkpoints;

/// <summary>Makes the errors of this folder: always one line that begins with the file.</summary>
internal static class Reject
{
    private const int LongestQuote = 120;

    public static InputException At(string path, string what, Exception? inner = null) =>
        new(OneLine($"{path}: {what}"), inner);

    /// <summary>A name from a file, cut and quoted so that it cannot flood or break the line.</summary>
    public static string Quote(string text) =>
        text.Length <= LongestQuote ? $"'{text}'" : $"'{text[..LongestQuote]}…'";

    /// <summary>Control characters and line separators, which a file can put into any name, become spaces.</summary>
    public static string OneLine(string text)
    {
        var line = new StringBuilder(text.Length);
        foreach (var c in text)
            line.Append(char.IsControl(c) || c is '\u2028' or '\u2029' ? ' ' : c);
        return line.ToString();
    }
}
