using System.Runtime.ExceptionServices;
using NativeLora.Adapters;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Tensors;

namespace NativeLora.Training;

/// <summary>
/// A pretrained model with what is trained on top of it: adapters and modules in full, or everything. Owns the trainable tensors, which
/// all sessions made here share.
/// </summary>
public sealed class TrainableModel : IDisposable
{
    private TrainableModel(PretrainedModel pretrained, ModelHead head, Trainables trainables, LoraConfig? config, ResolvedTargets? targets, bool training, OptimizerKind optimizer)
    {
        (Pretrained, Head, Trainables, Config, Targets) = (pretrained, head, trainables, config, targets);
        var graph = pretrained.NewGraph(trainables);
        pretrained.Model.Build(graph, new BuildOptions { Head = head, Loss = true, MaxLength = 1 });
        pretrained.Weights.Check(graph);
        Parameters = new ParameterStore(pretrained.Device, graph, training, optimizer) { WeightDecay = _ => 0 };
        BaseInitial = graph;
        Weights = pretrained.Weights;
    }

    private Graph BaseInitial { get; }

    /// <summary>The base.</summary>
    public PretrainedModel Pretrained { get; }

    /// <summary>What stands on top.</summary>
    public ModelHead Head { get; }

    /// <summary>What is trained.</summary>
    public Trainables Trainables { get; }

    /// <summary>PEFT's settings; null where everything is trained.</summary>
    public LoraConfig? Config { get; }

    /// <summary>The modules that the settings mean; null where everything is trained.</summary>
    public ResolvedTargets? Targets { get; }

    /// <summary>The trainable tensors.</summary>
    public ParameterStore Parameters { get; }

    /// <summary>
    /// The frozen weights: the base's, or, where the adapter's initialisation takes a part of them (PiSSA, OLoRA), what is left, which this
    /// model owns.
    /// </summary>
    public ModelWeights Weights { get; private set; }

    /// <summary>A and B as the decomposition made them; null for adapters that leave the base as it is.</summary>
    private AdapterWeights? Parts { get; set; }

    /// <summary>Adapters by PEFT's settings, newly initialised, or with the given tensors.</summary>
    /// <param name="pretrained">The base.</param>
    /// <param name="head">What stands on top.</param>
    /// <param name="config">Settings for this model.</param>
    /// <param name="weights">Tensors to begin with, perhaps without the modules saved in full, which are then the base's; null for new ones.</param>
    /// <param name="seed">Seed of new ones.</param>
    /// <param name="training">Whether gradients and optimizer state are needed.</param>
    /// <param name="optimizer">How the optimizer's state is held.</param>
    /// <exception cref="InputException">The settings do not fit the model or are not supported.</exception>
    public static TrainableModel WithAdapters(
        PretrainedModel pretrained, ModelHead head, LoraConfig config, AdapterWeights? weights = null, ulong seed = 0, bool training = true,
        OptimizerKind optimizer = OptimizerKind.AdamW)
    {
        ArgumentNullException.ThrowIfNull(pretrained);
        var (completed, targets, trainables) = Resolve(pretrained.Modules(head), config);
        var model = new TrainableModel(pretrained, head, trainables, completed, targets, training, optimizer);
        try
        {
            if (completed.ChangesBase)
                model.Decompose(completed, targets);
            weights = weights is null
                ? AdapterInitializer.Create(completed, targets, seed, model.BaseTensor, parts: model.Parts).Weights
                : AdapterInitializer.WithSavedModules(completed, targets, weights, seed, model.BaseTensor);
            model.TakeEmbeddings(weights);
            foreach (var key in model.Parameters.Names)
            {
                var (rows, columns) = model.Parameters.Size(key);
                var values = weights[key].Values;
                if (values.Length != (long)rows * columns)
                    throw new InputException($"the adapter's tensor {key} has {values.Length} values, the model asks for [{rows}, {columns}]; take the adapter of this model");
                model.Parameters.Write(key, values);
            }
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Adapters on chosen layers.</summary>
    /// <param name="pretrained">The base.</param>
    /// <param name="head">What stands on top.</param>
    /// <param name="config">Settings, as if for all layers.</param>
    /// <param name="layers">Layers that get adapters; null for all, empty for none: only what is trained in full.</param>
    /// <param name="seed">Seed of the adapters.</param>
    /// <param name="start">Tensors to begin with; null for new ones.</param>
    /// <param name="optimizer">How the optimizer's state is held.</param>
    /// <exception cref="InputException">The settings do not fit the model or are not supported.</exception>
    public static TrainableModel OnLayers(
        PretrainedModel pretrained, ModelHead head, LoraConfig config, IReadOnlyCollection<int>? layers, ulong seed = 0, AdapterWeights? start = null,
        OptimizerKind optimizer = OptimizerKind.AdamW)
    {
        ArgumentNullException.ThrowIfNull(pretrained);
        config = layers switch
        {
            null => TargetResolver.WithinLayers(config, pretrained.Modules(head)),
            { Count: 0 } => TargetResolver.WithoutAdapters(config),
            _ => TargetResolver.ForLayers(config, pretrained.Modules(head), layers),
        };
        return WithAdapters(pretrained, head, config, start, seed, optimizer: optimizer);
    }

    /// <summary>The settings completed as PEFT does it, the modules they mean, and what a graph needs to know.</summary>
    public static (LoraConfig Config, ResolvedTargets Targets, Trainables Trainables) Resolve(ModelModules modules, LoraConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        var completed = TargetResolver.Complete(config, modules);
        var targets = TargetResolver.Resolve(completed, modules);
        if (completed.UnsupportedReason(targets) is { } reason)
            throw new InputException($"not supported yet: {reason}");
        if (targets.Adapted.FirstOrDefault(a => a.Module.IsOutputHead) is { } headed)
            throw new InputException($"not supported yet: an adapter on the head \"{headed.Name}\"; leave it out of target_modules");
        var biases = targets.TrainedBiases.Select(m => m.Name).ToHashSet();
        var slots = targets.Adapted.ToDictionary(
            a => a.Name, a => new AdapterSlot(a.Rank, (float)a.Scaling, (float)completed.Dropout, completed.UseDora, biases.Contains(a.Name)));
        return (completed, targets, Trainables.Of(slots, targets.SavedModules, biases.Where(b => !slots.ContainsKey(b)).Select(b => $"{b}.bias")));
    }

    /// <summary>The whole model, to be trained in full.</summary>
    public static TrainableModel InFull(PretrainedModel pretrained, ModelHead head, bool training = true, OptimizerKind optimizer = OptimizerKind.AdamW)
    {
        ArgumentNullException.ThrowIfNull(pretrained);
        var model = new TrainableModel(pretrained, head, Trainables.Everything, null, null, training, optimizer);
        foreach (var tensor in model.BaseInitial.Trainable)
            model.Parameters.Write(tensor.Name, pretrained.Weights.Values(tensor, model.Fresh(tensor)));
        return model;
    }

    /// <summary>A graph over the trainable tensors.</summary>
    /// <param name="options">What it is built for; head and loss as they are given there.</param>
    /// <param name="training">Whether dropout acts.</param>
    /// <param name="backward">Whether the backward is appended.</param>
    /// <param name="recompute">Layers whose forward is run again before their backward: see <see cref="Differentiate.Loss"/>.</param>
    public (Graph Graph, ModelOutputs Outputs) Build(BuildOptions options, bool training = false, bool backward = false, IReadOnlyCollection<int>? recompute = null)
    {
        var graph = Pretrained.NewGraph(Trainables, training);
        var outputs = Pretrained.Model.Build(graph, options);
        if (backward)
            Differentiate.Loss(graph, recompute);
        return (graph, outputs);
    }

    /// <summary>A session over the trainable tensors.</summary>
    public Session NewSession(Graph graph, BatchSize capacity) => NewSession(MemoryPlan.For(graph, capacity));

    /// <summary>A session over the trainable tensors, which may share the arena of another that never runs at the same time.</summary>
    internal Session NewSession(MemoryPlan plan, Session? beside = null, bool packWeights = false) => new(Pretrained.Device, plan, Weights, Parameters, packWeights, beside);

    /// <summary>The trainable tensors under PEFT's names.</summary>
    public AdapterWeights Export()
    {
        var (config, targets) = (Config, Targets);
        if (config is null || targets is null)
            throw new InvalidOperationException("the model is trained in full: it has no adapter");
        var weights = new AdapterWeights();
        foreach (var tensor in AdapterLayout.Tensors(config, targets))
            if (Parameters.Has(tensor.Key))
                weights.Set(tensor.Key, tensor.Shape, Parameters.Read(tensor.Key));
        return weights;
    }

    /// <summary>
    /// The settings and tensors that give this model over the untouched base: those of <see cref="Export"/>, or, where the base was
    /// changed (PiSSA, OLoRA), plain LoRA of twice the rank.
    /// </summary>
    public (LoraConfig Config, AdapterWeights Weights) ExportPlain()
    {
        var weights = Export();
        return Parts is { } parts ? PlainLora.Of(Config!, Targets!, weights, parts) : (Config!, weights);
    }

    private void Decompose(LoraConfig config, ResolvedTargets targets)
    {
        if (targets.Adapted.FirstOrDefault(a => BaseWeight($"{a.Name}.weight").Type.IsBlock()) is { } held)
            throw new InputException($"init_lora_weights \"{config.InitLoraWeights}\" takes a part out of {held.Name}, which is held in blocks of {BaseWeight($"{held.Name}.weight").Type}: open the model with --weights bf16 and without --quantize, or choose another initialisation");
        var (residuals, parts) = (new ModelWeights(Pretrained.Weights), new AdapterWeights());
        Weights = residuals;
        var done = new WeightParts[targets.Adapted.Count];
        // A few at a time, as each of them holds its matrix in fp64.
        var width = Math.Max(1, Math.Min(Pretrained.Device.Workers, 8));
        for (var first = 0; first < done.Length; first += width)
        {
            var last = Math.Min(done.Length, first + width);
            var bases = Enumerable.Range(first, last - first).Select(i => Required($"{targets.Adapted[i].Name}.weight")).ToArray();
            try
            {
                Parallel.For(first, last, i =>
                    done[i] = WeightDecomposition.Of(config.InitLoraWeights, bases[i - first], targets.Adapted[i], Pretrained.Weights.TypeOf($"{targets.Adapted[i].Name}.weight")));
            }
            catch (AggregateException e)
            {
                ExceptionDispatchInfo.Throw(e.InnerExceptions[0]);
            }
            for (var i = first; i < last; i++)
            {
                var (adapted, (a, b, residual)) = (targets.Adapted[i], done[i]);
                residuals.Replace(BaseWeight($"{adapted.Name}.weight"), residual);
                parts.Set(AdapterLayout.LoraA(adapted.Name), [adapted.Rank, adapted.Module.InFeatures], a);
                parts.Set(AdapterLayout.LoraB(adapted.Name), [adapted.Module.OutFeatures, adapted.Rank], b);
                done[i] = new WeightParts([], [], []);
            }
        }
        Parts = parts;
    }

    /// <summary>PEFT stores the table beneath an adapter on an embedding; where it is not the base's, it stands for it.</summary>
    private void TakeEmbeddings(AdapterWeights weights)
    {
        if (Targets is not { } targets)
            return;
        foreach (var adapted in targets.Adapted.Where(a => a.Module.Kind == ModuleKind.Embedding))
        {
            var name = $"{adapted.Name}.weight";
            if (!weights.Tensors.TryGetValue($"{adapted.Name}.base_layer.weight", out var stored) || stored.Values.AsSpan().SequenceEqual(Required(name)))
                continue;
            if (ReferenceEquals(Weights, Pretrained.Weights))
                Weights = new ModelWeights(Pretrained.Weights);
            Weights.Replace(BaseWeight(name), stored.Values);
        }
    }

    private Tensor BaseWeight(string name) => BaseInitial.Weights.First(t => t.Name == name);

    private float[] Required(string name) => BaseTensor(name) ?? throw new InputException($"{Pretrained.Checkpoint.Path}: there is no tensor \"{name}\", which the adapter changes");

    private FreshWeight? Fresh(Tensor tensor) => BaseInitial.Fresh.TryGetValue(tensor, out var fresh) ? fresh : null;

    /// <summary>Values of a weight of the base: the checkpoint's, or fresh ones. A trained bias of an adapted module has PEFT's name for it.</summary>
    private float[]? BaseTensor(string name)
    {
        if (BaseInitial.Weights.FirstOrDefault(t => t.Name == name) is { } weight)
            return Pretrained.Weights.Values(weight, Fresh(weight));
        var beneath = name.EndsWith(".bias", StringComparison.Ordinal) ? $"{name[..^".bias".Length]}.base_layer.bias" : name;
        return BaseInitial.Trainable.FirstOrDefault(t => t.Name == beneath) is { } bias ? Pretrained.Weights.Values(name, bias.Shape, null) : null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Parameters.Dispose();
        if (!ReferenceEquals(Weights, Pretrained.Weights))
            Weights.Dispose();
    }
}
