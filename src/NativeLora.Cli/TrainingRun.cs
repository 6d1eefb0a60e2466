using System.Text.Json.Nodes;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Cli.Options;
using NativeLora.Cli.Report;
using NativeLora.Cli.Show;
using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli;

/// <summary>Trains a model on a task, evaluates it, and reports.</summary>
internal static class TrainingRun
{
    /// <summary>Name of the file with what came out, in the output folder.</summary>
    public const string ReportFile = "report.json";

    /// <summary>Trains to the end.</summary>
    /// <param name="ui">Where it is shown.</param>
    /// <param name="setup">The task.</param>
    /// <param name="pretrained">The base.</param>
    /// <param name="config">Adapters for all layers; null trains everything.</param>
    /// <param name="layers">Layers that get them; null for all.</param>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="options">How to train.</param>
    /// <param name="start">The adapter whose tensors it begins with, by those settings; null for new ones.</param>
    /// <returns>What came out.</returns>
    public static JsonObject Go(
        Ui ui, TaskSetup setup, PretrainedModel pretrained, LoraConfig? config, IReadOnlyCollection<int>? layers, ITokenizer tokenizer, TrainerOptions options,
        AdapterFolder? start = null)
    {
        var loaded = start is null ? null : AdapterFile.Load(start.Path, pretrained.Modules(setup.Head));
        using var model = NewModel(setup.Head, pretrained, config, layers, options.Seed, loaded?.Weights, options.Optimizer);
        foreach (var warning in Warnings(model).Union(loaded?.Warnings ?? []))
            Ui.Warn(warning);

        using var view = new TrainingView(ui);
        var outcome = Train(model, setup, TaskExamples.Of(setup, tokenizer, pretrained.Model), tokenizer, options, view, trainer =>
        {
            var memory = trainer.Memory;
            ui.Fact("train", $"{Ui.Count(trainer.Examples, "row")}, {Ui.Count(trainer.TotalSteps, "step")}, {Ui.Count(model.Parameters.Elements)} trainable parameters");
            ui.Fact("memory", $"{Ui.MiB(memory.Total)} planned, {Ui.MiB(memory.Weights)} of them weights{(trainer.EvaluationBytes > 0 ? $"; {Ui.MiB(trainer.EvaluationBytes)} more for evaluations" : "")}");
            if (options.Ranks is { } ranks)
                RankRun.Show(ui, ranks, model.Parameters.Elements);
            if (trainer.Recomputation is { } recomputation)
                ui.Fact("recompute", MemoryWords.Of(recomputation));
            Planned(setup.Head, pretrained, config, options, trainer).Write(options.OutputFolder);
            if (!options.Resume)
                ProfileFile.Remove(options.OutputFolder);
        });
        view.Dispose();
        var summary = outcome.Summary;

        outcome.Profile?.Write(summary.OutputFolder);
        var document = Document(summary, model, outcome);
        var evaluations = new JsonObject();
        foreach (var (split, result) in outcome.Evaluations)
        {
            ui.Fact(split, TrainingView.Values(result));
            evaluations[split] = ToJson(result);
        }
        document["evaluation"] = evaluations;
        ui.Fact("speed", $"{Ui.Count((long)(summary.Tokens / Math.Max(summary.Seconds, 1e-3)))} tokens/s over {LiveLine.Time(summary.Seconds)}, evaluations included");
        if (summary.Ranks is { } shared)
        {
            RankRun.Show(ui, shared);
            document["parallel"] = RankRun.ToJson(shared);
        }
        ui.Fact("peak", $"{Ui.MiB(outcome.Measured.Peak)} of the process, {Ui.Saves(outcome.Measured.Peak, outcome.PredictedPeak)} against the {Ui.MiB(outcome.PredictedPeak)} predicted: {Ui.MiB(outcome.PlannedBytes)} planned, {Ui.MiB(outcome.ProgramBytes)} of the program before");
        ui.Fact("written", $"{Path.Combine(summary.OutputFolder, config is null ? "model.safetensors" : "adapter_model.safetensors")}");
        if (options.Ranks?.Leads ?? true)
            AtomicFile.WriteAllText(Path.Combine(summary.OutputFolder, ReportFile), document.ToJsonString(JsonText.Indented) + "\n");
        return document;
    }

    /// <summary>A model with adapters on some layers.</summary>
    /// <param name="head">What stands on top.</param>
    /// <param name="pretrained">The base.</param>
    /// <param name="config">Adapters for all layers; null trains everything.</param>
    /// <param name="layers">Layers that get them; null for all, empty for none: only what is trained in full.</param>
    /// <param name="seed">Seed of the adapters.</param>
    /// <param name="start">Tensors that they begin with; null for new ones.</param>
    /// <param name="optimizer">How the optimizer's state is held.</param>
    public static TrainableModel NewModel(
        ModelHead head, PretrainedModel pretrained, LoraConfig? config, IReadOnlyCollection<int>? layers, ulong seed, AdapterWeights? start = null,
        OptimizerKind optimizer = OptimizerKind.AdamW)
    {
        return config is null ? TrainableModel.InFull(pretrained, head, optimizer: optimizer)
            : TrainableModel.OnLayers(pretrained, head, config, layers, seed, start, optimizer);
    }

    /// <summary>What may not be meant so.</summary>
    public static IEnumerable<string> Warnings(TrainableModel model) =>
    [
        .. model.Targets?.Warnings ?? [],
        .. model.Pretrained.Weights.FreshlyInitialised.Where(n => !model.Trainables.IsTrained(n)).Select(n => n[..n.LastIndexOf('.')]).Distinct()
            .Select(module => $"{module} is not in the model's file and is not trained: it stays random; --modules-to-save {module} would train it"),
    ];

    /// <summary>Trains a model to the end and evaluates it on everything there is for that.</summary>
    /// <param name="model">The model.</param>
    /// <param name="setup">The task.</param>
    /// <param name="examples">Its rows.</param>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="options">How to train.</param>
    /// <param name="observer">Is told what happens.</param>
    /// <param name="planned">Is told the plan before the first step.</param>
    public static TrainingOutcome Train(
        TrainableModel model, TaskSetup setup, TaskExamples examples, ITokenizer tokenizer, TrainerOptions options, ITrainingObserver observer, Action<Trainer> planned)
    {
        options = options with { HiddenKeyId = setup.HiddenKeyId(model.Pretrained.Model, tokenizer) };
        var dev = examples.Dev;
        var program = ProcessMemory.Read().Own - model.Parameters.Bytes;
        using var trainer = new Trainer(model, examples.Train, options, dev.Count > 0 ? dev[0].Examples : null, setup.Metrics, observer);
        planned(trainer);
        var (memory, arena, device) = (trainer.Memory, trainer.EvaluationBytes, model.Pretrained.Device.AllocatedBytes);
        var summary = trainer.Run(Shell.Cancellation);
        var choice = trainer.Recomputation;
        var measured = ProcessMemory.Read();
        // Other splits are evaluated over arenas of their own: the training's is free again.
        trainer.Dispose();
        var profile = trainer.Times is { } times ? ProfileFile.Of(model.Pretrained.Device.Description, Mask(trainer.Plan, model.Pretrained.Model.Layers), trainer.Plan, times) : null;
        var evaluations = new List<(string Split, EvaluationResult Result)>();
        var isLast = summary.BestStep is null || summary.BestStep == summary.Steps;
        foreach (var (split, rows) in dev)
        {
            // The trainer has evaluated these very weights on the first split, unless it went back to better ones.
            var known = evaluations.Count == 0 && isLast ? summary.Evaluation : null;
            evaluations.Add((split, known ?? EvaluateOn(model, rows, setup, options)));
        }
        return new TrainingOutcome(summary, evaluations, memory, arena, device, choice, measured, Math.Max(0, program)) { Profile = profile };
    }

    // What the report shows beside what was measured.
    private static PlanFile Planned(ModelHead head, PretrainedModel pretrained, LoraConfig? config, TrainerOptions options, Trainer trainer)
    {
        var (plan, count) = (trainer.Plan, pretrained.Model.Layers);
        var chosen = PlannedMask.Of(Mask(plan, count), plan, trainer.Memory);
        var request = config is null || !chosen.Mask.Contains('0') ? null : new CostRequest
        {
            Lora = config,
            Head = head,
            Capacity = plan.Capacity,
            MaxLength = trainer.LongestSequence,
            BaseDropout = options.BaseDropout,
            Device = pretrained.Device,
            Optimizer = options.Optimizer,
            PackWeights = options.PackWeights,
            Recompute = options.Recompute,
            MemoryBudget = options.MemoryBudget,
        };
        var all = request is null ? null : PlannedMask.Of(CostPredictor.Predict(ModelBlueprint.Of(pretrained), request, [.. Enumerable.Range(0, count)]));
        var place = Path.GetFullPath(pretrained.Checkpoint.Path);
        return new PlanFile(Path.GetFileName(Path.TrimEndingDirectorySeparator(Directory.Exists(place) ? place : Path.GetDirectoryName(place)!)), plan.Capacity, chosen, all);
    }

    // Layers of which something is trained.
    private static string Mask(MemoryPlan plan, int layers)
    {
        var trained = plan.Graph.Trainable.Select(p => p.Layer).ToHashSet();
        return string.Concat(Enumerable.Range(0, layers).Select(l => trained.Contains(l) ? '1' : '0'));
    }

    /// <summary>An evaluation as JSON.</summary>
    public static JsonObject ToJson(EvaluationResult result)
    {
        var values = new JsonObject { ["examples"] = result.Examples };
        if (result.Loss is { } loss)
            values["loss"] = Number(loss);
        if (result.Perplexity is { } perplexity)
            values["perplexity"] = Number(perplexity);
        foreach (var metric in result.Metrics)
            values[metric.Name] = Number(metric.Value);
        return values;
    }

    private static EvaluationResult EvaluateOn(TrainableModel model, IReadOnlyList<EncodedExample> examples, TaskSetup setup, TrainerOptions options)
    {
        using var evaluator = new Evaluator(model, examples, setup.Metrics, new EvaluatorOptions { BatchSize = options.EvaluationBatchSize ?? TrainingCliOptions.EvaluationBatch, HiddenKeyId = options.HiddenKeyId, Ranks = options.Ranks });
        return evaluator.Run(Shell.Cancellation);
    }

    private static JsonObject Document(TrainingSummary summary, TrainableModel model, TrainingOutcome outcome)
    {
        var document = new JsonObject
        {
            ["output"] = summary.OutputFolder,
            ["steps"] = summary.Steps,
            ["loss"] = Number(summary.Loss),
            ["tokens"] = summary.Tokens,
            ["seconds"] = Math.Round(summary.Seconds, 3),
            ["trainable_parameters"] = model.Parameters.Elements,
            ["adapted_modules"] = model.Targets?.Adapted.Count ?? 0,
            ["planned_bytes"] = outcome.PlannedBytes,
            ["peak_process_bytes"] = outcome.Measured.Peak,
            ["memory"] = outcome.Measured.ToJson(outcome.PlannedBytes, outcome.ProgramBytes, outcome.DeviceBytes),
        };
        if (outcome.Recomputation is { } choice)
            document["recompute"] = MemoryWords.ToJson(choice);
        if (summary.BestStep is { } step)
            document["best"] = new JsonObject { ["step"] = step, ["value"] = summary.BestValue };
        return document;
    }

    private static JsonNode? Number(double value) => double.IsFinite(value) ? JsonValue.Create(value) : null;
}

/// <summary>A task's rows as tokens.</summary>
/// <param name="Train">To learn from.</param>
/// <param name="Dev">To evaluate on, by split.</param>
internal sealed record TaskExamples(List<EncodedExample> Train, IReadOnlyList<(string Split, List<EncodedExample> Examples)> Dev)
{
    public static TaskExamples Of(TaskSetup setup, ITokenizer tokenizer, Model model) => new(
        setup.Encode(setup.Train, tokenizer, model), [.. setup.LoadDev().Select(d => (d.Split, setup.Encode(d.Rows, tokenizer, model)))]);
}

/// <summary>What a training came to.</summary>
/// <param name="Summary">How it ended.</param>
/// <param name="Evaluations">What the evaluations of its end gave, by split.</param>
/// <param name="Memory">What was planned for a step.</param>
/// <param name="EvaluationBytes">Bytes that evaluations take beside it.</param>
/// <param name="DeviceBytes">Bytes that the device had allocated in all.</param>
/// <param name="Measured">What the process held at the end of the training.</param>
/// <param name="Recomputation">Layers that were recomputed; null where nothing was said of it.</param>
/// <param name="ProgramBytes">What the process held before the training was planned, weights left out: the runtime, the program and its data.</param>
internal sealed record TrainingOutcome(
    TrainingSummary Summary, IReadOnlyList<(string Split, EvaluationResult Result)> Evaluations, MemoryReport Memory, long EvaluationBytes, long DeviceBytes,
    RecomputeChoice? Recomputation, ProcessMemory Measured, long ProgramBytes)
{
    /// <summary>Where the time of some steps went; null where that was not asked for.</summary>
    public ProfileFile? Profile { get; init; }

    /// <summary>All that was planned.</summary>
    public long PlannedBytes => Memory.Total + EvaluationBytes;

    /// <summary>The peak of the process that follows from the plan.</summary>
    public long PredictedPeak => PlannedBytes + ProgramBytes;
}
