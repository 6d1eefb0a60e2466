using System.Text;

namespace NativeLora.Data.Tokenizers;

/// <summary>Reads text files that must be UTF-8.</summary>
internal static class TextFile
{
    private static readonly UTF8Encoding Strict = new(false, throwOnInvalidBytes: true);

    /// <summary>Lines without their ends; only LF and CR LF end a line, as other separators may be tokens.</summary>
    public static string[] Lines(string file)
    {
        string text;
        try
        {
            text = Strict.GetString(File.ReadAllBytes(file));
        }
        catch (DecoderFallbackException e)
        {
            throw new InputException($"{file}: not UTF-8 at byte {e.Index}; fetch it again", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file}: cannot be read ({OneLine(e)})", e);
        }
        var lines = text.TrimStart('\uFEFF').Split('\n');
        for (var i = 0; i < lines.Length; i++)
            lines[i] = lines[i].EndsWith('\r') ? lines[i][..^1] : lines[i];
        return lines[^1].Length == 0 ? lines[..^1] : lines;
    }

    public static string OneLine(Exception e) => e.Message.ReplaceLineEndings(" ");
}
