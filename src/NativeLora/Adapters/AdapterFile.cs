using NativeLora.Checkpoints;
using NativeLora.Tensors;

namespace NativeLora.Adapters;

/// <summary>An adapter of a file, checked against its model.</summary>
/// <param name="Config">Its settings.</param>
/// <param name="Targets">What they mean for the model.</param>
/// <param name="Weights">Its tensors.</param>
public sealed record LoadedAdapter(LoraConfig Config, ResolvedTargets Targets, AdapterWeights Weights)
{
    /// <summary>
    /// Modules saved in full of which the file holds no tensor, as PEFT leaves them out when it converts PiSSA or OLoRA to plain LoRA:
    /// they stay the base's, or begin afresh.
    /// </summary>
    public IReadOnlyList<string> MissingModules { get; init; } = [];

    /// <summary>One line each: what of the settings matches nothing, and what the file lacks.</summary>
    public IReadOnlyList<string> Warnings => MissingModules.Count == 0 ? Targets.Warnings
        : [.. Targets.Warnings, $"the adapter holds no tensors of {string.Join(", ", MissingModules)}: the base's are used, or new ones to train (PEFT leaves a head out when it converts an adapter to plain LoRA)"];
}

/// <summary>PEFT's adapter folders: <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>.</summary>
public static class AdapterFile
{
    private const string Prefix = "base_model.model.";

    /// <summary>Reads an adapter. fp16 and bf16 tensors are widened to fp32.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="model">The model that it belongs to.</param>
    /// <exception cref="InputException">
    /// A file is missing or malformed, a setting does not fit the model (a layer out of range too), or the tensors are not
    /// exactly those that the settings ask for.
    /// </exception>
    public static LoadedAdapter Load(string folder, ModelModules model)
    {
        var configPath = ConfigPath(folder);
        var config = Renamed(LoraConfig.Load(configPath), model);
        ResolvedTargets targets;
        try
        {
            targets = TargetResolver.Resolve(config, model, strict: true);
        }
        catch (InputException error)
        {
            throw new InputException($"{configPath}: {error.Message}", error);
        }
        var wanted = AdapterLayout.Tensors(config, targets);
        var weights = ReadWeights(folder, (path, shapes) => Check(wanted, shapes, path, withoutHead: true), model.TensorName);
        return new(config, targets, weights) { MissingModules = Missing(wanted, weights.Tensors.ContainsKey) };
    }

    /// <summary>An adapter in memory, checked as one of a file.</summary>
    /// <param name="config">Its settings, as PEFT completes them.</param>
    /// <param name="weights">Its tensors.</param>
    /// <param name="model">The model that it is for.</param>
    /// <param name="where">What errors call it.</param>
    /// <exception cref="InputException">It does not fit the model.</exception>
    internal static LoadedAdapter Of(LoraConfig config, AdapterWeights weights, ModelModules model, string where)
    {
        var targets = TargetResolver.Resolve(config, model, strict: true);
        var wanted = AdapterLayout.Tensors(config, targets);
        Check(wanted, weights.Tensors.ToDictionary(t => t.Key, t => t.Value.Shape), where, withoutHead: true);
        return new(config, targets, weights) { MissingModules = Missing(wanted, weights.Tensors.ContainsKey) };
    }

    /// <summary>Reads an adapter as it is in its files, where there is no model to check it against. fp16 and bf16 tensors are widened to fp32.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="InputException">A file is missing or malformed.</exception>
    public static (LoraConfig Config, AdapterWeights Weights) Read(string folder) => (LoraConfig.Load(ConfigPath(folder)), ReadWeights(folder, (_, _) => { }, null));

    private static string ConfigPath(string folder)
    {
        var path = Path.Combine(folder, "adapter_config.json");
        return File.Exists(path) ? path : throw new InputException($"{folder} holds no adapter_config.json; give a folder that PEFT or this program wrote");
    }

    // Adapters of older versions of transformers call modules as the checkpoint does.
    private static LoraConfig Renamed(LoraConfig config, ModelModules model) =>
        model.TensorName is { } rename && config.TargetModules?.Names is { } names
            ? config with { TargetModules = ModuleSelector.Of(names.Select(rename)) } : config;

    /// <summary>
    /// Writes an adapter that PEFT loads: the configuration as PEFT completes it, the tensors in fp32. Each file appears
    /// whole or not at all, the settings last: at no moment are there tensors beside settings that are not theirs.
    /// </summary>
    /// <param name="folder">The folder, made if it is not there.</param>
    /// <param name="config">The settings.</param>
    /// <param name="model">The model.</param>
    /// <param name="weights">The tensors: exactly those that the settings ask for.</param>
    /// <exception cref="InputException">The settings do not fit the model, or the tensors not the settings.</exception>
    /// <exception cref="RunException">A file cannot be written.</exception>
    public static void Save(string folder, LoraConfig config, ModelModules model, AdapterWeights weights) => SaveLabelled(folder, config, model, weights, labels: null);

    /// <summary>The same with the names of the classes beside.</summary>
    internal static void SaveLabelled(string folder, LoraConfig config, ModelModules model, AdapterWeights weights, IReadOnlyList<string>? labels)
    {
        Check(config, TargetResolver.Resolve(config, model), weights);
        Write(folder, TargetResolver.Complete(config, model), weights, labels);
    }

    /// <summary>Writes an adapter as it is, where there is no model to check it against; files as by <see cref="Save"/>.</summary>
    /// <exception cref="RunException">A file cannot be written.</exception>
    public static void Write(string folder, LoraConfig config, AdapterWeights weights) => Write(folder, config, weights, labels: null);

    // Numbers of one training under the settings of another would look like an adapter: the settings come last.
    private static void Write(string folder, LoraConfig config, AdapterWeights weights, IReadOnlyList<string>? labels)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(weights);
        AtomicFile.WriteTogether(
        [
            .. labels is null ? (FileToWrite[])[] : [LabelsFile.ToWrite(folder, labels)],
            new(Path.Combine(folder, "adapter_model.safetensors"), SafeTensorsWriter.Content([.. weights.Tensors.Select(t => TensorToWrite.From(Prefix + t.Key, t.Value.Shape.Select(s => (long)s), t.Value.Values))])),
            new(Path.Combine(folder, "adapter_config.json"), AtomicFile.Text(config.ToJson())),
        ]);
    }

    private static AdapterWeights ReadWeights(string folder, Action<string, IReadOnlyDictionary<string, IReadOnlyList<int>>> check, Func<string, string>? rename)
    {
        var path = Path.Combine(folder, "adapter_model.safetensors");
        if (!File.Exists(path))
            throw new InputException(File.Exists(Path.Combine(folder, "adapter_model.bin"))
                ? $"{folder} holds adapter_model.bin, a Python pickle that is not read here; convert it where Python is: python -c \"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in torch.load('adapter_model.bin', weights_only=True).items()}}, 'adapter_model.safetensors')\""
                : $"{folder} holds no adapter_model.safetensors (nor an adapter_model.bin); give a folder that PEFT or this program wrote");
        using var file = SafeTensorsFile.Open(path);
        var names = new Dictionary<string, string>(StringComparer.Ordinal);
        var shapes = new Dictionary<string, IReadOnlyList<int>>(StringComparer.Ordinal);
        foreach (var (name, tensor) in file.Tensors)
        {
            if (!name.StartsWith(Prefix, StringComparison.Ordinal))
                throw new InputException($"{path}: tensor {Reject.OneLine(Reject.Quote(name))} does not begin with {Prefix}, as PEFT's do");
            if (tensor.Type is not (ElementType.F32 or ElementType.F16 or ElementType.BF16))
                throw new InputException($"{path}: tensor {Reject.OneLine(Reject.Quote(name))} is {tensor.Type}; adapters are F32, F16 or BF16");
            var key = Key(name[Prefix.Length..]);
            key = rename?.Invoke(key) ?? key;
            if (!names.TryAdd(key, name))
                throw new InputException($"{path}: tensors {Reject.OneLine(Reject.Quote(names[key]))} and {Reject.OneLine(Reject.Quote(name))} are the same one of the adapter; remove one of them");
            // A size over 31 bits fits no module, so it need not be told apart from the largest.
            shapes.Add(key, [.. tensor.Shape.Select(size => (int)Math.Min(size, int.MaxValue))]);
        }
        check(path, shapes);
        var weights = new AdapterWeights();
        foreach (var (key, shape) in shapes)
            weights.Set(key, shape, file.ReadFloat32(names[key]));
        return weights;
    }

    /// <summary>PEFT's key today for one that other versions of it write.</summary>
    private static string Key(string name)
    {
        const string Magnitude = ".lora_magnitude_vector.weight";
        if (name.EndsWith(Magnitude, StringComparison.Ordinal))
            return name[..^".weight".Length];
        return name.Replace(".modules_to_save.", ".", StringComparison.Ordinal);
    }

    /// <summary>The modules saved in full, if nothing of any of them is there.</summary>
    private static IReadOnlyList<string> Missing(IEnumerable<AdapterTensorInfo> wanted, Func<string, bool> isThere)
    {
        var saved = wanted.Where(t => t.Role is AdapterRole.SavedWeight or AdapterRole.SavedBias).ToList();
        return saved.Any(t => isThere(t.Key)) ? [] : [.. saved.Select(t => t.Module.Name).Distinct()];
    }

    /// <summary>Checks that the tensors are exactly those that the settings ask for.</summary>
    /// <param name="config">The settings.</param>
    /// <param name="targets">What they mean.</param>
    /// <param name="weights">The tensors.</param>
    /// <param name="withoutHead">Whether modules saved in full may be missing.</param>
    internal static void Check(LoraConfig config, ResolvedTargets targets, AdapterWeights weights, bool withoutHead = false) =>
        Check(AdapterLayout.Tensors(config, targets), weights.Tensors.ToDictionary(t => t.Key, t => t.Value.Shape), "the adapter", withoutHead);

    private static void Check(IReadOnlyList<AdapterTensorInfo> wanted, IReadOnlyDictionary<string, IReadOnlyList<int>> found, string where, bool withoutHead)
    {
        var left = withoutHead ? Missing(wanted, found.ContainsKey) : [];
        foreach (var tensor in wanted)
        {
            if (!found.TryGetValue(tensor.Key, out var shape))
            {
                if (tensor.Role != AdapterRole.FrozenEmbedding && !left.Contains(tensor.Module.Name))
                    throw new InputException($"{where}: tensor {Prefix}{tensor.Key} [{string.Join(", ", tensor.Shape)}] is missing; the adapter is incomplete or its config belongs to another");
            }
            else if (!shape.SequenceEqual(tensor.Shape))
                throw new InputException($"{where}: tensor {Prefix}{tensor.Key} is [{string.Join(", ", shape)}], expected [{string.Join(", ", tensor.Shape)}] from the adapter's config and the model");
        }
        var known = wanted.Select(t => t.Key).ToHashSet(StringComparer.Ordinal);
        if (found.Keys.FirstOrDefault(key => !known.Contains(key)) is { } extra)
            throw new InputException($"{where}: tensor {Prefix}{PeftPattern.Show(extra)} belongs to no module that the adapter's config targets in this model");
    }
}
