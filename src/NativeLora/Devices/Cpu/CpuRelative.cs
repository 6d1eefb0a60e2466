using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Devices.Cpu;

/// <summary>Disentangled attention and the table of its relative embeddings.</summary>
internal sealed unsafe partial class CpuBinder
{
    private readonly Dictionary<(Type Kind, (int, int, int) Positions, int Heads, int HeadDim), (AttentionKernel Kernel, RelativeScores Relative)> _relative = [];

    private (T Kernel, RelativeScores Relative) Disentangled<T>(DisentangledAttentionOp op, Func<RelativeScores, T> make, long bytes)
        where T : AttentionKernel
    {
        var key = (typeof(T), op.Positions.Sizes, op.Heads, op.HeadDim);
        if (!_relative.TryGetValue(key, out var known))
        {
            var relative = new RelativeScores(_threads, op.Positions, op.Heads, op.HeadDim);
            _owned.Add(relative);
            _relative[key] = known = (make(relative), relative);
            _owned.Add(known.Kernel);
            ScratchBytes += bytes;
        }
        return ((T)known.Kernel, known.Relative);
    }

    /// <summary>What every run of a node sets anew: kernels are shared by the nodes of all layers.</summary>
    private sealed class DisentangledAddresses(DisentangledAttentionOp op, Node node, ITensorAddresses at, int first, Tensor output, Tensor lse)
    {
        private readonly nint _q = at.Of(node.Inputs[first]!), _k = at.Of(node.Inputs[first + 1]!), _v = at.Of(node.Inputs[first + 2]!);
        private readonly nint _cuSeqlens = at.Of(node.Inputs[first + 3]!), _visible = at.Of(node.Inputs[first + 4]!);
        private readonly nint _relativeKeys = node.Inputs[first + 5] is { } keys ? at.Of(keys) : 0;
        private readonly nint _relativeQueries = node.Inputs[first + 6] is { } queries ? at.Of(queries) : 0;
        private readonly nint _out = at.Of(output), _lse = at.Of(lse);

        public void Set<E>(AttentionKernel<E> k, RelativeScores relative, StepArguments s) where E : unmanaged
        {
            k.Q = (E*)_q;
            k.K = (E*)_k;
            k.V = (E*)_v;
            k.Out = (E*)_out;
            k.Lse = (float*)_lse;
            k.CuSeqlens = (int*)_cuSeqlens;
            k.KeyVisible = (int*)_visible;
            (k.Heads, k.KvHeads, k.HeadDim, k.Scale) = (op.Heads, op.Heads, op.HeadDim, op.Scale);
            (k.Causal, k.Window, k.Dropout) = (false, 0, op.Dropout);
            (k.Seed, k.Stream, k.Step, k.TokensBefore) = (s.Seed, op.Stream, s.Step, s.Before.Tokens);
            relative.Keys = (float*)_relativeKeys;
            relative.Queries = (float*)_relativeQueries;
        }
    }

    private Runs BindDisentangled<E>(Node node, DisentangledAttentionOp op, ITensorAddresses at) where E : unmanaged
    {
        var (forward, relative) = Disentangled(op, r => new AttentionForward<E>(_threads, op.HeadDim, relative: r),
            AttentionForward<E>.WorkspaceBytes(_threads.Count, op.HeadDim, relative: true));
        var addresses = new DisentangledAddresses(op, node, at, 0, node.Output, node.Outputs[1]);
        return new Runs(s =>
        {
            addresses.Set(forward, relative, s);
            forward.Execute(s.Size.Sequences);
        });
    }

    private Runs BindDisentangledGrad<E>(Node node, DisentangledAttentionGradOp op, ITensorAddresses at, BatchSize capacity) where E : unmanaged
    {
        var headDim = op.Forward.HeadDim;
        var (backward, relative) = Disentangled(op.Forward, r => new AttentionBackward<E>(_threads, headDim, relative: r),
            AttentionBackward<E>.WorkspaceBytes(_threads.Count, headDim, relative: true));
        ScratchBytes += backward.Reserve(Longest(node.Inputs[1]!.Shape, capacity));
        if (op.RelativeKey || op.RelativeQuery)
            ScratchBytes += relative.ReserveSums();
        var addresses = new DisentangledAddresses(op.Forward, node, at, 1, node.Inputs[8]!, node.Inputs[9]!);
        var dout = at.Of(node.Inputs[0]!);
        var next = 0;
        nint Next(bool wanted) => wanted ? at.Of(node.Outputs[next++]) : 0;
        nint dq = Next(op.Query), dk = Next(op.Key), dv = Next(op.Value), dKeys = Next(op.RelativeKey), dQueries = Next(op.RelativeQuery);
        return new Runs(s =>
        {
            addresses.Set(backward, relative, s);
            backward.DOut = (E*)dout;
            backward.DQ = (E*)dq;
            backward.DK = (E*)dk;
            backward.DV = (E*)dv;
            relative.DKeys = (float*)dKeys;
            relative.DQueries = (float*)dQueries;
            backward.Execute(s.Size.Sequences);
        });
    }

    private Runs BindTable(Node node, ITensorAddresses at)
    {
        var table = node.Inputs[0]!;
        nint from = at.Of(table), to = at.Of(node.Output);
        var count = (nint)table.Shape.FixedRows * table.Shape.Columns;
        return new Runs(_ => Convert16.Widen(table.Type, (void*)from, (float*)to, count));
    }

    private Runs BindTableGrad(Node node, TableGradOp op, ITensorAddresses at)
    {
        var (gradient, result) = (node.Inputs[0]!, node.Output);
        float* from = (float*)at.Of(gradient), to = (float*)at.Of(result);
        var sum = new Add<float>(_threads, result.Shape.Columns) { First = from, Second = to, Output = to };
        var copy = new Copy<float, float>(_threads, result.Shape.Columns) { Input = from, Output = to };
        return Do(gradient, (s, rows) =>
        {
            if (op.Adds || s.AccumulateGradients)
                sum.Execute(rows);
            else
                copy.Execute(rows);
        });
    }
}
