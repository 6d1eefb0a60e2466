using System.Text.Json;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

public sealed class TrainerTests
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Any_number_of_threads_gives_the_same_bits(bool isCausal)
    {
        using var run = new TrainerRun(isCausal);
        foreach (var threads in new[] { 1, 2, 4 })
            run.Run(run.Options($"threads-{threads}"), threads: threads);
        run.AssertSame("threads-1", "threads-2");
        run.AssertSame("threads-1", "threads-4");
    }

    [Fact]
    public void Another_seed_gives_another_result()
    {
        using var run = new TrainerRun(isCausal: false);
        run.Run(run.Options("one"));
        run.Run(run.Options("other") with { Seed = 12 });
        Assert.NotEqual(run.Adapter("one"), run.Adapter("other"));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_step_allocates_nothing(bool isCausal)
    {
        using var run = new TrainerRun(isCausal);
        var before = new long[61];
        var watcher = new Watcher(p => before[p.Step] = GC.GetAllocatedBytesForCurrentThread());
        run.Run(run.Options("run") with { MaxSteps = 60, LogEvery = 1, SaveEvery = 0, EvaluateEvery = 0 }, watcher);
        // Epochs of 11 batches, so that several begin in between; the lines of metrics are among it.
        Assert.Equal(before[10], before[59]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void It_learns(bool isCausal)
    {
        using var run = new TrainerRun(isCausal);
        var watcher = new Watcher();
        var summary = run.Run(run.Options("run") with { MaxSteps = 150, AccumulationSteps = 1, BatchSize = 8, LearningRate = 2e-2 }, watcher, inFull: true);
        Assert.True(watcher.Steps.TakeLast(10).Average(s => s.Loss) < 0.5 * watcher.Steps.Take(10).Average(s => s.Loss));
        Assert.Equal(150, summary.Steps);
        Assert.Equal(watcher.Evaluations[^1].Result, summary.Evaluation);
    }

    /// <summary>The loss is a mean over the labels of the whole accumulated batch, however it is cut.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Accumulated_micro_batches_are_one_large_batch(bool isCausal)
    {
        using var run = new TrainerRun(isCausal);
        var options = run.Options("large") with { FileOrder = true, BaseDropout = false, BatchSize = 8, AccumulationSteps = 1, MaxSteps = 8, LearningRate = 1e-3 };
        var (large, small) = (new Watcher(), new Watcher());
        run.Run(options, large, dropout: 0, evaluate: false);
        run.Run(options with { OutputFolder = run.Output("small"), BatchSize = 2, AccumulationSteps = 4 }, small, dropout: 0, evaluate: false);
        Assert.Equal(8, small.Steps.Count);
        for (var s = 0; s < 8; s++)
        {
            Assert.Equal(large.Steps[s].Loss, small.Steps[s].Loss, 1e-5 * large.Steps[s].Loss);
            Assert.Equal(large.Steps[s].GradientNorm, small.Steps[s].GradientNorm, 1e-4 * large.Steps[s].GradientNorm);
            Assert.Equal(large.Steps[s].Tokens, small.Steps[s].Tokens);
        }
    }

    [Fact]
    public void The_last_update_of_an_epoch_may_have_fewer_micro_batches()
    {
        // 32 examples in batches of 3 are 11, which are 3 updates of 4, 4 and 3.
        using var run = new TrainerRun(isCausal: false);
        var watcher = new Watcher();
        var options = run.Options("run") with { MaxSteps = null, Epochs = 2, AccumulationSteps = 4, EvaluateEvery = 0, EvaluateEachEpoch = true };
        var summary = run.Run(options, watcher);
        Assert.Equal(6, summary.Steps);
        Assert.Equal([3, 6], watcher.Evaluations.Select(e => e.Step));
        Assert.Equal([4 / 11.0, 8 / 11.0, 1, 1 + 4 / 11.0, 1 + 8 / 11.0, 2], watcher.Steps.Select(s => s.Epoch));
        Assert.Equal(2 * run.Train.Sum(e => (long)e.Length), summary.Tokens);
    }

    [Fact]
    public void Batches_may_be_measured_in_tokens()
    {
        using var run = new TrainerRun(isCausal: true);
        var watcher = new Watcher();
        var summary = run.Run(run.Options("run") with { MaxSteps = null, Epochs = 3, BatchSize = null, BatchTokens = 40, Window = 2 }, watcher);
        Assert.Equal(3, watcher.Steps[^1].Epoch);
        Assert.Equal(summary.Steps, watcher.Steps[^1].TotalSteps);
        Assert.Equal(3 * run.Train.Sum(e => (long)e.Length), summary.Tokens);
    }

    [Fact]
    public void The_learning_rate_warms_up_from_0()
    {
        using var run = new TrainerRun(isCausal: false);
        var watcher = new Watcher();
        run.Run(run.Options("run") with { WarmupSteps = 4, LearningRate = 1e-3 }, watcher);
        Assert.Equal([0, 0.00025, 0.0005, 0.00075, 0.001], watcher.Steps.Take(5).Select(s => Math.Round(s.LearningRate, 12)));
        Assert.Equal(1e-3 / 16, watcher.Steps[^1].LearningRate, 1e-12);
    }

    [Fact]
    public void A_loss_that_is_not_a_number_stops_the_training_and_leaves_the_checkpoint()
    {
        using var run = new TrainerRun(isCausal: false);
        run.RunUntil(3, run.Options("run"));
        var before = run.Adapter("run", "step-3");
        var options = run.Options("other") with { LearningRate = 1e30, WarmupRatio = 0, SaveEvery = 1, Schedule = LearningRateKind.Constant };
        var error = Assert.Throws<RunException>(() => { run.Run(options, evaluate: false); });
        Assert.Contains("step 2: the loss is NaN, at learning rate 1e+30", error.Message, StringComparison.Ordinal);
        Assert.Contains(Path.Combine(run.Output("other"), "checkpoints", "step-1"), error.Message, StringComparison.Ordinal);
        Assert.Equal(["step-1"], run.Checkpoints("other"));
        Assert.False(File.Exists(Path.Combine(run.Output("other"), "adapter_model.safetensors")));
        Assert.Equal(before, run.Adapter("run", "step-3"));
    }

    [Fact]
    public void Two_trainings_do_not_write_into_one_folder()
    {
        using var run = new TrainerRun(isCausal: false);
        var refused = "";
        var watcher = new Watcher(p =>
        {
            if (p.Step == 2)
                refused = Assert.Throws<InputException>(() => { run.Run(run.Options("run") with { Resume = true }); }).Message;
        });
        run.Run(run.Options("run"), watcher);
        Assert.Contains("another training is writing into this folder", refused, StringComparison.Ordinal);
        // The file of the lock is still there, and blocks nobody.
        run.Run(run.Options("run") with { Overwrite = true });
    }

    [Fact]
    public void A_folder_with_checkpoints_is_not_begun_anew_unless_told_to()
    {
        using var run = new TrainerRun(isCausal: false);
        run.Run(run.Options("run"));
        var (adapter, metrics) = (run.Adapter("run"), run.Metrics("run"));
        Assert.Contains("holds checkpoints", Assert.Throws<InputException>(() => { run.Run(run.Options("run")); }).Message, StringComparison.Ordinal);
        var watcher = new Watcher();
        run.Run(run.Options("run") with { Overwrite = true }, watcher);
        Assert.Equal(20, watcher.Steps.Count);
        Assert.Equal(adapter, run.Adapter("run"));
        Assert.Equal(metrics, run.Metrics("run"));
    }

    [Fact]
    public void Only_the_last_checkpoints_and_the_best_stay()
    {
        using var run = new TrainerRun(isCausal: false);
        run.Run(run.Options("last") with { SaveEvery = 3 });
        Assert.Equal(["step-18", "step-20"], run.Checkpoints("last"));

        // Lower accuracy as the goal, and no step after the first may count: ties are not better.
        var watcher = new Watcher();
        var options = run.Options("best") with { SaveEvery = 3, EvaluateEvery = 2, KeepBest = "loss", HigherIsBetter = true, LearningRate = 2e-2 };
        var summary = run.Run(options, watcher);
        var best = watcher.Evaluations.MaxBy(e => e.Result.Loss!.Value)!;
        Assert.True(best.Step < 18, $"the best step {best.Step} is not told apart from the last");
        Assert.Equal((best.Step, best.Result.Loss), (summary.BestStep!.Value, summary.BestValue));
        Assert.Equal(new[] { $"step-{best.Step}", "step-18", "step-20" }.Order(StringComparer.Ordinal), run.Checkpoints("best"));
        Assert.Equal(run.Adapter("best", $"step-{best.Step}"), run.Adapter("best"));
        Assert.NotEqual(run.Adapter("best", "step-20"), run.Adapter("best"));
        Assert.True(watcher.Evaluations.Single(e => e.Step == best.Step).IsBest);
    }

    [Fact]
    public void Metrics_are_json_lines()
    {
        using var run = new TrainerRun(isCausal: true);
        var watcher = new Watcher();
        run.Run(run.Options("run"), watcher);
        var lines = File.ReadAllLines(Path.Combine(run.Output("run"), "metrics.jsonl")).Select(l => JsonDocument.Parse(l).RootElement).ToList();
        var steps = lines.Where(l => l.TryGetProperty("loss", out _)).ToList();
        Assert.Equal(10, steps.Count);
        for (var i = 0; i < 10; i++)
        {
            Assert.Equal(2 * i + 2, steps[i].GetProperty("step").GetInt32());
            Assert.Equal((watcher.Steps[2 * i].Loss + watcher.Steps[2 * i + 1].Loss) / 2, steps[i].GetProperty("loss").GetDouble());
            Assert.Equal(watcher.Steps[2 * i + 1].GradientNorm, steps[i].GetProperty("grad_norm").GetDouble());
            Assert.Equal(watcher.Steps[2 * i + 1].LearningRate, steps[i].GetProperty("learning_rate").GetDouble());
            Assert.Equal(watcher.Steps[2 * i + 1].Tokens, steps[i].GetProperty("tokens").GetInt64());
        }
        var evaluations = lines.Where(l => l.TryGetProperty("eval_loss", out _)).ToList();
        Assert.Equal([5, 10, 15, 20], evaluations.Select(l => l.GetProperty("step").GetInt32()));
        Assert.All(evaluations, l => Assert.Equal(Math.Exp(l.GetProperty("eval_loss").GetDouble()), l.GetProperty("eval_perplexity").GetDouble(), 1e-9));
    }

    [Fact]
    public void Bad_options_and_examples_are_named()
    {
        using var run = new TrainerRun(isCausal: false);
        var options = run.Options("run");
        void Refused(string message, TrainerOptions bad) =>
            Assert.Contains(message, Assert.Throws<InputException>(() => { run.Run(bad); }).Message, StringComparison.Ordinal);
        Refused("number of epochs is 0", options with { Epochs = 0 });
        Refused("micro-batches of an update is 0", options with { AccumulationSteps = 0 });
        Refused("learning rate is NaN", options with { LearningRate = double.NaN });
        Refused("gradient norm to clip at is -1", options with { MaxGradientNorm = -1 });
        Refused("more than the 5 allowed", options with { MaxLength = 5 });
        Refused("no metric f1", options with { KeepBest = "f1" });
        Refused("warm-up ratio is 2", options with { WarmupRatio = 2 });
        using var unlabelled = new TrainerRun(isCausal: false) { Train = TinyModel.Examples(true, 4, 1) };
        Assert.Contains("training example 1 has no label", Assert.Throws<InputException>(() => { unlabelled.Run(options); }).Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(run.Output("run")));
    }
}
