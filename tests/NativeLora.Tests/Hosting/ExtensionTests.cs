using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using NativeLora.Extensions;
using NativeLora.Hosting;
using NativeLora.Tests.Cli;

namespace NativeLora.Tests.Hosting;

/// <summary>Microsoft.Extensions.AI and dependency injection over hosted models.</summary>
public sealed class ExtensionTests
{
    private static string Folder => Shared.Path("models", "smollm2-135m");

    [SharedFact]
    public async Task A_container_loads_models_once_and_disposes_of_them()
    {
        using var model = new SmallModel();
        var services = new ServiceCollection();
        services.AddNativeLoraClassifier(model.Path).AddNativeLoraClassifier(model.Path, new InferenceOptions { MaxLength = 7 }, key: "short");
        services.AddNativeLoraEmbedder(Shared.Path("models", "minilm-l6"));
        Classifier classifier;
        using (var provider = services.BuildServiceProvider())
        {
            classifier = provider.GetRequiredService<Classifier>();
            Assert.Same(classifier, provider.GetRequiredService<Classifier>());
            Assert.Equal(7, provider.GetRequiredKeyedService<Classifier>("short").MaxLength);
            Assert.Contains(classifier.Predict("aa ab").Label, classifier.Labels);

            var generator = provider.GetRequiredService<IEmbeddingGenerator<string, Embedding<float>>>();
            var embeddings = await generator.GenerateAsync(["A cat.", "A much longer text of a dog."]);
            var embedder = provider.GetRequiredService<Embedder>();
            var alone = new float[embedder.Dimensions];
            embedder.Embed("A cat.", alone);
            Assert.Equal(embedder.Dimensions, embeddings[1].Vector.Length);
            Assert.All(alone.Zip(embeddings[0].Vector.ToArray()), p => Assert.Equal(p.First, p.Second, 1e-4));
            Assert.Equal(embedder.Tokenizer.Encode("A cat.").Length + embedder.Tokenizer.Encode("A much longer text of a dog.").Length, embeddings.Usage!.InputTokenCount);
            Assert.Same(embedder, generator.GetService<Embedder>());
            Assert.Equal("minilm-l6", generator.GetService<EmbeddingGeneratorMetadata>()!.DefaultModelId);
            await Assert.ThrowsAsync<InputException>(() => generator.GenerateAsync(["a"], new EmbeddingGenerationOptions { Dimensions = 3 }));
        }
        Assert.Throws<ObjectDisposedException>(() => classifier.Predict("aa"));
    }

    [SharedFact]
    public async Task A_chat_client_answers_and_streams()
    {
        using var generator = Generator.Open(Folder);
        using var client = new NativeLoraChatClient(generator, modelId: "small");
        ChatMessage[] messages = [new(ChatRole.System, "Be brief."), new(ChatRole.User, "What is the capital of France?")];
        var options = new ChatOptions { MaxOutputTokens = 12 };
        var response = await client.GetResponseAsync(messages, options);
        var prompt = generator.Template!.ConversationIds(generator.Tokenizer, [new(messages[1].Text)], "Be brief.");
        var wanted = (await generator.GenerateAsync([prompt], new() { MaxNewTokens = 12, EndTokens = [generator.Tokenizer.TokenId("<|im_end|>")!.Value] }))[0];
        Assert.Contains("Paris", wanted.Text);
        Assert.Equal(wanted.Text, response.Text);
        Assert.Equal((prompt.Length, wanted.Ids.Count), (response.Usage!.InputTokenCount, response.Usage.OutputTokenCount));
        Assert.Equal(wanted.Reason == NativeLora.Generation.FinishReason.Length ? ChatFinishReason.Length : ChatFinishReason.Stop, response.FinishReason);
        var pieces = new List<string>();
        await foreach (var update in client.GetStreamingResponseAsync(messages, options))
            pieces.Add(update.Text);
        Assert.True(pieces.Count > 1);
        Assert.Equal(wanted.Text, string.Concat(pieces));

        await Assert.ThrowsAsync<InputException>(() => client.GetResponseAsync([new ChatMessage(ChatRole.System, "x")]));
        await Assert.ThrowsAsync<NotSupportedException>(() => client.GetResponseAsync([new ChatMessage(ChatRole.User, [new UriContent("http://a/b.png", "image/png")])]));
        await Assert.ThrowsAsync<NotSupportedException>(() => client.GetResponseAsync(messages, new ChatOptions { ResponseFormat = ChatResponseFormat.Json }));
    }
}
