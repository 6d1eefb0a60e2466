using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Generation;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Serving;
using NativeLora.Tensors;
using NativeLora.Tests;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Serving;
using NativeLora.Tests.Training;
using NativeLora.Training;

namespace NativeLora.Cuda.Tests;

/// <summary>What is done with models besides training: text that goes on, several adapters at once, weights in blocks, recorded steps.</summary>
[Collection(Cuda.Collection)]
public class ModelTests
{
    [CudaTheory]
    [InlineData(ElementType.F32)]
    [InlineData(ElementType.BF16)]
    public void TextGoesOnAsOnTheCpu(ElementType precision)
    {
        using var folder = new TemporaryFolder();
        TinyModel.Open(folder.Path, isCausal: true).Dispose();
        Assert.Equal(Generate(folder.Path, Cuda.Cpu, precision), Generate(folder.Path, Cuda.Device, precision));
    }

    private static List<int[]> Generate(string folder, Device device, ElementType precision)
    {
        using var model = PretrainedModel.Open(folder, device, new PretrainedOptions { Precision = precision });
        using var generator = new TextGenerator(model, null);
        // Prompts read in pieces beside the continuations of others.
        var run = generator.Generate([[1, 2, 3], [7], [4, 4, 9, 30, 12, 1, 0, 6]], new GenerationOptions { MaxNewTokens = 5, IgnoreEos = true, MaxBatch = 2, PromptTokens = 5 });
        return [.. run.Results.Select(r => r.Ids.ToArray())];
    }

    [GoldenFact]
    public void SequencesOfABatchHaveAdaptersOfTheirOwn()
    {
        var (expected, found) = (Serve(Cuda.Cpu), Serve(Cuda.Device));
        Assert.InRange(ServedModel.Distance(found, expected), 0, 1e-5);
    }

    private static float[] Serve(Device device)
    {
        using var model = new ServedModel("llama-gqa", device);
        string[] variants = ["lora-all", "dora-selected"];
        using var set = AdapterSet.Open(model.Pretrained, model.Head, variants.Select(v => (v, model.Final(v))));
        var (graph, outputs) = set.Build(model.Options);
        graph.Keep(outputs.Logits!);
        using var session = set.NewSession(graph, model.Capacity);
        return model.Run(session, outputs, [.. Enumerable.Range(0, model.Batch.Rows).Select(row => row % 3 == 2 ? AdapterBank.None : row % 3)]);
    }

    [GoldenTheory]
    [InlineData(ElementType.Q8_0, ElementType.F32)]
    [InlineData(ElementType.Q4_0, ElementType.F32)]
    [InlineData(ElementType.Q8_0, ElementType.BF16)]
    public void WeightsInBlocksGiveTheCpusLogits(ElementType blocks, ElementType precision)
    {
        var (expected, found) = (Logits(Cuda.Cpu), Logits(Cuda.Device));
        Assert.InRange(ServedModel.Distance(found, expected), 0, precision == ElementType.F32 ? 1e-5 : 2e-2);

        float[] Logits(Device device)
        {
            using var model = PretrainedModel.Open(
                Shared.Path("fixtures", "models", "llama-aligned", "model"), device, new PretrainedOptions { Checkpoint = new CheckpointOptions { Quantize = blocks }, Precision = precision });
            var graph = model.NewGraph(Trainables.None);
            var outputs = model.Model.Build(graph, new BuildOptions { Head = ModelHead.LanguageModel, MaxLength = 24 });
            graph.Keep(outputs.Logits!);
            var batch = Pack([.. TinyModel.Examples(isCausal: true, 3, seed: 9)]);
            using var session = new Session(device, MemoryPlan.For(graph, Capacity(batch)), model.Weights, null);
            session.Load(batch);
            session.Run();
            return session.Read(outputs.Logits!);
        }
    }

    [CudaTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void StepsThatComeAgainAreRecordedForTheSameBits(bool isCausal)
    {
        using var folder = new TemporaryFolder();
        var plain = Train(records: false);
        var launches = Cuda.IsReal ? 0 : Cuda.Count().GraphLaunches;
        var recorded = Train(records: true);
        Assert.Equal(plain, recorded);
        // Two batches in turn, and the first adds nothing up: each is seen, recorded when it comes again, and then only launched.
        if (!Cuda.IsReal)
            Assert.Equal(6ul, Cuda.Count().GraphLaunches - launches);

        float[] Train(bool records)
        {
            Cuda.Device.RecordsSteps = records;
            try
            {
                using var model = TinyModel.Open(folder.Path, isCausal, dropout: 0, device: Cuda.Device);
                PackedBatch[] batches = [.. TinyModel.Examples(isCausal, 7, seed: 4).Chunk(4).Select(Pack)];
                var capacity = new BatchSize(batches.Max(b => b.TokenCapacity), batches.Max(b => b.SequenceCapacity), 0);
                using var training = new TrainingSession(model.Model, capacity, 24, new AdamWOptions(), baseDropout: false);
                var losses = new float[8];
                for (var s = 0; s < losses.Length; s++)
                {
                    var batch = batches[s % 2];
                    losses[s] = training.Accumulate(batch, 1f / training.LabelCount(batch), first: true);
                    training.Apply(1e-2, 1);
                }
                return losses;
            }
            finally
            {
                Cuda.Device.RecordsSteps = false;
            }
        }
    }

    [InterpretedFact]
    public void StepsWithRandomNumbersAreNeverRecorded()
    {
        using var folder = new TemporaryFolder();
        Cuda.Device.RecordsSteps = true;
        try
        {
            using var model = TinyModel.Open(folder.Path, isCausal: false, dropout: 0.1, device: Cuda.Device);
            var batch = Pack(TinyModel.Examples(isCausal: false, 3, seed: 4));
            using var training = new TrainingSession(model.Model, Capacity(batch), 24, new AdamWOptions(), baseDropout: false);
            var before = Cuda.Count().GraphLaunches;
            var losses = Enumerable.Range(0, 4).Select(_ => training.Accumulate(batch, 1f / 3, first: true)).ToHashSet();
            Assert.Equal(before, Cuda.Count().GraphLaunches);
            // B is 0 at first, so that the adapters' dropouts are seen only once something is learnt.
            training.Apply(1e-2, 1);
            losses = [.. Enumerable.Range(0, 4).Select(_ => training.Accumulate(batch, 1f / 3, first: true))];
            Assert.True(losses.Count > 1);
        }
        finally
        {
            Cuda.Device.RecordsSteps = false;
        }
    }

    private static BatchSize Capacity(PackedBatch batch) => new(batch.TokenCapacity, batch.SequenceCapacity, 0);

    private static PackedBatch Pack(EncodedExample[] examples)
    {
        var batch = new PackedBatch(examples.Sum(e => e.Length), examples.Length);
        new BatchPacker().Fill(batch, examples, [.. Enumerable.Range(0, examples.Length)]);
        return batch;
    }
}
