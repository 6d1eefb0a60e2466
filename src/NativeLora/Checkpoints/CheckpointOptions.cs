using NativeLora.Tensors;

namespace NativeLora.Checkpoints;

/// <summary>How a checkpoint is read.</summary>
public sealed record CheckpointOptions
{
    /// <summary>
    /// What block-quantized GGUF tensors are expanded to: <see cref="ElementType.BF16"/> (rounded to the nearest, ties to even) or
    /// <see cref="ElementType.F32"/>. Tensors that are stored plainly stay as they are.
    /// </summary>
    public ElementType GgufType { get; init; } = ElementType.BF16;
}
