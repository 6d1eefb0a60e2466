namespace NativeLora.Adapters;

/// <summary>What a tensor of an adapter file is.</summary>
public enum AdapterRole
{
    /// <summary>lora_A of a linear layer, [r, in].</summary>
    LoraA,

    /// <summary>lora_B of a linear layer, [out, r].</summary>
    LoraB,

    /// <summary>lora_embedding_A, [r, rows].</summary>
    EmbeddingA,

    /// <summary>lora_embedding_B, [width, r].</summary>
    EmbeddingB,

    /// <summary>DoRA's lora_magnitude_vector, [out].</summary>
    Magnitude,

    /// <summary>A bias of the base that is trained beside the adapters.</summary>
    Bias,

    /// <summary>The weight of a module saved in full.</summary>
    SavedWeight,

    /// <summary>The bias of a module saved in full.</summary>
    SavedBias,

    /// <summary>The frozen table beneath an adapter on an embedding, which PEFT saves beside; may be absent.</summary>
    FrozenEmbedding,
}

/// <summary>A tensor that an adapter file holds.</summary>
/// <param name="Key">PEFT's key without <c>base_model.model.</c>.</param>
/// <param name="Shape">Its shape.</param>
/// <param name="Role">What it is.</param>
/// <param name="Module">The module that it belongs to.</param>
public sealed record AdapterTensorInfo(string Key, IReadOnlyList<int> Shape, AdapterRole Role, ModuleInfo Module)
{
    /// <summary>Whether it is trained.</summary>
    public bool IsTrained => Role != AdapterRole.FrozenEmbedding;
}

/// <summary>Names and shapes of an adapter's tensors.</summary>
public static class AdapterLayout
{
    /// <summary>The tensors of an adapter: those of adapted modules first, in the model's order.</summary>
    public static IReadOnlyList<AdapterTensorInfo> Tensors(LoraConfig config, ResolvedTargets targets)
    {
        var tensors = new List<AdapterTensorInfo>();
        foreach (var adapted in targets.Adapted)
        {
            var (module, rank) = (adapted.Module, adapted.Rank);
            if (module.Kind == ModuleKind.Embedding)
            {
                tensors.Add(new(EmbeddingA(module.Name), [rank, module.InFeatures], AdapterRole.EmbeddingA, module));
                tensors.Add(new(EmbeddingB(module.Name), [module.OutFeatures, rank], AdapterRole.EmbeddingB, module));
                tensors.Add(new($"{module.Name}.base_layer.weight", module.WeightShape, AdapterRole.FrozenEmbedding, module));
            }
            else
            {
                tensors.Add(new(LoraA(module.Name), [rank, module.InFeatures], AdapterRole.LoraA, module));
                tensors.Add(new(LoraB(module.Name), [module.OutFeatures, rank], AdapterRole.LoraB, module));
            }
            if (config.UseDora)
                tensors.Add(new(Magnitude(module.Name), [module.OutFeatures], AdapterRole.Magnitude, module));
        }
        var names = targets.Adapted.Select(a => a.Name).ToHashSet();
        foreach (var module in targets.TrainedBiases)
            tensors.Add(new(names.Contains(module.Name) ? $"{module.Name}.base_layer.bias" : $"{module.Name}.bias", [module.OutFeatures], AdapterRole.Bias, module));
        foreach (var module in targets.SavedLeaves)
        {
            tensors.Add(new($"{module.Name}.weight", module.WeightShape, AdapterRole.SavedWeight, module));
            if (module.HasBias)
                tensors.Add(new($"{module.Name}.bias", [module.OutFeatures], AdapterRole.SavedBias, module));
        }
        return tensors;
    }

    /// <summary>Key of a linear module's A.</summary>
    public static string LoraA(string module) => $"{module}.lora_A.weight";

    /// <summary>Key of a linear module's B.</summary>
    public static string LoraB(string module) => $"{module}.lora_B.weight";

    /// <summary>Key of an embedding's A.</summary>
    public static string EmbeddingA(string module) => $"{module}.lora_embedding_A";

    /// <summary>Key of an embedding's B.</summary>
    public static string EmbeddingB(string module) => $"{module}.lora_embedding_B";

    /// <summary>Key of DoRA's magnitude vector.</summary>
    public static string Magnitude(string module) => $"{module}.lora_magnitude_vector";
}
