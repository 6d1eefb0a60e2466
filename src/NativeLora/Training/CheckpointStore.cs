using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;
using NativeLora.Checkpoints;

namespace NativeLora.Training;

/// <summary>
/// The checkpoints of an output folder: <c>checkpoints/step-N</c>. A checkpoint is written under another name, flushed, and renamed, so
/// that one that is there is whole; sums over its files tell one that was damaged later.
/// </summary>
internal sealed class CheckpointStore(string output, int keep)
{
    private const string Sums = "files.json";
    private const string StepPrefix = "step-";
    private const string UnfinishedPrefix = ".unfinished-";
    private const string ReplacedPrefix = ".replaced-";

    private readonly string _folder = Path.Combine(output, "checkpoints");

    private string Removed => Path.Combine(output, ".checkpoints.removed");

    /// <summary>The checkpoint of a step, whether or not it is there.</summary>
    public string Of(int step) => Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"{StepPrefix}{step}"));

    /// <summary>Steps that have a checkpoint, the newest first.</summary>
    public IReadOnlyList<int> Steps()
    {
        if (!Directory.Exists(_folder))
            return [];
        var steps = new List<int>();
        foreach (var path in Directory.EnumerateDirectories(_folder, StepPrefix + "*"))
            if (int.TryParse(Path.GetFileName(path).AsSpan(StepPrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out var step))
                steps.Add(step);
        return [.. steps.OrderDescending()];
    }

    /// <summary>Removes what a process that was killed left unfinished; a checkpoint that it was about to replace comes back.</summary>
    public void RemoveUnfinished() => Guarded(() =>
    {
        if (Directory.Exists(Removed))
            Directory.Delete(Removed, recursive: true);
        if (!Directory.Exists(_folder))
            return;
        foreach (var path in Directory.EnumerateDirectories(_folder, ReplacedPrefix + "*").ToList())
            if (Path.Combine(_folder, StepPrefix + Path.GetFileName(path)[ReplacedPrefix.Length..]) is var place && Directory.Exists(place))
                Directory.Delete(path, recursive: true);
            else
                Directory.Move(path, place);
        foreach (var path in Directory.EnumerateDirectories(_folder, UnfinishedPrefix + "*").ToList())
            Directory.Delete(path, recursive: true);
    });

    /// <summary>Removes all checkpoints.</summary>
    public void RemoveAll() => Guarded(() =>
    {
        if (!Directory.Exists(_folder))
            return;
        // In one step, so that no half of an old training is taken for a whole one.
        Directory.Move(_folder, Removed);
        Directory.Delete(Removed, recursive: true);
    });

    /// <summary>Writes a checkpoint and removes those that are no longer kept.</summary>
    /// <returns>Its folder.</returns>
    /// <exception cref="RunException">It cannot be written; those before are as they were.</exception>
    public string Save(TrainableModel model, TrainerState state)
    {
        var (name, final) = (Path.Combine(_folder, UnfinishedPrefix + state.Step), Of(state.Step));
        Guarded(() =>
        {
            if (Directory.Exists(name))
                Directory.Delete(name, recursive: true);
            Directory.CreateDirectory(name);
        });
        try
        {
            TrainedTensors.Save(model, name);
            TrainedTensors.SaveOptimizer(model, name);
            state.Write(name);
            WriteSums(name, [.. TrainedTensors.Files(model), TrainedTensors.OptimizerFile, TrainerState.File]);
        }
        catch
        {
            // A full disk, mostly: the room is of more use than half a checkpoint.
            Quietly(RemoveUnfinished);
            throw;
        }
        Guarded(() =>
        {
            var old = Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"{ReplacedPrefix}{state.Step}"));
            if (Directory.Exists(final))
                Directory.Move(final, old);
            Directory.Move(name, final);
            // Before older ones are removed, this one is there for good.
            FolderSync.Flush(_folder);
            if (Directory.Exists(old))
                Directory.Delete(old, recursive: true);
        });
        Prune();
        return final;
    }

    /// <summary>What is wrong with a checkpoint's files; null if they are as they were written.</summary>
    public string? Damage(int step)
    {
        var folder = Of(step);
        try
        {
            using var sums = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, Sums)));
            foreach (var file in sums.RootElement.EnumerateObject())
                if (!IsPlainName(file.Name))
                    return $"{Sums} names {Reject.Quote(file.Name)}, which is no file of the checkpoint";
                else if (Sum(Path.Combine(folder, file.Name)) != file.Value.GetString())
                    return $"{file.Name} is not as it was written";
            return sums.RootElement.TryGetProperty(TrainerState.File, out _) ? null : $"{Sums} is not as it was written";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException or InvalidOperationException or ArgumentException)
        {
            return Reject.OneLine(e.Message);
        }
    }

    private static bool IsPlainName(string name) => name.Length > 0 && name is not ("." or "..") && !name.Any(c => c is '/' or '\\' or ':' || char.IsControl(c));

    /// <summary>Puts a damaged checkpoint under another name, so that it counts no more.</summary>
    /// <returns>Where it lies now.</returns>
    public string SetAside(int step)
    {
        var to = Of(step) + ".damaged";
        Guarded(() =>
        {
            if (Directory.Exists(to))
                Directory.Delete(to, recursive: true);
            Directory.Move(Of(step), to);
        });
        return to;
    }

    // The newest ones stay, and what each of them calls the best: a resumed training may need it.
    private void Prune()
    {
        var steps = Steps();
        var kept = steps.Take(keep).ToHashSet();
        foreach (var step in kept.ToList())
            if (BestOf(step) is { } best)
                kept.Add(best);
        foreach (var step in steps.Where(s => !kept.Contains(s)))
            Guarded(() =>
            {
                // A folder half removed must not be taken for a checkpoint.
                var away = Path.Combine(_folder, $"{UnfinishedPrefix}old-{step}");
                Directory.Move(Of(step), away);
                Directory.Delete(away, recursive: true);
            });
    }

    private int? BestOf(int step)
    {
        try
        {
            return TrainerState.Read(Of(step)).BestStep;
        }
        catch (InputException)
        {
            // An older checkpoint that was damaged: it has no say.
            return null;
        }
    }

    private static void WriteSums(string folder, IReadOnlyList<string> files)
    {
        var sums = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var file in files)
            sums[file] = Sum(Path.Combine(folder, file));
        AtomicFile.WriteAllText(Path.Combine(folder, Sums), JsonSerializer.Serialize(sums, SumsJson.Default.SortedDictionaryStringString));
    }

    private static string Sum(string path)
    {
        using var stream = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private static void Quietly(Action action)
    {
        try
        {
            action();
        }
        catch (RunException)
        {
            // The error that led here says more.
        }
    }

    private void Guarded(Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RunException($"{_folder}: a checkpoint cannot be written or removed: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }
}

[JsonSerializable(typeof(SortedDictionary<string, string>))]
internal sealed partial class SumsJson : JsonSerializerContext;
