using NativeLora.Adapters;
using NativeLora.Data;
using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

/// <summary>Trainings with DoRA, biases, embeddings, PiSSA and OLoRA: from the first step to the files, and back.</summary>
public sealed class AdapterVariantTests
{
    private static readonly Dictionary<string, Func<LoraConfig, LoraConfig>> Variants = new()
    {
        ["dora"] = c => c with { UseDora = true, Bias = LoraBias.LoraOnly },
        ["bias-all"] = c => c with { Bias = LoraBias.All },
        ["pissa"] = c => c with { InitLoraWeights = "pissa" },
        ["pissa-dora"] = c => c with { InitLoraWeights = "pissa_niter_2", UseDora = true, UseRsLora = true },
        ["olora"] = c => c with { InitLoraWeights = "olora" },
        ["embedding"] = c => c with { TargetModules = ModuleSelector.Of("embed_tokens", "word_embeddings", "q_proj", "query") },
    };

    private static float[] Logits(TinyModel tiny, bool isCausal)
    {
        var examples = TinyModel.Examples(isCausal, 5, 9);
        var batch = new PackedBatch(examples.Sum(e => e.Length), examples.Length);
        new BatchPacker().Fill(batch, examples, [0, 1, 2, 3, 4]);
        var (graph, outputs) = tiny.Model.Build(new BuildOptions { Head = tiny.Head, MaxLength = 24 });
        graph.Keep(outputs.Logits!);
        using var session = tiny.Model.NewSession(graph, new BatchSize(batch.TokenCapacity, batch.SequenceCapacity, 0));
        session.Load(batch);
        session.Run();
        return session.Read(outputs.Logits!);
    }

    private static double Distance(float[] x, float[] y) => Math.Sqrt(x.Zip(y, (a, b) => ((double)a - b) * (a - b)).Sum() / x.Sum(a => (double)a * a));

    public static TheoryData<string, bool> All()
    {
        var data = new TheoryData<string, bool>();
        foreach (var name in Variants.Keys)
        {
            data.Add(name, false);
            data.Add(name, true);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(All))]
    public void Learns_and_resumes_and_its_files_give_the_same_model(string variant, bool isCausal)
    {
        using var run = new TrainerRun(isCausal) { Change = Variants[variant] };
        var whole = run.Run(run.Options("whole"));
        // Batches of a classifier are too small here for their losses to tell.
        if (isCausal)
            Assert.True(whole.Loss < 0.97 * FirstLoss(run), $"the loss was {FirstLoss(run)} and is {whole.Loss}");
        run.RunUntil(7, run.Options("pieces"));
        run.Run(run.Options("pieces") with { Resume = true });
        run.AssertSame("whole", "pieces");
        run.Run(run.Options("one-thread"), threads: 1);
        run.AssertSame("whole", "one-thread");

        // The last checkpoint holds the adapter as it is; the output is for the untouched base.
        using var plain = TinyModel.Open(run.Model, isCausal, change: Variants[variant]);
        var modules = plain.Model.Pretrained.Modules(plain.Head);
        var stored = AdapterFile.Load(Path.Combine(run.Output("whole"), "checkpoints", "step-20"), modules);
        var output = AdapterFile.Load(run.Output("whole"), modules);
        Assert.Equal(stored.Config.InitLoraWeights, plain.Model.Config!.InitLoraWeights);
        Assert.False(output.Config.ChangesBase);
        Assert.Equal(stored.Config.ChangesBase ? 2 * stored.Config.Rank : stored.Config.Rank, output.Config.Rank);
        var (before, trained, written) = (Logits(plain, isCausal), Reloaded(plain, stored, isCausal), Reloaded(plain, output, isCausal));
        Assert.InRange(Distance(trained, written), 0, 2e-6);
        Assert.True(Distance(before, trained) > 1e-3);
    }

    [Fact]
    public void The_residual_form_can_be_kept()
    {
        using var run = new TrainerRun(isCausal: true) { Change = Variants["olora"] };
        run.Run(run.Options("out") with { SaveResidual = true });
        Assert.Equal(run.Adapter("out", "step-20"), run.Adapter("out"));
        Assert.Equal("olora", LoraConfig.Load(Path.Combine(run.Output("out"), "adapter_config.json")).InitLoraWeights);
    }

    /// <summary>A new adapter leaves the model as it is, whatever its initialisation moves about.</summary>
    [Theory]
    [MemberData(nameof(All))]
    public void Begins_as_the_base(string variant, bool isCausal)
    {
        using var run = new TrainerRun(isCausal);
        using var plain = TinyModel.Open(run.Model, isCausal);
        using var tiny = TinyModel.Open(run.Model, isCausal, change: Variants[variant]);
        Assert.InRange(Distance(Logits(plain, isCausal), Logits(tiny, isCausal)), 0, 2e-6);
        var names = tiny.Model.Parameters.Names;
        Assert.Equal(tiny.Model.Targets!.TrainableCount, tiny.Model.Parameters.Elements);
        Assert.Equal(names.Order(), tiny.Model.Export().Tensors.Keys.Order());
        Assert.Equal(variant is "bias-all" && !isCausal, names.Any(n => n.EndsWith("LayerNorm.bias", StringComparison.Ordinal)));
        Assert.Equal(tiny.Model.Config!.ChangesBase, !ReferenceEquals(tiny.Model.Weights, tiny.Model.Pretrained.Weights));
    }

    /// <summary>PEFT stores the table beneath an adapter on an embedding: if it is not the base's, it counts.</summary>
    [Fact]
    public void A_table_stored_beside_an_adapter_is_used()
    {
        using var run = new TrainerRun(isCausal: true);
        using var tiny = TinyModel.Open(run.Model, isCausal: true, change: Variants["embedding"]);
        var weights = tiny.Model.Export();
        var table = tiny.Model.Pretrained.Checkpoint.ReadFloat32("model.embed_tokens.weight");
        weights.Set("model.embed_tokens.base_layer.weight", [40, 16], table);
        using (var same = TrainableModel.WithAdapters(tiny.Model.Pretrained, tiny.Head, tiny.Model.Config!, weights))
            Assert.Same(tiny.Model.Pretrained.Weights, same.Weights);
        weights.Set("model.embed_tokens.base_layer.weight", [40, 16], [.. table.Select(v => 2 * v)]);
        using var other = TrainableModel.WithAdapters(tiny.Model.Pretrained, tiny.Head, tiny.Model.Config!, weights);
        Assert.NotSame(tiny.Model.Pretrained.Weights, other.Weights);
    }

    private static double FirstLoss(TrainerRun run) =>
        System.Text.Json.JsonDocument.Parse(run.Metrics("whole")[0]).RootElement.GetProperty("loss").GetDouble();

    private static float[] Reloaded(TinyModel of, LoadedAdapter adapter, bool isCausal)
    {
        using var model = TrainableModel.WithAdapters(of.Model.Pretrained, of.Head, adapter.Config, adapter.Weights, training: false);
        var examples = TinyModel.Examples(isCausal, 5, 9);
        var batch = new PackedBatch(examples.Sum(e => e.Length), examples.Length);
        new BatchPacker().Fill(batch, examples, [0, 1, 2, 3, 4]);
        var (graph, outputs) = model.Build(new BuildOptions { Head = of.Head, MaxLength = 24 });
        graph.Keep(outputs.Logits!);
        using var session = model.NewSession(graph, new BatchSize(batch.TokenCapacity, batch.SequenceCapacity, 0));
        session.Load(batch);
        session.Run();
        return session.Read(outputs.Logits!);
    }
}
