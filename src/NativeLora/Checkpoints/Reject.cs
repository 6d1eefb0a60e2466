using System.Text;
using System.Text.Json;

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

    /// <summary>What a JSON reader found, and where, counted from 1.</summary>
    public static string Json(JsonException e, bool line = true)
    {
        var what = e.Message;
        foreach (var tail in (string[])[" Path: ", " LineNumber: "])
            if (what.IndexOf(tail, StringComparison.Ordinal) is > 0 and var at)
                what = what[..at];
        what = OneLine(what).TrimEnd('.');
        return e.BytePositionInLine is not { } place ? what
            : line && e.LineNumber is { } number ? $"{what} (line {number + 1}, byte {place + 1})" : $"{what} (byte {place + 1} of the line)";
    }

    /// <summary>Control characters and line separators, which a file can put into any name, become spaces.</summary>
    public static string OneLine(string text)
    {
        var line = new StringBuilder(text.Length);
        foreach (var c in text)
            line.Append(char.IsControl(c) || c is '\u2028' or '\u2029' ? ' ' : c);
        return line.ToString();
    }
}
