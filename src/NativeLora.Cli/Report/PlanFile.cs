using System.Text.Json;
using NativeLora.Graphs;
using NativeLora.Selection;

namespace NativeLora.Cli.Report;

/// <summary>What a training step was planned to take, with the chosen layers and with all: the content of <c>plan.json</c>.</summary>
/// <param name="Model">The model, as the user named it.</param>
/// <param name="Capacity">The batch that it was planned for.</param>
/// <param name="Chosen">With adapters on the chosen layers.</param>
/// <param name="All">With adapters on all layers; null where those are the chosen ones, or where there are no adapters.</param>
internal sealed record PlanFile(string Model, BatchSize Capacity, PlannedMask Chosen, PlannedMask? All)
{
    public const string FileName = "plan.json";

    /// <summary>Writes it into a run's folder.</summary>
    public void Write(string folder) => RunFiles.Write(Path.Combine(folder, FileName), this);

    /// <exception cref="InputException">It is malformed.</exception>
    public static PlanFile Read(string path)
    {
        var plan = RunFiles.Read<PlanFile>(path);
        RunFiles.Require(plan.Chosen.IsWhole && plan.All is not { IsWhole: false }, path, "its lists differ in length or hold negative numbers");
        return plan;
    }
}

/// <summary>A step with adapters on some layers.</summary>
/// <param name="Mask">One digit a layer.</param>
/// <param name="MemoryBytes">By category, as in <c>selection.json</c>.</param>
/// <param name="TrainableParameters">Elements that are trained.</param>
/// <param name="FlopsPerStep">Operations of a step over a batch at capacity.</param>
/// <param name="Layers">By layer; -1: embeddings, the number of layers: head.</param>
/// <param name="Nodes">The operations in the order in which they run.</param>
internal sealed record PlannedMask(
    string Mask, IReadOnlyDictionary<string, long> MemoryBytes, long TrainableParameters, double FlopsPerStep, IReadOnlyList<PlannedLayer> Layers, NodeList Nodes)
{
    /// <summary>Bytes of the arena that hold something while each operation runs.</summary>
    public required IReadOnlyList<long> LiveBytes { get; init; }

    public bool IsWhole =>
        Nodes.IsWhole && LiveBytes.Count == Nodes.Op.Count && LiveBytes.All(b => b >= 0) && MemoryBytes.Values.All(b => b >= 0) && Mask.All(c => c is '0' or '1')
        && Layers.All(l => l is { SavedBytes: >= 0, TrainableParameters: >= 0 });

    public static PlannedMask Of(TrainingCost cost) => Of(cost.Mask, cost.Plan, cost.ToReport(), cost.Layers);

    /// <summary>A training's own plan.</summary>
    public static PlannedMask Of(string mask, MemoryPlan plan, MemoryReport memory)
    {
        var layers = plan.Layers(plan.Capacity);
        var parameters = plan.Graph.Trainable.Sum(p => p.Shape.Elements(plan.Capacity));
        return Of(mask, plan, new TrainingCost(mask, null, plan, memory, parameters, layers).ToReport(), layers);
    }

    private static PlannedMask Of(string mask, MemoryPlan plan, PredictedCost cost, IReadOnlyList<LayerCost> layers) => new(
        mask, cost.MemoryBytes, cost.TrainableParameters, cost.FlopsPerStep,
        [.. layers.Select(l => new PlannedLayer(l.Layer, l.SavedBytes, l.ParameterElements, l.ForwardFlops, l.BackwardFlops))], NodeList.Of(plan))
    {
        LiveBytes = plan.LiveBytes,
    };
}

/// <summary>What a layer takes.</summary>
internal sealed record PlannedLayer(int Layer, long SavedBytes, long TrainableParameters, double ForwardFlops, double BackwardFlops);

/// <summary>The operations of a step, a list a column.</summary>
/// <param name="Op">Names of the ops.</param>
/// <param name="Name">Names of the modules.</param>
/// <param name="Layer">-1: embeddings, the number of layers: head.</param>
/// <param name="Backward">Whether it belongs to the backward pass.</param>
internal sealed record NodeList(IReadOnlyList<string> Op, IReadOnlyList<string> Name, IReadOnlyList<int> Layer, IReadOnlyList<bool> Backward)
{
    public bool IsWhole => Op.Count > 0 && Name.Count == Op.Count && Layer.Count == Op.Count && Backward.Count == Op.Count && Op.All(o => o is not null) && Name.All(n => n is not null);

    public static NodeList Of(MemoryPlan plan)
    {
        var nodes = plan.Graph.Nodes;
        return new NodeList([.. nodes.Select(n => n.Op.Name)], [.. nodes.Select(n => n.Name)], [.. nodes.Select(n => n.Layer)], [.. nodes.Select(n => n.Phase == Phase.Backward)]);
    }
}

/// <summary>JSON files of a run that the report reads again.</summary>
internal static class RunFiles
{
    private static readonly JsonSerializerOptions Format = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        AllowDuplicateProperties = false,
        MaxDepth = 32,
    };

    public static void Write<T>(string path, T value) => Checkpoints.AtomicFile.WriteAllText(path, JsonSerializer.Serialize(value, Format) + "\n");

    /// <exception cref="InputException">It cannot be read or is malformed.</exception>
    public static T Read<T>(string path)
    {
        try
        {
            return JsonSerializer.Deserialize<T>(File.ReadAllBytes(path), Format) ?? throw new JsonException("it holds null");
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw Bad(path, e.Message, e);
        }
    }

    public static void Require(bool condition, string path, string what)
    {
        if (!condition)
            throw Bad(path, what);
    }

    public static InputException Bad(string path, string what, Exception? inner = null) =>
        new($"{path}: cannot be read: {what.ReplaceLineEndings(" ").TrimEnd('.')}; make the run anew, or remove this file to do without it", inner);
}
