using NativeLora.Graphs;
using NativeLora.Ops;

namespace NativeLora.Cuda.Tests.Losses;

/// <summary>Cross-entropy and squared error against the CPU's.</summary>
[Collection(Cuda.Collection)]
public class LossTests
{
    private const int Ignored = -100;

    /// <summary>Labels in range, each third row without one unless told otherwise.</summary>
    private static int[] Labels(int rows, int classes, string which = "some")
    {
        var random = new Random(rows * 31 + classes);
        return [.. Enumerable.Range(0, rows).Select(r => which switch
        {
            "none" => Ignored,
            "one" => r == rows / 2 ? random.Next(classes) : Ignored,
            "all" => random.Next(classes),
            _ => r % 3 == 1 ? Ignored : random.Next(classes),
        })];
    }

    private static OpCase Case(Op op, int rows, float inverseCount)
    {
        var made = new OpCase(op, new BatchSize(rows, rows, rows));
        made.Step.InverseCount = inverseCount;
        return made;
    }

    private static OpCase CrossEntropy(bool gradient, int rows, int classes, string which = "some", double spread = 4)
    {
        var made = Case(gradient ? new LossGradOp(CrossEntropyOp.Instance) : CrossEntropyOp.Instance, rows, 1 / 3f)
            .In(OpCase.Sequences("logits", classes), OpCase.Random((long)rows * classes, 3, spread))
            .In(OpCase.Ints("labels", Shape.PerSequence(1)), Labels(rows, classes, which));
        return gradient ? made.Out(OpCase.Sequences("dlogits", classes)) : made.Out(OpCase.Fixed("loss", 1, 1));
    }

    [CudaTheory]
    [InlineData(0, 5, "some")]
    [InlineData(1, 1, "all")]
    [InlineData(1, 2, "none")]
    [InlineData(3, 3, "some")]
    [InlineData(17, 31, "one")]
    [InlineData(33, 33, "some")]
    [InlineData(70, 64, "all")]
    [InlineData(5, 1031, "some")]
    [InlineData(3, 4096, "all")]
    [InlineData(2, 5003, "all")]
    public void CrossEntropy_IsThatOfTheCpu(int rows, int classes, string which)
    {
        CrossEntropy(false, rows, classes, which).Compare(2e-6, 1e-7);
        CrossEntropy(true, rows, classes, which).Compare(1e-5, 1e-8);
    }

    [CudaTheory]
    [InlineData(60)]
    [InlineData(3000)]
    public void LargeLogits_OverflowNothing(double spread)
    {
        CrossEntropy(false, 9, 70, "all", spread).Compare(2e-6, 1e-6);
        CrossEntropy(true, 9, 70, "all", spread).Compare(2e-5, 1e-8);
    }

    [CudaFact]
    public void AGradientMayLieOverTheLogits()
    {
        var logits = OpCase.Sequences("logits", 37);
        Case(new LossGradOp(CrossEntropyOp.Instance), 11, 0.1f)
            .In(logits, OpCase.Random(11 * 37, 5, 3))
            .In(OpCase.Ints("labels", Shape.PerSequence(1)), Labels(11, 37))
            .OutOver(OpCase.Sequences("dlogits", 37), logits)
            .Compare(1e-5, 1e-8);
    }

    [CudaFact]
    public void NaN_IsKept()
    {
        var values = OpCase.Random(2 * 9, 7);
        values[4] = float.NaN;
        var loss = Case(CrossEntropyOp.Instance, 2, 1)
            .In(OpCase.Sequences("logits", 9), values)
            .In(OpCase.Ints("labels", Shape.PerSequence(1)), 0, 1)
            .Out(OpCase.Fixed("loss", 1, 1))
            .RunCuda()[0][0];
        Assert.True(float.IsNaN(loss));
    }

    [CudaTheory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(31)]
    [InlineData(70)]
    [InlineData(301)]
    public void SquaredError_IsThatOfTheCpu(int rows)
    {
        foreach (var gradient in new[] { false, true })
        {
            var made = Case(gradient ? new LossGradOp(SquaredErrorOp.Instance) : SquaredErrorOp.Instance, rows, 1f / 7)
                .In(OpCase.Sequences("logits", 1), OpCase.Random(rows, 1))
                .In(OpCase.Sequences("targets", 1), OpCase.Random(rows, 2));
            (gradient ? made.Out(OpCase.Sequences("dlogits", 1)) : made.Out(OpCase.Fixed("loss", 1, 1))).Compare(gradient ? 0 : 1e-6, 0);
        }
    }
}
