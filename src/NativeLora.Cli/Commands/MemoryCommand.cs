using System.CommandLine;
using System.Text.Json.Nodes;
using NativeLora.Cli.Options;
using NativeLora.Cli.Show;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Cli.Commands;

/// <summary><c>nativelora memory</c>: what a training takes, known before it runs and without reading weights.</summary>
internal static class MemoryCommand
{
    public static Command Create()
    {
        var (model, lora) = (new ModelOptions(), new LoraOptions());
        var masks = new Option<string[]>("--mask")
        {
            Description = "layers with adapters, beside all of them: numbers such as 3,4,5 or a mask such as 000111; may be given again (default: the top half)",
            HelpName = "LAYERS",
        };
        var selection = new Option<string?>("--selection") { Description = "selection.json whose mask is wanted", HelpName = "FILE" };
        var batch = new Option<int>("--batch-size") { Description = "sequences of a batch", DefaultValueFactory = _ => 32, HelpName = "N" };
        var length = new Option<int?>("--max-length") { Description = "tokens of each sequence (default: 128 and those of its pictures, or what the model takes)", HelpName = "N" };
        var pictures = new Option<int?>("--pictures") { Description = "pictures of each sequence, for models that read them (default: 1)", HelpName = "N" };
        var memory = new MemoryOptions();
        var labels = new Option<int?>("--num-labels") { Description = "outputs of the classifier (default: the config's)", HelpName = "N" };
        var ranks = new Option<int>("--ranks") { Description = "processes that train together under mpirun: what they send in a step", DefaultValueFactory = _ => 1, HelpName = "N" };
        var study = new MemoryStudy(selection);
        var layers = new Option<bool>("--layers") { Description = "a line a layer" };
        var nodes = new Option<bool>("--nodes") { Description = "all nodes of the training graph with their bytes and operations, for the last mask given" };
        var json = new Option<bool>("--json") { Description = "print one JSON document and nothing else" };
        var command = new Command("memory", "Predict the memory of a training by category, without reading weights.")
        {
            masks, selection, batch, length, pictures, labels, ranks, layers, nodes, json,
        };
        model.AddTo(command);
        lora.AddTo(command);
        memory.AddTo(command);
        study.AddTo(command);
        command.SetAction(parsed =>
        {
            var ui = new Ui(parsed.GetValue(json));
            var settings = model.Read(parsed);
            var blueprint = settings.Blueprint(parsed.GetValue(labels) is { } n ? Labels(n) : null);
            using var device = settings.Device.Gpu is null ? null : settings.NewDevice();
            var request = Request(parsed, settings, lora, blueprint, parsed.GetValue(batch), parsed.GetValue(length), parsed.GetValue(pictures)) with
            {
                Device = device,
                Optimizer = memory.Optimizer(parsed),
                MemoryBudget = memory.Budget(parsed),
                PackWeights = memory.PackWeights(parsed),
                Recompute = memory.Recompute(parsed, () => blueprint.Model.Layers),
            };
            var together = parsed.GetValue(ranks) is >= 1 and <= 65536 and var given ? given : throw new InputException($"--ranks {parsed.GetValue(ranks)}: give 1 to 65536");
            if (study.Run(parsed, ui, settings, blueprint, request))
                return 0;
            List<IReadOnlyList<int>> choices = [[.. Enumerable.Range(0, blueprint.Model.Layers)]];
            foreach (var mask in parsed.GetValue(masks) ?? [])
                choices.Add(Choice(mask, blueprint.Model.Layers));
            if (parsed.GetValue(selection) is { } file)
                choices.Add(OfFile(file, blueprint.Model.Layers));
            if (choices.Count == 1)
                choices.Add([.. Enumerable.Range(blueprint.Model.Layers / 2, blueprint.Model.Layers - (blueprint.Model.Layers / 2))]);
            List<TrainingCost> costs = [.. choices.Select(c => CostPredictor.Predict(blueprint, request, c))];
            if (costs.All(c => !c.Fits))
                throw RecomputePlanner.TooLittle(request.MemoryBudget!.Value, costs[^1].Memory.Total, CostPredictor.LargestBatch(blueprint, request, choices[^1]), "batch size");
            if (ui.Json)
            {
                Ui.WriteJson(ToJson(settings, request, costs, parsed.GetValue(layers), together));
                return 0;
            }
            Table(ui, settings, blueprint, request, costs, together);
            if (parsed.GetValue(layers))
                LayerTable(ui, costs[^1], costs[0]);
            if (parsed.GetValue(nodes))
                NodeTable(ui, costs[^1]);
            return 0;
        });
        return command;
    }

    private static CostRequest Request(ParseResult parsed, ModelSettings settings, LoraOptions lora, ModelBlueprint blueprint, int batch, int? wanted, int? pictures)
    {
        var layout = blueprint.Model.Pictures;
        if (pictures is < 0 || (pictures > 0 && layout is null))
            throw new InputException($"--pictures {pictures}: {(pictures < 0 ? "give 0 or more" : $"{blueprint.Model.Config.ModelType} reads no pictures; leave it out")}");
        var each = layout is null ? 0 : pictures ?? 1;
        var tokens = (long)each * (layout?.Rows ?? 0);
        var length = wanted ?? (int)Math.Min(blueprint.Model.MaxPositions, 128 + tokens);
        if (length < tokens)
            throw new InputException($"--max-length {length}: the tokens of pictures alone are {tokens}; make it longer, or give fewer --pictures");
        if (batch < 1 || length < 1)
            throw new InputException($"a batch of {batch} sequences of {length} tokens holds nothing: give at least 1");
        if ((long)batch * length > 1 << 26)
            throw new InputException($"a batch of {batch} sequences of {length} tokens is larger than {1 << 26} tokens: make it smaller");
        var head = blueprint.Model.OwnHead;
        return new CostRequest
        {
            Lora = lora.Read(parsed, head),
            Head = head,
            Capacity = BatchSize.Of(batch, length) with { Pictures = checked(batch * each) },
            MaxLength = length,
            Threads = settings.Threads,
        };
    }

    private static string[] Labels(int count) => count is >= 1 and <= 1_000_000
        ? [.. Enumerable.Range(0, count).Select(i => $"LABEL_{i}")]
        : throw new InputException($"--num-labels {count}: give at least 1");

    /// <summary>Layers by number or mask; all or none of them may be meant.</summary>
    internal static IReadOnlyList<int> Choice(string mask, int layers) =>
        mask == "all" ? [.. Enumerable.Range(0, layers)] : mask == "none" || (mask.Length == layers && mask.All(c => c == '0')) ? [] : LayerSelection.ParseLayers(mask, layers);

    private static IReadOnlyList<int> OfFile(string file, int layers)
    {
        var report = SelectionReport.Load(file);
        return report.Layers.Count == layers ? [.. report.Selected.Order()]
            : throw new InputException($"{file}: a selection among {report.Layers.Count} layers, and the model has {layers}: select layers of this model");
    }

    private static void Table(Ui ui, ModelSettings settings, ModelBlueprint blueprint, CostRequest request, List<TrainingCost> costs, int ranks)
    {
        var size = request.Capacity;
        ui.Fact("model", $"{settings.Path}: {blueprint.Model.Config.ModelType}, {blueprint.Model.Layers} layers, {blueprint.Model.HiddenSize} wide");
        ui.Fact("training", $"{Ui.Count(size.Sequences, "sequence")} of {Ui.Count(request.MaxLength, "token")}{(size.Pictures == 0 ? "" : $" with {Ui.Count(size.Pictures, "picture")} in all")}, r {request.Lora.Rank}, {request.Optimizer.Name()}");
        List<string> heads = ["<", "all layers"];
        foreach (var (i, cost) in costs.Skip(1).Index())
        {
            // A long mask is told above the table.
            var brief = cost.Mask.Length > 16;
            if (brief)
                ui.Fact($"mask {i + 1}", cost.Mask);
            heads.Add(brief ? $"mask {i + 1}" : cost.Mask);
            heads.Add("saves");
        }
        foreach (var cost in costs)
            if (cost.Recomputation is { } choice)
                ui.Fact("recompute", $"{MemoryWords.Of(choice)}{(cost.Fits ? "" : $", more than {TooMuch(blueprint, request, cost)}")} ({cost.Mask})");
        ui.Line();
        ui.Table(heads,
        [
            Row("weights, as held", c => c.Memory.Weights, Ui.MiB),
            .. costs.Any(c => c.Memory.Packed > 0) ? [Row("  packed for products", c => c.Memory.Packed, Ui.MiB)] : (List<string>[])[],
            Row("adapters and head", c => c.Memory.Parameters, Ui.MiB),
            Row("their gradients", c => c.Memory.Gradients, Ui.MiB),
            Row("optimizer", c => c.Memory.Optimizer, Ui.MiB),
            Row("activations", c => c.Memory.Arena, Ui.MiB),
            Row("  kept for the backward", c => c.Memory.Saved, Ui.MiB),
            Row("tables and inputs", c => c.Memory.Constants + c.Memory.Inputs, Ui.MiB),
            Row("kernels", c => c.Memory.Scratch, Ui.MiB),
            Row("all together", c => c.Memory.Total, Ui.MiB),
            Row("all but weights", c => c.Memory.Total - c.Memory.Weights, Ui.MiB),
            [.. Enumerable.Repeat("", heads.Count)],
            .. costs.Any(c => c.Recomputation is not null) ? [Row("layers recomputed", c => c.Recomputation?.Layers.Count ?? 0, Ui.Count, saves: false)] : (List<string>[])[],
            Row("trainable parameters", c => c.TrainableParameters, Ui.Count),
            .. ranks > 1 ? [Row($"sent by {ranks} ranks a step", c => RankGroup.StepBytes(c.TrainableParameters, ranks), Ui.MiB)] : (List<string>[])[],
            Row("operations a step", c => c.FlopsPerStep, n => Ui.Flops(n)),
            Row("lowest adapted layer", c => c.LowestAdaptedLayer ?? -1, n => n < 0 ? "none" : $"{n}", saves: false),
        ]);

        List<string> Row(string name, Func<TrainingCost, long> value, Func<long, string> show, bool saves = true)
        {
            List<string> row = [name, show(value(costs[0]))];
            foreach (var cost in costs.Skip(1))
            {
                row.Add(show(value(cost)));
                row.Add(saves ? Ui.Saves(value(cost), value(costs[0])) : "");
            }
            return row;
        }
    }

    private static string TooMuch(ModelBlueprint blueprint, CostRequest request, TrainingCost cost)
    {
        var fits = CostPredictor.LargestBatch(blueprint, request, [.. Enumerable.Range(0, cost.Mask.Length).Where(l => cost.Mask[l] == '1')]);
        return $"the budget of {Ui.MiB(request.MemoryBudget!.Value)}: {(fits > 0 ? $"batch size {fits} would fit" : "no batch size fits")}";
    }

    private static void LayerTable(Ui ui, TrainingCost cost, TrainingCost all)
    {
        ui.Title($"By layer, mask {cost.Mask} (in brackets: all layers)");
        ui.Table(["<layer", "<", "kept for backward", "", "trainable", "forward", "backward", ""], [.. cost.Layers.Select(layer =>
        {
            var other = all.Layers.First(l => l.Layer == layer.Layer);
            string[] row =
            [
                layer.Layer < 0 ? "embeddings" : layer.Layer == cost.Mask.Length ? "head" : $"{layer.Layer}",
                layer.Layer >= 0 && layer.Layer < cost.Mask.Length && cost.Mask[layer.Layer] == '1' ? "[green]●[/]" : "",
                Ui.MiB(layer.SavedBytes), $"({Ui.MiB(other.SavedBytes)})", Ui.Count(layer.ParameterElements),
                Ui.Flops(layer.ForwardFlops), Ui.Flops(layer.BackwardFlops), $"({Ui.Flops(other.BackwardFlops)})",
            ];
            return row;
        })]);
    }

    private static void NodeTable(Ui ui, TrainingCost cost)
    {
        var (graph, size) = (cost.Plan.Graph, cost.Plan.Capacity);
        var saved = cost.Plan.Saved.ToHashSet();
        ui.Title($"{Ui.Count(graph.Nodes.Count, "node")}, mask {cost.Mask} (bytes are those of the outputs; kept: read by the backward)");
        ui.Table(["<", "<op", "<module", "<output", "<", "bytes", "operations"], [.. graph.Nodes.Select((node, i) =>
        {
            string[] row =
            [
                $"{i}{(node.Phase == Phase.Backward ? " b" : "")}", node.Op.Name, Spectre.Console.Markup.Escape(node.Name),
                Spectre.Console.Markup.Escape(string.Join(" ", node.Outputs.Select(o => o.Shape.ToString()))),
                node.Outputs.Any(saved.Contains) ? "kept" : "", Ui.MiB(node.Outputs.Sum(o => o.Bytes(size))), Ui.Flops(node.Op.Flops(node, size)),
            ];
            return row;
        })]);
    }

    private static string ToJson(ModelSettings settings, CostRequest request, List<TrainingCost> costs, bool layers, int ranks)
    {
        var columns = new JsonArray();
        foreach (var cost in costs)
        {
            var bytes = new JsonObject();
            foreach (var (name, value) in cost.ToReport().MemoryBytes)
                bytes[name] = value;
            var column = new JsonObject
            {
                ["mask"] = cost.Mask,
                ["lowest_adapted_layer"] = cost.LowestAdaptedLayer,
                ["memory_bytes"] = bytes,
                ["trainable_parameters"] = cost.TrainableParameters,
                ["flops_per_step"] = cost.FlopsPerStep,
            };
            if (cost.Recomputation is { } choice)
            {
                column["recompute"] = MemoryWords.ToJson(choice);
                column["fits"] = cost.Fits;
            }
            if (ranks > 1)
                column["wire_bytes_per_step"] = RankGroup.StepBytes(cost.TrainableParameters, ranks);
            if (layers)
                column["layers"] = new JsonArray([.. cost.Layers.Select(l => (JsonNode)new JsonObject
                {
                    ["layer"] = l.Layer,
                    ["saved_bytes"] = l.SavedBytes,
                    ["trainable_parameters"] = l.ParameterElements,
                    ["forward_flops"] = l.ForwardFlops,
                    ["backward_flops"] = l.BackwardFlops,
                })]);
            columns.Add((JsonNode)column);
        }
        return new JsonObject
        {
            ["model"] = settings.Path,
            ["batch_size"] = request.Capacity.Sequences,
            ["max_length"] = request.MaxLength,
            ["pictures"] = request.Capacity.Pictures,
            ["rank"] = request.Lora.Rank,
            ["optimizer"] = request.Optimizer.Name(),
            ["memory_budget"] = request.MemoryBudget,
            ["columns"] = columns,
        }.ToJsonString(JsonText.Indented);
    }
}
