using System.Text.Json;
using System.Text.Json.Nodes;
using NativeLora.Checkpoints;
using NativeLora.Training;

namespace NativeLora.Faults;

/// <summary>Whether files are whole, and whether two folders hold the same.</summary>
internal static class FileCheck
{
    /// <summary>The first file under its final name that is not whole; null if all are.</summary>
    public static string? Torn(string folder)
    {
        if (!Directory.Exists(folder))
            return null;
        foreach (var path in Visible(folder))
        {
            try
            {
                if (path.EndsWith(".safetensors", StringComparison.Ordinal))
                    SafeTensorsFile.Open(path).Dispose();
                else if (path.EndsWith(".json", StringComparison.Ordinal))
                    JsonDocument.Parse(File.ReadAllBytes(path)).Dispose();
                // Lines are appended to metrics.jsonl; what is after the last checkpoint is cut off when it goes on. What is called incomplete may be.
                else if (new FileInfo(path).Length == 0 && !path.EndsWith("metrics.jsonl", StringComparison.Ordinal) && !path.EndsWith(".incomplete", StringComparison.Ordinal))
                    return $"{path} is empty";
            }
            catch (Exception e) when (e is InputException or JsonException or IOException)
            {
                return $"{path} is not whole: {e.Message}";
            }
        }
        if (Directory.Exists(Path.Combine(folder, "checkpoints")))
        {
            var store = new CheckpointStore(folder, 1);
            foreach (var step in store.Steps())
                if (store.Damage(step) is { } damage)
                    return $"checkpoint {step} of {folder} is not whole: {damage}";
        }
        return null;
    }

    /// <summary>The first difference between two folders, times left out; null if there is none.</summary>
    /// <param name="expected">The one that was made undisturbed.</param>
    /// <param name="actual">The other.</param>
    public static string? Different(string expected, string actual)
    {
        var (left, right) = (Names(expected), Names(actual));
        if (right.Except(left).FirstOrDefault() is { } more)
            return $"{more} is left over";
        if (left.Except(right).FirstOrDefault() is { } missing)
            return $"{missing} is missing";
        foreach (var name in left)
        {
            var (a, b) = (Path.Combine(expected, name), Path.Combine(actual, name));
            if (IsTimed(name) ? Untimed(a, expected) != Untimed(b, actual) : !File.ReadAllBytes(a).AsSpan().SequenceEqual(File.ReadAllBytes(b)))
                return $"{name} differs";
        }
        return null;
    }

    private static SortedSet<string> Names(string folder) => new(
        Directory.EnumerateFiles(folder, "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0 })
            .Select(p => Path.GetRelativePath(folder, p)).Where(n => Path.GetFileName(n) is not ".training.lock"),
        StringComparer.Ordinal);

    private static IEnumerable<string> Visible(string folder) => Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
        .Where(p => !Path.GetRelativePath(folder, p).Split(Path.DirectorySeparatorChar).Any(part => part.StartsWith('.')));

    // These hold what the clock said, or how much memory there was.
    private static bool IsTimed(string name) => Path.GetFileName(name) is "metrics.jsonl" or "report.json" or "trainer_state.json" or "files.json" or "cell.json" or "result.json"
        || Path.GetFileName(name).StartsWith("study.", StringComparison.Ordinal) || Path.GetFileName(name) is "summary.csv" or "selection.json";

    private static string Untimed(string path, string folder)
    {
        var text = File.ReadAllText(path).Replace(folder, "DIR", StringComparison.Ordinal);
        return Path.GetExtension(path) is ".json" or ".jsonl"
            ? string.Join('\n', (path.EndsWith('l') ? text.Split('\n', StringSplitOptions.RemoveEmptyEntries) : [text]).Select(t => Stripped(JsonNode.Parse(t))?.ToJsonString()))
            // Tables of a study hold times in columns of their own: their shape is compared.
            : string.Concat(text.Where(c => !char.IsAsciiDigit(c) && c is not ('.' or '-' or ' ' or '+' or '−')));
    }

    private static JsonNode? Stripped(JsonNode? node)
    {
        if (node is JsonArray array)
            foreach (var item in array)
                Stripped(item);
        if (node is not JsonObject document)
            return node;
        foreach (var name in document.Select(p => p.Key).ToList())
            if (name.Contains("seconds", StringComparison.Ordinal) || name.Contains("peak", StringComparison.Ordinal) || name.Contains("per_second", StringComparison.Ordinal)
                || name is "memory" or "metrics_bytes" or "trainer_state.json" or "version" or "time" or "created")
                document.Remove(name);
            else
                Stripped(document[name]);
        return document;
    }
}
