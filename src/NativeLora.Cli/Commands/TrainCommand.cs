using System.CommandLine;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Data.Tokenizers;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora train</c>: trains adapters on given layers, or everything.</summary>
internal static class TrainCommand
{
    public static Command Create()
    {
        var (model, task, lora, training) = (new ModelOptions(), new TaskOptions(), new LoraOptions(), new TrainingCliOptions());
        var layers = new Option<string?>("--layers") { Description = "layers that get adapters: numbers such as 3,4,5 or a mask such as 000111 (default: all)", HelpName = "LAYERS" };
        var selection = new Option<string?>("--selection") { Description = "selection.json whose layers get adapters", HelpName = "FILE" };
        var full = new Option<bool>("--full") { Description = "train the whole model, without adapters" };
        var adapter = new Option<string?>("--adapter", "-a") { Description = "folder of a PEFT adapter to start from, or its name on the hub: its tensors, rank, alpha, targets and layers", HelpName = "DIR" };
        var json = new Option<bool>("--json") { Description = "print report.json and nothing else" };
        var command = new Command("train", "Train adapters on all layers, or on chosen ones.");
        model.AddTo(command);
        task.AddTo(command);
        foreach (var option in (Option[])[layers, selection, full, adapter])
            command.Options.Add(option);
        lora.AddTo(command);
        training.AddTo(command);
        command.Options.Add(json);
        var parallel = RankRun.Option();
        command.Options.Add(parallel);
        command.SetAction(parsed => RankRun.Go(parsed.GetValue(parallel)!, ranks =>
        {
            var ui = new Ui(parsed.GetValue(json));
            var (settings, seed) = (model.Read(parsed), lora.Seed(parsed));
            var taskSettings = task.Read(parsed);
            var options = training.Read(parsed, seed, settings, taskSettings) with { Ranks = ranks };
            if (ranks?.Leads ?? true)
                Trainer.CheckOutput(options);
            var blueprint = settings.Blueprint();
            var start = parsed.GetValue(adapter) is { } from ? AdapterFolder.Open(from) : null;
            if (start is not null)
                foreach (var option in (Option[])[layers, selection, full])
                    if (parsed.GetResult(option) is { Implicit: false })
                        throw new InputException($"both --adapter and {option.Name} are given: the adapter in {start.Path} settles the layers; leave one of them out");
            var started = start is null ? null : lora.Read(parsed, start);
            var chosen = Layers(parsed.GetValue(layers), parsed.GetValue(selection), parsed.GetValue(full), blueprint.Model.Layers);
            using var device = settings.NewDevice();
            ModelView.Line(ui, settings, blueprint.Model, device);
            // The ids of the classes are those that the adapter, or the model, was trained with.
            var setup = TaskSetup.Open(taskSettings.ReadBy(blueprint.Model).WithLabels(start?.SavedLabels).InOrderOf(start is null ? TaskSettings.NamesOf(blueprint.Model.Config) : start.SavedLabels));
            setup.Check(options);
            using var pretrained = settings.Open(device, setup.Labels, seed);
            var config = started is null ? lora.Read(parsed, setup.Head, settings.BaseName) : started with { BaseModel = started.BaseModel ?? settings.BaseName };
            start?.Require(setup.Head, setup.Labels, pretrained.Model);
            ui.Fact("task", $"{setup.Name}: {setup.Train.Path}");
            ui.Fact("adapters", parsed.GetValue(full) ? "none: everything is trained"
                : start is not null ? $"from {start.Path}: r {start.Config.Rank}, alpha {start.Config.Alpha}, {start.Config.TargetModules}"
                : chosen is null ? $"on all {blueprint.Model.Layers} layers" : $"on {Ui.Count(chosen.Count, "layer")} of {blueprint.Model.Layers}: {string.Join(", ", chosen)}");
            var report = TrainingRun.Go(
                ui, setup, pretrained, parsed.GetValue(full) ? null : config, chosen, TokenizerLoader.FromFolder(settings.Folder), options, start);
            if (ui.Json)
                Ui.WriteJson(report.ToJsonString(JsonText.Indented));
            return 0;
        }));
        return command;
    }

    private static IReadOnlyList<int>? Layers(string? layers, string? selection, bool full, int count)
    {
        if ((layers is null ? 0 : 1) + (selection is null ? 0 : 1) + (full ? 1 : 0) > 1)
            throw new InputException("more than one of --layers, --selection and --full is given: give one of them");
        return layers is not null ? [.. LayerSelection.ParseLayers(layers, count).Order()]
            : selection is not null ? OfFile(selection, count)
            : null;
    }

    /// <summary>The layers of a selection that was kept.</summary>
    public static IReadOnlyList<int> OfFile(string file, int count)
    {
        var report = SelectionReport.Load(file);
        return report.Layers.Count != count
            ? throw new InputException($"{file}: a selection among {report.Layers.Count} layers, and the model has {count}: select layers of this model")
            : report.Selected.Count == 0 ? throw new InputException($"{file}: no layer is selected: raise the ratio") : [.. report.Selected.Order()];
    }
}
