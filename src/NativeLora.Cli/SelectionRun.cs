using NativeLora.Adapters;
using NativeLora.Cli.Options;
using NativeLora.Cli.Report;
using NativeLora.Cli.Show;
using NativeLora.Data;
using NativeLora.Models;
using NativeLora.Selection;

namespace NativeLora.Cli;

/// <summary>Chooses layers on a task, and shows what the choice saves.</summary>
internal static class SelectionRun
{
    /// <summary>Name of the file with the similarities of all layers to all.</summary>
    public const string SimilarityFile = "similarity.json";

    /// <summary>What is to be done, read from the command line.</summary>
    /// <param name="Options">Which layers to choose.</param>
    /// <param name="Features">How they are compared.</param>
    /// <param name="Samples">Rows that are compared; null for all.</param>
    /// <param name="Resamples">Resamples for stability.</param>
    /// <param name="BatchSize">Sequences of the batch whose cost is predicted.</param>
    public sealed record Plan(SelectionOptions Options, FeatureOptions Features, int? Samples, int Resamples, int BatchSize)
    {
        /// <summary>What the training may take, in place of a ratio.</summary>
        public TrainingBudget? Budget { get; init; }
    }

    /// <summary>Selects.</summary>
    public static SelectionResult Go(Ui ui, ModelSettings settings, TaskSetup setup, PretrainedModel model, ITokenizer tokenizer, LoraConfig config, Plan plan)
    {
        var (options, features) = (plan.Options, plan.Features);
        var compared = (int)Math.Min(plan.Samples ?? int.MaxValue, setup.Train.Count);
        var byGradient = SelectionPipeline.NeedsGradients(options.Strategy);
        var ranks = SelectionPipeline.NeedsScores(options.Strategy);
        ui.Fact("task", $"{setup.Name}: {Ui.Count(setup.Train.Count, "row")} of {setup.Train.Path}");
        ui.Fact("select", byGradient
            ? $"{SelectionOptions.NameOf(options.Strategy)}: one backward over {Ui.Count(compared, "row")}, adapters on all layers with B = 0, {Size(plan)}"
            : ranks
            ? $"{SelectionOptions.NameOf(options.Strategy)} at token {TokenRules.NameOf(features.Token)} over {Ui.Count(compared, "row")}, {Size(plan)}, rule {(options.Rule == SelectionRule.Paper ? "paper" : "plain")}"
            : $"{SelectionOptions.NameOf(options.Strategy)}{(options.Ratio is null && plan.Budget is null ? "" : $", {Size(plan)}")}: no row is looked at");

        var examples = setup.Encode(setup.Train, tokenizer, model.Model, ranks ? compared : 1024, features.Token == TokenRule.Content);
        var length = examples.Max(e => e.Length);
        var capacity = CostRequest.CapacityOf(model.Model, examples, plan.BatchSize);
        var request = new SelectionRequest
        {
            Model = settings.Path,
            Task = setup.Name,
            Options = options,
            Features = features,
            Resamples = plan.Resamples,
            AllPairs = ranks && !byGradient,
            Budget = plan.Budget,
            HiddenKeyId = byGradient ? setup.HiddenKeyId(model.Model, tokenizer) : null,
            Cost = new CostRequest
            {
                Lora = config,
                Head = setup.Head,
                Capacity = capacity,
                MaxLength = length,
                Device = model.Device,
                Threads = settings.Threads,
            },
        };
        SelectionResult result;
        var progress = new ProgressLine(byGradient ? "backward" : "forward");
        using (progress)
            result = SelectionPipeline.Run(model, examples, request, progress, Shell.Cancellation);
        if (ranks)
            ui.Fact(byGradient ? "backward" : "forward", $"{Ui.Count(progress.Tokens)} tokens in {progress.Elapsed.TotalSeconds:0.0} s");
        SelectionView.Show(ui, result.Report, options.Strategy);
        if (result.Bootstrap is { Masks.Count: > 1 } bootstrap)
            ui.Fact("resamples", $"{bootstrap.Resamples} of {Ui.Count(bootstrap.Samples, "sample")}: " + string.Join(", ", bootstrap.Masks.Take(4).Select(m => $"{m.Key} {m.Value}×")) + (bootstrap.Masks.Count > 4 ? $", {bootstrap.Masks.Count - 4} others" : ""));
        if (result is { Cost: { } cost, AllLayers: { } all })
            SelectionView.Savings(ui, all, cost, $"the {capacity.Sequences} longest of these rows in a batch ({Ui.Count(capacity.Tokens)} tokens), r {config.Rank}");
        return result;
    }

    /// <summary>Keeps the similarities of all layers that lie beside a selection that is used again.</summary>
    public static void KeepSimilarities(string selection, string output)
    {
        var from = Path.Combine(Path.GetDirectoryName(Path.GetFullPath(selection))!, SimilarityFile);
        var to = Path.Combine(output, SimilarityFile);
        if (File.Exists(from))
            SimilarityMatrix.Load(from).Save(to);
        else
            File.Delete(to);
    }

    private static string Size(Plan plan) => plan switch
    {
        { Budget: { } budget } => $"within {string.Join(" and ", ((string?[])[budget.Bytes is { } bytes ? Ui.MiB(bytes) : null, budget.Flops is { } flops ? $"{Ui.Flops(flops)} a step" : null]).OfType<string>())}",
        { Options.Count: { } count } => Ui.Count(count, "layer"),
        _ => FormattableString.Invariant($"ratio {plan.Options.Ratio}"),
    };

    /// <summary>Writes selection.json and the files that the paper's scripts write.</summary>
    /// <returns>The path of selection.json.</returns>
    public static string Write(ModelSettings settings, TaskSetup setup, SelectionResult result, string output)
    {
        if (result.Similarities is { } similarities)
        {
            var suffix = $"{settings.Name}_{setup.Name}{(setup.Head == ModelHead.LanguageModel ? $"_{similarities.Samples}" : "")}";
            SelectionFiles.Write(output, suffix, [.. similarities.Pairs.Select(p => (double?)p.CkaClamped)], result.Selection);
        }
        var path = Path.Combine(output, "selection.json");
        result.Report.Save(path);
        var matrix = Path.Combine(output, SimilarityFile);
        if (result.Matrix is { } all)
            all.Save(matrix);
        else
            File.Delete(matrix);
        if (result is { Cost: { } cost, AllLayers: { } everywhere })
            new PlanFile(settings.Name, cost.Plan.Capacity, PlannedMask.Of(cost), PlannedMask.Of(everywhere)).Write(output);
        return path;
    }
}
