using System.Numerics.Tensors;

namespace NativeLora.Adapters;

/// <summary>How adapters are combined; the names are those of PEFT's <c>combination_type</c>.</summary>
public enum CombinationType
{
    /// <summary><c>linear</c>: A and B each summed, both times √(weight·scaling). Ranks must be equal; cross products B₁A₂ arise.</summary>
    Linear,

    /// <summary><c>cat</c>: A and B stacked, so that the products' weighted sum is exact; ranks add up.</summary>
    Cat,

    /// <summary><c>svd</c>: the best approximation of a low rank to a weighted sum of the products.</summary>
    Svd,

    /// <summary><c>ties</c>: small values dropped, then of each place only the values of the sign that prevails (Yadav et al. 2023).</summary>
    Ties,

    /// <summary><c>magnitude_prune</c>: as linear, of the largest values of each tensor alone.</summary>
    MagnitudePrune,
}

/// <summary>How <see cref="CombinationType.Ties"/> elects the sign of a place.</summary>
public enum MajoritySign
{
    /// <summary>That of the sum of the values.</summary>
    Total,

    /// <summary>That of the greater number of values.</summary>
    Frequency,
}

/// <summary>An adapter that takes part in a combination.</summary>
/// <param name="Config">Its settings.</param>
/// <param name="Weights">Its tensors.</param>
/// <param name="Weight">Its weight; may be negative.</param>
public sealed record WeightedAdapter(LoraConfig Config, AdapterWeights Weights, double Weight);

/// <summary>What some of the combinations need.</summary>
public sealed record CombinationOptions
{
    /// <summary>density: the part of each tensor's values that ties and magnitude_prune keep, from 0 to 1; they need it.</summary>
    public double? Density { get; init; }

    /// <summary>majority_sign_method of ties.</summary>
    public MajoritySign MajoritySign { get; init; }

    /// <summary>svd_rank: the rank that svd leaves; null: the largest of the adapters.</summary>
    public int? SvdRank { get; init; }
}

/// <summary>
/// Several adapters of one base as one, as PEFT's <c>add_weighted_adapter</c> makes it: linear, cat and svd, TIES (Yadav et al.,
/// "TIES-Merging: Resolving Interference When Merging Models", 2023) and magnitude pruning. The result has the scaling 1.
/// </summary>
public static class AdapterCombination
{
    /// <summary>Combines adapters. One alone is combined linearly, whatever the type.</summary>
    /// <param name="adapters">The adapters; they adapt the same modules.</param>
    /// <param name="type">How.</param>
    /// <param name="options">What the type needs beside.</param>
    /// <returns>
    /// The first one's settings with the new rank, an equal alpha, no patterns and no rsLoRA (in PEFT that would stay and scale the
    /// result once more); and the tensors.
    /// </returns>
    /// <exception cref="InputException">
    /// The adapters do not fit together, one of them holds more than LoRA's A and B or begins as a part of the base, or an option
    /// is wrong.
    /// </exception>
    public static (LoraConfig Config, AdapterWeights Weights) Combine(
        IReadOnlyList<WeightedAdapter> adapters, CombinationType type, CombinationOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(adapters);
        options ??= new();
        if (adapters.Count == 0)
            throw new InputException("there are no adapters to combine; give at least one");
        if (adapters.Count == 1)
            type = CombinationType.Linear;
        CheckOptions(type, options);
        var parts = new IReadOnlyList<CombinedPart>[adapters.Count];
        for (var i = 0; i < parts.Length; i++)
            parts[i] = CombinedPart.Of(adapters[i], i + 1);
        CheckModules(parts);

        var rank = NewRank(adapters, type, options);
        var result = new AdapterWeights();
        for (var m = 0; m < parts[0].Count; m++)
        {
            var module = m;
            IReadOnlyList<CombinedPart> same = [.. parts.Select(p => p[module])];
            if ((long)rank * Math.Max(same[0].In, same[0].Out) > Array.MaxLength)
                throw new InputException($"a rank of {rank} is too large for {PeftPattern.Show(same[0].Module)} [{same[0].Out}, {same[0].In}]; use svd with a lower svd_rank");
            var (a, b) = type switch
            {
                CombinationType.Cat => Cat(same, rank),
                CombinationType.Svd => FactorProduct.Truncate(same, rank),
                _ => Linear(same, rank, tensors => Merge(tensors, type, options)),
            };
            if (a.Concat(b).Any(v => !float.IsFinite(v)))
                throw new InputException($"the combination at {PeftPattern.Show(same[0].Module)} exceeds what fp32 holds; use smaller weights");
            result.Set(same[0].KeyA, [rank, same[0].In], a);
            result.Set(same[0].KeyB, [same[0].Out, rank], b);
        }
        CopyFrozen(adapters, result);
        return (adapters[0].Config with { Rank = rank, Alpha = rank, RankPattern = [], AlphaPattern = [], UseRsLora = false }, result);
    }

    private static void CheckOptions(CombinationType type, CombinationOptions options)
    {
        if (!Enum.IsDefined(type))
            throw new InputException($"combination type {(int)type} is not known; use linear, cat, svd, ties or magnitude_prune");
        if (!Enum.IsDefined(options.MajoritySign))
            throw new InputException($"majority sign method {(int)options.MajoritySign} is not known; use total or frequency");
        if (type is CombinationType.Ties or CombinationType.MagnitudePrune && !(options.Density is >= 0 and <= 1))
            throw new InputException($"{(type == CombinationType.Ties ? "ties" : "magnitude_prune")} needs a density from 0 to 1, the part of the values to keep, not {options.Density?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "none"}");
        if (type == CombinationType.Svd && options.SvdRank is <= 0)
            throw new InputException($"svd_rank is {options.SvdRank}; it must be a positive integer");
    }

    private static void CheckModules(IReadOnlyList<CombinedPart>[] parts)
    {
        for (var i = 1; i < parts.Length; i++)
        {
            var (first, other) = (parts[0].Select(p => p.KeyA), parts[i].Select(p => p.KeyA));
            if (first.Except(other).FirstOrDefault() is { } missing)
                throw new InputException($"adapter {i + 1} has no tensor {PeftPattern.Show(missing)}, which adapter 1 has; combine adapters of the same target_modules and layers");
            if (other.Except(first).FirstOrDefault() is { } extra)
                throw new InputException($"adapter {i + 1} has the tensor {PeftPattern.Show(extra)}, which adapter 1 has not; combine adapters of the same target_modules and layers");
            foreach (var (one, two) in parts[0].Zip(parts[i]))
                if (one.In != two.In || one.Out != two.Out)
                    throw new InputException($"{PeftPattern.Show(one.Module)} is [{one.Out}, {one.In}] for adapter 1 and [{two.Out}, {two.In}] for adapter {i + 1}; combine adapters of the same base");
        }
    }

    /// <summary>Room for the module with the highest rank, as PEFT makes it; those with less are filled up with zeros.</summary>
    private static int NewRank(IReadOnlyList<WeightedAdapter> adapters, CombinationType type, CombinationOptions options)
    {
        var ranks = adapters.Select(a => a.Config.RankPattern.Select(p => p.Value).Append(a.Config.Rank).Max()).ToList();
        if (type == CombinationType.Svd)
            return options.SvdRank ?? ranks.Max();
        if (type == CombinationType.Cat)
            return ranks.Sum(r => (long)r) is <= int.MaxValue and var sum ? (int)sum : throw new InputException("the ranks of the adapters add up to more than a rank may be");
        if (ranks.Distinct().Count() > 1)
            throw new InputException($"the adapters have the ranks {string.Join(", ", ranks)}; linear, ties and magnitude_prune need equal ones, cat and svd do not");
        return ranks[0];
    }

    private static (float[] A, float[] B) Cat(IReadOnlyList<CombinedPart> parts, int rank)
    {
        var (a, b) = (new float[(long)rank * parts[0].In], new float[(long)parts[0].Out * rank]);
        var at = 0;
        foreach (var part in parts)
        {
            var target = a.AsSpan(at * part.In, part.A.Length);
            // One after the other, as PEFT rounds it.
            TensorPrimitives.Multiply(part.A, (float)part.Weight, target);
            TensorPrimitives.Multiply(target, (float)part.Scaling, target);
            CopyColumns(part.B, part.Rank, b, rank, at);
            at += part.Rank;
        }
        return (a, b);
    }

    private static (float[] A, float[] B) Linear(
        IReadOnlyList<CombinedPart> parts, int rank, Func<IReadOnlyList<(float[] Values, float Weight)>, float[]> merge)
    {
        if (parts.FirstOrDefault(p => p.Rank != parts[0].Rank) is { } other)
            throw new InputException($"{PeftPattern.Show(other.Module)} has the ranks {parts[0].Rank} and {other.Rank}; linear, ties and magnitude_prune need equal ones, cat and svd do not");
        // The sign goes with one side alone, or it would cancel.
        var a = merge([.. parts.Select(p => (p.A, (float)(Math.Sqrt(Math.Abs(p.Factor)) * (p.Factor >= 0 ? 1 : -1))))]);
        var b = merge([.. parts.Select(p => (p.B, (float)Math.Sqrt(Math.Abs(p.Factor))))]);
        if (parts[0].Rank == rank)
            return (a, b);
        var (wideA, wideB) = (new float[(long)rank * parts[0].In], new float[(long)parts[0].Out * rank]);
        a.CopyTo(wideA, 0);
        CopyColumns(b, parts[0].Rank, wideB, rank, 0);
        return (wideA, wideB);
    }

    private static float[] Merge(IReadOnlyList<(float[] Values, float Weight)> tensors, CombinationType type, CombinationOptions options)
    {
        if (type != CombinationType.Linear)
            tensors = [.. tensors.Select(t => (Prune(t.Values, options.Density!.Value), t.Weight))];
        if (type == CombinationType.Ties)
            return Ties(tensors, options.MajoritySign);
        var sum = new float[tensors[0].Values.Length];
        foreach (var (values, weight) in tensors)
            for (var i = 0; i < sum.Length; i++)
                sum[i] += values[i] * weight;
        return sum;
    }

    /// <summary>The largest values, the others 0; of equal ones the first stay.</summary>
    internal static float[] Prune(float[] values, double density)
    {
        if (density >= 1)
            return values;
        var order = new int[values.Length];
        var keys = new float[values.Length];
        for (var i = 0; i < order.Length; i++)
            (order[i], keys[i]) = (i, Math.Abs(values[i]));
        Array.Sort(order, (x, y) => keys[y].CompareTo(keys[x]) is not 0 and var larger ? larger : x.CompareTo(y));
        var kept = new float[values.Length];
        foreach (var i in order.AsSpan(0, (int)(density * values.Length)))
            kept[i] = values[i];
        return kept;
    }

    /// <summary>The weighted mean of the values whose sign is the elected one: the weights count in the sum, not in the number.</summary>
    private static float[] Ties(IReadOnlyList<(float[] Values, float Weight)> tensors, MajoritySign method)
    {
        var merged = new float[tensors[0].Values.Length];
        for (var i = 0; i < merged.Length; i++)
        {
            var election = 0f;
            foreach (var (values, _) in tensors)
                election += method == MajoritySign.Total ? values[i] : Math.Sign(values[i]);
            var elected = election >= 0 ? 1 : -1;
            var (sum, count) = (0f, 0);
            foreach (var (values, weight) in tensors)
                if (Math.Sign(values[i]) == elected)
                {
                    sum += values[i] * weight;
                    count++;
                }
            merged[i] = sum / Math.Max(count, 1);
        }
        return merged;
    }

    private static void CopyColumns(float[] from, int fromWidth, float[] to, int toWidth, int at)
    {
        for (var row = 0; row < to.Length / toWidth; row++)
            from.AsSpan(row * fromWidth, fromWidth).CopyTo(to.AsSpan((row * toWidth) + at));
    }

    /// <summary>The frozen tables beneath adapters on embeddings, which belong to the base and so are the same.</summary>
    private static void CopyFrozen(IReadOnlyList<WeightedAdapter> adapters, AdapterWeights result)
    {
        for (var i = 0; i < adapters.Count; i++)
            foreach (var (key, table) in adapters[i].Weights.Tensors.Where(t => CombinedPart.IsFrozen(t.Key, adapters[i].Weights)))
            {
                if (!result.Tensors.TryGetValue(key, out var before))
                    result.Set(key, table.Shape, table.Values);
                else if (!before.Values.AsSpan().SequenceEqual(table.Values))
                    throw new InputException($"{PeftPattern.Show(key)} of adapter {i + 1} differs from the others'; combine adapters of the same base");
            }
    }
}
