using System.Globalization;
using System.Text.Json.Nodes;
using NativeLora.Bench.Compare;
using NativeLora.Data;
using NativeLora.Selection;
using TorchSharp;

namespace NativeLora.Bench.Torch;

/// <summary>Peak memory of a process that does one job in one library alone.</summary>
internal static class PeakMemory
{
    private const int Steps = 3;

    /// <summary>Runs the job and prints a line of JSON.</summary>
    public static void Run(string what, string side, Options options, int threads, bool brain)
    {
        if (side is not ("ours" or "torch"))
            throw new InputException($"--only {side}: ours or torch is expected");
        var ours = side == "ours";
        if (!ours)
            torch.set_num_threads(threads);
        var line = new JsonObject { ["what"] = what, ["precision"] = brain ? "bf16" : "fp32", ["threads"] = threads, ["side"] = side };
        switch (what)
        {
            case "minilm" or "bertbase" or "smollm2" or "ragged":
                TrainingSteps(line, what, ours, options, threads, brain);
                break;
            case "selection":
                Selection(line, ours, options, threads, brain);
                break;
            default:
                throw new InputException($"--what {what}: minilm, bertbase, smollm2, ragged or selection is expected with --only");
        }
        line["peak_mib"] = ProcessMemory.Peak() is { } peak ? Mib(peak) : throw new RunException("this system does not tell a process's peak memory");
        Console.WriteLine(line.ToJsonString());
    }

    private static void TrainingSteps(JsonObject line, string what, bool ours, Options options, int threads, bool brain)
    {
        var timed = what == "ragged" ? TrainingCase.MiniLm : TrainingCase.Find(what);
        var folder = timed.FindModel(options.Text("model"), out var random);
        // What it took to make a checkpoint up does not count either.
        if (ours && random)
            BeginWithout(line);
        var mask = options.Text("masks")?.Split(',')[0] ?? timed.Masks[0];
        var batches = what == "ragged" ? RaggedBatches.Mrpc(folder, options.Text("data"), options.Number("batches", 8)) : null;
        var (precision, type) = StepComparison.Types(brain);
        line["mask"] = mask;
        if (ours)
        {
            using var engine = new EngineStep(timed, folder, mask, threads, precision, batches);
            for (var s = 0; s < Math.Max(Steps, engine.Batches.Count); s++)
                line["loss"] = engine.Step(engine.Batches[s % engine.Batches.Count]).Loss;
            var predicted = engine.Session.Session.Plan.Report(engine.Device.ScratchBytes);
            line["predicted_mib"] = Mib(predicted.Total);
            line["weights_mib"] = Mib(predicted.Weights);
            return;
        }
        IReadOnlyList<PackedBatch> taken = batches ?? [timed.NewBatch()];
        TorchStep step;
        using (var model = new EngineModel(timed, folder, mask, threads, precision))
            step = new TorchStep(model, timed, taken, type);
        BeginWithout(line);
        using (step)
            line["loss"] = step.Run(Math.Max(Steps, taken.Count))[^1].Loss;
    }

    private static void Selection(JsonObject line, bool ours, Options options, int threads, bool brain)
    {
        var folder = TrainingCase.SmolLm2.FindModel(options.Text("model"), out _);
        var (precision, type) = StepComparison.Types(brain);
        var engine = new EngineSelection(folder, options.Text("data"), options.Number("samples", 128), threads, precision);
        if (ours)
        {
            using (engine)
                line["cka_last"] = LayerSimilarities.Compute(engine.Extract()).Pairs[^1].CkaClamped;
            return;
        }
        TorchSelection peer;
        using (engine)
            peer = new TorchSelection(engine.Pretrained, engine.Examples, engine.EndOfText, type);
        BeginWithout(line);
        using (peer)
            line["cka_last"] = TorchSelection.PaperCka(peer.Features(2, sorted: false))[^1];
    }

    /// <summary>
    /// Counts from here on: a checkpoint that was made up for the job, and the engine that libtorch has its weights of, are gone.
    /// </summary>
    private static void BeginWithout(JsonObject line)
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect(2, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        if (ProcessMemory.Begin() is not { } start)
            throw new RunException("this system does not let a process's peak memory be measured anew");
        line["before_steps_mib"] = Mib(start);
        line["of_that_no_file_s_mib"] = Mib(ProcessMemory.Anonymous() ?? 0);
        line["of_that_managed_mib"] = Mib(GC.GetGCMemoryInfo(GCKind.Any).TotalCommittedBytes);
    }

    private static double Mib(long bytes) => double.Parse((bytes / 1048576.0).ToString("0.0", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
}
