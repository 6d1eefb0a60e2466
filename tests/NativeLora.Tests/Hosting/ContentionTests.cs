using NativeLora.Generation;
using NativeLora.Hosting;

namespace NativeLora.Tests.Hosting;

/// <summary>Many callers of one model: other adapters, lengths and cancellations, and a model that is closed under their hands.</summary>
public sealed class ContentionTests : IDisposable
{
    private const int Callers = 12, Calls = 40;
    private readonly SmallFolders _folders = new();

    public void Dispose() => _folders.Dispose();

    /// <summary>Every call that was not cancelled has the bits that it has alone; no session is lost.</summary>
    [Fact]
    public async Task Callers_get_what_they_would_get_alone()
    {
        using var tuner = FineTuner.Open(_folders.Encoder, SmallFolders.Rows(24), new() { Epochs = 2, BatchSize = 8, LearningRate = 1e-2 });
        AdapterSource[] adapters = [(await tuner.TrainAsync([0, 1])).ToAdapter("low"), (await tuner.TrainAsync([2, 3])).ToAdapter("high")];
        string?[] names = [null, "low", "high", AdapterSource.None];
        string[] texts = [.. Enumerable.Range(0, 10).Select(SmallFolders.Text)];
        float[][] wanted, vectors;
        using (var alone = Classifier.Open(_folders.Encoder, new InferenceOptions { Adapters = adapters, Threads = 1 }))
            wanted = [.. names.SelectMany(n => texts.Select(t => Probabilities(alone, t, n)))];
        using (var alone = Embedder.Open(_folders.Encoder, new EmbedderOptions { Inference = new InferenceOptions { Threads = 1 } }))
            vectors = [.. texts.Select(t => alone.Embed([t]))];
        Assert.False(wanted[10].AsSpan().SequenceEqual(wanted[20]));

        using var classifier = Classifier.Open(_folders.Encoder, new InferenceOptions { Adapters = adapters, Sessions = 3, Threads = 1 });
        using var embedder = Embedder.Open(_folders.Encoder, new EmbedderOptions { Inference = new InferenceOptions { Sessions = 2, Threads = 1 } });
        var (done, cancelled) = (0, 0);
        await Task.WhenAll(Enumerable.Range(0, Callers).Select(caller => Task.Run(async () =>
        {
            var random = new Random(caller);
            for (var i = 0; i < Calls; i++)
            {
                var (n, t) = (random.Next(names.Length), random.Next(texts.Length));
                var at = (n * texts.Length) + t;
                using var stop = new CancellationTokenSource();
                if (random.Next(3) == 0)
                    stop.CancelAfter(TimeSpan.FromMicroseconds(random.Next(400)));
                try
                {
                    switch (random.Next(3))
                    {
                        case 0:
                            Assert.Equal(wanted[at], Probabilities(classifier, texts[t], names[n], stop.Token));
                            break;
                        case 1:
                            Assert.Equal(wanted[at].Max(), (await classifier.PredictAsync(texts[t], names[n], stop.Token)).Value);
                            break;
                        default:
                            Assert.Equal(vectors[t], await embedder.EmbedAsync(texts[t], cancellation: stop.Token));
                            break;
                    }
                    Interlocked.Increment(ref done);
                }
                catch (OperationCanceledException)
                {
                    Assert.True(stop.IsCancellationRequested);
                    Interlocked.Increment(ref cancelled);
                }
            }
        })));
        Assert.Equal(Callers * Calls, done + cancelled);
        Assert.True(done > Callers * Calls / 3, $"{done} of {Callers * Calls} calls");
        // All sessions are there: so many calls run without one of them waiting for ever.
        var last = await Task.WhenAll(Enumerable.Range(0, 9).Select(i => classifier.PredictAsync(texts[i]))).WaitAsync(TimeSpan.FromMinutes(1));
        Assert.Equal(wanted.Take(9).Select(w => w.Max()), last.Select(p => p.Value));
    }

    /// <summary>Closed by several at once while others call: who is within a call gets its result, the others are told.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_model_may_be_closed_while_it_is_called(bool isGenerator)
    {
        for (var round = 0; round < 5; round++)
        {
            var classifier = isGenerator ? null : Classifier.Open(_folders.Encoder, new InferenceOptions { Sessions = 2, Threads = 1 });
            var generator = isGenerator ? Generator.Open(_folders.Decoder, new InferenceOptions { Sessions = 2, Threads = 1 }) : null;
            var calls = 0;
            var callers = Enumerable.Range(0, 6).Select(caller => Task.Run(async () =>
            {
                while (true)
                {
                    if (generator is not null)
                        Assert.Equal(8, (await generator.GenerateAsync("ab", new() { MaxNewTokens = 8, IgnoreEos = true })).Ids.Count);
                    else if (caller % 2 == 0)
                        _ = classifier!.Predict(SmallFolders.Text(caller));
                    else
                        _ = await classifier!.PredictAsync(SmallFolders.Text(caller));
                    Interlocked.Increment(ref calls);
                }
            })).ToArray();
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref calls) > 20, TimeSpan.FromMinutes(1)));
            await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => Task.Run(() =>
            {
                classifier?.Dispose();
                generator?.Dispose();
            }))).WaitAsync(TimeSpan.FromMinutes(1));
            foreach (var caller in callers)
                await Assert.ThrowsAsync<ObjectDisposedException>(() => caller.WaitAsync(TimeSpan.FromMinutes(1)));
        }
    }

    /// <summary>Streams that are left, cancelled or read to their end give their session back.</summary>
    [Fact]
    public async Task Streams_give_their_session_back()
    {
        using var generator = Generator.Open(_folders.Decoder, new InferenceOptions { Sessions = 2, Threads = 1 });
        var options = new GenerationOptions { MaxNewTokens = 30, IgnoreEos = true };
        var wanted = (await generator.GenerateAsync("abc", options)).Text;
        var whole = 0;
        await Task.WhenAll(Enumerable.Range(0, 8).Select(caller => Task.Run(async () =>
        {
            var random = new Random(caller);
            for (var i = 0; i < 12; i++)
            {
                using var stop = new CancellationTokenSource();
                var (leaves, cancels, text) = (random.Next(4) == 0, random.Next(3) == 0, "");
                try
                {
                    await foreach (var piece in generator.StreamAsync("abc", options, cancellation: stop.Token))
                    {
                        text += piece;
                        if (leaves && text.Length > 2)
                            break;
                        if (cancels && text.Length > 5)
                            await stop.CancelAsync();
                    }
                    Assert.StartsWith(text, wanted, StringComparison.Ordinal);
                    if (!leaves)
                    {
                        Assert.Equal(wanted, text);
                        Interlocked.Increment(ref whole);
                    }
                }
                catch (OperationCanceledException)
                {
                    Assert.True(cancels);
                }
            }
        }))).WaitAsync(TimeSpan.FromMinutes(2));
        Assert.True(whole > 0);
        Assert.Equal(wanted, (await generator.GenerateAsync("abc", options)).Text);
    }

    private static float[] Probabilities(Classifier classifier, string text, string? adapter, CancellationToken cancellation = default)
    {
        var values = new float[classifier.Classes];
        classifier.Predict(text, null, values, adapter, cancellation);
        return values;
    }
}
