using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Attention;

[Collection(Cuda.Collection)]
public class DisentangledAttentionTests
{
    private static readonly int[] s_mixed = [7, 0, 70, 1];

    // Width, buckets (0: a row a distance), which of the relative tables are there, dropout, type.
    public static TheoryData<int, int, bool, bool, float, ElementType> Kinds => new()
    {
        { 16, 8, true, true, 0, ElementType.F32 },
        { 7, 0, true, true, 0.2f, ElementType.F32 },
        { 64, 32, true, false, 0, ElementType.F32 },
        { 33, 8, false, true, 0.1f, ElementType.F32 },
        { 72, 16, true, true, 0, ElementType.F32 },
        { 16, 8, true, true, 0.2f, ElementType.BF16 },
        { 33, 0, true, false, 0, ElementType.BF16 },
        { 72, 8, false, true, 0, ElementType.BF16 },
    };

    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void ForwardIsTheCpus(int headDim, int buckets, bool keys, bool queries, float dropout, ElementType type) =>
        Forward(new Kind(s_mixed, 2, headDim, buckets, keys, queries, dropout, type)).Compare(type == ElementType.F32 ? 1e-5 : 1.0 / 128, type == ElementType.F32 ? 2e-6 : 1e-5);

    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void GradientsAreTheCpus(int headDim, int buckets, bool keys, bool queries, float dropout, ElementType type) =>
        Backward(new Kind(s_mixed, 2, headDim, buckets, keys, queries, dropout, type), [true, true, true, keys, queries])
            .Compare(type == ElementType.F32 ? 3e-5 : 1.0 / 128, type == ElementType.F32 ? 2e-5 : 1e-3);

    [CudaTheory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void EachGradientAlone(int which) =>
        Backward(new Kind([5, 30], 1, 8, 4, true, true, 0.1f, ElementType.F32), [.. Enumerable.Range(0, 5).Select(i => i == which)]).Compare(3e-5, 1e-5);

    [CudaFact]
    public void LongSequencesHaveManyDiagonals()
    {
        // More heads and diagonals than a block each, and fewer: sequences in groups or not.
        Backward(new Kind([130, 3, 66], 1, 8, 16, true, true, 0, ElementType.F32), [false, false, false, true, true]).Compare(3e-5, 2e-5);
        Backward(new Kind([64, 2], 40, 3, 16, true, true, 0, ElementType.F32), [false, false, false, true, true]).Compare(3e-5, 2e-5);
    }

    [CudaFact]
    public void NoTokensGiveNoGradients()
    {
        var kind = new Kind([0], 1, 8, 4, true, true, 0, ElementType.F32);
        Forward(kind).Compare(0, 0);
        Backward(kind, [true, true, true, true, true]).Compare(0, 0);
    }

    private sealed record Kind(int[] Lengths, int Heads, int HeadDim, int Buckets, bool Keys, bool Queries, float Dropout, ElementType Type)
    {
        public int Tokens => Lengths.Sum();

        public BatchSize Size => new(Tokens, Lengths.Length, Lengths.Sum(l => (long)l * l));

        public DisentangledAttentionOp Op { get; } =
            new(Heads, HeadDim, 1 / MathF.Sqrt(3 * HeadDim), new RelativePositions(140, Buckets, 48), Dropout, 9);
    }

    private static OpCase Inputs(OpCase test, Kind kind)
    {
        var (columns, rows) = (kind.Heads * kind.HeadDim, 2 * kind.Op.Positions.Span);
        foreach (var (name, seed) in new[] { ("q", 1), ("k", 2), ("v", 3) })
            test.In(OpCase.Tokens(name, columns, kind.Type), OpCase.Random((long)kind.Tokens * columns, seed));
        test.In(OpCase.Ints("cu_seqlens", Shape.PerSequence(1)), [0, .. kind.Lengths.Select((_, i) => kind.Lengths[..(i + 1)].Sum())]);
        test.In(OpCase.Ints("key_visible", Shape.PerToken(1)), [.. Enumerable.Range(0, kind.Tokens).Select(t => t < 7 || t % 9 == 0 ? 0 : 1)]);
        return Table(Table(test, kind.Keys, "rk", 5), kind.Queries, "rq", 6);

        OpCase Table(OpCase to, bool there, string name, int seed) =>
            there ? to.In(OpCase.Fixed(name, rows, columns), OpCase.Random((long)rows * columns, seed)) : to.None();
    }

    private static OpCase Forward(Kind kind) =>
        Inputs(new OpCase(kind.Op, kind.Size) { Step = { Seed = 5, Step = 8 } }, kind)
            .Out(OpCase.Tokens("out", kind.Heads * kind.HeadDim, kind.Type)).Out(OpCase.Tokens("lse", kind.Heads));

    private static OpCase Backward(Kind kind, bool[] wanted)
    {
        var forward = Forward(kind).Run(Cuda.Cpu);
        var (columns, rows) = (kind.Heads * kind.HeadDim, 2 * kind.Op.Positions.Span);
        var test = new OpCase(new DisentangledAttentionGradOp(kind.Op, wanted[0], wanted[1], wanted[2], wanted[3], wanted[4]), kind.Size)
        {
            Step = { Seed = 5, Step = 8 },
        };
        test.In(OpCase.Tokens("dout", columns, kind.Type), OpCase.Random((long)kind.Tokens * columns, 4));
        Inputs(test, kind);
        test.In(OpCase.Tokens("out", columns, kind.Type), forward[0]).In(OpCase.Tokens("lse", kind.Heads), forward[1]);
        string[] names = ["dq", "dk", "dv", "drk", "drq"];
        for (var i = 0; i < 5; i++)
            if (wanted[i])
                test.Out(i < 3 ? OpCase.Tokens(names[i], columns, kind.Type) : OpCase.Fixed(names[i], rows, columns));
        return test;
    }
}
