using NativeLora.Training;

namespace NativeLora.Tests.Training;

/// <summary>A training that was interrupted and resumed ends with the same bits as an undisturbed one.</summary>
public sealed class ResumeTests
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Interrupted_anywhere_the_bits_are_the_same(bool isCausal)
    {
        using var run = new TrainerRun(isCausal);
        run.Run(run.Options("whole"));
        Assert.Contains(run.Metrics("whole"), line => line.Contains("eval_loss", StringComparison.Ordinal));
        foreach (var step in new[] { 0, 1, 5, 6, 11, 19 })
        {
            var name = $"at-{step}";
            var interruption = run.RunUntil(step, run.Options(name));
            Assert.Equal(step, interruption.Step);
            Assert.True(Directory.Exists(interruption.Checkpoint));
            Assert.Contains(interruption.Checkpoint, interruption.Message, StringComparison.Ordinal);
            var watcher = new Watcher();
            run.Run(run.Options(name) with { Resume = true }, watcher);
            Assert.Equal(step, watcher.ResumedAt);
            Assert.Equal(20 - step, watcher.Steps.Count);
            run.AssertSame("whole", name);
        }
    }

    [Fact]
    public void Interrupted_again_and_again_the_bits_are_the_same()
    {
        using var run = new TrainerRun(isCausal: true);
        run.Run(run.Options("whole"));
        for (var step = 1; step < 20; step++)
            run.RunUntil(step, run.Options("pieces") with { Resume = true });
        run.Run(run.Options("pieces") with { Resume = true });
        run.AssertSame("whole", "pieces");
    }

    /// <summary>As after kill -9: files of later steps are there, but the training goes on from the checkpoint before.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Going_back_to_an_older_checkpoint_gives_the_same_bits_and_no_line_twice(bool keepBest)
    {
        using var run = new TrainerRun(isCausal: false);
        TrainerOptions Options(string name) => run.Options(name) with { KeepBest = keepBest ? "loss" : null, SaveEvery = 3 };
        run.Run(Options("whole"));
        run.RunUntil(14, Options("killed"));
        Directory.Delete(Path.Combine(run.Output("killed"), "checkpoints", "step-14"), recursive: true);
        Directory.CreateDirectory(Path.Combine(run.Output("killed"), "checkpoints", ".unfinished-15"));
        File.AppendAllText(Path.Combine(run.Output("killed"), "metrics.jsonl"), "{\"step\": 15, \"los");
        var watcher = new Watcher();
        run.Run(Options("killed") with { Resume = true }, watcher);
        Assert.Equal(12, watcher.ResumedAt);
        run.AssertSame("whole", "killed");
        Assert.DoesNotContain(".unfinished-15", run.Checkpoints("killed"));
    }

    [Fact]
    public void Everything_trained_resumes_too_and_opens_as_a_model()
    {
        using var run = new TrainerRun(isCausal: false);
        run.Run(run.Options("whole"), inFull: true);
        using (var cancellation = new CancellationTokenSource())
            Assert.Throws<TrainingInterruptedException>(() => { run.Run(run.Options("pieces"), new Watcher(p => { if (p.Step == 7) cancellation.Cancel(); }), cancellation.Token, inFull: true); });
        run.Run(run.Options("pieces") with { Resume = true }, inFull: true);
        Assert.Equal(run.Bytes("whole", null, "model.safetensors"), run.Bytes("pieces", null, "model.safetensors"));
        Assert.Equal(run.Bytes("whole", "step-20", "optimizer.safetensors"), run.Bytes("pieces", "step-20", "optimizer.safetensors"));

        using var trained = TinyModel.Open(run.Output("whole"), isCausal: false);
        using var evaluator = new Evaluator(trained.Model, run.Dev);
        var last = run.Metrics("whole").Last(l => l.Contains("eval_loss", StringComparison.Ordinal));
        using var json = System.Text.Json.JsonDocument.Parse(last);
        // Adapters just begun change nothing, so the folder alone gives what the training saw at its end.
        Assert.Equal(json.RootElement.GetProperty("eval_loss").GetDouble(), evaluator.Run().Loss!.Value, 1e-6);
    }

    [Theory]
    [InlineData("adapter_model.safetensors")]
    [InlineData("optimizer.safetensors")]
    [InlineData("trainer_state.json")]
    [InlineData("adapter_config.json")]
    [InlineData("files.json")]
    public void A_damaged_checkpoint_is_put_aside_and_the_one_before_taken(string file)
    {
        using var run = new TrainerRun(isCausal: false);
        run.Run(run.Options("whole"));
        run.RunUntil(15, run.Options("damaged"));
        Assert.Equal(["step-12", "step-15"], run.Checkpoints("damaged"));
        var path = Path.Combine(run.Output("damaged"), "checkpoints", "step-15", file);
        var bytes = File.ReadAllBytes(path);
        bytes[^2] ^= 1;
        File.WriteAllBytes(path, bytes);

        var watcher = new Watcher();
        run.Run(run.Options("damaged") with { Resume = true }, watcher);
        Assert.Equal(12, watcher.ResumedAt);
        Assert.Contains("step-15", Assert.Single(watcher.Warnings), StringComparison.Ordinal);
        run.AssertSame("whole", "damaged");
    }

    [Fact]
    public void A_cut_or_missing_file_counts_as_damage_and_nothing_whole_is_an_error()
    {
        using var run = new TrainerRun(isCausal: false);
        run.RunUntil(15, run.Options("damaged"));
        var folder = Path.Combine(run.Output("damaged"), "checkpoints");
        File.Delete(Path.Combine(folder, "step-15", "trainer_state.json"));
        File.WriteAllBytes(Path.Combine(folder, "step-12", "optimizer.safetensors"), [1, 2, 3]);
        var watcher = new Watcher();
        var error = Assert.Throws<InputException>(() => { run.Run(run.Options("damaged") with { Resume = true }, watcher); });
        Assert.Contains("none of the 2 checkpoints is whole", error.Message, StringComparison.Ordinal);
        Assert.Equal(2, watcher.Warnings.Count);
    }

    [Fact]
    public void Other_settings_are_refused_by_name()
    {
        using var run = new TrainerRun(isCausal: false);
        run.RunUntil(7, run.Options("run"));
        var options = run.Options("run") with { Resume = true };
        void Refused(string name, TrainerOptions other, double dropout = 0.1, bool inFull = false)
        {
            var error = Assert.Throws<InputException>(() => { run.Run(other, dropout: dropout, inFull: inFull); });
            Assert.Contains($"the {name} of this training was", error.Message, StringComparison.Ordinal);
        }
        Refused("learning rate", options with { LearningRate = 1e-3 });
        Refused("batch size", options with { BatchSize = null, BatchTokens = 40 });
        Refused("seed", options with { Seed = 12 });
        Refused("steps", options with { MaxSteps = 21 });
        Refused("base dropout", options with { BaseDropout = false });
        Refused("LoRA dropout", options, dropout: 0.2);
        Refused("best kept by", options with { KeepBest = "accuracy" });
        using var others = new TrainerRun(isCausal: false) { Train = TinyModel.Examples(false, 32, 9) };
        var data = Assert.Throws<InputException>(() => { others.Run(options); });
        Assert.Contains("the training data of this training was", data.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void What_does_not_change_the_result_may_change()
    {
        using var run = new TrainerRun(isCausal: false);
        run.Run(run.Options("whole"));
        run.RunUntil(7, run.Options("run"));
        run.Run(run.Options("run") with { Resume = true, SaveEvery = 4, LogEvery = 5, KeepCheckpoints = 3, EvaluateEvery = 0 }, threads: 1);
        Assert.Equal(run.Adapter("whole"), run.Adapter("run"));
    }

    [Fact]
    public void A_finished_training_resumed_writes_its_result_again()
    {
        using var run = new TrainerRun(isCausal: false);
        run.Run(run.Options("whole"));
        var (adapter, metrics) = (run.Adapter("whole"), run.Metrics("whole"));
        File.Delete(Path.Combine(run.Output("whole"), "adapter_model.safetensors"));
        var watcher = new Watcher();
        run.Run(run.Options("whole") with { Resume = true }, watcher);
        Assert.Empty(watcher.Steps);
        Assert.Equal(adapter, run.Adapter("whole"));
        Assert.Equal(metrics, run.Metrics("whole"));
    }

    [Fact]
    public void An_evaluation_that_was_interrupted_is_made_when_the_training_goes_on()
    {
        using var run = new TrainerRun(isCausal: false);
        run.Run(run.Options("whole"));
        // Cancelled after step 10's update, before its evaluation has begun.
        var interruption = run.RunUntil(10, run.Options("run"));
        Assert.Equal(10, interruption.Step);
        Assert.DoesNotContain(run.Metrics("run"), l => l.Contains("\"step\":10,", StringComparison.Ordinal) && l.Contains("eval_loss", StringComparison.Ordinal));
        var watcher = new Watcher();
        run.Run(run.Options("run") with { Resume = true }, watcher);
        Assert.Equal([10, 15, 20], watcher.Evaluations.Select(e => e.Step));
        run.AssertSame("whole", "run");
    }
}
