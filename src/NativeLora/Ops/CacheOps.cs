using NativeLora.Graphs;

namespace NativeLora.Ops;

/// <summary>
/// Writes the new keys and values of each sequence behind those of the steps before. Inputs: k and v [tokens, kvHeads·d], cu_seqlens,
/// cache_slots, past_lengths. Outputs: the caches of keys and of values [sequences, length·kvHeads·d].
/// </summary>
public sealed class CacheAppendOp : Op
{
    /// <summary>The one instance.</summary>
    public static CacheAppendOp Instance { get; } = new();

    /// <inheritdoc/>
    public override string Name => "cache_append";

    /// <inheritdoc/>
    public override long Flops(Node node, in BatchSize size) => 0;
}

/// <summary>
/// Attention of the new tokens over a cache that holds them already: token i of a sequence with p tokens before the step sees keys 0 to
/// p + i, or the last of them where the mask has a window. Inputs: q, the new k and v, the caches of keys and of values, cu_seqlens,
/// key_visible (all 1), cache_slots, past_lengths. Outputs: [tokens, heads·d] and log-sum-exp [tokens, heads] (scratch).
/// </summary>
public sealed class CachedAttentionOp(AttentionOp attention, int length) : Op
{
    /// <summary>Heads, scale and mask.</summary>
    public AttentionOp Attention { get; } = attention;

    /// <summary>Tokens of a sequence that the cache holds.</summary>
    public int Length { get; } = length;

    /// <inheritdoc/>
    public override string Name => "cached_attention";

    /// <inheritdoc/>
    public override long Flops(Node node, in BatchSize size) => Attention.Flops(node, size);
}
