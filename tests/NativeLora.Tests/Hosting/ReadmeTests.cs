using NativeLora.Hosting;
using NativeLora.Tests.Cli;
using NativeLora.Tests.Serving;

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
    public void The_sample_is_the_one_of_the_readme()
    {
        var shown = Between(File.ReadAllLines(Repository.File("README.md")), "```csharp", "```");
        var source = Repository.File("tests", "NativeLora.Tests", "Hosting", "ReadmeTests.cs");
        var compiled = Between(File.ReadAllLines(source), "        // <README>", "        // </README>").Select(l => l.Length > 8 ? l[8..] : "");
        Assert.NotEmpty(shown);
        Assert.Equal(shown, compiled);
    }

    private static string[] Between(string[] lines, string from, string to) => [.. lines.SkipWhile(l => l != from).Skip(1).TakeWhile(l => l != to)];
}
