namespace NativeLora.Adapters;

/// <summary>A tensor of an adapter, in memory.</summary>
/// <param name="Shape">Sizes, the slowest varying first.</param>
/// <param name="Values">The values, as many as the shape holds.</param>
public sealed record AdapterTensor(IReadOnlyList<int> Shape, float[] Values);

/// <summary>
/// The tensors of an adapter by PEFT's key without the prefix <c>base_model.model.</c>, such as
/// <c>bert.encoder.layer.3.attention.self.query.lora_A.weight</c> or <c>classifier.bias</c>.
/// </summary>
public sealed class AdapterWeights
{
    private readonly Dictionary<string, AdapterTensor> tensors = new(StringComparer.Ordinal);

    /// <summary>The tensors.</summary>
    public IReadOnlyDictionary<string, AdapterTensor> Tensors => tensors;

    /// <summary>A tensor by its key.</summary>
    /// <exception cref="InputException">There is none.</exception>
    public AdapterTensor this[string key] => tensors.TryGetValue(key, out var tensor)
        ? tensor
        : throw new InputException($"the adapter has no tensor {PeftPattern.Show(key)}");

    /// <summary>Adds or replaces a tensor.</summary>
    /// <exception cref="ArgumentException">The values do not fill the shape.</exception>
    public void Set(string key, IReadOnlyList<int> shape, float[] values)
    {
        if (shape.Aggregate(1L, (product, size) => product * size) != values.Length)
            throw new ArgumentException($"{values.Length} values do not fill [{string.Join(", ", shape)}] of {key}", nameof(values));
        tensors[key] = new(shape, values);
    }
}
