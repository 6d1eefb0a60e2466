using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Data.Tokenizers;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora run</c>: chooses layers, trains adapters on them, evaluates: all in one.</summary>
internal static class RunCommand
{
    public static Command Create()
    {
        var (model, task, lora) = (new ModelOptions(), new TaskOptions(), new LoraOptions());
        var (selection, training) = (new SelectionCliOptions(), new TrainingCliOptions());
        var json = new Option<bool>("--json") { Description = "print one JSON document and nothing else" };
        var command = new Command("run", "Choose layers, train adapters on them, and evaluate.");
        model.AddTo(command);
        task.AddTo(command);
        selection.AddTo(command);
        lora.AddTo(command);
        training.AddTo(command);
        command.Options.Add(json);
        var parallel = RankRun.Option();
        command.Options.Add(parallel);
        command.SetAction(parsed => RankRun.Go(parsed.GetValue(parallel)!, ranks =>
        {
            var ui = new Ui(parsed.GetValue(json));
            var document = Run(parsed, model.Read(parsed), task.Read(parsed), lora, selection, training, ui, ranks);
            if (ui.Json)
                Ui.WriteJson(document.ToJsonString(JsonText.Indented));
            return 0;
        }));
        return command;
    }

    private static JsonObject Run(
        ParseResult parsed, ModelSettings settings, TaskSettings taskSettings, LoraOptions lora, SelectionCliOptions selection, TrainingCliOptions training, Ui ui,
        RankGroup? ranks)
    {
        var seed = lora.Seed(parsed);
        // What can be wrong is found before any data are read.
        var blueprint = settings.Blueprint();
        var options = training.Read(parsed, seed, settings, taskSettings) with { Ranks = ranks };
        if (ranks?.Leads ?? true)
            Trainer.CheckOutput(options);
        var (choice, resamples) = (selection.Read(parsed, blueprint.Model, seed), selection.Resamples(parsed));
        using var device = settings.NewDevice();
        ModelView.Line(ui, settings, blueprint.Model, device);
        var setup = TaskSetup.Open(taskSettings.ReadBy(blueprint.Model).InOrderOf(TaskSettings.NamesOf(blueprint.Model.Config)));
        setup.Check(options);
        var config = lora.Read(parsed, setup.Head, settings.BaseName);
        using var model = settings.Open(device, setup.Labels, seed);
        var tokenizer = TokenizerLoader.FromFolder(settings.Folder);

        // A training that goes on keeps the layers that it began with.
        var kept = Path.Combine(options.OutputFolder, "selection.json");
        var file = selection.Reused(parsed) ?? (options.Resume && File.Exists(kept) ? kept : null);
        IReadOnlyList<int> layers;
        if (ranks is { Leads: false })
            layers = Parse(ranks.Share((string?)null));
        else if (file is not null)
        {
            layers = TrainCommand.OfFile(file, blueprint.Model.Layers);
            ui.Fact("select", $"layers {string.Join(", ", layers)}, from {file}");
            if (Path.GetFullPath(file) != Path.GetFullPath(kept))
            {
                SelectionReport.Load(file).Save(kept);
                SelectionRun.KeepSimilarities(file, options.OutputFolder);
            }
        }
        else
        {
            var features = selection.Features(parsed, choice, setup.PadId(model.Model, tokenizer));
            var plan = new SelectionRun.Plan(choice, features, selection.Samples(parsed, model.Model), resamples, options.BatchSize ?? 32) { Budget = selection.Budget(parsed) };
            var result = SelectionRun.Go(ui, settings, setup, model, tokenizer, config, plan);
            layers = [.. result.Selection.Selected.Order()];
            if (layers.Count == 0)
                throw new InputException("no layer was selected, so there is nothing to train: give another --strategy or a higher --ratio");
            SelectionRun.Write(settings, setup, result, options.OutputFolder);
        }
        if (ranks is { Leads: true })
            ranks.Share(string.Join(',', layers));
        ui.Title("Training");
        var report = TrainingRun.Go(ui, setup, model, config, layers, tokenizer, options);
        return new JsonObject
        {
            ["layers"] = new JsonArray([.. layers.Select(l => (JsonNode)l)]),
            ["selection"] = kept,
            ["training"] = report,
        };
    }

    // Rank 0 chooses for all.
    private static int[] Parse(string layers) => [.. layers.Split(',').Select(l => int.Parse(l, CultureInfo.InvariantCulture))];
}
