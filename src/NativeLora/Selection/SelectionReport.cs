using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using NativeLora.Checkpoints;

namespace NativeLora.Selection;

/// <summary>What a selection measured and chose: the content of <c>selection.json</c>.</summary>
public sealed record SelectionReport
{
    // Names of models are not escaped beyond need.
    private static readonly SelectionJson Format =
        new(new JsonSerializerOptions(SelectionJson.Default.Options) { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });

    /// <summary>The model, as the user named it.</summary>
    public required string Model { get; init; }

    /// <summary>The task or dataset; null if none was used.</summary>
    public string? Task { get; init; }

    /// <summary>paper or plain.</summary>
    public required string Rule { get; init; }

    /// <summary>Name of the strategy, such as cka.</summary>
    public required string Strategy { get; init; }

    /// <summary>Which token's representation was compared; null if none was.</summary>
    public string? TokenRule { get; init; }

    /// <summary>Share of the layers asked for; null if none was.</summary>
    public double? Ratio { get; init; }

    /// <summary>Number of samples compared; 0 for a strategy that needs none.</summary>
    public required long Samples { get; init; }

    /// <summary>One entry a layer.</summary>
    public required IReadOnlyList<LayerReport> Layers { get; init; }

    /// <summary>The ranking, first choice first.</summary>
    public required IReadOnlyList<int> Order { get; init; }

    /// <summary>The chosen layers, in the order of the ranking.</summary>
    public required IReadOnlyList<int> Selected { get; init; }

    /// <summary>One digit a layer, 1 for a chosen one.</summary>
    public required string Mask { get; init; }

    /// <summary>The lowest chosen layer, where the backward pass may stop; null if none is chosen.</summary>
    public required int? LowestAdaptedLayer { get; init; }

    /// <summary>The layer that the paper's rule for encoders drops from the head of the order.</summary>
    public int? DroppedFirst { get; init; }

    /// <summary>Layers that rule plain left out of the ranking.</summary>
    public required IReadOnlyList<int> LeftOut { get; init; }

    /// <summary>What training with this selection will take; null until the caller has planned it.</summary>
    public PredictedCost? Predicted { get; init; }

    /// <summary>Puts a report together.</summary>
    /// <param name="model">The model, as the user named it.</param>
    /// <param name="task">The task or dataset.</param>
    /// <param name="tokenRule">Which token's representation was compared.</param>
    /// <param name="options">What was asked for.</param>
    /// <param name="selection">What was chosen.</param>
    /// <param name="similarities">What was measured, if anything.</param>
    /// <param name="bootstrap">Stability, if it was estimated.</param>
    /// <param name="gradients">Gradients of the layers' adapters, if they were measured.</param>
    public static SelectionReport Create(string model, string? task, string? tokenRule, SelectionOptions options, LayerSelection selection,
        LayerSimilarities? similarities = null, Bootstrap? bootstrap = null, LayerGradients? gradients = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(selection);
        if ((similarities?.Layers ?? selection.Layers) != selection.Layers || (bootstrap?.Layers.Count ?? selection.Layers) != selection.Layers)
            throw new InputException($"measures of {similarities?.Layers ?? bootstrap?.Layers.Count} layers for a selection among {selection.Layers}");
        return new SelectionReport
        {
            Model = model,
            Task = task,
            Rule = options.Rule == SelectionRule.Plain ? "plain" : "paper",
            Strategy = SelectionOptions.NameOf(options.Strategy),
            TokenRule = tokenRule,
            Ratio = options.Ratio,
            Samples = similarities?.Samples ?? gradients?.Samples ?? 0,
            Layers = [.. Enumerable.Range(0, selection.Layers).Select(l => new LayerReport
            {
                Layer = l,
                Cka = similarities?.Pairs[l].Cka,
                CkaDebiased = similarities?.Pairs[l].CkaDebiased,
                Cosine = similarities?.Pairs[l].Cosine,
                Angular = similarities?.Pairs[l].Angular,
                Gradient = gradients?.Norms[l],
                GradientBytes = gradients?.Bytes?[l],
                ConstantInput = similarities?.Pairs[l].ConstantX ?? false,
                Selected = selection.Selected.Contains(l),
                Bootstrap = bootstrap is null ? null : new BootstrapReport
                {
                    SelectedFraction = bootstrap.Layers[l].SelectedFraction,
                    CkaMean = bootstrap.Layers[l].CkaMean,
                    CkaLow = bootstrap.Layers[l].CkaLow,
                    CkaHigh = bootstrap.Layers[l].CkaHigh,
                    CkaDebiasedLow = bootstrap.Layers[l].CkaDebiasedLow,
                    CkaDebiasedHigh = bootstrap.Layers[l].CkaDebiasedHigh,
                },
            })],
            Order = selection.Order,
            Selected = selection.Selected,
            Mask = selection.Mask,
            LowestAdaptedLayer = selection.LowestAdaptedLayer,
            DroppedFirst = selection.DroppedFirst,
            LeftOut = selection.LeftOut,
        };
    }

    /// <summary>Writes the report as JSON, to a temporary file first.</summary>
    /// <param name="path">File to write, such as <c>selection.json</c>.</param>
    /// <exception cref="RunException">It cannot be written.</exception>
    public void Save(string path) => AtomicFile.WriteAllText(path, ToJson());

    /// <summary>The report as JSON with snake_case names.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, Format.SelectionReport) + "\n";

    /// <summary>Reads a report and checks that it agrees with itself.</summary>
    /// <param name="path">A file that <see cref="Save"/> wrote.</param>
    /// <exception cref="InputException">It cannot be read, or is not such a report.</exception>
    public static SelectionReport Load(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        string text;
        try
        {
            text = File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw new InputException($"{path}: cannot be read ({e.Message.ReplaceLineEndings(" ")}): give the selection.json of a selection", e);
        }
        return FromJson(text, path);
    }

    /// <summary>Reads a report from JSON text and checks that it agrees with itself.</summary>
    /// <param name="json">The text.</param>
    /// <param name="name">What to call the text in messages, such as its path.</param>
    /// <exception cref="InputException">It is not such a report.</exception>
    public static SelectionReport FromJson(string json, string name = "selection.json")
    {
        ArgumentNullException.ThrowIfNull(json);
        try
        {
            var report = JsonSerializer.Deserialize(json, Format.SelectionReport) ?? throw new InputException($"{name}: holds null, not a selection report: select layers anew");
            report.Validate(name);
            return report;
        }
        catch (JsonException e)
        {
            var line = e.LineNumber is { } at ? $", line {at + 1}" : "";
            throw new InputException($"{name}{line}: not a selection report ({e.Message.ReplaceLineEndings(" ")}): select layers anew", e);
        }
    }

    private void Validate(string name)
    {
        var count = Layers.Count;
        Require(count > 0, "layers is empty");
        Require(Rule is "paper" or "plain", $"rule is \"{Rule}\", not paper or plain");
        Require(Strategy == "explicit" || SelectionOptions.StrategyNames.Contains(Strategy), $"strategy \"{Strategy}\" is unknown");
        Require(Ratio is null || (Ratio > 0 && Ratio <= 1), $"ratio {Ratio} is not above 0 and at most 1");
        Require(Samples >= 0, $"samples is {Samples}");
        Require(Mask.Length == count && Mask.All(c => c is '0' or '1'), $"mask \"{Mask}\" is not one digit for each of {count} layers");
        foreach (var (list, field) in new[] { (Order, "order"), (Selected, "selected"), (LeftOut, "left_out") })
        {
            Require(list.All(l => l >= 0 && l < count), $"{field} names a layer that does not exist among {count}");
            Require(list.Distinct().Count() == list.Count, $"{field} names a layer twice");
        }
        Require(LayerSelection.MaskOf(Selected, count) == Mask, "mask and selected differ");
        Require(Selected.All(Order.Contains), "selected names a layer that order lacks");
        Require(LowestAdaptedLayer == (Selected.Count == 0 ? null : Selected.Min()), $"lowest_adapted_layer is {LowestAdaptedLayer?.ToString() ?? "null"}, which is not the lowest selected");
        Require(DroppedFirst is null || (Order.Contains(DroppedFirst.Value) && !Selected.Contains(DroppedFirst.Value)), "dropped_first is not in order, or is selected");
        for (var l = 0; l < count; l++)
        {
            var layer = Layers[l];
            Require(layer?.Layer == l, $"layers[{l}] is not layer {l}");
            Require(layer!.Selected == (Mask[l] == '1'), $"layers[{l}].selected and mask differ");
            Require(layer.Bootstrap is null || layer.Bootstrap.SelectedFraction is >= 0 and <= 1, $"layers[{l}].bootstrap.selected_fraction is not between 0 and 1");
        }
        // What JSON has no number for becomes infinite when it is read, and could not be written again.
        Require(Layers.All(l => Finite(l.Cka, l.CkaDebiased, l.Cosine, l.Angular, l.Gradient, l.Bootstrap?.CkaMean, l.Bootstrap?.CkaLow, l.Bootstrap?.CkaHigh)) && Finite(Predicted?.FlopsPerStep), "a number is too large");
        Require(Predicted is null or { TrainableParameters: >= 0, FlopsPerStep: >= 0 } && (Predicted?.MemoryBytes.Values.All(b => b >= 0) ?? true), "predicted holds a negative amount");

        static bool Finite(params ReadOnlySpan<double?> numbers)
        {
            foreach (var number in numbers)
                if (number is { } value && !double.IsFinite(value))
                    return false;
            return true;
        }

        void Require(bool condition, string what)
        {
            if (!condition)
                throw new InputException($"{name}: {what}: select layers anew");
        }
    }
}

/// <summary>One layer in a <see cref="SelectionReport"/>.</summary>
public sealed record LayerReport
{
    /// <summary>Index of the layer, from 0.</summary>
    public required int Layer { get; init; }

    /// <summary>Linear CKA (biased) between the layer's input and output; null where undefined or not measured.</summary>
    public double? Cka { get; init; }

    /// <summary>Debiased CKA; null where undefined or not measured.</summary>
    public double? CkaDebiased { get; init; }

    /// <summary>Mean cosine; null where undefined or not measured.</summary>
    public double? Cosine { get; init; }

    /// <summary>Mean angle / π; null where undefined or not measured.</summary>
    public double? Angular { get; init; }

    /// <summary>Norm of the gradient of the layer's adapter at its beginning; null where not measured or without an adapter.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? Gradient { get; init; }

    /// <summary>Bytes that the layer's adapter takes in a training with adapters on all layers; null where not planned.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public long? GradientBytes { get; init; }

    /// <summary>The layer's input is constant over the samples, so its CKA is undefined.</summary>
    public bool ConstantInput { get; init; }

    /// <summary>The layer is chosen.</summary>
    public required bool Selected { get; init; }

    /// <summary>Stability under resampling; null if it was not estimated.</summary>
    public BootstrapReport? Bootstrap { get; init; }
}

/// <summary>Stability of one layer in a <see cref="SelectionReport"/>.</summary>
public sealed record BootstrapReport
{
    /// <summary>Share of the resamples in which the layer was chosen.</summary>
    public required double SelectedFraction { get; init; }

    /// <summary>Mean of the biased CKA over resamples.</summary>
    public double? CkaMean { get; init; }

    /// <summary>2.5th percentile of the biased CKA.</summary>
    public double? CkaLow { get; init; }

    /// <summary>97.5th percentile of the biased CKA.</summary>
    public double? CkaHigh { get; init; }

    /// <summary>2.5th percentile of the debiased CKA over halves of the samples, drawn without replacement.</summary>
    public double? CkaDebiasedLow { get; init; }

    /// <summary>97.5th percentile of it.</summary>
    public double? CkaDebiasedHigh { get; init; }
}

/// <summary>What training with a selection will take.</summary>
public sealed record PredictedCost
{
    /// <summary>Peak memory by category, such as weights, adapters, optimizer, saved_activations.</summary>
    public required IReadOnlyDictionary<string, long> MemoryBytes { get; init; }

    /// <summary>Number of trainable parameters.</summary>
    public required long TrainableParameters { get; init; }

    /// <summary>Floating point operations of one training step.</summary>
    public required double FlopsPerStep { get; init; }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    WriteIndented = true,
    NewLine = "\n",
    RespectNullableAnnotations = true,
    AllowDuplicateProperties = false)]
[JsonSerializable(typeof(SelectionReport))]
internal sealed partial class SelectionJson : JsonSerializerContext;
