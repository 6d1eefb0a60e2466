using NativeLora.Data;
using NativeLora.Data.Tokenizers;
using NativeLora.Devices.Cpu;
using NativeLora.Generation;
using NativeLora.Hosting;
using NativeLora.Models;

namespace NativeLora.Tests.Hosting;

/// <summary>
/// What calls allocate on the managed heap once they are warm, on the thread that calls; what all threads allocate is measured by
/// samples/publish-aot.sh in a process of its own.
/// </summary>
public sealed class AllocationTests : IDisposable
{
    private readonly SmallFolders _folders = new();

    public void Dispose() => _folders.Dispose();

    /// <summary>One row or several, whichever adapter acts: nothing.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Calls_on_ids_allocate_nothing(bool packed)
    {
        using var tuner = FineTuner.Open(_folders.Encoder, SmallFolders.Rows(8), new() { Epochs = 1, BatchSize = 8 });
        var tuned = await tuner.TrainAsync([0, 2]);
        var options = new InferenceOptions { Threads = 2, PackWeights = packed, Adapters = [tuned.ToAdapter("a"), tuned.ToAdapter("b")] };
        using var classifier = Classifier.Open(_folders.Encoder, options);
        using var embedder = Embedder.Open(_folders.Encoder, new EmbedderOptions { Inference = options with { Adapters = [] }, Normalize = true });
        using var source = new CancellationTokenSource();
        int[] ids = [2, 5, 6, 7, 8, 3, 2, 9, 10, 3], lengths = [6, 4];
        var (probabilities, vectors) = (new float[2 * classifier.Classes], new float[2 * embedder.Dimensions]);
        Assert.Equal(0, PerCall(() =>
        {
            foreach (var adapter in (ReadOnlySpan<string?>)[null, "b", AdapterSource.None])
            {
                classifier.Predict(ids, probabilities, adapter, cancellation: source.Token);
                classifier.PredictBatch(ids, lengths, probabilities, adapter, cancellation: source.Token);
                embedder.Embed(ids, vectors, cancellation: source.Token);
                embedder.EmbedBatch(ids, lengths, vectors, cancellation: source.Token);
            }
        }));
    }

    /// <summary>A text costs what its tokenizer makes of it and nothing of the model's: its bytes do not grow with the model's work.</summary>
    [Fact]
    public void Calls_on_texts_allocate_what_the_tokenizer_does()
    {
        using var classifier = Classifier.Open(_folders.Encoder, new InferenceOptions { Threads = 1 });
        using var embedder = Embedder.Open(_folders.Encoder, new EmbedderOptions { Inference = new InferenceOptions { Threads = 1 } });
        var (probabilities, vector) = (new float[classifier.Classes], new float[embedder.Dimensions]);
        var text = SmallFolders.Text(6);
        var tokenizer = PerCall(() => classifier.Tokenizer.Encode(text, null, classifier.MaxLength));
        Assert.True(tokenizer > 0);
        Assert.Equal(tokenizer, PerCall(() => classifier.Predict(text)));
        Assert.Equal(tokenizer, PerCall(() => classifier.Predict(text, null, probabilities)));
        Assert.Equal(tokenizer, PerCall(() => embedder.Embed(text, vector)));
    }

    /// <summary>A step of generation, greedy or drawn, allocates nothing: logits, sampling and the keys and values kept.</summary>
    [Theory]
    [InlineData(0f)]
    [InlineData(0.8f)]
    public void A_token_allocates_nothing(float temperature)
    {
        using var device = new CpuDevice(2);
        using var pretrained = PretrainedModel.Open(_folders.Decoder, device);
        using var session = new DecodingSession(pretrained, null, new DecodingCapacity(2, 60, 8));
        var sampler = new TokenSampler(new GenerationOptions { Temperature = temperature, TopK = 20, TopP = 0.9f, RepetitionPenalty = 1.1f }, pretrained.Model.VocabularySize);
        var random = new SplitMix64(1);
        int[] first = [1, 40, 41], next = [0];
        session.Begin();
        session.Add(0, first);
        session.Run();
        Assert.Equal(0, PerCall(() =>
        {
            next[0] = sampler.Next(session.Logits(0), first, random);
            session.Begin();
            session.Add(0, next);
            session.Run();
        }));
    }

    /// <summary>A whole answer: what is kept of it, its ids and its text, and no more for each token.</summary>
    [Theory]
    [InlineData(false, 12)]
    [InlineData(true, 700)]
    public void An_answer_allocates_itself(bool withText, double most)
    {
        using var device = new CpuDevice(1);
        using var pretrained = PretrainedModel.Open(_folders.Decoder, device);
        using var generator = new TextGenerator(pretrained, withText ? TokenizerLoader.FromFolder(_folders.Decoder) : null);
        int[] prompt = [1, 40, 41];
        double Of(int tokens) => PerCall(() => generator.Generate([prompt], new GenerationOptions { MaxNewTokens = tokens, IgnoreEos = true }), times: 4);
        Of(60);
        var (few, many) = (Of(20), Of(60));
        Assert.InRange((many - few) / 40, 0, most);
    }

    /// <summary>Bytes of a call: the least of several rounds, as the runtime now and then does something of its own.</summary>
    private static double PerCall(Action call, int times = 10)
    {
        var least = double.MaxValue;
        for (var round = 0; round < 4; round++)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < times; i++)
                call();
            if (round > 0)
                least = Math.Min(least, (GC.GetAllocatedBytesForCurrentThread() - before) / (double)times);
        }
        return least;
    }
}
