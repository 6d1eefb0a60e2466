using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using NativeLora.Adapters;
using NativeLora.Checkpoints;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Tensors;

namespace NativeLora.Training;

/// <summary>Files of what is trained: an adapter as PEFT has it, or a whole model, and the optimizer's moments.</summary>
internal static class TrainedTensors
{
    public const string OptimizerFile = "optimizer.safetensors";
    private const string ModelFile = "model.safetensors";
    private const string First = "exp_avg.";
    private const string Second = "exp_avg_sq.";
    private const string Scales = ".absmax";

    /// <summary>Names of the files that <see cref="Save"/> writes.</summary>
    public static IReadOnlyList<string> Files(TrainableModel model) =>
        model.Config is null ? [ModelFile, "config.json"]
        : [.. Labels(model) is null ? (string[])[] : [LabelsFile.Name], "adapter_model.safetensors", "adapter_config.json"];

    /// <summary>Writes the trained tensors in fp32: a PEFT adapter, or, where everything is trained, a model folder.</summary>
    /// <param name="model">The model.</param>
    /// <param name="folder">Where to.</param>
    /// <param name="plain">Whether an adapter over a changed base (PiSSA, OLoRA) is written as plain LoRA over the untouched one.</param>
    /// <exception cref="RunException">A file cannot be written.</exception>
    public static void Save(TrainableModel model, string folder, bool plain = false)
    {
        if (model.Config is { } config)
        {
            var weights = default(AdapterWeights);
            if (plain)
                (config, weights) = model.ExportPlain();
            AdapterFile.SaveLabelled(folder, config, model.Pretrained.Modules(model.Head), weights ?? model.Export(), Labels(model));
            return;
        }
        var parameters = model.Parameters;
        var stored = Unread(model);
        var tensors = SafeTensorsWriter.Content([
            .. parameters.Names.Select(name => TensorToWrite.Streamed(
                FileName(model, name), ElementType.F32, Shape(model, name), to => to.Write(MemoryMarshal.AsBytes(parameters.Read(name).AsSpan())))),
            .. stored.Select(tensor => TensorToWrite.Streamed(
                tensor.Name, ElementType.F32, tensor.Shape, to => to.Write(MemoryMarshal.AsBytes(model.Pretrained.Checkpoint.ReadFloat32(tensor.Name).AsSpan())))),
        ]);
        var modules = model.Pretrained.Modules(model.Head);
        var json = JsonNode.Parse(MergedConfig.Write(model.Pretrained.Model.Config.Json, modules, Labels(model), untied: false))!.AsObject();
        json.Remove("torch_dtype");
        json["dtype"] = "float32";
        AtomicFile.WriteTogether([new(Path.Combine(folder, ModelFile), tensors), new(Path.Combine(folder, "config.json"), AtomicFile.Text(json.ToJsonString(new JsonSerializerOptions { WriteIndented = true })))]);
    }

    /// <summary>Reads what <see cref="Save"/> wrote.</summary>
    /// <exception cref="InputException">A file is missing or belongs to another model.</exception>
    public static void Load(TrainableModel model, string folder)
    {
        var parameters = model.Parameters;
        if (model.Config is not null)
        {
            var weights = AdapterFile.Load(folder, model.Pretrained.Modules(model.Head)).Weights.Tensors;
            foreach (var name in parameters.Names)
                parameters.Write(name, weights.TryGetValue(name, out var tensor) ? tensor.Values : throw new InputException($"{folder}: the adapter has no tensor {name}"));
            return;
        }
        using var file = SafeTensorsFile.Open(Path.Combine(folder, ModelFile));
        foreach (var name in parameters.Names)
            parameters.Write(name, Values(file, FileName(model, name), parameters.Size(name)));
    }

    // Where files have names of their own, those of the base are kept, so that others read them too.
    private static string FileName(TrainableModel model, string name) =>
        model.Pretrained.Model.RenamesTensors ? model.Pretrained.Weights.StoredName(name) ?? name : name;

    /// <summary>What a file of such a model has and the graph does not read, such as the last layer of a vision tower.</summary>
    private static List<TensorInfo> Unread(TrainableModel model)
    {
        if (!model.Pretrained.Model.RenamesTensors)
            return [];
        var read = model.Parameters.Names.Select(name => FileName(model, name)).ToHashSet();
        return [.. model.Pretrained.Checkpoint.Tensors.Values
            .Where(t => !read.Contains(t.Name) && t.Type is ElementType.F32 or ElementType.F16 or ElementType.BF16 or ElementType.F64)
            .OrderBy(t => t.Name, StringComparer.Ordinal)];
    }

    /// <summary>Writes the optimizer's moments.</summary>
    /// <exception cref="RunException">The file cannot be written.</exception>
    public static void SaveOptimizer(TrainableModel model, string folder)
    {
        var parameters = model.Parameters;
        var tensors = new List<TensorToWrite>();
        foreach (var (prefix, moments) in Moments(parameters))
            foreach (var name in parameters.Names)
            {
                var (offset, count) = (parameters.MomentOffset(name), parameters.Count(name));
                if (!parameters.Optimizer.IsQuantized(count))
                {
                    tensors.Add(Part(prefix + name, ElementType.F32, Shape(model, name), moments, offset, 4 * count));
                    continue;
                }
                var blocks = OptimizerKinds.Blocks(count);
                tensors.Add(Part(prefix + name + Scales, ElementType.F32, [blocks], moments, offset, 4 * blocks));
                tensors.Add(Part(prefix + name, ElementType.U8, Shape(model, name), moments, offset + 4 * blocks, count));
            }
        SafeTensorsWriter.Write(Path.Combine(folder, OptimizerFile), tensors);
    }

    /// <summary>Reads them.</summary>
    /// <exception cref="InputException">The file is missing or belongs to another training.</exception>
    public static void LoadOptimizer(TrainableModel model, string folder)
    {
        var parameters = model.Parameters;
        using var file = SafeTensorsFile.Open(Path.Combine(folder, OptimizerFile));
        foreach (var (prefix, moments) in Moments(parameters))
            foreach (var name in parameters.Names)
            {
                var (offset, count) = (parameters.MomentOffset(name), parameters.Count(name));
                if (!parameters.Optimizer.IsQuantized(count))
                {
                    moments.Write(offset, MemoryMarshal.AsBytes(Values(file, prefix + name, parameters.Size(name)).AsSpan()));
                    continue;
                }
                var blocks = OptimizerKinds.Blocks(count);
                moments.Write(offset, Bytes(file, prefix + name + Scales, ElementType.F32, blocks));
                moments.Write(offset + 4 * blocks, Bytes(file, prefix + name, ElementType.U8, count));
            }
    }

    // What the outputs of a classifier are called. PEFT's files have no place for it.
    private static string[]? Labels(TrainableModel model) =>
        model.Head == Models.ModelHead.SequenceClassification && model.Pretrained.Model.Config.Id2Label is { Count: > 0 } names
            ? [.. names.OrderBy(n => n.Key).Select(n => n.Value)]
            : null;

    private static (string Prefix, DeviceBuffer Values)[] Moments(ParameterStore parameters) =>
        [(First, parameters.FirstMoments!), (Second, parameters.SecondMoments!)];

    private static TensorToWrite Part(string name, ElementType type, IEnumerable<long> shape, DeviceBuffer from, long offset, long bytes) =>
        TensorToWrite.Streamed(name, type, shape, to =>
        {
            var buffer = new byte[Math.Min(bytes, 1 << 20)];
            for (long at = 0; at < bytes; at += buffer.Length)
            {
                var part = buffer.AsSpan(0, (int)Math.Min(buffer.Length, bytes - at));
                from.Read(offset + at, part);
                to.Write(part);
            }
        });

    private static ReadOnlySpan<byte> Bytes(SafeTensorsFile file, string name, ElementType type, long count) =>
        file.Tensors.TryGetValue(name, out var tensor) && tensor.Type == type && tensor.Count == count
            ? file.Bytes(name)
            : throw new InputException($"{file.Path}: there is no tensor {name} of {count} values of type {type}; the checkpoint belongs to another training");

    private static float[] Values(SafeTensorsFile file, string name, (int Rows, int Columns) size)
    {
        var values = file.ReadFloat32(name);
        return values.LongLength == (long)size.Rows * size.Columns
            ? values
            : throw new InputException($"{file.Path}: tensor {name} has {values.Length} values, expected {(long)size.Rows * size.Columns}");
    }

    // The engine holds vectors as one row; a file says whether it was a vector or a matrix of one row.
    private static IEnumerable<long> Shape(TrainableModel model, string name)
    {
        var (rows, columns) = model.Parameters.Size(name);
        var weights = model.Pretrained.Weights;
        // A convolution's weight has more sizes than the two that it has here.
        if (rows > 1)
            return weights.StoredName(name) is { } found ? model.Pretrained.Checkpoint.Find(found)!.Shape : [rows, columns];
        var isVector = weights.StoredName(name) is { } stored
            ? model.Pretrained.Checkpoint.Find(stored)!.Shape.Length == 1
            : !AdamWOptions.Decays(name);
        return isVector ? [columns] : [rows, columns];
    }
}
