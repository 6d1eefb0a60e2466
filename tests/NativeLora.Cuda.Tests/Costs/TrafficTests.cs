using NativeLora.Bench.Cuda;
using NativeLora.Devices.Cuda;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Costs;

/// <summary>Bytes on paper are those that the stand-in counts, where no kernel reads anything twice.</summary>
[Collection(Cuda.Collection)]
public sealed unsafe class TrafficTests
{
    private const int Tokens = 37, In = 24, Out = 40, Rank = 70;

    private static readonly BatchSize s_size = BatchSize.Of(1, Tokens);

    private static void AssertCounted(Op op, Tensor?[] inputs, params Tensor[] outputs)
    {
        var made = new OpCase(op, s_size);
        foreach (var input in inputs)
            _ = input is null ? made.None() : made.In(input, OpCase.Random(input.Shape.Elements(s_size), 3));
        foreach (var output in outputs)
            made.Out(output);
        var node = new Node("case", op, inputs, outputs, Phase.Forward, 0);
        var moved = (delegate* unmanaged<ulong>)CudaDriver.Open(Cuda.Libraries).Find("nlEmulatorBlasBytes");
        var (before, bytes) = (Cuda.Count(), moved());
        made.Run(Cuda.Device);
        var (after, product) = (Cuda.Count(), (long)(moved() - bytes));
        var launches = new NodeLaunches(node, (int)(after.Launches - before.Launches), (int)(after.BlasCalls - before.BlasCalls), product);
        var counted = after.GlobalBytesRead - before.GlobalBytesRead + after.GlobalBytesWritten - before.GlobalBytesWritten + (ulong)product;
        Assert.Equal(counted, OwnTraffic.Of(launches, s_size, OpWork.Of(node, s_size, tensorAttention: true)));
    }

    private static Tensor Brain(string name, int columns) => OpCase.Tokens(name, columns, ElementType.BF16);

    private static readonly Tensor s_weight = OpCase.Weight("w", Out, In, ElementType.BF16), s_a = OpCase.Parameter("a", Rank, In), s_b = OpCase.Parameter("b", Out, Rank);

    [InterpretedFact]
    public void Products_MoveWhatIsCounted()
    {
        var (x, y, dy, dx) = (Brain("x", In), Brain("y", Out), Brain("dy", Out), Brain("dx", In));
        var p = OpCase.Tokens("p", Rank);
        AssertCounted(new LoraLinearOp(2), [x, x, s_weight, null, s_a, s_b, Brain("r", Out)], y, p);
        AssertCounted(new LoraLinearOp(2), [x, x, s_weight, null, s_a, s_b, null], y, p);
        AssertCounted(new LoraInputGradOp(2), [dy, s_weight, Brain("r", In), s_b, s_a], dx, p);
        AssertCounted(new LoraDownGradOp(2), [dy, s_b], p);
        AssertCounted(new LinearOp(), [x, s_weight, null, null], y);
        AssertCounted(new LinearOp(), [x, s_weight, null, Brain("r", Out)], y);
        AssertCounted(new WeightGradOp(false), [dy, p], OpCase.Gradient("db", Out, Rank));
        AssertCounted(new WeightGradOp(false), [p, x], OpCase.Gradient("da", Rank, In));
    }

    [InterpretedFact]
    public void Rows_MoveWhatIsCounted()
    {
        AssertCounted(new AddOp(), [Brain("a", 32), Brain("b", 32)], Brain("c", 32));
        AssertCounted(new GatedOp(ActivationKind.Silu), [Brain("a", 32), Brain("b", 32)], Brain("c", 32));
    }
}
