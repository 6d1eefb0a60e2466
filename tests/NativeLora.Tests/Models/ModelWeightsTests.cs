using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Tensors;
using NativeLora.Training;

namespace NativeLora.Tests.Models;

/// <summary>Weights that a checkpoint lacks, has in a wrong shape or type, or stores in 16 bits.</summary>
public class ModelWeightsTests
{
    public static TheoryData<string> Kinds => [.. TinyModel.Kinds];

    private static Session Forward(PretrainedModel pretrained, PackedBatch batch, out Tensor logits)
    {
        var graph = pretrained.NewGraph(Trainables.None);
        logits = pretrained.Model.Build(graph, new BuildOptions { Head = TinyModel.Head(pretrained.Model), MaxLength = batch.LongestSequence }).Logits!;
        return new Session(pretrained.Device, MemoryPlan.For(graph, TinyModel.Capacity(batch)), pretrained.Weights, null);
    }

    private static float[] Logits(PretrainedModel pretrained, PackedBatch batch)
    {
        using var session = Forward(pretrained, batch, out var logits);
        session.Load(batch);
        session.Run();
        return session.Read(logits);
    }

    private static InputException Refused(TinyModel tiny, Device device)
    {
        using var pretrained = tiny.Open(device);
        return Assert.Throws<InputException>(() =>
        {
            using var session = Forward(pretrained, TinyModel.Batch(tiny.Model, 1, 3), out _);
        });
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void EveryMissingWeightIsNamed(string kind)
    {
        using var device = new CpuDevice(1);
        var model = ModelRegistry.Create(TinyModel.Config(kind));
        foreach (var weight in TinyModel.Weights(model))
        {
            using var tiny = new TinyModel(kind, change: t => t.Name == weight.Name ? null : t);
            // What a task adds on top is made anew; everything else must be there.
            if (new[] { "classifier", "pre_classifier", "head.", "pooler.", "bert.pooler" }.Any(n => weight.Name.StartsWith(n, StringComparison.Ordinal)))
            {
                using var pretrained = tiny.Open(device);
                Assert.All(Logits(pretrained, TinyModel.Batch(tiny.Model, 1, 3)), v => Assert.True(float.IsFinite(v)));
                Assert.Equal([weight.Name], pretrained.Weights.FreshlyInitialised);
            }
            else
            {
                Assert.Contains($"\"{weight.Name}\"", Refused(tiny, device).Message);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void EveryMisshapenWeightIsNamedWithBothShapes(string kind)
    {
        using var device = new CpuDevice(1);
        var model = ModelRegistry.Create(TinyModel.Config(kind));
        foreach (var weight in TinyModel.Weights(model))
        {
            using var tiny = new TinyModel(kind, change: t => t.Name == weight.Name ? Shorter(t) : t);
            var message = Refused(tiny, device).Message;
            Assert.Contains($"\"{weight.Name}\"", message);
            Assert.DoesNotContain('\n', message);
            Assert.Contains($"{weight.Shape.Columns}]", message);
        }

        static TensorToWrite Shorter(TensorToWrite t)
        {
            long[] shape = [t.Shape[0] + 1, .. t.Shape.Skip(1)];
            return TensorToWrite.From(t.Name, t.Type, shape, new byte[4 * shape.Aggregate(1L, (a, b) => a * b)]);
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void EveryWeightOfAWrongTypeIsNamed(string kind)
    {
        using var device = new CpuDevice(1);
        var model = ModelRegistry.Create(TinyModel.Config(kind));
        foreach (var weight in TinyModel.Weights(model))
        {
            using var tiny = new TinyModel(kind, change: t => t.Name == weight.Name
                ? TensorToWrite.From(t.Name, ElementType.I32, t.Shape, new byte[t.Bytes])
                : t);
            var message = Refused(tiny, device).Message;
            Assert.Contains($"\"{weight.Name}\"", message);
            Assert.Contains("I32", message);
        }
    }

    [Fact]
    public void AWeightThatOnlyTrainingReadsIsCheckedToo()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("llama", change: t => t.Name == "lm_head.weight" ? null : t);
        using var pretrained = tiny.Open(device);
        var error = Assert.Throws<InputException>(() => TrainableModel.InFull(pretrained, ModelHead.LanguageModel));
        Assert.Contains("\"lm_head.weight\"", error.Message);
    }

    [Fact]
    public void AFreshHeadDependsOnTheSeedAlone()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("bert", change: t => t.Name.StartsWith("classifier", StringComparison.Ordinal) ? null : t);
        var batch = TinyModel.Batch(tiny.Model, 3, 5, 2);
        float[] Run(ulong seed, string[] labels)
        {
            using var pretrained = tiny.Open(device, new PretrainedOptions { Seed = seed, Labels = labels });
            var logits = Logits(pretrained, batch);
            Assert.Equal(["classifier.bias", "classifier.weight"], pretrained.Weights.FreshlyInitialised);
            return logits;
        }
        string[] four = ["a", "b", "c", "d"];
        var first = Run(7, four);
        Assert.Equal(8, first.Length);
        Assert.Equal(first, Run(7, four));
        Assert.NotEqual(first, Run(8, four));
        Assert.Equal(4, Run(7, ["yes", "no"]).Length);
    }

    [Fact]
    public void AFreshHeadBeginsAlikeFrozenAndTrained()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("roberta", change: t => t.Name.StartsWith("classifier", StringComparison.Ordinal) ? null : t);
        using var pretrained = tiny.Open(device, new PretrainedOptions { Seed = 5 });
        var batch = TinyModel.Batch(tiny.Model, 3, 5, 2);
        var frozen = Logits(pretrained, batch);
        using var trained = TrainableModel.InFull(pretrained, ModelHead.SequenceClassification);
        var (graph, outputs) = trained.Build(new BuildOptions { Head = ModelHead.SequenceClassification, MaxLength = 8 });
        using var session = trained.NewSession(graph, TinyModel.Capacity(batch));
        session.Load(batch);
        session.Run();
        Assert.Equal(frozen, session.Read(outputs.Logits!));
    }

    [Theory]
    [InlineData("bert", ElementType.BF16)]
    [InlineData("bert", ElementType.F16)]
    [InlineData("roberta", ElementType.BF16)]
    [InlineData("deberta", ElementType.BF16)]
    [InlineData("deberta", ElementType.F16)]
    [InlineData("llama", ElementType.BF16)]
    [InlineData("llama", ElementType.F16)]
    [InlineData("llama-tied", ElementType.BF16)]
    [InlineData("llama", ElementType.F64)]
    [InlineData("distilbert", ElementType.F16)]
    [InlineData("modernbert", ElementType.BF16)]
    [InlineData("gpt2", ElementType.BF16)]
    [InlineData("gpt2", ElementType.F16)]
    public void WeightsOfOtherTypesGiveTheBitsOfTheSameValuesInFp32(string kind, ElementType type)
    {
        using var device = new CpuDevice(1);
        using var narrow = new TinyModel(kind, type: type, roundTo: type);
        using var wide = new TinyModel(kind, roundTo: type);
        using var first = narrow.Open(device);
        using var second = wide.Open(device);
        var batch = TinyModel.Batch(narrow.Model, 9, 7, 4);
        var weight = TinyModel.Weights(narrow.Model).First(w => w.Shape.FixedRows > 1);
        Assert.Equal(type == ElementType.F64 ? ElementType.F32 : type, first.Weights.TypeOf(weight.Name));
        Assert.Equal(Logits(second, batch), Logits(first, batch));
    }

    [Fact]
    public void OneGraphMayReadAWeightInItsStoredTypeAndAnotherInFp32()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("llama", type: ElementType.BF16, roundTo: ElementType.BF16);
        using var pretrained = tiny.Open(device);
        var batch = TinyModel.Batch(tiny.Model, 9, 7, 4);
        var stored = Logits(pretrained, batch);
        var graph = new Graph(Trainables.None);
        var logits = pretrained.Model.Build(graph, new BuildOptions { Head = ModelHead.LanguageModel, MaxLength = 7 }).Logits!;
        using var session = new Session(device, MemoryPlan.For(graph, TinyModel.Capacity(batch)), pretrained.Weights, null);
        session.Load(batch);
        session.Run();
        Assert.Equal(stored, session.Read(logits));
    }

    [Fact]
    public void AnAdapterOfAnotherModelIsRefused()
    {
        using var device = new CpuDevice(1);
        using var tiny = new TinyModel("llama");
        using var pretrained = tiny.Open(device);
        var config = new NativeLora.Adapters.LoraConfig { Rank = 3 };
        using var model = TrainableModel.WithAdapters(pretrained, ModelHead.LanguageModel, config);
        const string Key = "model.layers.2.self_attn.v_proj.lora_B.weight";
        var (all, fewer, longer) = (model.Export(), new NativeLora.Adapters.AdapterWeights(), model.Export());
        foreach (var (key, tensor) in all.Tensors)
            if (key != Key)
                fewer.Set(key, tensor.Shape, tensor.Values);
        longer.Set(Key, [13, 3], new float[39]);
        using var same = TrainableModel.WithAdapters(pretrained, ModelHead.LanguageModel, config, all);
        foreach (var wrong in new[] { fewer, longer })
        {
            var error = Assert.Throws<InputException>(() => TrainableModel.WithAdapters(pretrained, ModelHead.LanguageModel, config, wrong));
            Assert.Contains(Key, error.Message);
        }
    }

    [Theory]
    [InlineData("bert")]
    [InlineData("llama")]
    [InlineData("modernbert")]
    [InlineData("gpt2")]
    public void AdaptersOverBf16TrainToTheBitsOfTheSameValuesInFp32(string kind)
    {
        using var device = new CpuDevice(1);
        float[][] Train(ElementType type)
        {
            using var tiny = new TinyModel(kind, type: type, roundTo: ElementType.BF16);
            using var pretrained = tiny.Open(device);
            using var model = TrainableModel.WithAdapters(pretrained, TinyModel.Head(tiny.Model), new NativeLora.Adapters.LoraConfig { Rank = 3 });
            var batch = TinyModel.Batch(tiny.Model, 4, 6, 5);
            using var training = new TrainingSession(model, TinyModel.Capacity(batch), 6, new AdamWOptions(), baseDropout: true);
            for (var i = 0; i < 3; i++)
            {
                training.Accumulate(batch, 1f / training.LabelCount(batch), first: true);
                training.Update(1e-2, 1);
            }
            return [.. model.Parameters.Names.Select(model.Parameters.Read)];
        }
        Assert.Equal(Train(ElementType.F32), Train(ElementType.BF16));
    }
}
