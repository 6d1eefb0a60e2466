using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Models;

namespace NativeLora.Training;

/// <summary>What a training takes, evaluations included, before anything is allocated for it.</summary>
internal sealed class TrainingMemory(TrainableModel model, TrainerOptions options, IReadOnlyList<EncodedExample> examples, MemoryPlan? evaluation)
{
    /// <summary>Which layers are recomputed: those that were named, or those that a budget asks for; null where neither is given.</summary>
    /// <exception cref="InputException">The training does not fit the budget, whatever is recomputed.</exception>
    public RecomputeChoice? Choose(BatchSize capacity, int longest)
    {
        var count = model.Pretrained.Model.Layers;
        if (options.MemoryBudget is not { } budget)
            return options.Recompute == RecomputeLayers.None ? null : RecomputePlanner.Measure(options.Recompute.Of(count), layers => Plan(capacity, longest, layers));
        var choice = Choose(capacity, longest, budget);
        return choice.With.Bytes <= budget ? choice : throw TooLittle(budget, choice.With.Bytes, longest);
    }

    private RecomputeChoice Choose(BatchSize capacity, int longest, long budget) =>
        RecomputePlanner.Choose(model.Pretrained.Model.Layers, budget, layers => Plan(capacity, longest, layers));

    private PlannedTraining Plan(BatchSize capacity, int longest, IReadOnlyCollection<int> recompute)
    {
        var build = new BuildOptions { Head = model.Head, Loss = true, BaseDropout = options.BaseDropout, MaxLength = longest };
        var plan = MemoryPlan.For(model.Build(build, training: true, backward: true, recompute).Graph, capacity);
        using var device = model.Pretrained.Device.NewPlanner();
        var scratch = evaluation is null ? device.ScratchOf(out var packed, plan) : device.ScratchOf(out packed, plan, evaluation);
        var total = plan.Report(scratch, model.Parameters.Optimizer, options.PackWeights ? packed : 0).Total;
        if (evaluation is not null)
            total += evaluation.InputBytes + evaluation.ConstantBytes + (evaluation.ArenaBytes > plan.ArenaBytes ? evaluation.ArenaBytes : 0);
        return new PlannedTraining(plan, total);
    }

    private InputException TooLittle(long budget, long least, int longest)
    {
        var isTokens = options.BatchTokens is not null;
        var most = options.BatchTokens ?? options.BatchSize!.Value;
        var fits = RecomputePlanner.LargestThatFits(most, size =>
        {
            if (isTokens && size < longest)
                return false;
            var order = new BatchOrder([.. examples.Select(e => e.Length)], options.Order with { BatchSize = isTokens ? null : size, BatchTokens = isTokens ? size : null });
            return Choose(Evaluator.Capacity(model, examples, order), longest, budget).With.Bytes <= budget;
        });
        return RecomputePlanner.TooLittle(budget, least, fits, isTokens ? "batch tokens" : "batch size");
    }
}
