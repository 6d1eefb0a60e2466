using System.CommandLine;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora select</c>: measures how much each layer changes the representation and chooses layers.</summary>
internal static class SelectCommand
{
    public static Command Create()
    {
        var (model, task, lora, selection) = (new ModelOptions(), new TaskOptions(withDev: false), new LoraOptions(), new SelectionCliOptions());
        var batch = new Option<int>("--batch-size") { Description = "sequences of a batch, for the predicted cost", DefaultValueFactory = _ => 32, HelpName = "N" };
        var output = new Option<string?>("--output", "-o") { Description = "folder for selection.json and the paper's two text files", HelpName = "DIR" };
        var json = new Option<bool>("--json") { Description = "print selection.json and nothing else" };
        var command = new Command("select", "Choose the layers that get adapters: those that change the representation most.");
        model.AddTo(command);
        task.AddTo(command);
        selection.AddTo(command, reuse: false);
        lora.AddTo(command);
        command.Options.Add(batch);
        command.Options.Add(output);
        command.Options.Add(json);
        command.SetAction(parsed => Run(parsed, model.Read(parsed), task.Read(parsed), lora, selection,
            parsed.GetValue(batch), parsed.GetValue(output), new Ui(parsed.GetValue(json))));
        return command;
    }

    private static int Run(
        ParseResult parsed, ModelSettings settings, TaskSettings taskSettings, LoraOptions lora, SelectionCliOptions selection, int batchSize, string? output, Ui ui)
    {
        if (batchSize < 1)
            throw new InputException($"--batch-size {batchSize}: give at least 1");
        var resamples = selection.Resamples(parsed);
        using var device = settings.NewDevice();
        // What can be wrong is found before any data are read.
        var blueprint = settings.Blueprint();
        var options = selection.Read(parsed, blueprint.Model, lora.Seed(parsed));
        ModelView.Line(ui, settings, blueprint.Model, device);
        var setup = TaskSetup.Open(taskSettings);
        var config = lora.Read(parsed, setup.Head, settings.Path);
        using var model = settings.Open(device, setup.Labels, lora.Seed(parsed));

        var tokenizer = TokenizerLoader.FromFolder(settings.Folder);
        var features = selection.Features(parsed, options, model.Model.IsEncoder ? null : tokenizer.EosId);
        var samples = selection.Samples(parsed, model.Model);
        var compared = (int)Math.Min(samples ?? int.MaxValue, setup.Train.Count);
        var ranks = SelectionPipeline.NeedsFeatures(options.Strategy);
        ui.Fact("task", $"{setup.Name}: {Ui.Count(setup.Train.Count, "row")} of {setup.Train.Path}");
        ui.Fact("select", ranks
            ? $"{SelectionOptions.NameOf(options.Strategy)} at token {TokenRules.NameOf(features.Token)} over {Ui.Count(compared, "row")}, ratio {options.Ratio}, rule {(options.Rule == SelectionRule.Paper ? "paper" : "plain")}"
            : $"{SelectionOptions.NameOf(options.Strategy)}{(options.Ratio is { } ratio ? $", ratio {ratio}" : "")}: no row is looked at");

        var examples = setup.Encode(setup.Train, tokenizer, model.Model, ranks ? compared : 1024, features.Token == TokenRule.Content);
        var longest = new BatchOrder([.. examples.Select(e => e.Length)], new BatchOrderOptions { BatchSize = batchSize });
        var length = examples.Max(e => e.Length);
        var request = new SelectionRequest
        {
            Model = settings.Path,
            Task = setup.Name,
            Options = options,
            Features = features,
            Resamples = resamples,
            Cost = new CostRequest
            {
                Lora = config,
                Head = setup.Head,
                Capacity = new BatchSize(longest.TokenCapacity, longest.SequenceCapacity, (long)longest.TokenCapacity * longest.TokenCapacity / longest.SequenceCapacity),
                MaxLength = length,
                Threads = settings.Threads,
            },
        };
        SelectionResult result;
        using (var progress = new ProgressLine("forward"))
        {
            result = SelectionPipeline.Run(model, examples, request, progress, Shell.Cancellation);
            if (ranks)
                ui.Fact("forward", $"{Ui.Count(progress.Tokens)} tokens in {progress.Elapsed.TotalSeconds:0.0} s");
        }

        SelectionView.Show(ui, result.Report, options.Strategy);
        if (result.Bootstrap is { Masks.Count: > 1 } bootstrap)
            ui.Fact("resamples", $"{bootstrap.Resamples} of {Ui.Count(bootstrap.Samples, "sample")}: " + string.Join(", ", bootstrap.Masks.Take(4).Select(m => $"{m.Key} {m.Value}×")) + (bootstrap.Masks.Count > 4 ? $", {bootstrap.Masks.Count - 4} others" : ""));
        if (result is { Cost: { } cost, AllLayers: { } all })
            SelectionView.Savings(ui, all, cost, $"the {longest.SequenceCapacity} longest rows in a batch ({Ui.Count(longest.TokenCapacity)} tokens), r {config.Rank}");
        Write(ui, settings, setup, result, output);
        if (ui.Json)
            Ui.WriteJson(result.Report.ToJson());
        return 0;
    }

    private static void Write(Ui ui, ModelSettings settings, TaskSetup setup, SelectionResult result, string? output)
    {
        if (output is null)
        {
            ui.Line();
            ui.Line("Nothing was written: give --output DIR to keep the selection for training.");
            return;
        }
        if (result.Similarities is { } similarities)
        {
            var suffix = $"{settings.Name}_{setup.Name}{(setup.Head == ModelHead.LanguageModel ? $"_{similarities.Samples}" : "")}";
            SelectionFiles.Write(output, suffix, [.. similarities.Pairs.Select(p => (double?)p.CkaClamped)], result.Selection);
        }
        var path = Path.Combine(output, "selection.json");
        result.Report.Save(path);
        ui.Line();
        ui.Fact("written", result.Similarities is null ? path : $"{path}, {Path.Combine(output, "layer_selection")}{Path.DirectorySeparatorChar}");
    }
}
