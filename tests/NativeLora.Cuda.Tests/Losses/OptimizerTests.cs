using System.Runtime.InteropServices;
using NativeLora.Devices;
using NativeLora.Devices.Cuda;
using NativeLora.Graphs;

namespace NativeLora.Cuda.Tests.Losses;

/// <summary>Updates on CUDA, bit for bit those of the CPU.</summary>
[Collection(Cuda.Collection)]
public class OptimizerTests
{
    /// <summary>Tensors of odd sizes, so that none but the first begins at a multiple of 16 bytes; with biases, which do not decay.</summary>
    private static Graph Model()
    {
        var graph = new Graph(Trainables.Everything);
        var x = graph.Embedding(67, 1, ("tokens", graph.TokenIds, 301));
        graph.Linear("one", graph.Linear("two", x, 3), 5);
        return graph;
    }

    private static void Fill(DeviceBuffer buffer, int seed, float spread) =>
        buffer.Write(0, MemoryMarshal.AsBytes(OpCase.Random(buffer.Bytes / 4, seed, spread).AsSpan()));

    private static byte[] Bytes(DeviceBuffer buffer)
    {
        var bytes = new byte[buffer.Bytes];
        buffer.Read(0, bytes);
        return bytes;
    }

    private sealed record Result(double[] Norms, byte[] Values, byte[] First, byte[] Second);

    private static Result Train(Device device, OptimizerKind kind, double maxNorm, int steps, float spread = 0.1f, Action<DeviceBuffer, int>? change = null)
    {
        using var parameters = new ParameterStore(device, Model(), training: true, kind) { WeightDecay = n => n.EndsWith("bias", StringComparison.Ordinal) ? 0 : 0.05 };
        Fill(parameters.Values, 1, 1);
        using var optimizer = device.Optimizer(parameters);
        var norms = new double[steps];
        for (var step = 1; step <= steps; step++)
        {
            Fill(parameters.Gradients!, step + 1, spread);
            change?.Invoke(parameters.Gradients!, step);
            optimizer.Update(step, 1e-3 * step, maxNorm);
            norms[step - 1] = optimizer.GradientNorm();
        }
        return new Result(norms, Bytes(parameters.Values), Bytes(parameters.FirstMoments!), Bytes(parameters.SecondMoments!));
    }

    [CudaTheory]
    [InlineData(OptimizerKind.AdamW, 0)]
    [InlineData(OptimizerKind.AdamW, 0.5)]
    [InlineData(OptimizerKind.AdamW, 1e6)]
    [InlineData(OptimizerKind.AdamW8Bit, 0)]
    [InlineData(OptimizerKind.AdamW8Bit, 0.5)]
    public void Updates_AreThoseOfTheCpu(OptimizerKind kind, double maxNorm)
    {
        var (cpu, cuda) = (Train(Cuda.Cpu, kind, maxNorm, 4), Train(Cuda.Device, kind, maxNorm, 4));
        for (var i = 0; i < cpu.Norms.Length; i++)
            Assert.Equal(cpu.Norms[i], cuda.Norms[i], cpu.Norms[i] * 1e-13);
        Assert.Equal(cpu.Values, cuda.Values);
        Assert.Equal(cpu.First, cuda.First);
        Assert.Equal(cpu.Second, cuda.Second);
    }

    [CudaTheory]
    [InlineData(OptimizerKind.AdamW)]
    [InlineData(OptimizerKind.AdamW8Bit)]
    public void ZeroGradients_OnlyDecay(OptimizerKind kind)
    {
        var (cpu, cuda) = (Train(Cuda.Cpu, kind, 1, 2, 0), Train(Cuda.Device, kind, 1, 2, 0));
        Assert.Equal([0.0, 0.0], cuda.Norms);
        Assert.Equal(cpu.Values, cuda.Values);
    }

    [CudaTheory]
    [InlineData(OptimizerKind.AdamW, float.NaN)]
    [InlineData(OptimizerKind.AdamW, float.PositiveInfinity)]
    [InlineData(OptimizerKind.AdamW8Bit, float.NaN)]
    public void GradientsThatAreNotFinite_UpdateNothing(OptimizerKind kind, float value)
    {
        void Spoil(DeviceBuffer gradients, int step)
        {
            if (step == 2)
                gradients.Write(gradients.Bytes - 8, MemoryMarshal.AsBytes([value]));
        }
        var (once, spoilt) = (Train(Cuda.Device, kind, 1, 1), Train(Cuda.Device, kind, 1, 2, change: Spoil));
        Assert.False(double.IsFinite(spoilt.Norms[1]));
        Assert.Equal(once.Values, spoilt.Values);
        Assert.Equal(once.First, spoilt.First);
        Assert.Equal(once.Second, spoilt.Second);
    }

    [InterpretedFact]
    public void AnUpdate_IsThreeLaunchesAndNoCopy()
    {
        foreach (var kind in new[] { OptimizerKind.AdamW, OptimizerKind.AdamW8Bit })
        {
            using var parameters = new ParameterStore(Cuda.Device, Model(), training: true, kind);
            using var optimizer = Cuda.Device.Optimizer(parameters);
            optimizer.Update(1, 1e-3, 1);
            Cuda.Device.Wait();
            var before = Cuda.Count();
            optimizer.Update(2, 1e-3, 1);
            Cuda.Device.Wait();
            var after = Cuda.Count();
            Assert.Equal((ulong)CudaOptimizer.LaunchesOfUpdate, after.Launches - before.Launches);
            Assert.Equal(before.CopiesToHost, after.CopiesToHost);
            Assert.Equal(before.CopiesToDevice, after.CopiesToDevice);
        }
    }
}
