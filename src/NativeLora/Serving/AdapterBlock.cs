using System.Runtime.InteropServices;
using NativeLora.Adapters;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Serving;

/// <summary>
/// One adapter in memory: its tensors in a block of their own on the device, and what it does at each module. Sets share it; the last that
/// lets go of it frees it.
/// </summary>
internal sealed class AdapterBlock
{
    private readonly Dictionary<string, (long Offset, int Rows, int Columns)> _places = new(StringComparer.Ordinal);
    private readonly List<(string Module, BankSlot Slot)> _slots = [];
    private int _holders = 1;

    private AdapterBlock(string name, DeviceBuffer values) => (Name, Values) = (name, values);

    public string Name { get; }

    /// <summary>The tensors, fp32, one after another.</summary>
    public DeviceBuffer Values { get; }

    /// <summary>What it does at each module, under the number 0.</summary>
    public IReadOnlyList<(string Module, BankSlot Slot)> Slots => _slots;

    /// <summary>Where each tensor lies, in elements.</summary>
    public IReadOnlyDictionary<string, (long Offset, int Rows, int Columns)> Places => _places;

    /// <summary>Copies an adapter to the device of a model.</summary>
    /// <exception cref="InputException">It does not fit the model, or holds what cannot be switched.</exception>
    public static AdapterBlock Of(PretrainedModel pretrained, ModelHead head, ModelModules modules, NamedAdapter adapter)
    {
        var (config, weights) = (adapter.Config, adapter.Weights);
        try
        {
            if (config.ChangesBase)
            {
                using var decomposed = TrainableModel.WithAdapters(pretrained, head, config, weights, training: false);
                (config, weights) = decomposed.ExportPlain();
            }
            var (completed, targets, _) = TrainableModel.Resolve(modules, config);
            AdapterFile.Check(completed, targets, weights, withoutHead: true);
            var taken = new Taken(pretrained, completed, targets, weights);
            foreach (var module in modules.Modules)
                taken.Take(module);
            return taken.ToBlock(adapter.Name);
        }
        catch (InputException error)
        {
            throw new InputException($"adapter \"{adapter.Name}\": {error.Message}", error);
        }
    }

    public void Hold() => Interlocked.Increment(ref _holders);

    public void LetGo()
    {
        if (Interlocked.Decrement(ref _holders) == 0)
            Values.Dispose();
    }

    /// <summary>What is gathered of an adapter before it is copied.</summary>
    private sealed class Taken(PretrainedModel pretrained, LoraConfig config, ResolvedTargets targets, AdapterWeights weights)
    {
        private readonly List<(string Key, int Rows, int Columns, float[] Values)> _tensors = [];
        private readonly List<(string Module, BankSlot Slot)> _slots = [];

        public AdapterBlock ToBlock(string name)
        {
            var block = new AdapterBlock(name, pretrained.Device.Allocate(4 * _tensors.Sum(t => (long)t.Values.Length)));
            try
            {
                long offset = 0;
                foreach (var (key, rows, columns, values) in _tensors)
                {
                    if (values.Length != (long)rows * columns)
                        throw new InputException($"{key} holds {values.Length} values, not {rows} x {columns}; save the adapter again");
                    block._places[key] = (offset, rows, columns);
                    block.Values.Write(4 * offset, MemoryMarshal.AsBytes(values.AsSpan()));
                    offset += values.Length;
                }
            }
            catch
            {
                block.LetGo();
                throw;
            }
            block._slots.AddRange(_slots);
            return block;
        }

        public void Take(ModuleInfo module)
        {
            var adapted = targets.Find(module.Name);
            var inFull = targets.SavedLeaves.Contains(module) && weights.Tensors.ContainsKey($"{module.Name}.weight");
            var ownBias = (inFull && module.HasBias) || targets.TrainedBiases.Contains(module);
            if (adapted is null && !inFull && !ownBias)
                return;
            if ((inFull || ownBias) && module.Kind != ModuleKind.Linear)
                throw new InputException($"{module.Name} is trained in full, which only linear layers can be where adapters are switched; merge this adapter into the base");
            void Set(string key, int rows, int columns, float[] values) => _tensors.Add(($"{module.Name}.{key}", rows, columns, values));
            void Copy(string key, string from)
            {
                var tensor = weights[from];
                Set(key, tensor.Shape.Count > 1 ? tensor.Shape[0] : 1, tensor.Shape[^1], tensor.Values);
            }
            if (inFull)
                Copy("weight", $"{module.Name}.weight");
            if (ownBias)
                Copy("bias", adapted is null ? $"{module.Name}.bias" : $"{module.Name}.base_layer.bias");
            if (adapted is not null && module.Kind == ModuleKind.Embedding)
            {
                RequireSameTable(module);
                Copy("lora_embedding_A", AdapterLayout.EmbeddingA(module.Name));
                Copy("lora_embedding_B", AdapterLayout.EmbeddingB(module.Name));
            }
            else if (adapted is not null)
            {
                Copy("lora_A.weight", AdapterLayout.LoraA(module.Name));
                Copy("lora_B.weight", AdapterLayout.LoraB(module.Name));
                if (config.UseDora)
                    Set("dora_scale", 1, module.OutFeatures, DoraScale(adapted));
            }
            _slots.Add((module.Name, new BankSlot(0, adapted?.Rank ?? 0, (float)(adapted?.Scaling ?? 0), config.UseDora && adapted is not null, inFull, ownBias)));
        }

        /// <summary>m / ‖W + s·BA‖ of each output: a number for each, as nothing is trained here.</summary>
        private float[] DoraScale(AdaptedModule adapted)
        {
            var scale = new float[adapted.Module.OutFeatures];
            AdapterInitializer.Norms(adapted, weights, scale, BaseWeight, parts: null);
            var magnitude = weights[AdapterLayout.Magnitude(adapted.Name)].Values;
            for (var o = 0; o < scale.Length; o++)
                scale[o] = magnitude[o] / scale[o];
            return scale;

            float[] BaseWeight(string name)
            {
                var shape = adapted.Module.WeightShape;
                return pretrained.Weights.Values(name, Shape.Fixed(shape[0], shape[1]), null);
            }
        }

        private void RequireSameTable(ModuleInfo module)
        {
            if (weights.Tensors.TryGetValue($"{module.Name}.base_layer.weight", out var stored)
                && !stored.Values.AsSpan().SequenceEqual(pretrained.Weights.Values($"{module.Name}.weight", Shape.Fixed(module.InFeatures, module.OutFeatures), null)))
                throw new InputException($"it holds another table {module.Name}.base_layer.weight than the base's, which cannot be switched; merge this adapter into its own base");
        }
    }
}
