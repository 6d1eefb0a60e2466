using Microsoft.Extensions.DependencyInjection;
using NativeLora.Extensions;
using NativeLora.Hosting;

namespace NativeLora.Tests.Docs;

/// <summary>The C# of docs/tutorial.md: what stands between the marks is what the page shows, and it runs.</summary>
public sealed class TutorialSnippets
{
    private static string Model => Shared.Path("models", "minilm-l6");

    private static string Adapter => Shared.Path("reference", "training", "minilm-mrpc-qv", "final");

    [SharedFact]
    public async Task ClassifyEmbedAndGenerate()
    {
        var (model, adapter, decoder) = (Model, Adapter, Shared.Path("data", "stories260K", "hf"));
        // <tutorial-classify>
        using var classifier = Classifier.Open(model, new()
        {
            Adapters = [new("mrpc", adapter)],
            Labels = ["different", "same"],
            Sessions = 2,
        });
        var probabilities = new float[classifier.Classes];
        var prediction = classifier.Predict("Prices rose.", "Prices went up.", probabilities);
        Console.WriteLine($"{prediction.Label}: {prediction.Value:0.00}");
        // </tutorial-classify>
        Assert.Contains(prediction.Label, (string[])["different", "same"]);
        Assert.Equal(1, probabilities.Sum(), 1e-5);

        // <tutorial-ids>
        var tokens = classifier.Tokenizer.Encode("Prices rose.", "Prices went up.", classifier.MaxLength);
        int best = classifier.Predict(tokens.Ids, probabilities, adapter: "mrpc", tokens.TypeIds);
        // </tutorial-ids>
        Assert.Equal(prediction.Class, best);

        // <tutorial-others>
        using var embedder = Embedder.Open(model);
        float[] vectors = embedder.Embed(["a cat", "a dog"]);

        using var generator = Generator.Open(decoder);
        await foreach (var piece in generator.StreamAsync("Once upon a time", new() { MaxNewTokens = 20 }))
            Console.Write(piece);
        // </tutorial-others>
        Assert.Equal(2 * embedder.Dimensions, vectors.Length);
    }

    [SharedFact]
    public void Services()
    {
        var (model, adapter, services) = (Model, Adapter, new ServiceCollection());
        // <tutorial-services>
        services.AddNativeLoraClassifier(model, new() { Adapters = [new("mrpc", adapter)] });
        services.AddNativeLoraEmbedder(model);
        // </tutorial-services>
        using var provider = services.BuildServiceProvider();
        Assert.Equal(["mrpc"], provider.GetRequiredService<Classifier>().Adapters);
    }
}
