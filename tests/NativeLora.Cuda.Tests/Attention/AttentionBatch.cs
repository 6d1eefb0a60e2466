using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Attention;

/// <summary>Packed sequences with queries, keys and values, and attention over them and its gradients as cases.</summary>
internal sealed class AttentionBatch
{
    private readonly int[] _lengths;
    private readonly int _heads, _kvHeads, _headDim;
    private readonly Tensor _q, _k, _v, _cuSeqlens, _visible, _out, _lse;
    private readonly ElementType _type;
    private readonly Dictionary<string, Tensor> _pictures = [];

    public AttentionBatch(int[] lengths, int heads, int kvHeads, int headDim, ElementType type = ElementType.F32)
    {
        (_lengths, _heads, _kvHeads, _headDim, _type) = (lengths, heads, kvHeads, headDim, type);
        var tokens = lengths.Sum();
        Size = new BatchSize(tokens, lengths.Length, lengths.Sum(l => (long)l * l));
        (_q, _k, _v) = (Rows("q", heads * headDim, type), Rows("k", kvHeads * headDim, type), Rows("v", kvHeads * headDim, type));
        (_out, _lse) = (Rows("out", heads * headDim, type), Rows("lse", heads, ElementType.F32));
        _cuSeqlens = OpCase.Ints("cu_seqlens", Shape.PerSequence(1));
        _visible = OpCase.Ints("key_visible", Shape.PerToken(1));
    }

    public BatchSize Size { get; }

    public AttentionMask Mask { get; init; }

    public float Dropout { get; init; }

    public float Softcap { get; init; }

    /// <summary>Which tokens are hidden as keys; null: there is no key_visible.</summary>
    public Func<int, bool>? Hides { get; init; }

    /// <summary>Spread of queries and keys: how far scores lie apart.</summary>
    public double Spread { get; init; } = 1.5;

    /// <summary>Rows of a picture, where pictures take the place of sequences.</summary>
    public int PictureRows { get; init; }

    public OpCase Forward() => Inputs(new OpCase(Op(), At()) { Step = { Seed = 77, Step = 3 } }).Out(Place(_out)).Out(Place(_lse));

    /// <summary>The gradients that are asked for, from what the CPU's forward gives.</summary>
    public OpCase Backward(bool query, bool key, bool value)
    {
        var forward = Forward().Run(Cuda.Cpu);
        var test = new OpCase(new AttentionGradOp(Op(), query, key, value), At()) { Step = { Seed = 77, Step = 3 } };
        test.In(Place(Rows("dout", _heads * _headDim, _type)), Values(_heads, 4));
        test.In(Place(_q), Values(_heads, 1)).In(Place(_k), Values(_kvHeads, 2)).In(Place(_v), Values(_kvHeads, 3));
        test.In(Place(_out), forward[0]).In(Place(_lse), forward[1]);
        Boundaries(test);
        if (query)
            test.Out(Place(Rows("dq", _heads * _headDim, _type)));
        if (key)
            test.Out(Place(Rows("dk", _kvHeads * _headDim, _type)));
        if (value)
            test.Out(Place(Rows("dv", _kvHeads * _headDim, _type)));
        return test;
    }

    private AttentionOp Op() => new(_heads, _kvHeads, _headDim, 1 / MathF.Sqrt(_headDim), Mask, Dropout, 5, Softcap);

    private BatchSize At() => PictureRows > 0 ? new BatchSize(3, 1, 9) { Pictures = _lengths.Length } : Size;

    private OpCase Inputs(OpCase test) =>
        Boundaries(test.In(Place(_q), Values(_heads, 1)).In(Place(_k), Values(_kvHeads, 2)).In(Place(_v), Values(_kvHeads, 3)));

    private OpCase Boundaries(OpCase test)
    {
        test.In(_cuSeqlens, [0, .. _lengths.Select((_, i) => _lengths[..(i + 1)].Sum())]);
        return Hides is { } hides
            ? test.In(_visible, [.. Enumerable.Range(0, Size.Tokens).Select(t => hides(t) ? 0 : 1)])
            : test.None();
    }

    private float[] Values(int heads, int seed) => OpCase.Random((long)Size.Tokens * heads * _headDim, seed, seed < 3 ? Spread : 1);

    private static Tensor Rows(string name, int columns, ElementType type) => OpCase.Tokens(name, columns, type);

    // The same tensor every time it is asked for.
    private Tensor Place(Tensor rows)
    {
        if (PictureRows == 0)
            return rows;
        if (!_pictures.TryGetValue(rows.Name, out var tensor))
            _pictures[rows.Name] = tensor = OpCase.Pictures(rows.Name, PictureRows, rows.Shape.Columns, rows.Type);
        return tensor;
    }
}
