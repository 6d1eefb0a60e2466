using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Rows;

[Collection(Cuda.Collection)]
public class SumTests
{
    private static IEnumerable<(int Rows, int Columns)> Sizes() =>
        [.. RowCases.Sizes(), (127, 65), (128, 3), (129, 64), (300, 5), (1000, 2)];

    [CudaFact]
    public void ColumnSum()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in Sizes())
            {
                var adding = columns % 3;
                new OpCase(new ColumnSumOp(adding == 1), RowCases.Tokens(rows)) { Step = { AccumulateGradients = adding == 2 } }
                    .In(OpCase.Tokens("dy", columns, type), OpCase.Random((long)rows * columns, columns))
                    .Out(OpCase.Gradient("db", 1, columns), adding == 0 ? null : OpCase.Random(columns, 2))
                    .Compare(1e-5, 1e-5);
            }
    }

    [CudaFact]
    public void ColumnSumOfMoreRowsThanPartialSums() =>
        new OpCase(new ColumnSumOp(true), RowCases.Tokens(16_600)) { Capacity = RowCases.Tokens(20_000), BothSchedules = false }
            .In(OpCase.Tokens("dy", 3), OpCase.Random(16_600 * 3, 1))
            .Out(OpCase.Gradient("db", 1, 3), OpCase.Random(3, 2))
            .Compare(1e-4, 1e-3);

    [CudaFact]
    public void MagnitudeGradient()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in Sizes())
            {
                var adding = columns % 3;
                new OpCase(new MagnitudeGradOp(adding == 1), RowCases.Tokens(rows)) { Step = { AccumulateGradients = adding == 2 } }
                    .In(OpCase.Tokens("dy", columns, type), OpCase.Random((long)rows * columns, columns))
                    .In(OpCase.Tokens("v", columns, type), OpCase.Random((long)rows * columns, columns + 1))
                    .In(OpCase.Fixed("inverse", 1, columns), OpCase.Random(columns, 3))
                    .Out(OpCase.Gradient("dm", 1, columns), adding == 0 ? null : OpCase.Random(columns, 2))
                    .Compare(1e-5, 1e-5);
            }
    }

    [CudaFact]
    public void ScaleOfColumns()
    {
        foreach (var type in RowCases.Types)
            foreach (var (rows, columns) in RowCases.Sizes())
            {
                Tensor v = OpCase.Tokens("v", columns, type), addend = OpCase.Tokens("addend", columns, type), y = OpCase.Tokens("y", columns, type);
                Tensor scale = OpCase.Fixed("g", 1, columns);
                var op = new OpCase(new DoraOp(columns % 2), RowCases.Tokens(rows))
                    .In(v, OpCase.Random(rows * columns, 1))
                    .In(scale, OpCase.Random(columns, 2))
                    .In(OpCase.Fixed("inverse", 1, columns), OpCase.Random(columns, 3))
                    .In(OpCase.Parameter("m", 1, columns), OpCase.Random(columns, 4));
                op = columns % 3 == 0 ? op.None() : op.In(OpCase.Weight("b", 1, columns), OpCase.Random(columns, 5));
                op = columns % 5 == 0 ? op.None() : op.In(addend, OpCase.Random(rows * columns, 6));
                (columns % 4 == 0 ? op.OutOver(y, v) : columns % 4 == 1 && columns % 5 != 0 ? op.OutOver(y, addend) : op.Out(y)).Compare(type);
                Tensor dy = OpCase.Tokens("dy", columns, type), dv = OpCase.Tokens("dv", columns, type);
                op = new OpCase(new DoraGradOp(columns % 2), RowCases.Tokens(rows)).In(dy, OpCase.Random(rows * columns, 7)).In(scale, OpCase.Random(columns, 2));
                (columns % 2 == 0 ? op.OutOver(dv, dy) : op.Out(dv)).Compare(type);
            }
    }
}
