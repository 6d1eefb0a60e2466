using NativeLora.Bench.Cuda;
using NativeLora.Data;
using NativeLora.Devices.Cuda;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Training;
using NativeLora.Training;

namespace NativeLora.Cuda.Tests.Costs;

/// <summary>What docs/cuda-costs.md is written from.</summary>
[Collection(Cuda.Collection)]
public class CostTests
{
    private static PackedBatch Batch(bool isCausal)
    {
        var random = new Random(4);
        var batch = new PackedBatch(12, 2) { TokenCount = 12, SequenceCount = 2 };
        for (var t = 0; t < 12; t++)
        {
            (batch.TokenIds[t], batch.Positions[t], batch.KeyVisible[t]) = (random.Next(40), t % 6, 1);
            batch.Labels[t] = isCausal ? random.Next(40) : -100;
        }
        (batch.CuSeqlens[1], batch.CuSeqlens[2], batch.PoolIndex[1]) = (6, 12, 6);
        batch.ClassLabels[1] = 1;
        return batch;
    }

    [InterpretedFact]
    public void LaunchesCounted_AreThoseOfAStep()
    {
        foreach (var isCausal in new[] { true, false })
        {
            using var folder = new TemporaryFolder();
            using var model = TinyModel.Open(folder.Path, isCausal, device: Cuda.Device);
            using var training = new TrainingSession(model.Model, BatchSize.Of(2, 6), 6, new AdamWOptions(), baseDropout: true);
            var counted = PlanLaunches.Count(Cuda.Device, training.Session.Plan);
            var batch = Batch(isCausal);
            training.Accumulate(batch, 0.1f, first: true);
            Cuda.Device.Wait();
            var before = Cuda.Count();
            training.Accumulate(batch, 0.1f, first: true);
            Cuda.Device.Wait();
            var after = Cuda.Count();
            Assert.Equal(after.Launches - before.Launches, (ulong)counted.Sum(c => c.Kernels));
            Assert.Equal(after.BlasCalls - before.BlasCalls, (ulong)counted.Sum(c => c.Products));
            Assert.All(counted, c => Assert.True(c.Kernels + c.Products > 0, $"{c.Node.Op.Name} launches nothing"));
        }
    }

    [Fact]
    public void KernelsOfThePtx_AreAllThereIs()
    {
        var kernels = PtxKernel.Embedded();
        Assert.Equal(CudaModules.Names.Order(StringComparer.Ordinal), kernels.Select(k => k.Name).Order(StringComparer.Ordinal));
        Assert.All(kernels, k => Assert.InRange(k.Threads, 32, 1024));
        Assert.All(kernels, k => Assert.InRange(k.SharedBytes, 0, 48 << 10));
        Assert.All(kernels, k => Assert.True(k.Mix.Values.Sum() > 0));
        Assert.Equal(32 * (8 + 4), kernels.Single(k => k.Name == "cross_entropy_wide_f32").SharedBytes);
        Assert.Equal(4096, kernels.Single(k => k.Name == "loss_labels").SharedBytes);
    }

    [Fact]
    public void InstructionsAreCountedByWhatTheyDo()
    {
        const string text = """
            .weak .shared .align 8 .b8 both[64];
            .visible .entry first(
            	.param .align 8 .b8 first_param_0[8]
            )
            .maxntid 96, 1, 1
            {
            	.local .align 4 .b8 	__local_depot0[24];
            	.reg .f32 	%f<3>;
            	.shared .align 4 .b8 own[40];
            	mov.u64 	%rd1, both;
            	ld.global.v4.f32 	{%f1, %f2, %f3, %f4}, [%rd1];
            	@%p1 bra 	$L__BB0_2;
            	fma.rn.f32 	%f1, %f2, %f3, %f4;
            	@!%p2 st.shared.f32 	[%rd1], %f1;
            	bar.sync 	0;
            	add.s32 	%r1, %r2, 1;
            	add.rn.f64 	%fd1, %fd2, %fd3;
            	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};
            	ret;
            }
            .visible .entry second(
            	.param .align 8 .b8 second_param_0[8]
            )
            .maxntid 32, 1, 1
            {
            	ret;
            }
            """;
        PtxKernel[] kernels = [.. PtxKernel.Parse("a.ptx", text.ReplaceLineEndings("\n"))];
        Assert.Equal(["first", "second"], kernels.Select(k => k.Name));
        Assert.Equal([96, 32], kernels.Select(k => k.Threads));
        Assert.Equal([104, 0], kernels.Select(k => k.SharedBytes));
        Assert.Equal([24, 0], kernels.Select(k => k.LocalBytes));
        Assert.Equal(
            new Dictionary<InstructionClass, int>
            {
                [InstructionClass.Tensor] = 1,
                [InstructionClass.Single] = 1,
                [InstructionClass.Double] = 1,
                [InstructionClass.Global] = 1,
                [InstructionClass.Shared] = 1,
                [InstructionClass.Barrier] = 1,
                [InstructionClass.Branch] = 2,
                [InstructionClass.Other] = 2,
            }, kernels[0].Mix);
    }

    [Fact]
    public void ALinearModuleWithAnAdapter_IsFiveOperationsUnfused()
    {
        var size = BatchSize.Of(1, 10);
        var node = new Node(
            "q", new LoraLinearOp(2),
            [OpCase.Tokens("x", 6), OpCase.Tokens("x", 6), OpCase.Weight("w", 4, 6), null, OpCase.Parameter("a", 2, 6), OpCase.Parameter("b", 4, 2), OpCase.Tokens("r", 4)],
            [OpCase.Tokens("y", 4), OpCase.Tokens("p", 2)], Phase.Forward, 0);
        // Three products, the scaling, the sum, and that of the residual; bf16.
        var products = (60 + 24 + 40) + (60 + 12 + 20) + (20 + 8 + 40);
        Assert.Equal(new EagerCost(6, 2 * (products + 80 + 120 + 120)), EagerStep.Of(node, size));
    }

    [Fact]
    public void TheRoofline_IsTheLongerOfOperationsAndBytes()
    {
        var gpu = new Gpu("", 100, 10, 5);
        Assert.Equal(3, gpu.Seconds(new OpWork(200, 10, 5)));
        Assert.Equal(4, gpu.Seconds(new OpWork(200, 10, 20)));
        Assert.True(gpu.IsBoundByMemory(new OpWork(200, 10, 20)));
        Assert.False(gpu.IsBoundByMemory(new OpWork(200, 10, 5)));
    }
}
