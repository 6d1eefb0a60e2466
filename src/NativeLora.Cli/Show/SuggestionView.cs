using System.Globalization;
using System.Text.Json.Nodes;
using NativeLora.Cli.Options;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Selection;

namespace NativeLora.Cli.Show;

/// <summary>Shows the mask that is worth most within a budget.</summary>
internal static class SuggestionView
{
    private const int BarWidth = 28;

    public static void Show(
        Ui ui, ModelSettings settings, ModelBlueprint blueprint, CostRequest request, MaskSuggestion found, IReadOnlyList<double?> gains, string score, long? bytes, long? flops)
    {
        ui.Fact("model", $"{settings.Path}: {blueprint.Model.Config.ModelType}, {blueprint.Model.Layers} layers, {blueprint.Model.HiddenSize} wide");
        ui.Fact("training", $"{Ui.Count(request.Capacity.Sequences, "sequence")} of {Ui.Count(request.MaxLength, "token")}, r {request.Lora.Rank}, {request.Optimizer.Name()}");
        List<string> budgets = [.. bytes is { } b ? [$"{Ui.MiB(b)} planned"] : (string[])[], .. flops is { } f ? [$"{Ui.Flops(f)} a step"] : (string[])[]];
        ui.Fact("budget", string.Join(", ", budgets));
        ui.Title($"What an adapter on each layer is worth: {Worth(score)}");
        var largest = gains.Max(g => g ?? 0);
        ui.Table(["layer", "<", "worth", "<"], [.. gains.Select((gain, l) =>
        {
            var chosen = found.Layers.Contains(l);
            string[] row = [$"{l}", chosen ? "[green]●[/]" : "", gain is { } g ? Number(g) : "–", $"[{(chosen ? "green" : "grey")}]{Ui.Bar(largest > 0 ? (gain ?? 0) / largest : 0, BarWidth)}[/]"];
            return row;
        })]);
        ui.Line();
        ui.Fact("mask", found.Mask);
        ui.Fact("adapters", $"on {Ui.Count(found.Layers.Count, "layer")} of {gains.Count}: {string.Join(", ", found.Layers)}; the backward stops at layer {found.Layers[0]}");
        ui.Fact("worth", string.Create(CultureInfo.InvariantCulture, $"{Number(found.Gain)} of {Number(found.WholeGain)} ({100 * found.Gain / found.WholeGain:0.0} %)"));
        ui.Fact("proof", found.IsOptimal ? $"no mask within the budget is worth more ({Ui.Count(found.Planned, "mask")} planned)"
            : $"the search was cut off after {Ui.Count(found.Planned, "mask")}; none is worth more than {Number(found.Bound)}");
        ui.Fact("use it", $"--layers {found.Mask}");
        SelectionView.Savings(ui, found.AllLayers, found.Cost, $"{Ui.Count(request.Capacity.Sequences, "sequence")} of {Ui.Count(request.MaxLength, "token")}, r {request.Lora.Rank}");
    }

    public static string ToJson(
        ModelSettings settings, CostRequest request, MaskSuggestion found, IReadOnlyList<double?> gains, string score, long? bytes, long? flops) => new JsonObject
        {
            ["model"] = settings.Path,
            ["batch_size"] = request.Capacity.Sequences,
            ["max_length"] = request.MaxLength,
            ["rank"] = request.Lora.Rank,
            ["optimizer"] = request.Optimizer.Name(),
            ["score"] = score,
            ["gains"] = new JsonArray([.. gains.Select(g => (JsonNode?)g)]),
            ["budget_bytes"] = bytes,
            ["budget_flops"] = flops,
            ["mask"] = found.Mask,
            ["layers"] = new JsonArray([.. found.Layers.Select(l => (JsonNode)l)]),
            ["gain"] = found.Gain,
            ["whole_gain"] = found.WholeGain,
            ["optimal"] = found.IsOptimal,
            ["bound"] = found.Bound,
            ["planned_masks"] = found.Planned,
            ["suggested"] = ComparisonView.CostJson(found.Cost),
            ["all_layers"] = ComparisonView.CostJson(found.AllLayers),
        }.ToJsonString(JsonText.Indented);

    private static string Worth(string score) => score switch
    {
        "gradient" => "norm of its gradient at B = 0",
        "gradient-per-byte" => "norm of its gradient at B = 0 a planned byte",
        _ => $"1 − {(score == "cosine" ? score : score.Replace("cka", "CKA", StringComparison.Ordinal))}",
    };

    private static string Number(double value) => value.ToString(Math.Abs(value) is >= 1e-3 and < 1e6 or 0 ? "0.0000" : "0.000e+0", CultureInfo.InvariantCulture);
}
