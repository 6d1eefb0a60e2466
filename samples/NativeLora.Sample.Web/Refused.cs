using System.Text;

namespace NativeLora.Sample.Web;

/// <summary>A request that gets no result: the status, and one line that says why.</summary>
public sealed class Refused(int status, string detail) : Exception(detail)
{
    private const int LongestQuote = 60;

    public int Status { get; } = status;

    /// <summary>What a request holds, cut and on one line.</summary>
    public static string Quote(string text)
    {
        var line = new StringBuilder("\"");
        foreach (var c in text.AsSpan(0, Math.Min(text.Length, LongestQuote)))
            line.Append(char.IsControl(c) || char.IsSurrogate(c) || c is '\u2028' or '\u2029' or '"' ? ' ' : c);
        return line.Append(text.Length > LongestQuote ? "…\"" : "\"").ToString();
    }
}
