using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Disentangled attention.</summary>
internal sealed partial class CudaBinder
{
    // Blocks that keep a GPU busy; at most so many parts of the sequences.
    private const int RelativeBlocks = 132, MaxRelativeGroups = 8, RelativeColumns = 64;

    private Runs BindDisentangled(Node node, DisentangledAttentionOp op, ITensorAddresses at)
    {
        var a = DisentangledArgs(op, node, at, 0, node.Output, node.Outputs[1]);
        var k = Function($"attention_relative_forward_{RelativeClass(op.HeadDim)}", node.Output.Type);
        var rows = node.Inputs[0]!.Shape;
        return new Runs(s =>
        {
            if (a.Begin(s, rows))
                k.Launch(a.TileSlots(AttentionTile), a.Heads, 1, AttentionThreads, 0, in a);
        });
    }

    private Runs BindDisentangledGrad(Node node, DisentangledAttentionGradOp op, ITensorAddresses at, BatchSize capacity)
    {
        var forward = op.Forward;
        var a = DisentangledArgs(forward, node, at, 1, node.Inputs[8]!, node.Inputs[9]!);
        a.DOut = at.Of(node.Inputs[0]!);
        var next = 0;
        nint Next(bool wanted) => wanted ? at.Of(node.Outputs[next++]) : 0;
        a.DQ = Next(op.Query);
        a.DK = Next(op.Key);
        a.DV = Next(op.Value);
        a.DRelativeKeys = Next(op.RelativeKey);
        a.DRelativeQueries = Next(op.RelativeQuery);
        if ((a.DRelativeKeys != 0 && a.RelativeKeys == 0) || (a.DRelativeQueries != 0 && a.RelativeQueries == 0))
            throw new InvalidOperationException("gradients of relative keys or queries without their values");
        var (type, width) = (node.Inputs[1]!.Type, RelativeClass(forward.HeadDim));
        var rows = node.Inputs[1]!.Shape;
        var dots = AttentionDots(rows, forward.Heads, capacity);
        var sums = a.DRelativeKeys != 0 || a.DRelativeQueries != 0;
        var part = RelativeSumBytes(forward, capacity);
        var both = a.DRelativeKeys != 0 && a.DRelativeQueries != 0;
        var scratch = sums ? Scratch("attention.relative", both ? 2 * part : part) : null;
        var dot = Function("attention_dot", type);
        var query = Function($"attention_relative_query_grad_{width}", type);
        var key = Function($"attention_relative_key_grad_{width}", type);
        var sum = Function("attention_relative_sums", type);
        var reduce = Function("attention_relative_reduce");
        var columnParts = (forward.HeadDim + RelativeColumns - 1) / RelativeColumns;
        return new Runs(s =>
        {
            var any = a.Begin(s, rows);
            a.Dot = dots.Address;
            if (any)
            {
                if (a.DQ != 0 || a.DK != 0 || sums)
                    dot.Launch(Blocks((long)a.Rows * a.Heads, AttentionThreads / 32), AttentionThreads, in a);
                if (a.DK != 0 || a.DV != 0)
                    key.Launch(a.TileSlots(AttentionTile), a.KvHeads, 1, AttentionThreads, 0, in a);
                if (a.DQ != 0)
                    query.Launch(a.TileSlots(AttentionTile), a.Heads, 1, AttentionThreads, 0, in a);
            }
            if (!sums)
                return;
            a.Diagonals = any ? RelativeDiagonals(forward, s.Size) : 0;
            a.Groups = any ? RelativeGroups(a.Diagonals, a.Heads) : 0;
            a.KeySums = a.DRelativeKeys != 0 ? scratch!.Address : 0;
            a.QuerySums = a.DRelativeQueries != 0 ? scratch!.Address + (nint)(both ? part : 0) : 0;
            sum.Launch(a.Diagonals, a.Heads, a.Groups * columnParts, AttentionThreads, 0, in a);
            reduce.Launch(Blocks((long)a.RelativeRows * a.Heads * a.HeadDim, AttentionThreads), AttentionThreads, in a);
        });
    }

    private AttentionArgs DisentangledArgs(DisentangledAttentionOp op, Node node, ITensorAddresses at, int first, Tensor output, Tensor lse)
    {
        AttentionArgs.Check(op.HeadDim);
        var inputs = node.Inputs;
        var a = new AttentionArgs
        {
            Q = at.Of(inputs[first]!),
            K = at.Of(inputs[first + 1]!),
            V = at.Of(inputs[first + 2]!),
            CuSeqlens = at.Of(inputs[first + 3]!),
            KeyVisible = Of(inputs[first + 4], at),
            RelativeKeys = Of(inputs[first + 5], at),
            RelativeQueries = Of(inputs[first + 6], at),
            Out = at.Of(output),
            Lse = at.Of(lse),
            RowOf = RelativeTable(op.Positions).Address,
            MaxLength = op.Positions.MaxLength,
            RelativeRows = 2 * op.Positions.Span,
            Heads = op.Heads,
            KvHeads = op.Heads,
            HeadDim = op.HeadDim,
            Scale = op.Scale,
        };
        a.SetDropout(op.Dropout, op.Stream);
        return a;
    }

    /// <summary>Rows by distance, then the distances by row, then where in them each row's begin. Written once, while nodes are bound.</summary>
    private unsafe CudaScratch RelativeTable(RelativePositions positions)
    {
        var key = $"attention.positions {positions.Sizes}";
        if (_scratch.TryGetValue(key, out var known))
            return known;
        var rows = positions.Rows;
        var (count, last) = (rows.Length, 2 * positions.Span);
        var table = new int[2 * count + last + 1];
        rows.CopyTo(table);
        var starts = table.AsSpan(2 * count);
        foreach (var row in rows)
            starts[row + 1]++;
        for (var row = 0; row < last; row++)
            starts[row + 1] += starts[row];
        var next = starts.ToArray();
        for (var i = 0; i < count; i++)
            table[count + next[rows[i]]++] = i - (positions.MaxLength - 1);
        var scratch = Scratch(key, (long)table.Length * sizeof(int));
        if (scratch.Address == 0)
            return scratch;
        fixed (int* from = table)
        {
            _context.Enter();
            _context.Driver.Check(
                _context.Driver.CopyToDevice(scratch.Address, from, (nuint)table.Length * sizeof(int), _context.Stream), "a copy to the GPU");
            _context.Wait();
        }
        return scratch;
    }

    private static int RelativeClass(int headDim) => headDim <= 64 ? 64 : MaxHeadDim;

    /// <summary>Diagonals of tiles that sequences of such a batch may have.</summary>
    private static int RelativeDiagonals(DisentangledAttentionOp op, in BatchSize size)
    {
        var longest = (int)Math.Min(Math.Min(size.Tokens, op.Positions.MaxLength), Math.Sqrt(size.SquaredLengths));
        return 2 * ((longest + AttentionTile - 1) / AttentionTile) - 1;
    }

    private static int RelativeGroups(int diagonals, int heads) => Math.Clamp(RelativeBlocks / (diagonals * heads), 1, MaxRelativeGroups);

    private static long RelativeSumBytes(DisentangledAttentionOp op, in BatchSize capacity) =>
        (long)Math.Max(RelativeBlocks, RelativeDiagonals(op, capacity) * op.Heads) * 2 * AttentionTile * op.HeadDim * sizeof(float);
}
