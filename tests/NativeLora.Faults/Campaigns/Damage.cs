using NativeLora.Data;
using NativeLora.Faults.Tasks;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Training;
using NativeLora.Training;

namespace NativeLora.Faults.Campaigns;

/// <summary>Each file of a checkpoint is cut, changed by a bit, zeroed, removed, or taken from another checkpoint; then the training goes on.</summary>
internal static class Damage
{
    public static IEnumerable<Tally> Run(double scale, int seed)
    {
        using var folder = new TemporaryFolder();
        using var run = new InProcess(folder);
        run.Train("whole", null, resume: false);
        run.Train("stopped", 8, resume: false);
        var (last, before) = (Path.Combine(folder.File("stopped"), "checkpoints", "step-8"), Path.Combine(folder.File("stopped"), "checkpoints", "step-6"));
        var random = new Random(seed);
        string[] files = [.. Directory.GetFiles(last).Select(p => Path.GetFileName(p)!).Order(StringComparer.Ordinal)];
        var count = Math.Max(2, (int)(40 * scale));
        yield return Each("cut off", file => Lengths(file, count).Select(length => (Action<string>)(path =>
        {
            using var stream = new FileStream(path, FileMode.Open);
            stream.SetLength(length);
        })));
        yield return Each("one bit changed", file => Enumerable.Range(0, count).Select(_ => (random.NextInt64(new FileInfo(Path.Combine(last, file)).Length), random.Next(8))).Select(at => (Action<string>)(path =>
        {
            var bytes = File.ReadAllBytes(path);
            bytes[at.Item1] ^= (byte)(1 << at.Item2);
            File.WriteAllBytes(path, bytes);
        })));
        yield return Each("zeroed", _ => [path => File.WriteAllBytes(path, new byte[new FileInfo(path).Length])]);
        yield return Each("removed", _ => [File.Delete]);
        // Blanks after the list of sums change nothing of what it says.
        yield return Each("made longer", file => file == "files.json" ? [] : [path => File.AppendAllText(path, "\n")]);
        // Where both are the same bytes there is no damage to be found.
        yield return Each("taken from the checkpoint before", file => File.ReadAllBytes(Path.Combine(last, file)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(before, file)))
            ? [] : [path => File.Copy(Path.Combine(before, file), path, overwrite: true)]);
        yield return Alone();

        IEnumerable<long> Lengths(string file, int wanted)
        {
            var length = new FileInfo(Path.Combine(last, file)).Length;
            return Enumerable.Range(0, wanted).Select(i => i * length / wanted).Append(length - 1).Distinct();
        }

        Tally Each(string what, Func<string, IEnumerable<Action<string>>> damages)
        {
            var tally = new Tally($"a checkpoint's file is {what}");
            foreach (var file in files)
                foreach (var damage in damages(file).ToList())
                {
                    var warnings = Again(file, damage, keepBefore: true, out var failure);
                    var wrong = failure?.Message
                        ?? (warnings is not [var warning] || !warning.Contains("step-8", StringComparison.Ordinal) ? $"{file}: warnings: {string.Join("; ", warnings)}" : null)
                        ?? run.Different("whole", "tried");
                    tally.Add("said; the one before is taken: the same bits", wrong is null ? null : $"{file}: {wrong}");
                }
            return tally;
        }

        Tally Alone()
        {
            var tally = new Tally("a file of the only checkpoint is damaged");
            foreach (var file in files)
            {
                Again(file, path => File.WriteAllBytes(path, File.ReadAllBytes(path)[..^1]), keepBefore: false, out var failure);
                tally.Add("refused in one line", failure is InputException { Message: var message } && !message.Contains('\n', StringComparison.Ordinal) ? null : $"{file}: {failure?.ToString() ?? "it went on"}");
            }
            return tally;
        }

        List<string> Again(string file, Action<string> damage, bool keepBefore, out Exception? failure)
        {
            var tried = folder.File("tried");
            if (Directory.Exists(tried))
                Directory.Delete(tried, recursive: true);
            Copy(folder.File("stopped"), tried);
            if (!keepBefore)
                Directory.Delete(Path.Combine(tried, "checkpoints", "step-6"), recursive: true);
            damage(Path.Combine(tried, "checkpoints", "step-8", file));
            failure = null;
            var watcher = new Watcher();
            try
            {
                run.Train("tried", null, resume: true, watcher);
            }
            catch (Exception e) when (e is InputException or RunException)
            {
                failure = e;
            }
            return watcher.Warnings;
        }
    }

    private static void Copy(string from, string to)
    {
        foreach (var path in Directory.EnumerateFiles(from, "*", SearchOption.AllDirectories))
        {
            var target = Path.Combine(to, Path.GetRelativePath(from, path));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(path, target);
        }
    }
}

/// <summary>Short trainings in this process.</summary>
internal sealed class InProcess(TemporaryFolder folder) : IDisposable
{
    private readonly EncodedExample[] _train = TinyModel.Examples(false, 32, 1);
    private readonly EncodedExample[] _dev = TinyModel.Examples(false, 10, 2);
    private readonly Devices.Cpu.CpuDevice _device = new(1);

    public const int Steps = 12;

    public void Train(string output, int? until, bool resume, Watcher? watcher = null, CancellationToken cancellation = default)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        watcher ??= new Watcher(p =>
        {
            if (p.Step == until)
                stop.Cancel();
        });
        using var tiny = TinyModel.Open(folder.File("model"), isCausal: false, device: _device);
        using var trainer = new Trainer(tiny.Model, _train, new TrainerOptions
        {
            OutputFolder = folder.File(output),
            MaxSteps = Steps,
            BatchSize = 3,
            AccumulationSteps = 2,
            LearningRate = 5e-3,
            WarmupRatio = 0.1,
            Seed = 11,
            Adam = new AdamWOptions { WeightDecay = 0.01 },
            EvaluateEvery = 5,
            SaveEvery = 3,
            LogEvery = 2,
            KeepCheckpoints = 2,
            Resume = resume,
        }, _dev, observer: watcher);
        try
        {
            trainer.Run(stop.Token);
        }
        catch (TrainingInterruptedException) when (until is not null || cancellation.IsCancellationRequested)
        {
            // As was wanted.
        }
    }

    /// <summary>The first of the files that matter in which two trainings differ.</summary>
    public string? Different(string expected, string actual)
    {
        foreach (var name in (string[])["adapter_model.safetensors", "adapter_config.json", $"checkpoints/step-{Steps}/optimizer.safetensors", $"checkpoints/step-{Steps}/adapter_model.safetensors"])
            if (!File.ReadAllBytes(Path.Combine(folder.File(expected), name)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(folder.File(actual), name))))
                return $"{name} differs";
        return null;
    }

    public void Dispose() => _device.Dispose();
}
