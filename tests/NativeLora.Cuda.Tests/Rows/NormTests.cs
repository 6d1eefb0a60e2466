using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Rows;

[Collection(Cuda.Collection)]
public class NormTests
{
    [CudaFact]
    public void LayerNorm()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.Sizes())
            {
                Tensor x = OpCase.Tokens("x", columns, type), y = OpCase.Tokens("y", columns, type);
                var op = new OpCase(new LayerNormOp(1e-5f), RowCases.Tokens(rows))
                    .In(x, OpCase.Random(rows * columns, columns, 2, 0.5))
                    .In(OpCase.Parameter("w", 1, columns), OpCase.Random(columns, 2));
                op = rows % 2 == 0 ? op.None() : op.In(OpCase.Parameter("b", 1, columns), OpCase.Random(columns, 3));
                // One column has no variance: its 1 / √ε magnifies nothing but the difference, which is 0.
                (columns % 3 == 0 ? op.OutOver(y, x) : op.Out(y)).Compare(type, 1e-5, 1e-5);
            }
    }

    /// <summary>A mean of a thousand deviations costs a variance of one pass all its digits.</summary>
    [CudaFact]
    public void LayerNormAboutALargeMean()
    {
        foreach (var columns in new[] { 64, 70, 2048 })
            new OpCase(new LayerNormOp(1e-5f), RowCases.Tokens(3))
                .In(OpCase.Tokens("x", columns), OpCase.Random(3 * columns, 5, 1, 1000))
                .In(OpCase.Weight("w", 1, columns), OpCase.Random(columns, 6))
                .None()
                .Out(OpCase.Tokens("y", columns))
                .Compare(1e-4, 3e-4);
    }

    [CudaFact]
    public void RmsNorm()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.Sizes())
            {
                Tensor x = OpCase.Tokens("x", columns, type), y = OpCase.Tokens("y", columns, type);
                var op = new OpCase(new RmsNormOp(1e-6f, columns % 2 == 0), RowCases.Tokens(rows))
                    .In(x, OpCase.Random(rows * columns, columns, 2))
                    .In(OpCase.Weight("w", 1, columns), OpCase.Random(columns, 2));
                (columns % 3 == 0 ? op.OutOver(y, x) : op.Out(y)).Compare(type);
            }
    }

    [CudaFact]
    public void RmsNormOfGroups()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, groups, width) in new[] { (0, 2, 8), (1, 3, 5), (9, 4, 64), (5, 2, 70), (2, 2, 1028) })
                new OpCase(new RmsNormOp(1e-6f, false), RowCases.Tokens(rows))
                    .In(OpCase.Tokens("x", groups * width, type), OpCase.Random(rows * groups * width, width, 2))
                    .In(OpCase.Weight("w", 1, width), OpCase.Random(width, 2))
                    .Out(OpCase.Tokens("y", groups * width, type))
                    .Compare(type);
    }

    [CudaTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void InputGradient(bool layer)
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.Sizes())
            {
                if (columns == 1 && layer)
                    continue; // its gradient is a difference of rounding errors
                var place = columns % 4; // of its own, over dy, over the addend, without one
                Tensor dy = OpCase.Tokens("dy", columns, type), x = OpCase.Tokens("x", columns, type);
                Tensor addend = OpCase.Tokens("addend", columns, type), dx = OpCase.Tokens("dx", columns, type);
                var op = new OpCase(Grad(layer ? new LayerNormOp(1e-5f) : new RmsNormOp(1e-6f, columns % 2 == 0), true, false, false), RowCases.Tokens(rows))
                    .In(dy, OpCase.Random(rows * columns, 1))
                    .In(x, OpCase.Random(rows * columns, 2, 2, 0.5))
                    .In(OpCase.Weight("w", 1, columns), OpCase.Random(columns, 3));
                op = place == 3 ? op.None() : op.In(addend, OpCase.Random(rows * columns, 4));
                op = place is 1 or 2 ? op.OutOver(dx, place == 1 ? dy : addend) : op.Out(dx);
                // Two columns: the variance may be small, and the gradient what is left of a difference.
                if (columns <= 3)
                    op.Compare(type, 1e-3, 1e-3);
                else
                    op.Compare(type, 1e-5, 1e-5);
            }
    }

    [CudaTheory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(false, false)]
    public void ParameterGradients(bool layer, bool input)
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, groups, width) in new[] { (0, 1, 6), (1, 1, 5), (3, 1, 64), (70, 1, 33), (129, 1, 70), (260, 1, 8), (2, 1, 1030), (50, 3, 17) })
                foreach (var adding in new[] { 0, 1, 2 })
                {
                    if (layer && groups > 1)
                        continue;
                    var columns = groups * width;
                    Tensor dy = OpCase.Tokens("dy", columns, type), x = OpCase.Tokens("x", columns, type);
                    var forward = layer ? (Op)new LayerNormOp(1e-5f) : new RmsNormOp(1e-6f, false);
                    var op = new OpCase(Grad(forward, input, true, adding == 1), RowCases.Tokens(rows)) { Step = { AccumulateGradients = adding == 2 } }
                        .In(dy, OpCase.Random(rows * columns, 1))
                        .In(x, OpCase.Random(rows * columns, 2, 2, 0.5))
                        .In(OpCase.Parameter("w", 1, width), OpCase.Random(width, 3))
                        .None();
                    if (input)
                        op.OutOver(OpCase.Tokens("dx", columns, type), dy);
                    op.Out(OpCase.Gradient("dw", 1, width), adding == 0 ? null : OpCase.Random(width, 5));
                    if (layer)
                        op.Out(OpCase.Gradient("db", 1, width), adding == 0 ? null : OpCase.Random(width, 6));
                    op.Compare(type, 1e-5, 3e-5);
                }
    }

    /// <summary>More rows than one block's worth of partial sums, within a larger capacity.</summary>
    [CudaFact]
    public void ParameterGradientsOfManyRows()
    {
        const int Rows = 16_600, Columns = 3;
        new OpCase(Grad(new LayerNormOp(1e-5f), false, true, false), RowCases.Tokens(Rows)) { Capacity = RowCases.Tokens(20_000), BothSchedules = false }
            .In(OpCase.Tokens("dy", Columns), OpCase.Random(Rows * Columns, 1))
            .In(OpCase.Tokens("x", Columns), OpCase.Random(Rows * Columns, 2))
            .In(OpCase.Parameter("w", 1, Columns), OpCase.Random(Columns, 3))
            .None()
            .Out(OpCase.Gradient("dw", 1, Columns))
            .Out(OpCase.Gradient("db", 1, Columns))
            .Compare(1e-4, 1e-3);
    }

    // Only the backward rule of a graph makes one with parameters.
    private static NormGradOp Grad(Op forward, bool input, bool parameters, bool adds)
    {
        var op = new NormGradOp(forward);
        void Set(string name, bool value) => typeof(NormGradOp).GetProperty(name)!.SetValue(op, value);
        Set(nameof(NormGradOp.Input), input);
        Set(nameof(NormGradOp.Parameters), parameters);
        Set(nameof(NormGradOp.Adds), adds);
        return op;
    }
}
