using System.Collections.Concurrent;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using NativeLora.Extensions;
using NativeLora.Hosting;
using NativeLora.Training;

namespace NativeLora.Tests.Hosting;

/// <summary>What is logged of models, with which event ids.</summary>
public sealed class LogTests : IDisposable
{
    private readonly SmallFolders _folders = new();
    private readonly Sink _sink = new();

    public void Dispose() => _folders.Dispose();

    [Fact]
    public async Task Training_is_logged_from_opening_to_end()
    {
        var log = new NativeLoraLog(_sink.CreateLogger("x"));
        var options = new FineTuningOptions { Epochs = 2, BatchSize = 8, OutputFolder = _folders.Place("out"), Evaluation = SmallFolders.Rows(6, 30), Observer = log };
        using var stop = new CancellationTokenSource();
        using (var tuner = FineTuner.Open(_folders.Encoder, SmallFolders.Rows(16), options))
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => tuner.TrainAsync(new After(1, stop), stop.Token));
        Assert.Equal([1, 10, 11, 20, 21, 23, 27], _sink.Ids);
        Assert.Contains($"layers {Chosen()} of 4 chosen by cka over 16 samples", _sink.Text(11));
        Assert.Contains("16 rows begins: 4 steps", _sink.Text(20));
        Assert.Contains("interrupted after step 1 of 4", _sink.Text(27));
        _sink.Lines.Clear();
        using (var tuner = FineTuner.Open(_folders.Encoder, SmallFolders.Rows(16), options))
            await tuner.TrainAsync();
        Assert.Equal([1, 20, 24, 21, 22, 21, 21, 22, 23, 26], _sink.Ids);
        Assert.Contains("accuracy", _sink.Text(22));
        Assert.Contains("4 steps", _sink.Text(26));
        _sink.Lines.Clear();
        Assert.Throws<InputException>(() => FineTuner.Open(_folders.Place("none"), SmallFolders.Rows(3), options));
        Assert.Equal((2, LogLevel.Error), (_sink.Lines.Single().Id, _sink.Lines.Single().Level));
    }

    [Fact]
    public async Task A_container_logs_its_models_and_sessions()
    {
        var services = new ServiceCollection();
        services.AddSingleton<ILoggerFactory>(_sink);
        services.AddNativeLoraClassifier(_folders.Encoder, new InferenceOptions { Sessions = 2, Threads = 1 }).AddNativeLoraClassifier(_folders.Place("none"), key: "none");
        await using var provider = services.BuildServiceProvider();
        var classifier = provider.GetRequiredService<Classifier>();
        Assert.Equal([3, 1], _sink.Ids);
        Assert.Contains("session 1 of 2 of a Classifier", _sink.Text(3));
        Assert.Contains($"Classifier of {_folders.Encoder} opened with 0 adapters", _sink.Text(1));
        await Task.WhenAll(Enumerable.Range(0, 40).Select(i => classifier.PredictAsync(SmallFolders.Text(i))));
        Assert.True(_sink.Ids.Count(i => i == 3) <= 2);
        Assert.Throws<InputException>(() => provider.GetRequiredKeyedService<Classifier>("none"));
        Assert.Contains("not opened", _sink.Text(2));
        Assert.All(_sink.Categories, c => Assert.Equal("NativeLora", c));
    }

    private string Chosen() => string.Join(", ", NativeLora.Selection.SelectionReport.Load(Path.Combine(_folders.Place("out"), "selection.json")).Selected.Order());

    private sealed class After(int step, CancellationTokenSource stop) : IProgress<TrainingProgress>
    {
        public void Report(TrainingProgress value)
        {
            if (value.Step == step)
                stop.Cancel();
        }
    }

    /// <summary>Keeps what is logged.</summary>
    private sealed class Sink : ILoggerFactory, ILogger
    {
        public ConcurrentQueue<(int Id, LogLevel Level, string Text)> Lines { get; } = new();

        public ConcurrentBag<string> Categories { get; } = [];

        public int[] Ids => [.. Lines.Select(l => l.Id)];

        public string Text(int id) => Lines.First(l => l.Id == id).Text;

        public ILogger CreateLogger(string categoryName)
        {
            Categories.Add(categoryName);
            return this;
        }

        public void AddProvider(ILoggerProvider provider) => throw new NotSupportedException();

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Lines.Enqueue((eventId.Id, logLevel, formatter(state, exception)));

        public void Dispose()
        {
        }
    }
}
