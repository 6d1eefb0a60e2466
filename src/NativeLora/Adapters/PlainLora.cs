namespace NativeLora.Adapters;

/// <summary>
/// A PiSSA or OLoRA adapter as plain LoRA over the untouched base, as PEFT converts it: W is residual + s·B₀A₀, so residual + s·BA is
/// W + s·[B, -B₀][A; A₀], of rank 2r. Unlike PEFT's, the result keeps what else the adapter holds (a classifier, magnitudes, biases).
/// </summary>
public static class PlainLora
{
    /// <summary>Converts an adapter.</summary>
    /// <param name="config">Its settings.</param>
    /// <param name="targets">What they mean.</param>
    /// <param name="weights">Its tensors now.</param>
    /// <param name="start">Its tensors as the decomposition made them.</param>
    /// <returns>Settings with twice the rank and the same scaling, and the tensors.</returns>
    public static (LoraConfig Config, AdapterWeights Weights) Of(LoraConfig config, ResolvedTargets targets, AdapterWeights weights, AdapterWeights start)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(targets);
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(start);
        var factor = config.UseRsLora ? Math.Sqrt(2) : 2;
        var plain = config with
        {
            InitLoraWeights = "true",
            Rank = 2 * config.Rank,
            Alpha = factor * config.Alpha,
            RankPattern = [.. config.RankPattern.Select(p => KeyValuePair.Create(p.Key, 2 * p.Value))],
            AlphaPattern = [.. config.AlphaPattern.Select(p => KeyValuePair.Create(p.Key, factor * p.Value))],
        };
        var result = new AdapterWeights();
        foreach (var tensor in AdapterLayout.Tensors(config, targets))
        {
            if (!weights.Tensors.TryGetValue(tensor.Key, out var now))
                continue;
            var (rows, columns) = (tensor.Shape[0], tensor.Shape.Count > 1 ? tensor.Shape[1] : 1);
            if (tensor.Role == AdapterRole.LoraA)
                result.Set(tensor.Key, [2 * rows, columns], [.. now.Values, .. start[tensor.Key].Values]);
            else if (tensor.Role == AdapterRole.LoraB)
            {
                var values = new float[2 * now.Values.Length];
                var first = start[tensor.Key].Values;
                for (var o = 0; o < rows; o++)
                    for (var r = 0; r < columns; r++)
                    {
                        values[(2 * o * columns) + r] = now.Values[(o * columns) + r];
                        values[(2 * o * columns) + columns + r] = -first[(o * columns) + r];
                    }
                result.Set(tensor.Key, [rows, 2 * columns], values);
            }
            else
                result.Set(tensor.Key, now.Shape, now.Values);
        }
        return (plain, result);
    }
}
