using CsCheck;
using NativeLora.Graphs;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

/// <summary>What several ranks compute together, with threads in place of processes.</summary>
public sealed class DataParallelTests
{
    /// <summary>Batches of 5 rows of 32, two to an update: shares of one row and of none, a last batch of 2. The dropouts are those of one process too.</summary>
    [Theory]
    [InlineData(false, 2)]
    [InlineData(false, 3)]
    [InlineData(false, 4)]
    [InlineData(true, 2)]
    [InlineData(true, 3)]
    [InlineData(true, 4)]
    public void The_curve_is_that_of_one_process(bool isCausal, int ranks)
    {
        using var runs = new RankRuns(isCausal);
        var one = runs.Run(1, runs.Options("one"))[0].Watcher;
        var several = runs.Run(ranks, runs.Options("several"));
        Assert.All(several, s => Assert.Null(s.Error));
        SameCurve(one, several[0].Watcher, 1e-6, 2e-4);
        // Every rank sees the same, to the bit.
        Assert.All(several, s => Assert.Equal(several[0].Watcher.Steps.Select(p => (p.Loss, p.GradientNorm, p.Tokens)), s.Watcher.Steps.Select(p => (p.Loss, p.GradientNorm, p.Tokens))));
        Assert.Equal(2, several[0].Watcher.Evaluations.Count);
        for (var e = 0; e < 2; e++)
            Assert.Equal(one.Evaluations[e].Result.Loss!.Value, several[ranks - 1].Watcher.Evaluations[e].Result.Loss!.Value, 1e-4);
    }

    [Theory]
    [InlineData(1, 1, 0.01)]
    [InlineData(2, 3, 0.05)]
    [InlineData(8, 1, 0)]
    public void Clipping_goes_by_the_norm_of_all_and_a_rank_may_have_nothing_to_do(int batch, int accumulation, double clip)
    {
        using var runs = new RankRuns(isCausal: true) { Dropout = 0.5 };
        var options = runs.Options("one") with { BatchSize = batch, AccumulationSteps = accumulation, MaxGradientNorm = clip };
        var one = runs.Run(1, options)[0].Watcher;
        var four = runs.Run(4, options with { OutputFolder = runs.Output("four") });
        Assert.Null(four[0].Error);
        SameCurve(one, four[0].Watcher, 1e-6, 2e-4);
        Assert.True(clip == 0 || one.Steps.Count(s => s.GradientNorm > clip) > 8);
    }

    [Fact]
    public void A_whole_model_and_batches_of_tokens_too()
    {
        using var runs = new RankRuns(isCausal: false) { InFull = true };
        var options = runs.Options("one") with { BatchSize = null, BatchTokens = 50, LearningRate = 1e-4 };
        var one = runs.Run(1, options)[0].Watcher;
        var three = runs.Run(3, options with { OutputFolder = runs.Output("three") });
        Assert.Null(three[0].Error);
        SameCurve(one, three[0].Watcher, 1e-6, 2e-4);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(3)]
    public void A_number_of_ranks_gives_the_same_bits_each_time_whoever_comes_first(int ranks)
    {
        using var runs = new RankRuns(isCausal: false);
        runs.Run(ranks, runs.Options("first"));
        // Other ranges, and ranks that hang back now and then: neither changes a bit.
        var again = runs.Run(ranks, runs.Options("again") with { LeastRangeBytes = 0 }, watch: (rank, p) =>
        {
            if ((p.Step + rank) % 3 == 0)
                Thread.Sleep(5);
        });
        Assert.Null(again[0].Error);
        Assert.Equal(runs.Bytes("first", "adapter_model.safetensors"), runs.Bytes("again", "adapter_model.safetensors"));
        Assert.Equal(runs.Bytes("first", "checkpoints/step-16/optimizer.safetensors"), runs.Bytes("again", "checkpoints/step-16/optimizer.safetensors"));
    }

    [Fact]
    public void Gradients_are_sent_while_the_backward_goes_on_and_no_byte_more_than_planned()
    {
        using var all = new RankRuns(isCausal: false);
        using var half = new RankRuns(isCausal: false) { Layers = [1] };
        var bytes = new List<long>();
        foreach (var runs in (RankRuns[])[all, half])
            foreach (var ranks in (int[])[2, 3])
            {
                var outcomes = runs.Run(ranks, runs.Options($"{ranks}") with { LeastRangeBytes = 0 });
                var summary = outcomes[0].Summary!.Ranks!;
                Assert.Equal(RankGroup.StepBytes(outcomes[0].Elements, ranks), summary.PlannedStepBytes);
                Assert.Equal(summary.PlannedStepBytes, summary.StepBytes);
                Assert.Equal(16 * summary.PlannedStepBytes, summary.TotalBytes);
                Assert.All(outcomes[0].Watcher.Steps, s => Assert.Equal(summary.PlannedStepBytes, s.WireBytes));
                bytes.Add(summary.StepBytes - ranks * (ranks - 1) * RankRecords.Bytes - 2L * (ranks - 1) * 4 * HeadElements);
                // The head and each layer have a range of their own; all but the lowest are begun before the backward ends.
                Assert.Equal(runs == all ? 3 : 2, summary.Ranges);
                Assert.True(summary.Early > 0.5 * (summary.Ranges - 1) / summary.Ranges, $"{summary.Early}");
            }
        // One of two layers is half of the adapters' gradients.
        Assert.Equal(bytes[0], 2 * bytes[2]);
        Assert.Equal(bytes[1], 2 * bytes[3]);
    }

    // A classifier over 16 columns with two labels, and its bias.
    private const int HeadElements = 2 * 16 + 2;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Resumed_with_as_many_ranks_it_has_the_same_bits_and_with_others_the_same_curve(int ranks)
    {
        using var runs = new RankRuns(isCausal: false);
        var whole = runs.Run(2, runs.Options("whole"))[0].Watcher;
        // Interrupted by one rank only.
        using var cancellation = new CancellationTokenSource();
        var stopped = runs.Run(2, runs.Options("stopped"), watch: (rank, p) =>
        {
            if (rank == 1 && p.Step == 6)
                cancellation.Cancel();
        }, cancellation: rank => rank == 1 ? cancellation.Token : default);
        var interrupted = Assert.IsType<TrainingInterruptedException>(stopped[0].Error);
        Assert.InRange(interrupted.Step, 5, 7);
        Assert.True(Directory.Exists(interrupted.Checkpoint));
        Assert.True(stopped[1].Error is OperationCanceledException or RankStoppedException { IsInterruption: true }, $"{stopped[1].Error}");
        var resumed = runs.Run(ranks, runs.Options("stopped") with { Resume = true });
        Assert.All(resumed, r => Assert.Null(r.Error));
        Assert.Equal(interrupted.Step, resumed[0].Watcher.ResumedAt);
        Assert.Equal(ranks != 2, resumed[0].Watcher.Warnings.Any(w => w.Contains("equal to rounding", StringComparison.Ordinal)));
        if (ranks == 2)
        {
            Assert.Equal(runs.Bytes("whole", "adapter_model.safetensors"), runs.Bytes("stopped", "adapter_model.safetensors"));
            Assert.Equal(runs.Bytes("whole", "checkpoints/step-16/optimizer.safetensors"), runs.Bytes("stopped", "checkpoints/step-16/optimizer.safetensors"));
        }
        foreach (var step in resumed[^1].Watcher.Steps)
            Assert.Equal(whole.Steps[step.Step - 1].Loss, step.Loss, 2e-4 * step.Loss);
    }

    [Fact]
    public void A_loss_that_is_no_number_stops_all_at_the_same_step()
    {
        using var runs = new RankRuns(isCausal: true);
        var outcomes = runs.Run(3, runs.Options("run") with { LearningRate = 1e30, MaxGradientNorm = 0, Schedule = LearningRateKind.Constant });
        var error = Assert.IsType<RunException>(outcomes[0].Error);
        Assert.Contains("try a lower learning rate", error.Message, StringComparison.Ordinal);
        Assert.All(outcomes[1..], o => Assert.True(o.Error is RankStoppedException { IsBadInput: false, From: 0 }, $"{o.Error}"));
        Assert.All(outcomes, o => Assert.Equal(outcomes[0].Watcher.Steps.Count, o.Watcher.Steps.Count));
    }

    [Fact]
    public void A_rank_that_fails_stops_all_and_leaves_a_checkpoint()
    {
        using var runs = new RankRuns(isCausal: false);
        var outcomes = runs.Run(3, runs.Options("run"), watch: (rank, p) =>
        {
            if (rank == 2 && p.Step == 6)
                throw new RunException("the roof fell in");
        });
        var error = Assert.IsType<RunException>(outcomes[0].Error);
        Assert.StartsWith("rank 2 (process ", error.Message, StringComparison.Ordinal);
        Assert.Contains("the roof fell in; the checkpoint is ", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
        Assert.All(outcomes[1..], o => Assert.IsType<RankStoppedException>(o.Error));
        var newest = Directory.EnumerateDirectories(Path.Combine(runs.Output("run"), "checkpoints")).Max();
        Assert.Contains(newest!, error.Message, StringComparison.Ordinal);
        Assert.All(runs.Run(3, runs.Options("run") with { Resume = true }), o => Assert.Null(o.Error));
        runs.Run(3, runs.Options("whole"));
        Assert.Equal(runs.Bytes("whole", "adapter_model.safetensors"), runs.Bytes("run", "adapter_model.safetensors"));
    }

    [Fact]
    public void Ranks_that_were_started_with_other_things_are_named()
    {
        using var runs = new RankRuns(isCausal: false);
        void Refused(string message, Func<TrainerOptions, TrainerOptions> other)
        {
            var outcomes = runs.Run(3, runs.Options("run"), (rank, options) => rank == 1 ? other(options) : options);
            var error = Assert.IsType<InputException>(outcomes[0].Error).Message;
            Assert.StartsWith(message, error, StringComparison.Ordinal);
            Assert.Contains("start all ranks with the same program, command, model and data", error, StringComparison.Ordinal);
            Assert.All(outcomes[1..], o => Assert.True(o.Error is RankStoppedException { IsBadInput: true }, $"{o.Error}"));
            Assert.False(File.Exists(Path.Combine(runs.Output("run"), "metrics.jsonl")));
        }
        Refused("the learning rate of rank 1 (process ", o => o with { LearningRate = 1e-3 });
        Refused("the seed of rank 1 (process ", o => o with { Seed = 4 });
        Refused("the steps between checkpoints of rank 1 (process ", o => o with { SaveEvery = 5 });
        Refused("the evaluation of rank 1 (process ", o => o with { EvaluateEvery = 5 });
    }

    [Fact]
    public void An_output_that_cannot_be_had_is_told_once()
    {
        using var runs = new RankRuns(isCausal: false);
        Assert.Null(runs.Run(2, runs.Options("run"))[0].Error);
        var outcomes = runs.Run(2, runs.Options("run"));
        Assert.Contains("holds checkpoints of a training", Assert.IsType<InputException>(outcomes[0].Error).Message, StringComparison.Ordinal);
        Assert.IsType<RankStoppedException>(outcomes[1].Error);
    }

    [Fact]
    public void An_evaluation_that_is_shared_out_is_that_of_one_process_to_the_bit()
    {
        using var runs = new RankRuns(isCausal: false);
        var links = InProcessLink.Create(3);
        var results = new EvaluationResult[4];
        var threads = Enumerable.Range(0, 4).Select(t => new Thread(() =>
        {
            using var group = t == 3 ? null : new RankGroup(links[t]);
            using var tiny = TinyModel.Open(runs.Output("model"), false, threads: 1);
            using var evaluator = new Evaluator(tiny.Model, runs.Dev, null, new EvaluatorOptions { BatchSize = 4, Ranks = group });
            results[t] = evaluator.Run();
        })).ToArray();
        foreach (var thread in threads)
            thread.Start();
        foreach (var thread in threads)
            thread.Join();
        for (var t = 0; t < 3; t++)
        {
            Assert.Equal(results[3].Loss, results[t].Loss);
            Assert.Equal(results[3].Logits, results[t].Logits);
            Assert.Equal(results[3].Metrics, results[t].Metrics);
        }
    }

    [Fact]
    public void Shares_are_whole_neighbours_of_like_size()
    {
        Gen.Select(Gen.Int[1, 40].Array[0, 20], Gen.Int[1, 9]).Sample((lengths, size) =>
        {
            var total = lengths.Sum(l => (long)l);
            var longest = lengths.Length == 0 ? 0 : lengths.Max();
            var capacity = RankShare.Capacity(new BatchSize((int)total, lengths.Length, total * longest), size, longest);
            Assert.Equal(0, RankShare.First(lengths, total, 0, size));
            Assert.Equal(lengths.Length, RankShare.First(lengths, total, size, size));
            for (var r = 0; r < size; r++)
            {
                var (from, to) = (RankShare.First(lengths, total, r, size), RankShare.First(lengths, total, r + 1, size));
                Assert.InRange(to, from, lengths.Length);
                Assert.True(lengths[from..to].Sum() <= capacity.Tokens);
            }
        });
    }

    private static void SameCurve(Watcher expected, Watcher actual, double start, double end)
    {
        Assert.Equal(expected.Steps.Count, actual.Steps.Count);
        for (var s = 0; s < expected.Steps.Count; s++)
        {
            // Rounding grows as the weights part.
            var tolerance = s < 2 ? start : end;
            var (e, a) = (expected.Steps[s], actual.Steps[s]);
            Assert.Equal(e.Loss, a.Loss, tolerance * e.Loss);
            Assert.Equal(e.GradientNorm, a.GradientNorm, (s < 2 ? 10 * start : end) * e.GradientNorm);
            Assert.Equal((e.Tokens, e.LearningRate), (a.Tokens, a.LearningRate));
        }
    }
}
