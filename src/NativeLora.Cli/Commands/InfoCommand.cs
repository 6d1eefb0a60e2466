using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Devices;
using NativeLora.Devices.Cuda;
using NativeLora.Graphs;
using NativeLora.Models;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora info</c>: what a model and this machine are.</summary>
internal static class InfoCommand
{
    public static Command Create()
    {
        var model = new ModelOptions(required: false);
        var json = new Option<bool>("--json") { Description = "print one JSON document and nothing else" };
        var command = new Command("info", "Show a model's sizes and the modules that can be adapted, and what this machine offers.") { json };
        model.AddTo(command);
        command.SetAction(parsed => Run(model.Read(parsed), new Ui(parsed.GetValue(json))));
        return command;
    }

    private static int Run(ModelSettings settings, Ui ui)
    {
        var document = new JsonObject();
        if (settings.GivenPath is not null)
        {
            using var checkpoint = ModelBlueprint.IsConfigAlone(settings.Path) ? null : Checkpoint.Open(settings.Path, settings.Checkpoint);
            ShowModel(ui, settings, checkpoint, checkpoint is null ? settings.Blueprint().Model : ModelRegistry.Create(checkpoint.Config), document);
            ui.Line();
        }
        using var device = settings.NewDevice();
        ShowDevice(ui, device, document);
        if (ui.Json)
            Ui.WriteJson(document.ToJsonString(JsonText.Indented));
        return 0;
    }

    private static void ShowModel(Ui ui, ModelSettings settings, Checkpoint? checkpoint, Model model, JsonObject document)
    {
        var head = model.OwnHead;
        var modules = PretrainedModel.Modules(model, head);
        var elements = checkpoint?.Tensors.Values.Sum(t => t.Count) ?? model.ParameterCount(head);
        var bytes = checkpoint?.Tensors.Values.Sum(t => t.Bytes);
        var keyValueHeads = model.TextConfig.Has("num_key_value_heads") ? model.TextConfig.GetPositiveInt("num_key_value_heads") : model.Heads;
        ui.Fact("model", settings.Path);
        ui.Fact("family", $"{model.Config.ModelType}, {(model.IsEncoder ? "encoder" : head == ModelHead.LanguageModel ? "causal language model" : "decoder with a classifier")}");
        ui.Fact("layers", $"{model.Layers}, each {model.HiddenSize} wide, {Ui.Count(model.Heads, "head")}{(keyValueHeads == model.Heads ? "" : $" ({keyValueHeads} for keys and values)")}, {model.IntermediateSize} in the MLP");
        ui.Fact("vocabulary", $"{Ui.Count(model.VocabularySize)} tokens, sequences of up to {Ui.Count(model.MaxPositions)}");
        if (model.Pictures is { } pictures)
            ui.Fact("pictures", $"{pictures.Size} × {pictures.Size} pixels, {Ui.Count(pictures.Rows, "token")} each (id {pictures.TokenId})");
        ui.Fact("parameters", checkpoint is null ? $"{Ui.Count(elements)} by the config"
            : $"{Ui.Count(elements)} in {Ui.Count(checkpoint.Tensors.Count, "tensor")}: {ModelView.Types(checkpoint)}; {Ui.MiB(bytes!.Value)} once read");
        if (settings.Checkpoint.Quantize is { } quantize)
        {
            var graph = new Graph(Trainables.None, weightType: settings.Blueprint().WeightType) { Activations = settings.Precision, Quantize = quantize };
            model.Build(graph, new BuildOptions { Head = head, MaxLength = 1 });
            var held = graph.Weights.Sum(w => w.Bytes(default));
            bytes = held;
            ui.Fact("quantized", $"{Ui.Count(graph.Weights.Where(w => w.Type == quantize).Sum(w => w.Shape.Elements(default)))} to {quantize}: {Ui.MiB(held)} of weights then");
        }
        ui.Fact("weights", checkpoint?.Path ?? "none in the folder");
        if (TargetResolver.Complete(new LoraConfig(), modules).TargetModules is { } targets)
            ui.Fact("targets", $"{targets} (default)");

        var kinds = modules.Modules.Where(m => m.Kind == ModuleKind.Linear && modules.LayerOf(m.Name) is not null)
            .GroupBy(m => (Name: AfterLayer(m.Name), m.InFeatures, m.OutFeatures)).ToList();
        ui.Title("Modules that can be adapted");
        ui.Table(["<in each layer", "count", "in", "out", "trainable at r 8"], [.. kinds.Select(k => (IReadOnlyList<string>)
        [
            k.Key.Name, Ui.Count(k.Count()), Ui.Count(k.Key.InFeatures), Ui.Count(k.Key.OutFeatures), Ui.Count(8L * (k.Key.InFeatures + k.Key.OutFeatures) * k.Count()),
        ])]);

        var adaptable = new JsonArray();
        foreach (var kind in kinds)
            adaptable.Add((JsonNode)new JsonObject { ["name"] = kind.Key.Name, ["count"] = kind.Count(), ["in"] = kind.Key.InFeatures, ["out"] = kind.Key.OutFeatures });
        document["model"] = new JsonObject
        {
            ["path"] = settings.Path,
            ["model_type"] = model.Config.ModelType,
            ["encoder"] = model.IsEncoder,
            ["layers"] = model.Layers,
            ["hidden_size"] = model.HiddenSize,
            ["heads"] = model.Heads,
            ["key_value_heads"] = keyValueHeads,
            ["intermediate_size"] = model.IntermediateSize,
            ["vocabulary"] = model.VocabularySize,
            ["max_positions"] = model.MaxPositions,
            ["parameters"] = elements,
            ["bytes"] = bytes,
            ["adaptable"] = adaptable,
        };
    }

    /// <summary>The part of a path after the layer's number.</summary>
    private static string AfterLayer(string module)
    {
        var parts = module.Split('.');
        var number = Array.FindIndex(parts, p => int.TryParse(p, NumberStyles.None, CultureInfo.InvariantCulture, out _));
        return string.Join('.', parts[(number + 1)..]);
    }

    private static void ShowDevice(Ui ui, Device device, JsonObject document)
    {
        ui.Fact("machine", $"{Machine.Processor}, {Ui.Count(Environment.ProcessorCount, "processor")}, {Ui.GiB(Machine.Memory)} of memory");
        ui.Fact("vectors", string.Join(", ", Machine.Features));
        ui.Fact("device", $"{device.Name}: {device.Description}");
        ui.Fact("runtime", $"{RuntimeInformation.FrameworkDescription}, {RuntimeInformation.RuntimeIdentifier}");
        var (gpus, missing) = Gpus();
        foreach (var gpu in gpus)
            ui.Fact($"cuda:{gpu.Ordinal}", gpu.Description);
        if (missing is not null)
            ui.Fact("no GPU", missing);
        document["gpus"] = new JsonArray([.. gpus.Select(gpu => (JsonNode)new JsonObject
        {
            ["name"] = gpu.Name,
            ["compute_capability"] = $"{gpu.Major}.{gpu.Minor}",
            ["memory_bytes"] = gpu.MemoryBytes,
            ["interpreted"] = gpu.IsInterpreted,
        })]);
        document["no_gpu"] = missing;
        document["device"] = new JsonObject
        {
            ["name"] = device.Name,
            ["description"] = device.Description,
            ["processor"] = Machine.Processor,
            ["processors"] = Environment.ProcessorCount,
            ["memory_bytes"] = Machine.Memory,
            ["vectors"] = new JsonArray([.. Machine.Features.Select(f => (JsonNode)f)]),
            ["runtime"] = RuntimeInformation.FrameworkDescription,
        };
    }

    /// <summary>What there is of GPUs, or what was looked for.</summary>
    private static (IReadOnlyList<CudaDeviceInfo> Found, string? Missing) Gpus()
    {
        try
        {
            return (CudaDeviceInfo.All(), null);
        }
        catch (InputException e)
        {
            return ([], e.Message);
        }
    }
}
