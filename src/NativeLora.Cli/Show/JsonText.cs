using System.Text.Encodings.Web;
using System.Text.Json;

namespace NativeLora.Cli.Show;

/// <summary>How JSON is written: paths and texts are not escaped beyond need.</summary>
internal static class JsonText
{
    public static JsonSerializerOptions Indented { get; } = new() { WriteIndented = true, NewLine = "\n", Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static JsonSerializerOptions OneLine { get; } = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
}
