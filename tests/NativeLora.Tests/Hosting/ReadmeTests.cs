using NativeLora.Hosting;
using NativeLora.Tests.Cli;
using NativeLora.Tests.Serving;
using NativeLora.Training;

namespace NativeLora.Tests.Hosting;

/// <summary>The sample of README.md: the lines between the marks are those there, and they run.</summary>
public sealed class ReadmeTests
{
    [SharedFact]
    public async Task The_sample_runs()
    {
        using var small = new SmallModel();
        using var served = new ServedModel("bert-cls");
        var (model, adapter, decoder) = (small.Path, served.Final("lora-all"), Shared.Path("models", "smollm2-135m"));
        // <README>
        using var classifier = Classifier.Open(model, new() { Adapters = [new("mrpc", adapter)], Sessions = 2 });
        var probabilities = new float[classifier.Classes];
        var prediction = classifier.Predict("Prices rose.", "Prices went up.", probabilities);
        Console.WriteLine($"{prediction.Label} {prediction.Value:0.00}");

        using var embedder = Embedder.Open(model);
        float[] vectors = embedder.Embed(["a cat", "a dog"]);

        using var generator = Generator.Open(decoder);
        await foreach (var piece in generator.StreamAsync("Once upon a time", new() { MaxNewTokens = 20 }))
            Console.Write(piece);
        // </README>
        Assert.Equal(2 * embedder.Dimensions, vectors.Length);
        Assert.Equal(1, probabilities.Sum(), 1e-5);
    }

    [Fact]
    public async Task The_sample_of_fine_tuning_runs()
    {
        using var folders = new SmallFolders();
        var (model, cancellation) = (folders.Encoder, CancellationToken.None);
        (string Text, string Topic)[] news = [.. SmallFolders.Rows(24).Select(r => (r.Text, r.Label!))];
        // <README>
        var rows = news.Select(n => TrainingRow.Classified(n.Text, n.Topic));
        using var tuner = FineTuner.Open(model, rows, new() { Ratio = 0.5, Rank = 8, Epochs = 3 });
        var progress = new Progress<TrainingProgress>(p => Console.WriteLine($"{p.Step} of {p.TotalSteps}: {p.Loss:0.000}"));
        var tuned = await tuner.TrainAsync(progress, cancellation);
        tuned.Save("topics");
        using var topics = tuned.OpenClassifier();
        // </README>
        Assert.Equal(2, topics.Classes);
        Assert.Equal(SmallFolders.Layers / 2, tuned.Layers.Count);
        Assert.True(File.Exists(Path.Combine("topics", "adapter_model.safetensors")));
        Directory.Delete("topics", recursive: true);
    }

    [Fact]
    public void The_samples_are_those_of_the_readme()
    {
        var shown = Blocks(File.ReadAllLines(Repository.File("README.md")), "```csharp", "```");
        var source = Repository.File("tests", "NativeLora.Tests", "Hosting", "ReadmeTests.cs");
        var compiled = Blocks(File.ReadAllLines(source), "        // <README>", "        // </README>").Select(b => b.Select(l => l.Length > 8 ? l[8..] : "").ToArray()).ToList();
        Assert.Equal(2, shown.Count);
        Assert.Equal(shown, compiled);
    }

    private static List<string[]> Blocks(string[] lines, string from, string to)
    {
        var blocks = new List<string[]>();
        for (var rest = lines.SkipWhile(l => l != from).ToArray(); rest.Length > 0; rest = [.. rest.Skip(blocks[^1].Length + 1).SkipWhile(l => l != from)])
            blocks.Add([.. rest.Skip(1).TakeWhile(l => l != to)]);
        return blocks;
    }
}
