using NativeLora.Cli.Study;
using NativeLora.Selection;

namespace NativeLora.Tests.Cli;

/// <summary>Verdicts over made-up results whose answers are known.</summary>
public sealed class StudyComparisonsTests
{
    private const ulong Seeds = 5;

    private static readonly StudyBudget s_budget = StudyBudget.Parse("--budget-bytes", "mask:0011", false)[0];

    private static StudyRow Row(SelectionStrategy strategy) => new(SelectionOptions.NameOf(strategy), new SelectionOptions { Strategy = strategy }) { Budget = s_budget };

    private static StudyTask Task(string key) => new(key, null!, null!, null!, null!, "");

    private static CellResult Result(string task, string mask, ulong seed, double accuracy) => new()
    {
        Task = task,
        Mask = mask,
        Seed = seed,
        Settings = "",
        Evaluations = [new CellEvaluation("dev", 100, new Dictionary<string, double?> { ["accuracy"] = accuracy })],
        TrainLoss = null,
        LastLoss = null,
        Steps = 1,
        Tokens = 1,
        Seconds = 1,
        SecondsPerStep = null,
        TrainableParameters = 1,
        AllParameters = 2,
        PlannedBytes = 1,
        PlannedEvaluationBytes = 0,
        OptimizerBytes = 0,
        ArenaBytes = 0,
        SavedBytes = 0,
        AllocatedBytes = 0,
        PeakProcessBytes = null,
    };

    private static RowSummary Summary(StudyTask task, StudyRow row, Func<ulong, (string Mask, double Accuracy)> of)
    {
        var cells = new List<StudyCell>();
        var results = new List<CellResult>();
        for (var seed = 0ul; seed < Seeds; seed++)
        {
            var (mask, accuracy) = of(seed);
            cells.Add(new StudyCell(task, row, seed, [], mask) { Within = new CellBudget(s_budget, 1000, 900) });
            results.Add(Result(task.Key, mask, seed, accuracy));
        }
        return new RowSummary(row, cells, results, ["accuracy"]);
    }

    /// <summary>Differences against random with a t statistic that is easy to write down: mean 0.02, deviation s, t = 0.02 √5 / s.</summary>
    private static readonly double[] s_noise = [-0.002, -0.001, 0, 0.001, 0.002];

    [Fact]
    public void Known_answers()
    {
        var (task, random, last, cka, first, gradient) = (Task("made-up"), Row(SelectionStrategy.Random), Row(SelectionStrategy.Last), Row(SelectionStrategy.Cka), Row(SelectionStrategy.First), Row(SelectionStrategy.Gradient));
        // The seeds differ much more than the strategies: only pairing shows the differences.
        double Base(ulong seed) => 0.5 + 0.08 * seed;
        string[] masks = ["1010", "0101", "1001", "0110", "1100"];
        RowSummary[] rows =
        [
            Summary(task, random, seed => (masks[seed], Base(seed))),
            Summary(task, last, seed => ("0011", Base(seed) + s_noise[seed])),
            Summary(task, cka, seed => ("0110", Base(seed) + 0.02 + s_noise[seed])),
            Summary(task, first, seed => ("1000", Base(seed) - 0.02 + s_noise[seed])),
            Summary(task, gradient, seed => ("0011", Base(seed) + s_noise[seed])),
        ];
        var comparisons = StudyComparisons.Of(new TaskSummary(task, "accuracy", rows));
        Comparison Of(StudyRow row, string against) => comparisons.Single(c => c.Row == row && c.Against == against);

        var deviation = Math.Sqrt((4 + 1 + 0 + 1 + 4) * 1e-6 / 4);
        var beats = Of(cka, "random");
        Assert.Equal(Verdict.Beats, beats.Verdict);
        Assert.Equal(0.02, beats.Difference.Mean, 1e-12);
        Assert.Equal(0.02 - 2.7764451051977987 * deviation / Math.Sqrt(5), beats.Difference.Low!.Value, 1e-9);
        // Four degrees: P(|T| > t) = 1 - (3/2) y + y³/2 with y = t/√(4 + t²).
        var t = 0.02 * Math.Sqrt(5) / deviation;
        var y = t / Math.Sqrt(4 + t * t);
        Assert.Equal(1 - 1.5 * y + 0.5 * y * y * y, beats.P!.Value, 1e-9);
        Assert.Equal(Verdict.Behind, Of(first, "random").Verdict);
        Assert.Equal(Verdict.WithinTheSpread, Of(last, "random").Verdict);
        Assert.Equal(1, Of(last, "random").P!.Value, 1e-9);
        // One seed drew what cka chooses, and it counts.
        Assert.Equal(1, beats.SameMasks);
        // The layers of last themselves: nothing to test, and no test that the correction counts.
        Assert.Equal((Verdict.Same, null), (Of(gradient, "last").Verdict, Of(gradient, "last").P));
        // cka and first against both; last and gradient against random are one test, and random against last is it too.
        Assert.Equal(5, new ComparisonTable("made-up", "accuracy", comparisons).Tests);
        Assert.DoesNotContain(comparisons, c => c.Row == random && c.Against == "random");

        var sentences = ComparisonWords.Sentences(new ComparisonTable("made-up", "accuracy", comparisons)).ToList();
        Assert.Contains(sentences, s => s.StartsWith("cka ≤ bytes of 0011: beats random: +0.0200 (95 % interval +0.0180 to +0.0220, p below 0.001, ", StringComparison.Ordinal)
            && s.Contains("after Holm's correction over 5 comparisons; the same layers in 1 of 5 seeds)", StringComparison.Ordinal));
        Assert.Contains(sentences, s => s.StartsWith("gradient ", StringComparison.Ordinal) && s.Contains("does not beat last: it chooses the same layers with every seed", StringComparison.Ordinal));
        Assert.Contains(sentences, s => s.StartsWith("last ", StringComparison.Ordinal) && s.Contains("does not beat random: 0.0000", StringComparison.Ordinal) && s.EndsWith("within the spread.", StringComparison.Ordinal));
    }

    [Fact]
    public void Correction_can_undo_what_one_interval_shows()
    {
        // Three tests with p just below 0.05 by themselves: the interval leaves out 0, Holm does not let it stand.
        var comparison = new Comparison(Row(SelectionStrategy.Cka), "random", new Difference(Spread.Of([0.01, 0.02, 0.03, 0.04, 0.06])), true, 0, 0.03, "a") { Holm = 0.09 };
        Assert.Equal(Verdict.Ahead, comparison.Verdict);
        Assert.Equal(Verdict.Beats, (comparison with { Holm = 0.04 }).Verdict);
        // Of a loss less is better.
        Assert.Equal(Verdict.Behind, (comparison with { Holm = 0.04, LargerIsBetter = false }).Verdict);
        Assert.Equal(Verdict.Trails, (comparison with { LargerIsBetter = false }).Verdict);
    }

    [Fact]
    public void Tasks_together_are_averaged_within_a_seed()
    {
        var (random, last) = (Row(SelectionStrategy.Random), Row(SelectionStrategy.Last));
        var tasks = ((string Key, double Effect)[])[("a", 0.04), ("b", -0.02)];
        var summaries = tasks.Select(t =>
        {
            var task = Task(t.Key);
            return new TaskSummary(task, "accuracy", [Summary(task, random, seed => ("1010", 0.6)), Summary(task, last, seed => ("0011", 0.6 + t.Effect + (t.Key == "a" ? s_noise[seed] : 0)))]);
        }).ToList();
        var together = StudyComparisons.Together(summaries).Single(c => c.Row == last);
        Assert.Equal(5, together.Difference.Over.Count);
        Assert.Equal(0.01, together.Difference.Mean, 1e-12);
        Assert.Equal(Math.Sqrt(10e-6 / 4) / 2, together.Difference.Over.Deviation!.Value, 1e-12);
    }

    [Theory]
    [InlineData(new[] { 0.01, 0.04, 0.03, 0.005 }, new[] { 0.03, 0.06, 0.06, 0.02 })]
    [InlineData(new[] { 0.6, 0.7 }, new[] { 1.0, 1.0 })]
    [InlineData(new double[0], new double[0])]
    public void Holm_by_hand(double[] p, double[] expected) =>
        Assert.All(NativeLora.Cli.Study.Holm.Correct(p).Zip(expected), pair => Assert.Equal(pair.Second, pair.First, 1e-12));

    [Fact]
    public void P_by_hand()
    {
        // One degree: P(|T| > t) = 1 - (2/π) atan t; differences 1 and 3 give t = 2.
        Assert.Equal(1 - 2 / Math.PI * Math.Atan(2), PairedT.P(Spread.Of([1, 3]))!.Value, 1e-12);
        Assert.Null(PairedT.P(Spread.Of([1])));
        Assert.Equal(1, PairedT.P(Spread.Of([0, 0, 0])));
        Assert.Equal(0, PairedT.P(Spread.Of([2, 2])));
    }
}
