using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Training;
using NativeLora.Training;

namespace NativeLora.Cuda.Tests;

/// <summary>Training on CUDA: the CPU's results, and nothing but the loss comes back to the host.</summary>
[Collection(Cuda.Collection)]
public class TrainingTests
{
    private const int Steps = 12;

    [CudaTheory]
    [InlineData(false, false, OptimizerKind.AdamW)]
    [InlineData(false, false, OptimizerKind.AdamW8Bit)]
    [InlineData(true, false, OptimizerKind.AdamW)]
    [InlineData(false, true, OptimizerKind.AdamW8Bit)]
    public void LearnsWhatTheCpuLearns(bool isCausal, bool inFull, OptimizerKind optimizer)
    {
        using var folder = new TemporaryFolder();
        var expected = Train(folder.Path, Cuda.Cpu, isCausal, inFull, optimizer);
        var found = Train(folder.Path, Cuda.Device, isCausal, inFull, optimizer);
        for (var s = 0; s < Steps; s++)
        {
            Assert.Equal(expected.Losses[s], found.Losses[s], 1e-4 * Math.Abs(expected.Losses[s]));
            Assert.Equal(expected.Norms[s], found.Norms[s], 1e-3 * expected.Norms[s]);
        }
        Assert.True(expected.Losses[^2] < expected.Losses[0]);
        foreach (var (name, values) in expected.Parameters)
        {
            // The softmax takes away what a bias of the keys adds: its gradient is rounding, and AdamW makes steps of it.
            if (name.EndsWith("key.bias", StringComparison.Ordinal))
                continue;
            // A gradient about 0 moves a parameter by a whole learning rate either way.
            double difference = 0, norm = 0;
            for (var i = 0; i < values.Length; i++)
                (difference, norm) = (difference + Math.Pow(values[i] - found.Parameters[name][i], 2), norm + Math.Pow(values[i], 2));
            Assert.True(difference <= 1e-4 * norm + 1e-8, $"{name}: {Math.Sqrt(difference)} of {Math.Sqrt(norm)}");
        }
    }

    [InterpretedFact]
    public void OnlyTheLossComesBackAndNothingIsLeft()
    {
        Cuda.Reset();
        using var folder = new TemporaryFolder();
        using (var device = Cuda.Open())
        using (var model = TinyModel.Open(folder.Path, isCausal: false, device: device))
        {
            var batches = Batches(isCausal: false);
            using var training = New(model, batches);
            Step(training, batches[0], first: true);
            var before = Cuda.Count();
            for (var s = 1; s < Steps; s++)
                Step(training, batches[s % batches.Count], first: true);
            device.Wait();
            var after = Cuda.Count();
            Assert.Equal((ulong)(Steps - 1), after.CopiesToHost - before.CopiesToHost);
            Assert.Equal(4ul * (Steps - 1), after.BytesToHost - before.BytesToHost);
            Assert.Equal(before.Allocations, after.Allocations);
            Assert.Equal(before.LiveBytes, after.LiveBytes);

            // The norm comes when it is asked for.
            Assert.True(training.GradientNorm() > 0);
            Assert.Equal(after.CopiesToHost + 1, Cuda.Count().CopiesToHost);
            Assert.Equal(after.BytesToHost + 8, Cuda.Count().BytesToHost);
        }
        Assert.Equal("", Cuda.Leaks());
        Assert.Equal(0ul, Cuda.Count().LiveAllocations);
    }

    [InterpretedFact]
    public void NoBitDependsOnTheOrderOfWork()
    {
        using var folder = new TemporaryFolder();
        var eager = Train(folder.Path, Cuda.Device, isCausal: true, inFull: false, OptimizerKind.AdamW);
        try
        {
            Cuda.Take(Schedule.Deferred);
            var deferred = Train(folder.Path, Cuda.Device, isCausal: true, inFull: false, OptimizerKind.AdamW);
            Assert.Equal(eager.Losses, deferred.Losses);
            Assert.Equal(eager.Norms, deferred.Norms);
            foreach (var (name, values) in eager.Parameters)
                Assert.Equal(values, deferred.Parameters[name]);
        }
        finally
        {
            Cuda.Take(Schedule.Eager);
        }
    }

    [CudaTheory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    public void ScratchIsWhatAPlanPredicts(bool isCausal, bool dora)
    {
        using var folder = new TemporaryFolder();
        using var device = Cuda.Open();
        using var model = TinyModel.Open(folder.Path, isCausal, device: device, change: lora => lora with { UseDora = dora });
        using var planner = device.NewPlanner();
        var none = planner.ScratchBytes;
        Assert.Equal(none, device.ScratchBytes);
        using var training = New(model, Batches(isCausal));
        Assert.Equal(device.ScratchBytes, planner.ScratchOf(training.Session.Plan));
        Assert.True(device.ScratchBytes > none);
        // The same again over the same weights takes no more.
        using var again = New(model, Batches(isCausal));
        Assert.Equal(planner.ScratchBytes, device.ScratchBytes);
    }

    [CudaFact]
    public void GradientsThatAreNotFiniteUpdateNothing()
    {
        using var folder = new TemporaryFolder();
        using var model = TinyModel.Open(folder.Path, isCausal: false, device: Cuda.Device);
        var batches = Batches(isCausal: false);
        using var training = New(model, batches);
        Step(training, batches[0], first: true);
        var parameters = model.Model.Parameters;
        var before = parameters.Names.ToDictionary(n => n, parameters.Read);
        training.Accumulate(batches[0], float.PositiveInfinity, first: true);
        training.Apply(1e-2, 1);
        Assert.False(double.IsFinite(training.GradientNorm()));
        foreach (var (name, values) in before)
            Assert.Equal(values, parameters.Read(name));
    }

    private sealed record Trained(float[] Losses, double[] Norms, Dictionary<string, float[]> Parameters);

    private static Trained Train(string folder, Device device, bool isCausal, bool inFull, OptimizerKind optimizer)
    {
        using var model = TinyModel.Open(folder, isCausal, inFull, device: device, optimizer: optimizer);
        var batches = Batches(isCausal);
        using var training = New(model, batches);
        var (losses, norms) = (new float[Steps], new double[Steps]);
        for (var s = 0; s < Steps; s++)
        {
            // The same batch each time, so that the loss falls; every third update from two batches.
            losses[s] = Step(training, batches[0], first: true, update: s % 3 != 2);
            if (s % 3 == 2)
                losses[s] += Step(training, batches[1], first: false);
            norms[s] = training.GradientNorm();
        }
        var parameters = model.Model.Parameters;
        return new(losses, norms, parameters.Names.ToDictionary(n => n, parameters.Read));
    }

    private static float Step(TrainingSession training, PackedBatch batch, bool first, bool update = true)
    {
        var loss = training.Accumulate(batch, 1f / training.LabelCount(batch), first);
        if (update)
            training.Apply(5e-3, 1);
        return loss;
    }

    private static TrainingSession New(TinyModel model, IReadOnlyList<PackedBatch> batches) =>
        new(model.Model, new BatchSize(batches.Max(b => b.TokenCapacity), batches.Max(b => b.SequenceCapacity), 0), 24, new AdamWOptions { WeightDecay = 0.01 }, baseDropout: true) { Seed = 11 };

    private static List<PackedBatch> Batches(bool isCausal) =>
        [.. TinyModel.Examples(isCausal, 10, seed: 4).Chunk(5).Select(chunk => Pack(chunk))];

    private static PackedBatch Pack(EncodedExample[] examples)
    {
        var batch = new PackedBatch(examples.Sum(e => e.Length), examples.Length);
        new BatchPacker().Fill(batch, examples, [.. Enumerable.Range(0, examples.Length)]);
        return batch;
    }
}
