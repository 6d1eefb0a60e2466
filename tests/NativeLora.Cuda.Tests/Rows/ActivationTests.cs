using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Rows;

[Collection(Cuda.Collection)]
public class ActivationTests
{
    public static TheoryData<ActivationKind> Kinds => [.. Enum.GetValues<ActivationKind>()];

    public static TheoryData<ActivationKind> Gates => [.. Enum.GetValues<ActivationKind>().Where(k => k != ActivationKind.Tanh)];

    // Across the polynomials' borders and far beyond them.
    private static float[] Wide(int count, int seed) =>
        [.. OpCase.Random(count, seed, seed % 2 == 0 ? 3 : 12)];

    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void Forward(ActivationKind kind)
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.Sizes())
                new OpCase(new ActivationOp(kind), RowCases.Tokens(rows))
                    .In(OpCase.Tokens("x", columns, type), Wide(rows * columns, columns))
                    .Out(OpCase.Tokens("y", columns, type))
                    .Compare(type);
    }

    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void Gradient(ActivationKind kind)
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.FewSizes())
                foreach (var over in new[] { -1, 0, 1 })
                {
                    Tensor dy = OpCase.Tokens("dy", columns, type), x = OpCase.Tokens("x", columns, type), dx = OpCase.Tokens("dx", columns, type);
                    var op = new OpCase(new ActivationGradOp(kind), RowCases.Tokens(rows))
                        .In(dy, OpCase.Random(rows * columns, 1))
                        .In(x, kind == ActivationKind.Tanh ? OpCase.Random(rows * columns, 2) : Wide(rows * columns, columns));
                    (over < 0 ? op.Out(dx) : op.OutOver(dx, over == 0 ? dy : x)).Compare(type);
                }
    }

    [CudaTheory]
    [MemberData(nameof(Gates))]
    public void Gated(ActivationKind kind)
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.FewSizes())
                foreach (var over in new[] { -1, 0, 1 })
                {
                    Tensor gate = OpCase.Tokens("gate", columns, type), up = OpCase.Tokens("up", columns, type), y = OpCase.Tokens("y", columns, type);
                    var op = new OpCase(new GatedOp(kind), RowCases.Tokens(rows))
                        .In(gate, Wide(rows * columns, columns))
                        .In(up, OpCase.Random(rows * columns, 4));
                    (over < 0 ? op.Out(y) : op.OutOver(y, over == 0 ? gate : up)).Compare(type);
                }
    }

    [CudaTheory]
    [MemberData(nameof(Gates))]
    public void GatedGradient(ActivationKind kind)
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.FewSizes())
                foreach (var (first, second) in new[] { (-1, -1), (0, 1), (1, 2), (2, 0), (1, -1), (2, 1) })
                {
                    Tensor[] inputs = [OpCase.Tokens("dout", columns, type), OpCase.Tokens("gate", columns, type), OpCase.Tokens("up", columns, type)];
                    var op = new OpCase(new GatedGradOp(kind), RowCases.Tokens(rows))
                        .In(inputs[0], OpCase.Random(rows * columns, 5))
                        .In(inputs[1], Wide(rows * columns, columns))
                        .In(inputs[2], OpCase.Random(rows * columns, 6));
                    Tensor dgate = OpCase.Tokens("dgate", columns, type), dup = OpCase.Tokens("dup", columns, type);
                    op = first < 0 ? op.Out(dgate) : op.OutOver(dgate, inputs[first]);
                    (second < 0 ? op.Out(dup) : op.OutOver(dup, inputs[second])).Compare(type);
                }
    }

    [CudaTheory]
    [MemberData(nameof(Kinds))]
    public void ValuesAtTheEdges(ActivationKind kind)
    {
        float[] edges =
        [
            0, -0f, float.NaN, float.PositiveInfinity, float.NegativeInfinity, 1e-20f, -1e-20f, 1e-40f, 0.625f, 0.62499994f, 0.927734375f, 1.3120144f, 3.93f, -3.93f,
            10, -10, 20, -20, 87, -87, 88.8f, -88.8f, 89, -89, 104, -104, 1e4f, -1e4f, float.MaxValue, float.MinValue,
        ];
        new OpCase(new ActivationOp(kind), RowCases.Tokens(1))
            .In(OpCase.Tokens("x", edges.Length), edges)
            .Out(OpCase.Tokens("y", edges.Length))
            .Compare(1e-6, 1e-37);
        if (kind == ActivationKind.Tanh)
            return;
        new OpCase(new ActivationGradOp(kind), RowCases.Tokens(1))
            .In(OpCase.Tokens("dy", edges.Length), OpCase.Random(edges.Length, 3))
            .In(OpCase.Tokens("x", edges.Length), edges)
            .Out(OpCase.Tokens("dx", edges.Length))
            .Compare(1e-6, 1e-36);
    }

    [CudaFact]
    public void Softcap()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.FewSizes())
                foreach (var inPlace in new[] { false, true })
                {
                    Tensor x = OpCase.Tokens("x", columns, type), y = OpCase.Tokens("y", columns, type);
                    var op = new OpCase(new SoftcapOp(30), RowCases.Tokens(rows)).In(x, OpCase.Random(rows * columns, 7, 200));
                    (inPlace ? op.OutOver(y, x) : op.Out(y)).Compare(type);
                    Tensor dy = OpCase.Tokens("dy", columns, type), dx = OpCase.Tokens("dx", columns, type);
                    op = new OpCase(new SoftcapGradOp(30), RowCases.Tokens(rows)).In(dy, OpCase.Random(rows * columns, 8)).In(y, OpCase.Random(rows * columns, 9, 30));
                    (inPlace ? op.OutOver(dx, y) : op.OutOver(dx, dy)).Compare(type);
                }
    }

    [CudaFact]
    public void DropoutIsTheSameAsOnTheCpu()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.Sizes())
                foreach (var (p, stream) in new[] { (0.1f, 3u), (0.5f, 77u) })
                {
                    Tensor x = OpCase.Tokens("x", columns, type), y = OpCase.Tokens("y", columns, type);
                    var op = new OpCase(new DropoutOp(p, stream), RowCases.Tokens(rows)) { Step = { Seed = 0x1234_5678_9abc_def0, Step = 41 } }
                        .In(x, OpCase.Random(rows * columns, columns));
                    (columns % 2 == 0 ? op.OutOver(y, x) : op.Out(y)).Compare(0, 0);
                }
    }
}
