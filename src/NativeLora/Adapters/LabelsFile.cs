using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using NativeLora.Checkpoints;

namespace NativeLora.Adapters;

/// <summary><c>labels.json</c> beside an adapter: the names of its classes in the order of their ids, which PEFT's files do not hold.</summary>
public static class LabelsFile
{
    /// <summary>Name of the file.</summary>
    public const string Name = "labels.json";

    private static readonly LabelsJson Readable = new(new JsonSerializerOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, WriteIndented = true });

    /// <summary>Writes the names.</summary>
    /// <exception cref="RunException">The file cannot be written.</exception>
    public static void Save(string folder, IReadOnlyList<string> labels) => AtomicFile.WriteTogether([ToWrite(folder, labels)]);

    internal static FileToWrite ToWrite(string folder, IReadOnlyList<string> labels) =>
        new(Path.Combine(folder, Name), AtomicFile.Text(JsonSerializer.Serialize([.. labels], Readable.StringArray) + "\n"));

    /// <summary>Reads the names; null where there is no such file, as in an adapter that PEFT wrote.</summary>
    /// <exception cref="InputException">The file cannot be read, or holds no list of different names.</exception>
    public static IReadOnlyList<string>? Load(string folder)
    {
        var path = Path.Combine(folder, Name);
        if (!File.Exists(path))
            return null;
        string?[]? labels = null;
        try
        {
            labels = JsonSerializer.Deserialize(File.ReadAllBytes(path), Readable.StringArray);
        }
        catch (JsonException)
        {
            // Told below.
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException(Reject.OneLine($"{path}: cannot be read: {e.Message}"), e);
        }
        string[] names = [.. labels?.OfType<string>() ?? []];
        return names.Length > 0 && names.Length == labels!.Length && names.Distinct(StringComparer.Ordinal).Count() == names.Length
            ? names
            : throw new InputException($"{path}: is not a JSON list of different names of classes; mend it, or remove it and give --labels");
    }
}

[JsonSerializable(typeof(string[]))]
internal sealed partial class LabelsJson : JsonSerializerContext;
