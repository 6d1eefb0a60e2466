using System.Runtime.InteropServices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Attention over packed sequences or pictures.</summary>
internal sealed partial class CudaBinder
{
    private const int AttentionTile = 64, AttentionThreads = 256, FlashThreads = 128, MaxHeadDim = 256;

    /// <summary>Mirror of <c>AttentionArgs</c> in <c>attention.cuh</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AttentionArgs
    {
        public nint Q, K, V, Out, Lse, CuSeqlens, KeyVisible, DOut, DQ, DK, DV, Dot;
        public nint RelativeKeys, RelativeQueries, RowOf, KeySums, QuerySums, DRelativeKeys, DRelativeQueries;
        public nint Slots, Past, Parts;
        public ulong RandomKey;
        public uint Stream, Step, Threshold;
        public float KeepScale;
        public int Sequences, Rows, Heads, KvHeads, HeadDim, Causal, Window, Dropout;
        public float Scale, Softcap;
        public int MaxLength, RelativeRows, Diagonals, Groups, Length, Splits, Aligned;

        public void Set(AttentionOp op)
        {
            Check(op.HeadDim);
            (Heads, KvHeads, HeadDim, Scale, Softcap) = (op.Heads, op.KvHeads, op.HeadDim, op.Scale, op.Softcap);
            (Causal, Window) = (op.Mask.Causal ? 1 : 0, op.Mask.Window);
            SetDropout(op.Dropout, op.Stream);
        }

        public void SetDropout(float dropout, uint stream)
        {
            (Dropout, Stream) = (dropout > 0 ? 1 : 0, stream);
            (Threshold, KeepScale) = (Philox.Threshold(dropout), Philox.KeepScale(dropout));
        }

        /// <summary>What differs from step to step. False: nothing to do.</summary>
        public bool Begin(StepArguments s, Shape rows)
        {
            (Rows, Sequences) = (rows.Rows(s.Size), rows.Kind == RowKind.Pictures ? s.Size.Pictures : s.Size.Sequences);
            // Read only where it counts: what a step reads decides whether it may be recorded.
            if (Dropout != 0)
                (RandomKey, Step) = (Philox.Mix(s.Seed), s.Step);
            return Rows > 0 && Sequences > 0;
        }

        /// <summary>Slots that hold all tiles of all sequences, whatever their lengths.</summary>
        public readonly int TileSlots(int tile) => Rows / tile + Sequences;

        /// <summary>Says whether rows may be copied 16 bytes at a time; after all addresses are set.</summary>
        public void Align()
        {
            var all = Q | K | V | Out | DOut | DQ | DK | DV;
            Aligned = HeadDim % 8 == 0 && all % 16 == 0 ? 1 : 0;
        }

        public static void Check(int headDim)
        {
            if (headDim > MaxHeadDim)
                throw new InputException($"attention: heads are {headDim} wide, more than the {MaxHeadDim} that the CUDA kernels take; use the CPU");
        }
    }

    /// <summary>The least of the widths that kernels are made for which holds the head.</summary>
    private static int HeadClass(int headDim) => headDim <= 32 ? 32 : headDim <= 64 ? 64 : headDim <= 128 ? 128 : MaxHeadDim;

    /// <summary>Threads of a block: bf16 has kernels for tensor cores, but for the widest heads.</summary>
    private static int TileThreads(int headClass, ElementType type) => type == ElementType.BF16 && headClass < MaxHeadDim ? FlashThreads : AttentionThreads;

    private Kernel? BindAttention(Node node, ITensorAddresses at, BatchSize capacity) => node.Op switch
    {
        AttentionOp op => BindAttention(node, op, at),
        AttentionGradOp op => BindAttentionGrad(node, op, at, capacity),
        DisentangledAttentionOp op => BindDisentangled(node, op, at),
        DisentangledAttentionGradOp op => BindDisentangledGrad(node, op, at, capacity),
        CacheAppendOp => BindCacheAppend(node, at),
        CachedAttentionOp op => BindCachedAttention(node, op, at),
        _ => null,
    };

    private Runs BindAttention(Node node, AttentionOp op, ITensorAddresses at)
    {
        var inputs = node.Inputs;
        var a = new AttentionArgs
        {
            Q = at.Of(inputs[0]!),
            K = at.Of(inputs[1]!),
            V = at.Of(inputs[2]!),
            CuSeqlens = at.Of(inputs[3]!),
            KeyVisible = Of(inputs[4], at),
            Out = at.Of(node.Output),
            Lse = at.Of(node.Outputs[1]),
        };
        a.Set(op);
        a.Align();
        var (type, width) = (node.Output.Type, HeadClass(op.HeadDim));
        var (k, threads) = (Function($"attention_forward_{width}", type), TileThreads(width, type));
        var rows = inputs[0]!.Shape;
        return new Runs(s =>
        {
            if (a.Begin(s, rows))
                k.Launch(a.TileSlots(AttentionTile), a.Heads, 1, threads, 0, in a);
        });
    }

    private Runs BindAttentionGrad(Node node, AttentionGradOp op, ITensorAddresses at, BatchSize capacity)
    {
        var inputs = node.Inputs;
        var next = 0;
        nint Next(bool wanted) => wanted ? at.Of(node.Outputs[next++]) : 0;
        var a = new AttentionArgs
        {
            DOut = at.Of(inputs[0]!),
            Q = at.Of(inputs[1]!),
            K = at.Of(inputs[2]!),
            V = at.Of(inputs[3]!),
            Out = at.Of(inputs[4]!),
            Lse = at.Of(inputs[5]!),
            CuSeqlens = at.Of(inputs[6]!),
            KeyVisible = Of(inputs[7], at),
            DQ = Next(op.Query),
            DK = Next(op.Key),
            DV = Next(op.Value),
        };
        a.Set(op.Forward);
        a.Align();
        var (type, width) = (inputs[1]!.Type, HeadClass(op.Forward.HeadDim));
        var (rows, threads) = (inputs[1]!.Shape, TileThreads(width, type));
        var dots = AttentionDots(rows, op.Forward.Heads, capacity);
        var dot = Function("attention_dot", type);
        var query = Function($"attention_query_grad_{width}", type);
        var key = Function($"attention_key_grad_{width}", type);
        return new Runs(s =>
        {
            if (!a.Begin(s, rows))
                return;
            a.Dot = dots.Address;
            if (a.DQ != 0 || a.DK != 0)
                dot.Launch(Blocks((long)a.Rows * a.Heads, AttentionThreads / 32), AttentionThreads, in a);
            if (a.DK != 0 || a.DV != 0)
                key.Launch(a.TileSlots(AttentionTile), a.KvHeads, 1, threads, 0, in a);
            if (a.DQ != 0)
                query.Launch(a.TileSlots(AttentionTile), a.Heads, 1, threads, 0, in a);
        });
    }

    /// <summary>Room for a value for each query and head.</summary>
    private CudaScratch AttentionDots(Shape rows, int heads, BatchSize capacity) =>
        Scratch("attention.dot", (long)rows.Rows(capacity) * heads * sizeof(float));
}
