using System.Text.Json.Nodes;
using NativeLora.Cli.Options;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;

namespace NativeLora.Cli.Show;

/// <summary>Shows what a mask saves against another, layer by layer.</summary>
internal static class ComparisonView
{
    private static readonly KeptFor[] Kinds = Enum.GetValues<KeptFor>();

    public static void Show(Ui ui, ModelSettings settings, ModelBlueprint blueprint, CostRequest request, MaskComparison comparison)
    {
        var (first, second) = (comparison.First, comparison.Second);
        ui.Fact("model", $"{settings.Path}: {blueprint.Model.Config.ModelType}, {blueprint.Model.Layers} layers, {blueprint.Model.HiddenSize} wide");
        ui.Fact("training", $"{Ui.Count(request.Capacity.Sequences, "sequence")} of {Ui.Count(request.MaxLength, "token")}, r {request.Lora.Rank}, {request.Optimizer.Name()}");
        ui.Fact("first", Of(first));
        ui.Fact("second", Of(second));
        ui.Title("Layer by layer: first → second (● first, ● second: adapted)");
        ui.Table(["<layer", "<", "parameters", "optimizer, gradients", "kept for backward", "backward", "<what remains, and why"], [.. comparison.Layers.Select(layer => Row(second.Mask.Length, layer))]);
        ui.Title("All together");
        ui.Table(["<", "first", "second", "saves"],
        [
            Total("trainable parameters", c => c.TrainableParameters, Ui.Count),
            Total("their bytes", c => c.Memory.Parameters, Ui.MiB),
            Total("gradients", c => c.Memory.Gradients, Ui.MiB),
            Total("optimizer", c => c.Memory.Optimizer, Ui.MiB),
            Total("kept for the backward", c => c.Memory.Saved, Ui.MiB),
            .. Kinds.Select(k => Total($"  for {MaskComparison.NameOf(k)}", c => MaskComparison.KeptOf(c)[k], Ui.MiB)).Where(r => r[1] != "0" || r[2] != "0"),
            Total("activations in all", c => c.Memory.Arena, Ui.MiB),
            Total("all planned, weights included", c => c.Memory.Total, Ui.MiB),
            Total("forward a step", c => c.Layers.Sum(l => l.ForwardFlops), n => Ui.Flops(n)),
            Total("backward a step", c => c.Layers.Sum(l => l.BackwardFlops), n => Ui.Flops(n)),
        ]);

        string[] Total(string name, Func<TrainingCost, long> value, Func<long, string> show) =>
            [name, show(value(first)), show(value(second)), Ui.Saves(value(second), value(first))];
    }

    private static string Of(TrainingCost cost) =>
        $"{cost.Mask}: {(cost.LowestAdaptedLayer is { } lowest ? $"the backward stops at layer {lowest}" : "no layer is adapted")}{(cost.Recomputation is { } choice ? $"; {MemoryWords.Of(choice)}" : "")}";

    private static string[] Row(int layers, LayerDifference layer)
    {
        var (a, b) = (layer.First, layer.Second);
        return
        [
            layer.Layer < 0 ? "embeddings" : layer.Layer == layers ? "head" : $"{layer.Layer}",
            $"{(a.Adapted ? "●" : "·")} {(b.Adapted ? "[green]●[/]" : "·")}",
            To(a.Parameters, b.Parameters, Ui.Count),
            To(a.OptimizerBytes + a.GradientBytes, b.OptimizerBytes + b.GradientBytes, Ui.MiB),
            To(a.KeptBytes, b.KeptBytes, Ui.MiB),
            To(a.BackwardFlops, b.BackwardFlops, n => Ui.Flops(n)),
            layer.Reason,
        ];
    }

    private static string To(long from, long to, Func<long, string> show) => from == to ? show(to) : $"{show(from)} → {show(to)}";

    public static string ToJson(ModelSettings settings, CostRequest request, MaskComparison comparison)
    {
        var layers = comparison.First.Mask.Length;
        return new JsonObject
        {
            ["model"] = settings.Path,
            ["batch_size"] = request.Capacity.Sequences,
            ["max_length"] = request.MaxLength,
            ["rank"] = request.Lora.Rank,
            ["optimizer"] = request.Optimizer.Name(),
            ["first"] = CostJson(comparison.First),
            ["second"] = CostJson(comparison.Second),
            ["layers"] = new JsonArray([.. comparison.Layers.Select(l => (JsonNode)new JsonObject
            {
                ["layer"] = l.Layer < 0 ? "embeddings" : l.Layer == layers ? "head" : (JsonNode)l.Layer,
                ["first"] = DetailJson(l.First),
                ["second"] = DetailJson(l.Second),
                ["saves"] = new JsonObject
                {
                    ["parameters"] = l.First.Parameters - l.Second.Parameters,
                    ["parameter_bytes"] = l.First.ParameterBytes - l.Second.ParameterBytes,
                    ["gradient_bytes"] = l.First.GradientBytes - l.Second.GradientBytes,
                    ["optimizer_bytes"] = l.First.OptimizerBytes - l.Second.OptimizerBytes,
                    ["kept_bytes"] = l.First.KeptBytes - l.Second.KeptBytes,
                    ["backward_flops"] = l.First.BackwardFlops - l.Second.BackwardFlops,
                },
                ["why"] = l.Reason,
            })]),
        }.ToJsonString(JsonText.Indented);
    }

    /// <summary>A mask with what it takes.</summary>
    public static JsonObject CostJson(TrainingCost cost) => new()
    {
        ["mask"] = cost.Mask,
        ["lowest_adapted_layer"] = cost.LowestAdaptedLayer,
        ["memory_bytes"] = new JsonObject(cost.ToReport().MemoryBytes.Select(b => KeyValuePair.Create(b.Key, (JsonNode?)b.Value))),
        ["kept_bytes"] = KeptJson(MaskComparison.KeptOf(cost)),
        ["trainable_parameters"] = cost.TrainableParameters,
        ["flops_per_step"] = cost.FlopsPerStep,
    };

    private static JsonObject DetailJson(LayerDetail detail) => new()
    {
        ["adapted"] = detail.Adapted,
        ["parameters"] = detail.Parameters,
        ["parameter_bytes"] = detail.ParameterBytes,
        ["gradient_bytes"] = detail.GradientBytes,
        ["optimizer_bytes"] = detail.OptimizerBytes,
        ["kept_bytes"] = KeptJson(detail.Kept),
        ["forward_flops"] = detail.ForwardFlops,
        ["backward_flops"] = detail.BackwardFlops,
    };

    private static JsonObject KeptJson(IReadOnlyDictionary<KeptFor, long> kept) =>
        new(Kinds.Select(k => KeyValuePair.Create(MaskComparison.NameOf(k).Replace(' ', '_'), (JsonNode?)kept[k])));
}
