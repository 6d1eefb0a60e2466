namespace NativeLora.Adapters;

/// <summary>What one adapter brings to the combination at one module.</summary>
/// <param name="Module">The module's name.</param>
/// <param name="KeyA">Key of A.</param>
/// <param name="KeyB">Key of B.</param>
/// <param name="Rank">Its rank here.</param>
/// <param name="In">Columns of A.</param>
/// <param name="Out">Rows of B.</param>
/// <param name="Scaling">Its scaling here.</param>
/// <param name="Weight">The adapter's weight.</param>
/// <param name="A">[r, in].</param>
/// <param name="B">[out, r].</param>
internal sealed record CombinedPart(
    string Module, string KeyA, string KeyB, int Rank, int In, int Out, double Scaling, double Weight, float[] A, float[] B)
{
    private const string LinearA = ".lora_A.weight";
    private const string TableA = ".lora_embedding_A";
    private const string Frozen = ".base_layer.weight";

    /// <summary>Weight times scaling.</summary>
    public double Factor => Weight * Scaling;

    /// <summary>Whether a tensor is the frozen table beneath an adapter on an embedding.</summary>
    public static bool IsFrozen(string key, AdapterWeights weights) =>
        key.EndsWith(Frozen, StringComparison.Ordinal) && weights.Tensors.ContainsKey(AdapterLayout.EmbeddingA(key[..^Frozen.Length]));

    /// <summary>All modules of an adapter, by name.</summary>
    /// <param name="adapter">The adapter.</param>
    /// <param name="number">Its number, from 1, for messages.</param>
    /// <exception cref="InputException">It cannot be combined, or its tensors do not fit its settings.</exception>
    public static IReadOnlyList<CombinedPart> Of(WeightedAdapter adapter, int number)
    {
        var (config, weights) = (adapter.Config, adapter.Weights);
        config.Validate($"adapter {number}");
        if (!double.IsFinite(adapter.Weight) || !float.IsFinite((float)adapter.Weight))
            throw new InputException($"the weight of adapter {number} is not a finite number");
        if (config.UseDora)
            throw new InputException($"adapter {number} is a DoRA adapter (use_dora), whose magnitudes cannot be combined; merge it into the base");
        if (config.ChangesBase)
            throw new InputException($"adapter {number} begins as a part of the base (init_lora_weights \"{PeftPattern.Show(config.InitLoraWeights)}\"); convert it to plain LoRA first");

        var ranks = config.RankPattern.Select(p => (Pattern: PeftPattern.Suffix("rank_pattern", p.Key), p.Value)).ToList();
        var alphas = config.AlphaPattern.Select(p => (Pattern: PeftPattern.Suffix("alpha_pattern", p.Key), p.Value)).ToList();
        var parts = new List<CombinedPart>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (var key in weights.Tensors.Keys.Order(StringComparer.Ordinal))
        {
            var isTable = key.EndsWith(TableA, StringComparison.Ordinal);
            if (!isTable && !key.EndsWith(LinearA, StringComparison.Ordinal))
                continue;
            var module = key[..^(isTable ? TableA : LinearA).Length];
            var keyB = isTable ? AdapterLayout.EmbeddingB(module) : AdapterLayout.LoraB(module);
            if (!weights.Tensors.TryGetValue(keyB, out var b))
                throw new InputException($"adapter {number} has no tensor {PeftPattern.Show(keyB)} beside {PeftPattern.Show(key)}; it is incomplete");
            var a = weights[key];
            var rank = ranks.Where(p => p.Pattern.IsMatch(module)).Select(p => (int?)p.Value).FirstOrDefault() ?? config.Rank;
            var alpha = alphas.Where(p => p.Pattern.IsMatch(module)).Select(p => (double?)p.Value).FirstOrDefault() ?? config.Alpha;
            if (a.Shape is not [var rows, var width] || b.Shape is not [var height, var columns] || rows != rank || columns != rank || width == 0 || height == 0)
                throw new InputException($"adapter {number}: {PeftPattern.Show(key)} is [{string.Join(", ", a.Shape)}] and its B [{string.Join(", ", b.Shape)}]; expected [{rank}, in] and [out, {rank}] from the adapter's config");
            foreach (var (name, tensor) in new[] { (key, a), (keyB, b) })
                if (tensor.Values.Any(v => !float.IsFinite(v)))
                    throw new InputException($"adapter {number}: {PeftPattern.Show(name)} has values that are not finite");
            parts.Add(new(module, key, keyB, rank, width, height, config.ScalingOf(rank, alpha), adapter.Weight, a.Values, b.Values));
            seen.Add(key);
            seen.Add(keyB);
        }
        if (weights.Tensors.Keys.Order(StringComparer.Ordinal).FirstOrDefault(k => !seen.Contains(k) && !IsFrozen(k, weights)) is { } extra)
            throw new InputException($"adapter {number} holds {PeftPattern.Show(extra)}, which is no A or B of LoRA and cannot be combined; use adapters without modules_to_save and trained biases");
        if (parts.Count == 0)
            throw new InputException($"adapter {number} has no tensors");
        return parts;
    }
}
