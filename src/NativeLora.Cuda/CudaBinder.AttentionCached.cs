using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Attention with a cache.</summary>
internal sealed partial class CudaBinder
{
    // From so many new tokens a sequence on, tiles of queries pay; blocks that keep a GPU busy; keys that a block has at least.
    private const int CachedTileTokens = 5, CachedBlocks = 264, CachedKeys = 128, CachedThreads = 128;

    /// <summary>Mirror of <c>CacheAppendArgs</c> in <c>attention_cached.cu</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CacheAppendArgs
    {
        public nint K, V, KeyCache, ValueCache, CuSeqlens, Slots, Past;
        public int Sequences, Width, Length;
    }

    private Runs BindCacheAppend(Node node, ITensorAddresses at)
    {
        var (k, v) = (node.Inputs[0]!, node.Inputs[1]!);
        var width = k.Shape.Columns;
        if (v.Shape.Columns != width)
            throw new NotSupportedException($"{node.Name}: keys of {width} and values of {v.Shape.Columns} columns");
        var a = new CacheAppendArgs
        {
            K = at.Of(k),
            V = at.Of(v),
            KeyCache = at.Of(node.Outputs[0]),
            ValueCache = at.Of(node.Outputs[1]),
            CuSeqlens = at.Of(node.Inputs[2]!),
            Slots = at.Of(node.Inputs[3]!),
            Past = at.Of(node.Inputs[4]!),
            Width = width,
            Length = node.Output.Shape.Columns / width,
        };
        var function = Function("cache_append", k.Type);
        return new Runs(s =>
        {
            a.Sequences = s.Size.Sequences;
            function.Launch(a.Sequences == 0 ? 0 : s.Size.Tokens, 2, 1, CachedThreads, 0, in a);
        });
    }

    /// <summary>Many new tokens a sequence go by tiles of queries; one or a few query by query, the keys split where that keeps the GPU busy.</summary>
    private Runs BindCachedAttention(Node node, CachedAttentionOp op, ITensorAddresses at)
    {
        var inputs = node.Inputs;
        var a = new AttentionArgs
        {
            Q = at.Of(inputs[0]!),
            K = at.Of(inputs[3]!),
            V = at.Of(inputs[4]!),
            CuSeqlens = at.Of(inputs[5]!),
            Slots = at.Of(inputs[7]!),
            Past = at.Of(inputs[8]!),
            Out = at.Of(node.Output),
            Lse = at.Of(node.Outputs[1]),
            Length = op.Length,
        };
        a.Set(op.Attention);
        a.Align();
        a.Causal = 1;
        a.Dropout = 0;
        var (type, rows) = (node.Output.Type, inputs[0]!.Shape);
        var width = Math.Max(64, HeadClass(a.HeadDim));
        var (tile, threads) = (Function($"cached_attention_tile_{width}", type), TileThreads(width, type));
        var single = Function("cached_attention", type);
        var merge = Function("cached_attention_merge", type);
        var parts = Scratch("attention.parts", (long)CachedBlocks * (a.HeadDim + 2) * sizeof(float));
        return new Runs(s =>
        {
            if (!a.Begin(s, rows))
                return;
            if (a.Rows >= (long)CachedTileTokens * a.Sequences)
            {
                tile.Launch(a.TileSlots(AttentionTile), a.Heads, 1, threads, 0, in a);
                return;
            }
            // Not more parts than the scratch has room for.
            var most = (int)Math.Min(CachedBlocks / ((long)a.Rows * a.Heads), (a.Length + CachedKeys - 1) / CachedKeys);
            a.Splits = Math.Max(1, most);
            a.Parts = parts.Address;
            single.Launch(a.Rows, a.Heads, a.Splits, CachedThreads, 0, in a);
            if (a.Splits > 1)
                merge.Launch(Blocks((long)a.Rows * a.Heads, AttentionThreads / 32, int.MaxValue), AttentionThreads, in a);
        });
    }
}
