using System.Security.Cryptography;
using System.Text.Json;
using NativeLora.Adapters;
using NativeLora.Cli.Study;
using NativeLora.Data;
using NativeLora.Selection;
using NativeLora.Tests.Training;
using NativeLora.Training;
using static NativeLora.Fuzz.CheckpointReaders;

namespace NativeLora.Fuzz;

/// <summary>Readers of what a training, a selection or a study has written before.</summary>
internal static class TrainingReaders
{
    private const string Step = "checkpoints/step-2/";
    private const string Sums = Step + "files.json";
    private static readonly string[] Numbers = ["\"step\"", "\"metrics_bytes\"", "\"epoch\"", "\"batch_index\"", "\"micro_batches\"", "\"best_step\"", "\"settings\"", "-1", "1e308"];

    public static IEnumerable<FuzzReader> All =>
    [
        new FuzzReader("checkpoint", "a checkpoint of a training, to go on from", Checkpoints, Resume) { Writes = true, Mend = Summed, Words = Numbers, NamesFile = false },
        FuzzReader.Of("trainer-state", "trainer_state.json", () => [FuzzCase.Of("trainer_state.json", State())], folder =>
        {
            var state = TrainerState.Read(folder);
            TrainingSettings.Compare(folder, state.Settings, new SortedDictionary<string, string>());
        }) with { Words = Numbers },
        FuzzReader.Of("checkpoint-sums", "files.json of a checkpoint", () => [FuzzCase.Of(Sums, "{\"a\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"trainer_state.json\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}").Beside((Step + "a", []), (Step + "trainer_state.json", []))], folder =>
        {
            var store = new CheckpointStore(folder, 1);
            foreach (var step in store.Steps())
                if (store.Damage(step) is { } damage)
                    throw new InputException($"{folder}: {damage}");
        }) with { Words = ["\"../../../canary\"", "\"/etc/hostname\"", "\"\\u0000\"", "\"trainer_state.json\""] },
        FuzzReader.Of("metrics", "metrics.jsonl", () => [FuzzCase.Of("metrics.jsonl", "{\"step\":1,\"epoch\":0.5,\"loss\":1.5,\"learning_rate\":0.1,\"grad_norm\":1,\"tokens\":10,\"seconds\":0.5}\n{\"step\":2,\"epoch\":1,\"loss\":null,\"seconds\":0.9}\n{\"step\":2,\"epoch\":1,\"eval_loss\":1.1,\"seconds\":1.0}\n")],
            folder => _ = TrainingLog.Read(Path.Combine(folder, "metrics.jsonl"))) with { Words = ["\"loss\"", "\"epoch\"", "\"seconds\"", "1e999"] },
        FuzzReader.Of("selection", "selection.json", () => [FuzzCase.Of("selection.json", Selection())], folder =>
        {
            var report = SelectionReport.Load(Path.Combine(folder, "selection.json"));
            _ = report.ToJson().Length;
        }) with { Words = ["\"layers\"", "\"mask\"", "\"selected\"", "\"order\"", "\"predicted\"", "{\"memory_bytes\":{\"a\":1},\"trainable_parameters\":1,\"flops_per_step\":1}", "\"bootstrap\""] },
        FuzzReader.Of("study", "study-settings.json, result.json, scores.json", () => [FuzzCase.Of(
            ("study-settings.json", Utf8("{\n  \"model\": \"m\",\n  \"sst2: rows\": \"3\"\n}\n")),
            ("result.json", Utf8(Result)),
            ("scores.json", Utf8("{\"Cka\": [0.5, null], \"CkaClamped\": [0.5, 0], \"CkaDebiased\": null, \"Cosine\": [1, 2], \"ConstantInput\": [false, true]}")))], folder =>
        {
            StudyFolder.Open(folder, new Dictionary<string, string> { ["model"] = "m" }, overwrite: false).Dispose();
            if (CellResult.Find(folder, "sst2", "10", 3, "h") is { } result)
                _ = (result.Value("loss"), result.Evaluations.Sum(e => e.Values.Count));
            if (StudyScores.Find(folder, 2) is { } scores)
                _ = scores.Cka.Count;
        }) with { Writes = true, Words = ["\"evaluations\"", "[null]", "\"values\"", "null"] },
    ];

    private static Action<string> Resume()
    {
        var home = Directory.CreateTempSubdirectory("nativelora-fuzz-").FullName;
        var tiny = Tiny(home);
        var settings = new SortedDictionary<string, string> { ["rank"] = "1" };
        Directory.Delete(home, recursive: true);
        return folder =>
        {
            var store = new CheckpointStore(folder, 2);
            var order = new BatchOrder([3, 4, 5], new BatchOrderOptions { BatchSize = 2 });
            foreach (var step in store.Steps())
            {
                if (store.Damage(step) is { } damage)
                    throw new InputException($"{store.SetAside(step)}: {damage}");
                var at = store.Of(step);
                var state = TrainerState.Read(at);
                TrainingSettings.Compare(at, state.Settings, settings);
                TrainedTensors.Load(tiny.Model, at);
                TrainedTensors.LoadOptimizer(tiny.Model, at);
                order.Seek(state.Epoch, state.BatchIndex);
                using var log = new MetricsLog(Path.Combine(folder, "metrics.jsonl"), state.MetricsBytes);
            }
        };
    }

    private static TinyModel Tiny(string folder) => TinyModel.Open(folder, isCausal: false, threads: 1, change: c => c with { Rank = 1, TargetModules = ModuleSelector.Of("query"), LayersToTransform = [1], ModulesToSave = [] });

    private static IReadOnlyList<FuzzCase> Checkpoints()
    {
        var folder = Directory.CreateTempSubdirectory("nativelora-fuzz-").FullName;
        try
        {
            using (var tiny = Tiny(Path.Combine(folder, "model")))
                new CheckpointStore(Path.Combine(folder, "out"), 1).Save(tiny.Model, new TrainerState { Step = 2, MicroBatches = 2, Epoch = 1, BatchIndex = 1, MetricsBytes = 10, Settings = new(StringComparer.Ordinal) { ["rank"] = "1" } });
            return [FuzzCase.Read(Path.Combine(folder, "out")).Beside(("metrics.jsonl", Utf8("{\"step\":1}\n{\"step\":2}\n")))];
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static readonly Lazy<byte[]> s_sums = new(() => Checkpoints()[0].Files[Sums]);

    /// <summary>Sums over the changed files, unless they were changed themselves: else nothing would ever get past them.</summary>
    private static FuzzCase Summed(FuzzCase input)
    {
        using var json = JsonDocument.Parse(s_sums.Value);
        if (!Known(input.Files[Sums], json))
            return input;
        var sums = json.RootElement.EnumerateObject().Where(p => input.Files.ContainsKey(Step + p.Name)).ToDictionary(p => p.Name, p => Convert.ToHexStringLower(SHA256.HashData(input.Files[Step + p.Name])));
        return input.With(Sums, JsonSerializer.SerializeToUtf8Bytes(sums));
    }

    private static bool Known(byte[] sums, JsonDocument original)
    {
        try
        {
            using var json = JsonDocument.Parse(sums);
            return json.RootElement.ValueKind == JsonValueKind.Object && json.RootElement.EnumerateObject().Select(p => p.Name).SequenceEqual(original.RootElement.EnumerateObject().Select(p => p.Name))
                && json.RootElement.EnumerateObject().All(p => p.Value.ValueKind == JsonValueKind.String && p.Value.GetString()!.Length == 64);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            return false;
        }
    }

    private static byte[] State() => Written(path => new TrainerState { Step = 2, Epoch = 1, BestStep = 1, BestValue = 0.5, Settings = new(StringComparer.Ordinal) }.Write(Path.GetDirectoryName(path)!), TrainerState.File);

    private static byte[] Written(Action<string> write, string name) => CheckpointReaders.Written(path =>
    {
        write(path);
        File.Move(Path.Combine(Path.GetDirectoryName(path)!, name), path);
    });

    private static string Selection()
    {
        var options = new SelectionOptions { Strategy = SelectionStrategy.Explicit, Explicit = "1,2" };
        var report = SelectionReport.Create("m", "sst2", "cls", options, LayerSelection.Select(4, null, options));
        return (report with { Predicted = new PredictedCost { MemoryBytes = new Dictionary<string, long> { ["weights"] = 5 }, TrainableParameters = 3, FlopsPerStep = 1e6 } }).ToJson();
    }

    private const string Result = """
        {"task": "sst2", "mask": "10", "seed": 3, "settings": "h", "evaluations": [{"split": "dev", "examples": 5, "values": {"loss": 0.5, "accuracy": null}}], "train_loss": 0.1, "last_loss": null, "steps": 4, "tokens": 100,
         "seconds": 1.5, "seconds_per_step": 0.1, "trainable_parameters": 10, "all_parameters": 100, "planned_bytes": 1, "planned_evaluation_bytes": 1, "optimizer_bytes": 1, "arena_bytes": 1, "saved_bytes": 1, "allocated_bytes": 1, "peak_process_bytes": null}
        """;
}
