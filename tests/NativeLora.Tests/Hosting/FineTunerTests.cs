using System.Text.Json;
using NativeLora.Adapters;
using NativeLora.Data;
using NativeLora.Generation;
using NativeLora.Hosting;
using NativeLora.Selection;
using NativeLora.Tests.Cli;
using NativeLora.Training;

namespace NativeLora.Tests.Hosting;

/// <summary>Fine-tuning from a program: what the command line gives, cancelled and resumed, in memory, with errors of one line.</summary>
public sealed class FineTunerTests : IDisposable
{
    private readonly SmallFolders _folders = new();

    public void Dispose() => _folders.Dispose();

    private static FineTuningOptions Quick => new() { Epochs = 2, BatchSize = 8, LearningRate = 5e-3, Rank = 4, Seed = 5, Threads = 2 };

    /// <summary>The program's adapter and the command line's have the same bytes.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task It_gives_what_the_command_line_gives(bool isCausal)
    {
        var rows = isCausal ? SmallFolders.Prompts(40) : SmallFolders.Rows(40);
        var output = _folders.Place("program");
        using (var tuner = FineTuner.Open(isCausal ? _folders.Decoder : _folders.Encoder, rows, Quick with { OutputFolder = output }))
        {
            var tuned = await tuner.TrainAsync();
            Assert.Equal(SmallFolders.Layers / 2, tuned.Layers.Count);
            Assert.Equal(40, tuner.Rows);
        }
        var data = _folders.Write("rows.jsonl", string.Concat(rows.Select(r => JsonSerializer.Serialize(
            isCausal ? new Dictionary<string, string> { ["instruction"] = r.Text, ["output"] = r.Completion! } : new() { ["text"] = r.Text, ["label"] = r.Label! }) + "\n")));
        var template = _folders.Write("plain.txt", "{instruction}{output}");
        CliRun.Of(["run", "--model", isCausal ? _folders.Decoder : _folders.Encoder, "--task", isCausal ? "instruct" : "text", "--data", data, "--output", _folders.Place("cli"),
            "--epochs", "2", "--batch-size", "8", "--lr", "5e-3", "--r", "4", "--seed", "5", "--threads", "2", .. isCausal ? (string[])["--template", template] : []]).AssertDone();
        AssertSame(_folders.Place("cli"), output);
        var (program, command) = (SelectionReport.Load(Path.Combine(output, "selection.json")), SelectionReport.Load(Path.Combine(_folders.Place("cli"), "selection.json")));
        Assert.Equal(command.Selected, program.Selected);
        Assert.Equal(command.Layers.Select(l => (l.Cka, l.CkaDebiased)), program.Layers.Select(l => (l.Cka, l.CkaDebiased)));
        Assert.Equal(command.Predicted!.MemoryBytes.OrderBy(b => b.Key), program.Predicted!.MemoryBytes.OrderBy(b => b.Key));
    }

    /// <summary>Cancelled after any step, the same call goes on and ends with the same bytes.</summary>
    [Fact]
    public async Task Cancelled_it_goes_on_bit_for_bit()
    {
        var rows = SmallFolders.Rows(24);
        var options = Quick with { OutputFolder = _folders.Place("whole"), Evaluation = SmallFolders.Rows(9, 50) };
        FineTunedModel whole;
        using (var tuner = FineTuner.Open(_folders.Encoder, rows, options))
            whole = await tuner.TrainAsync();
        var pieces = options with { OutputFolder = _folders.Place("pieces") };
        foreach (var after in (int[])[1, 3, 5])
        {
            using var stop = new CancellationTokenSource();
            using var tuner = FineTuner.Open(_folders.Encoder, rows, pieces);
            var error = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => tuner.TrainAsync(new Now<TrainingProgress>(p =>
            {
                if (p.Step == after)
                    stop.Cancel();
            }), stop.Token));
            Assert.Equal(after, Assert.IsType<TrainingInterruptedException>(error).Step);
            Assert.True(Directory.Exists(((TrainingInterruptedException)error).Checkpoint));
        }
        using (var tuner = FineTuner.Open(_folders.Encoder, rows, pieces))
        {
            var resumed = await tuner.TrainAsync();
            Assert.Equal((whole.Summary.Steps, whole.Summary.Loss, whole.Summary.Tokens), (resumed.Summary.Steps, resumed.Summary.Loss, resumed.Summary.Tokens));
            Assert.Equal(whole.Layers, resumed.Layers);
            Assert.Equal(whole.Evaluation!.Loss, resumed.Evaluation!.Loss);
            Assert.Equal(pieces.OutputFolder, resumed.Summary.OutputFolder);
            // Once more there is nothing left to do.
            var again = await tuner.TrainAsync();
            Assert.Equal(whole.Evaluation.Loss, again.Evaluation!.Loss);
        }
        AssertSame(options.OutputFolder!, pieces.OutputFolder!);
        using var other = FineTuner.Open(_folders.Encoder, rows, pieces with { Rank = 2 });
        Assert.Contains("train into another folder", (await Assert.ThrowsAsync<InputException>(() => other.TrainAsync())).Message);
        using var anew = FineTuner.Open(_folders.Encoder, rows, pieces with { Rank = 2, Overwrite = true });
        Assert.Equal(2, (await anew.TrainAsync()).Config.Rank);
    }

    /// <summary>Without a folder the adapter is used from memory, and gives what its saved files give.</summary>
    [Fact]
    public async Task In_memory_it_classifies_as_its_files_do()
    {
        FineTunedModel tuned;
        var told = new List<int>();
        using (var tuner = await FineTuner.OpenAsync(_folders.Encoder, Streamed(SmallFolders.Rows(60)), Quick with { Epochs = 20, LearningRate = 1e-2, Evaluation = SmallFolders.Rows(20, 60) }))
        {
            var chosen = await tuner.SelectAsync();
            Assert.Equal(2, chosen.Layers.Count);
            tuned = await tuner.TrainAsync(new Now<TrainingProgress>(p => told.Add(p.Step)));
            Assert.Same(chosen, tuned.Selection);
            Assert.Equal(["no", "yes"], tuner.Labels);
        }
        Assert.Equal(Enumerable.Range(1, tuned.Summary.Steps), told);
        Assert.Equal("", tuned.Summary.OutputFolder);
        Assert.True(tuned.Evaluation!.Value("accuracy") > 0.9, $"{tuned.Evaluation.Value("accuracy")}");
        Assert.True(tuned.TrainableParameters > 0 && tuned.Memory.Total > 0);
        tuned.Save(_folders.Place("saved"));
        using var memory = tuned.OpenClassifier(new InferenceOptions { Threads = 1, Adapters = [new("file", _folders.Place("saved"))] });
        Assert.Equal(["tuned", "file"], memory.Adapters);
        Assert.Equal(["no", "yes"], memory.Labels);
        foreach (var i in Enumerable.Range(100, 10))
            Assert.Equal(memory.Predict(SmallFolders.Text(i), "file"), memory.Predict(SmallFolders.Text(i)));
        Assert.InRange(Enumerable.Range(99, 10).Count(i => memory.Predict(SmallFolders.Text(i)).Label == (i % 3 == 0 ? "yes" : "no")), 9, 10);
        Assert.Throws<InputException>(() => tuned.OpenGenerator());
    }

    [Fact]
    public async Task In_memory_it_writes_what_it_learnt()
    {
        using var tuner = FineTuner.Open(_folders.Decoder, SmallFolders.Prompts(20), Quick with { Ratio = 1, Epochs = 60, LearningRate = 2e-2, Rank = 8, Lora = l => l with { TargetModules = ModuleSelector.AllLinear } });
        var tuned = await tuner.TrainAsync();
        Assert.Equal(Enumerable.Range(0, SmallFolders.Layers), tuned.Layers);
        Assert.Null(tuned.Labels);
        using var generator = tuned.OpenGenerator(new InferenceOptions { Threads = 1 });
        var right = 0;
        foreach (var row in SmallFolders.Prompts(20))
            right += (await generator.GenerateAsync(row.Text, new GenerationOptions { MaxNewTokens = 3 })).Text == row.Completion ? 1 : 0;
        Assert.True(right >= 18, $"{right} of 20 completions");
        Assert.Contains("classifies nothing", Assert.Throws<InputException>(() => tuned.OpenClassifier()).Message);
    }

    /// <summary>Scores, layers that are given, changed settings, and nothing left behind.</summary>
    [Fact]
    public async Task Scores_are_learnt_on_layers_that_are_given()
    {
        var rows = Enumerable.Range(0, 40).Select(i => TrainingRow.Scored(SmallFolders.Text(i), i % 3 == 0 ? 1 : -1, "aa ba"));
        using var tuner = FineTuner.Open(_folders.Decoder, rows, Quick with { Lora = l => l with { UseDora = true }, Training = t => t with { AccumulationSteps = 2, MaxSteps = 4 } });
        var tuned = await tuner.TrainAsync([3, 1, 3]);
        Assert.Equal([1, 3], tuned.Layers);
        Assert.Equal((true, 4, null), (tuned.Config.UseDora, tuned.Summary.Steps, tuned.Selection));
        using var classifier = tuned.OpenClassifier(new InferenceOptions { Threads = 1 });
        Assert.True(classifier.IsRegression);
        var head = await tuner.TrainAsync([]);
        Assert.Empty(head.Layers);
        Assert.True(head.TrainableParameters < tuned.TrainableParameters);
        Assert.Contains("layers 0 to 3", (await Assert.ThrowsAsync<InputException>(() => tuner.TrainAsync([4]))).Message);
    }

    [Fact]
    public async Task Cancelled_without_a_folder_nothing_is_left()
    {
        var before = Directory.GetDirectories(Path.GetTempPath(), "nativelora-*").ToHashSet();
        using var stop = new CancellationTokenSource();
        using var tuner = FineTuner.Open(_folders.Encoder, SmallFolders.Rows(24), Quick);
        string[] during = [];
        var error = await Assert.ThrowsAsync<OperationCanceledException>(() => tuner.TrainAsync([0], new Now<TrainingProgress>(p =>
        {
            // Other tests have folders of that name too: the training's own holds its metrics.
            during = [.. Directory.GetDirectories(Path.GetTempPath(), "nativelora-*").Where(d => !before.Contains(d) && File.Exists(Path.Combine(d, "metrics.jsonl")))];
            stop.Cancel();
        }), stop.Token));
        Assert.Contains("nothing is kept", error.Message);
        Assert.NotEmpty(during);
        Assert.Contains(during, d => !Directory.Exists(d));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => tuner.SelectAsync(cancellation: stop.Token));
    }

    [Fact]
    public void What_is_wrong_is_said_in_one_line()
    {
        var (encoder, decoder, rows) = (_folders.Encoder, _folders.Decoder, SmallFolders.Rows(4));
        Refused("no rows", encoder, []);
        Refused("row 2 is of another kind", encoder, [rows[0], TrainingRow.Scored("aa", 1)]);
        Refused("row 2 is null", encoder, [rows[0], null!]);
        Refused("row 1 has the score NaN", encoder, [TrainingRow.Scored("aa", float.NaN)]);
        Refused("the same label \"no\"", encoder, [rows[1], rows[2]]);
        Refused("row 1 has the label \"yes\"; the labels are a, b", encoder, rows, new() { Labels = ["a", "b"] });
        Refused("evaluation row 1 has the label \"perhaps\"", encoder, rows, new() { Evaluation = [TrainingRow.Classified("aa", "perhaps")] });
        Refused("evaluation row 1 is of another kind", encoder, rows, new() { Evaluation = [TrainingRow.Completed("a", "b")] });
        Refused("need a causal language model", encoder, SmallFolders.Prompts(3));
        Refused("labels are given", decoder, SmallFolders.Prompts(3), new() { Labels = ["a", "b"] });
        Refused("the model takes at most 32", encoder, rows, new() { MaxLength = 33 });
        Refused("the ratio is 0", encoder, rows, new() { Ratio = 0 });
        Refused("2 samples", encoder, rows, new() { Samples = 1 }, "at least");
        Refused("exhaustive", encoder, rows, new() { Strategy = SelectionStrategy.Exhaustive });
        Refused("the batch size is 0", encoder, rows, new() { BatchSize = 0 });
        Refused("rank", encoder, rows, new() { Rank = 0 });
        Refused("there is no such file or folder", _folders.Place("missing"), rows);
        File.Delete(Path.Combine(encoder, "vocab.txt"));
        Refused("no tokenizer", encoder, rows);

        static void Refused(string saying, string folder, TrainingRow[] rows, FineTuningOptions? options = null, string? or = null)
        {
            var error = Assert.Throws<InputException>(() => FineTuner.Open(folder, rows, options).Dispose());
            Assert.DoesNotContain('\n', error.Message);
            Assert.Contains(or ?? saying, error.Message, StringComparison.OrdinalIgnoreCase);
        }
    }

    /// <summary>Calls take turns; closing waits for the one that runs and refuses the others.</summary>
    [Fact]
    public async Task Calls_take_turns_and_closing_waits()
    {
        var tuner = FineTuner.Open(_folders.Encoder, SmallFolders.Rows(24), Quick);
        using var going = new SemaphoreSlim(0);
        using var go = new ManualResetEventSlim();
        var first = tuner.TrainAsync([0], new Now<TrainingProgress>(p =>
        {
            going.Release();
            go.Wait();
        }));
        await going.WaitAsync();
        using var stop = new CancellationTokenSource();
        var cancelled = tuner.SelectAsync(cancellation: stop.Token);
        var waiting = tuner.SelectAsync();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled);
        var closing = Task.Run(tuner.Dispose);
        await Task.Delay(20);
        Assert.False(closing.IsCompleted);
        go.Set();
        Assert.Equal([0], (await first).Layers);
        // The one that waited got its turn before, or was refused.
        try
        {
            Assert.Equal(2, (await waiting).Layers.Count);
        }
        catch (ObjectDisposedException)
        {
        }
        await closing;
        await Assert.ThrowsAsync<ObjectDisposedException>(() => tuner.SelectAsync());
        tuner.Dispose();
    }

    private static void AssertSame(string expected, string found)
    {
        foreach (var file in (string[])["adapter_model.safetensors", "adapter_config.json", .. File.Exists(Path.Combine(expected, "labels.json")) ? (string[])["labels.json"] : []])
            Assert.True(File.ReadAllBytes(Path.Combine(expected, file)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(found, file))), $"{file} differs");
    }

    private static async IAsyncEnumerable<TrainingRow> Streamed(TrainingRow[] rows)
    {
        foreach (var row in rows)
        {
            await Task.Yield();
            yield return row;
        }
    }

    /// <summary>Progress that is told at once, on the thread that works.</summary>
    private sealed class Now<T>(Action<T> told) : IProgress<T>
    {
        public void Report(T value) => told(value);
    }
}
