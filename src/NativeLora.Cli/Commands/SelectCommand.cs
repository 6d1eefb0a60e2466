using System.CommandLine;
using NativeLora.Checkpoints;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Data.Tokenizers;
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
        if (output is not null)
            AtomicFile.CheckFolder(output);
        using var device = settings.NewDevice();
        // What can be wrong is found before any data are read.
        var blueprint = settings.Blueprint();
        var options = selection.Read(parsed, blueprint.Model, lora.Seed(parsed));
        ModelView.Line(ui, settings, blueprint.Model, device);
        var setup = TaskSetup.Open(taskSettings.ReadBy(blueprint.Model).InOrderOf(TaskSettings.NamesOf(blueprint.Model.Config)));
        var config = lora.Read(parsed, setup.Head, settings.BaseName);
        using var model = settings.Open(device, setup.Labels, lora.Seed(parsed));

        var tokenizer = TokenizerLoader.FromFolder(settings.Folder);
        var features = selection.Features(parsed, options, setup.PadId(model.Model, tokenizer));
        var samples = selection.Samples(parsed, model.Model);
        var result = SelectionRun.Go(ui, settings, setup, model, tokenizer, config, new SelectionRun.Plan(options, features, samples, resamples, batchSize) { Budget = selection.Budget(parsed) });
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
        var path = SelectionRun.Write(settings, setup, result, output);
        ui.Line();
        ui.Fact("written", result.Similarities is null ? path : $"{path}, {Path.Combine(output, "layer_selection")}{Path.DirectorySeparatorChar}");
    }
}
