using NativeLora.Graphs;
using NativeLora.Models;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

/// <summary>Trainings that take less memory: recomputed layers, a budget, and moments of a byte each.</summary>
public sealed class MemorySavingTests
{
    /// <summary>Evaluations share the arena of the training, which then goes on with other bytes in it.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Recomputed_layers_leave_every_bit_of_a_training_as_it_is(bool isCausal)
    {
        using var run = new TrainerRun(isCausal);
        run.Run(run.Options("kept"));
        run.Run(run.Options("recomputed") with { Recompute = RecomputeLayers.All });
        run.AssertSame("kept", "recomputed");
        // What one begins the other may end.
        run.RunUntil(7, run.Options("both"));
        run.Run(run.Options("both") with { Resume = true, Recompute = RecomputeLayers.Of([1]) });
        run.AssertSame("kept", "both");
        run.Run(run.Options("packed") with { PackWeights = true });
        run.AssertSame("kept", "packed");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_budget_is_kept_to_the_byte(bool isCausal)
    {
        using var run = Wide(isCausal, layers: 4);
        var whole = Planned(run, isCausal, run.Options("whole") with { MemoryBudget = 1L << 40 });
        Assert.Empty(whole.Recomputation!.Layers);

        var least = Planned(run, isCausal, run.Options("all") with { Recompute = RecomputeLayers.Of([0, 1, 2]) }).Total;
        foreach (var budget in new[] { whole.Total, whole.Total - 1, (whole.Total + least) / 2, least })
        {
            var planned = Planned(run, isCausal, run.Options("some") with { MemoryBudget = budget });
            Assert.InRange(planned.Recomputation!.With.Bytes, 1, budget);
            Assert.Equal(planned.Recomputation.With.Bytes, planned.Total);
            Assert.Equal(budget < whole.Total, planned.Recomputation.Layers.Count > 0);
            Assert.Equal(budget < whole.Total, planned.Recomputation.ExtraOperations > 0);
            Assert.Equal(whole.Total, planned.Recomputation.Without.Bytes);
        }
    }

    [Fact]
    public void Where_nothing_fits_the_error_says_what_would()
    {
        using var run = new TrainerRun(isCausal: false);
        var one = Planned(run, false, run.Options("one") with { BatchSize = 1, EvaluationBatchSize = 1, Recompute = RecomputeLayers.All }).Total;
        InputException Fails(long budget, TrainerOptions options) =>
            Assert.Throws<InputException>(() => Planned(run, false, options with { MemoryBudget = budget, EvaluationBatchSize = 1 }));
        Assert.Contains("batch size 1 would fit", Fails(one + 1000, run.Options("many")).Message, StringComparison.Ordinal);
        Assert.Contains("no batch size fits", Fails(one / 2, run.Options("many")).Message, StringComparison.Ordinal);
        var error = Fails(one / 2, run.Options("many") with { BatchSize = null, BatchTokens = 60 }).Message;
        Assert.Contains("no batch tokens fits", error, StringComparison.Ordinal);
        Assert.DoesNotContain("\n", error, StringComparison.Ordinal);
        Assert.Throws<InputException>(() => (run.Options("both") with { MemoryBudget = 1, Recompute = RecomputeLayers.All }).Validate());
        Assert.Throws<InputException>(() => Planned(run, false, run.Options("other") with { Recompute = RecomputeLayers.Of([2]) }));
    }

    private sealed record Plan(RecomputeChoice? Recomputation, long Total);

    /// <summary>What a trainer plans, and what it then has allocated, kernels included.</summary>
    private static Plan Planned(TrainerRun run, bool isCausal, TrainerOptions options)
    {
        using var tiny = TinyModel.Open(run.Model, isCausal);
        var device = tiny.Model.Pretrained.Device;
        var before = device.AllocatedBytes;
        using var trainer = new Trainer(tiny.Model, run.Train, options, run.Dev);
        var report = trainer.Plan.Report();
        Assert.Equal(device.AllocatedBytes - before, report.Arena + report.Constants + report.Inputs + trainer.EvaluationBytes);
        return new Plan(trainer.Recomputation, report.Total + trainer.EvaluationBytes + device.ScratchBytes);
    }

    /// <summary>Wide enough for tensors whose moments are quantised, beside others that are not.</summary>
    private static TrainerRun Wide(bool isCausal = false, int layers = 2)
    {
        var run = new TrainerRun(isCausal);
        var config = isCausal ? """
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 70, "max_position_embeddings": 24, "hidden_act": "silu",
             "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false}
            """ : """
            {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "intermediate_size": 96, "vocab_size": 70, "max_position_embeddings": 24, "type_vocab_size": 2,
             "hidden_act": "gelu", "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
             "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
            """;
        TinyModel.Write(run.Model, config.Replace("layers\": 2", $"layers\": {layers}", StringComparison.Ordinal), isCausal ? ModelHead.LanguageModel : ModelHead.SequenceClassification, deviation: 0.1);
        return run;
    }

    [Fact]
    public void Moments_of_8_bits_resume_exactly_and_take_a_quarter()
    {
        using var run = Wide();
        TrainerOptions Options(string name) => run.Options(name) with { Optimizer = OptimizerKind.AdamW8Bit };
        run.Run(Options("whole"), inFull: true);
        run.Run(Options("threads"), inFull: true, threads: 1);
        using (var cancellation = new CancellationTokenSource())
            Assert.Throws<TrainingInterruptedException>(() => { run.Run(Options("pieces"), new Watcher(p => { if (p.Step == 7) cancellation.Cancel(); }), cancellation.Token, inFull: true); });
        run.Run(Options("pieces") with { Resume = true }, inFull: true);
        foreach (var file in (string[])["model.safetensors", "optimizer.safetensors"])
        {
            Assert.Equal(run.Bytes("whole", "step-20", file), run.Bytes("pieces", "step-20", file));
            Assert.Equal(run.Bytes("whole", "step-20", file), run.Bytes("threads", "step-20", file));
        }
        var error = Assert.Throws<InputException>(() => { run.Run(run.Options("pieces") with { Resume = true }, inFull: true); });
        Assert.Contains("moments of 8 bits", error.Message, StringComparison.Ordinal);

        run.Run(run.Options("fp32"), inFull: true);
        var (small, large) = (run.Bytes("whole", "step-20", "optimizer.safetensors").Length, run.Bytes("fp32", "step-20", "optimizer.safetensors").Length);
        Assert.InRange((double)small / large, 0.25, 0.4); // names, and small tensors in fp32
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Moments_of_8_bits_train_as_well(bool inFull)
    {
        using var run = Wide();
        double[] Losses(OptimizerKind optimizer)
        {
            var watcher = new Watcher();
            run.Run(run.Options($"{optimizer}") with { Optimizer = optimizer, MaxSteps = 60, BatchSize = 8, LearningRate = inFull ? 1e-3 : 1e-2, SaveEvery = 0, EvaluateEvery = 0 }, watcher, dropout: 0, evaluate: false, inFull: inFull);
            return [.. watcher.Steps.Select(s => s.Loss)];
        }
        run.Change = c => c with { Rank = 64, TargetModules = NativeLora.Adapters.ModuleSelector.AllLinear };
        var (wanted, got) = (Losses(OptimizerKind.AdamW), Losses(OptimizerKind.AdamW8Bit));
        Assert.True(wanted.TakeLast(10).Average() < 0.8 * wanted.Take(10).Average(), $"{wanted[0]} to {wanted[^1]}");
        Assert.NotEqual(wanted, got);
        for (var i = 0; i < wanted.Length; i += 10)
            Assert.Equal(wanted.Skip(i).Take(10).Average(), got.Skip(i).Take(10).Average(), 0.05 * wanted[0]);
    }
}
