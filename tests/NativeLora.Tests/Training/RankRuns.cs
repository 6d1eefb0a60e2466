using NativeLora.Data;
using NativeLora.Tests.Checkpoints;
using NativeLora.Training;

namespace NativeLora.Tests.Training;

/// <summary>Trainings of tiny models by threads that stand for processes.</summary>
internal sealed class RankRuns : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly bool _isCausal;

    public RankRuns(bool isCausal)
    {
        _isCausal = isCausal;
        TinyModel.Open(_folder.File("model"), isCausal).Dispose();
        (Train, Dev) = (TinyModel.Examples(isCausal, 32, 1), TinyModel.Examples(isCausal, 21, 2));
    }

    public EncodedExample[] Train { get; init; }

    public EncodedExample[] Dev { get; }

    public double Dropout { get; init; } = 0.1;

    public bool InFull { get; init; }

    public IReadOnlyList<int>? Layers { get; init; }

    public string Output(string name) => _folder.File(name);

    /// <summary>Settings with all that moves: dropouts, accumulation, epochs that end in the midst of a batch, evaluations.</summary>
    public TrainerOptions Options(string name) => new()
    {
        OutputFolder = Output(name),
        MaxSteps = 16,
        BatchSize = 5,
        AccumulationSteps = 2,
        LearningRate = 2e-3,
        WarmupSteps = 0,
        Seed = 11,
        Adam = new AdamWOptions { WeightDecay = 0.01 },
        EvaluateEvery = 8,
        SaveEvery = 4,
    };

    /// <summary>Trains with so many ranks; 1 is a training without any.</summary>
    /// <param name="ranks">Ranks.</param>
    /// <param name="options">Options of each.</param>
    /// <param name="each">Changes what a rank has.</param>
    /// <param name="watch">Watches a rank, and may end it.</param>
    public RankOutcome[] Run(int ranks, TrainerOptions options, Func<int, TrainerOptions, TrainerOptions>? each = null, Action<int, TrainingProgress>? watch = null, Func<int, CancellationToken>? cancellation = null)
    {
        var links = ranks == 1 ? [] : InProcessLink.Create(ranks);
        var outcomes = new RankOutcome[ranks];
        var threads = Enumerable.Range(0, ranks).Select(rank => new Thread(() => outcomes[rank] = One(rank, links, options, each, watch, cancellation))).ToArray();
        foreach (var thread in threads)
            thread.Start();
        foreach (var thread in threads)
            Assert.True(thread.Join(60_000), "a rank does not end");
        return outcomes;
    }

    private RankOutcome One(int rank, InProcessLink[] links, TrainerOptions options, Func<int, TrainerOptions, TrainerOptions>? each, Action<int, TrainingProgress>? watch, Func<int, CancellationToken>? cancellation)
    {
        var watcher = new Watcher(p => watch?.Invoke(rank, p));
        try
        {
            options = each?.Invoke(rank, options) ?? options;
            using var group = links.Length == 0 ? null : new RankGroup(links[rank]);
            using var tiny = TinyModel.Open(_folder.File("model"), _isCausal, InFull, threads: 1, Dropout, change: c => Layers is null ? c : c with { LayersToTransform = Layers });
            using var trainer = new Trainer(tiny.Model, Train, options with { Ranks = group }, Dev, observer: watcher);
            var summary = trainer.Run(cancellation?.Invoke(rank) ?? default);
            group?.Close();
            return new RankOutcome(watcher, summary, tiny.Model.Parameters.Elements, null);
        }
        catch (Exception e)
        {
            return new RankOutcome(watcher, null, 0, e);
        }
    }

    public byte[] Bytes(string name, string file) => File.ReadAllBytes(Path.Combine(Output(name), file));

    public void Dispose() => _folder.Dispose();
}

/// <summary>What a rank came to.</summary>
internal sealed record RankOutcome(Watcher Watcher, TrainingSummary? Summary, long Elements, Exception? Error);
