using System.Diagnostics.Metrics;
using NativeLora.Hosting;
using NativeLora.Tests.Cli;
using NativeLora.Tests.Serving;

namespace NativeLora.Tests.Hosting;

/// <summary>Requests of different adapters that wait for a session and share batches.</summary>
public sealed class ClassifierQueueTests : IDisposable
{
    private readonly SmallModel _model = new();
    private readonly ServedModel _served = new("bert-cls");
    private readonly Classifier _classifier;

    public ClassifierQueueTests() => _classifier = Classifier.Open(_model.Path, new InferenceOptions { Adapters = [Source("a", "lora-all"), Source("b", "dora-selected"), Source("c", "lora-selected")], Threads = 1 });

    private AdapterSource Source(string name, string variant) => new(name, _served.Final(variant));

    private static string Text(int i) => string.Join(' ', Enumerable.Range(0, 1 + (i % 9)).Select(j => $"{(char)('a' + ((i + j) % 3))}{(char)('a' + (j % 20))}"));

    private static string? Name(int i) => (i % 5) switch
    {
        0 => "a",
        1 => "b",
        2 => AdapterSource.None,
        3 => "c",
        _ => null,
    };

    /// <summary>Holds the only session, so that what comes waits.</summary>
    private async Task<Lane> HoldAsync() => await _classifier.Model.RentAsync(default);

    [SharedFact]
    public async Task Requests_of_all_adapters_share_batches_and_get_what_they_get_alone()
    {
        var batches = new List<(int Sequences, int Adapters)>();
        var now = 0;
        using var listener = new MeterListener();
        listener.InstrumentPublished = (instrument, to) =>
        {
            if (instrument.Meter.Name == Telemetry.Name && instrument.Name.StartsWith("nativelora.batch", StringComparison.Ordinal))
                to.EnableMeasurementEvents(instrument);
        };
        listener.SetMeasurementEventCallback<int>((instrument, value, _, _) =>
        {
            if (instrument.Name == "nativelora.batch.sequences")
                now = value;
            else if (instrument.Name == "nativelora.batch.adapters")
                batches.Add((now, value));
        });
        listener.Start();
        await using var queue = new ClassifierQueue(_classifier, new ClassifierQueueOptions { BatchSequences = 16 });
        var lane = await HoldAsync();
        var asked = Enumerable.Range(0, 40).Select(i => queue.PredictAsync(Text(i), i % 7 == 0 ? Text(i + 3) : null, Name(i))).ToList();
        // One more may have been taken out by the dispatcher only once it has a session.
        Assert.Equal(40, queue.Depth);
        _classifier.Model.Return(lane);
        var got = await Task.WhenAll(asked);
        // Other tests may run batches at the same time.
        Assert.Contains((16, 4), batches);
        Assert.Contains(batches, b => b.Sequences == 8);
        var values = new float[_classifier.Classes];
        for (var i = 0; i < got.Length; i++)
        {
            var wanted = _classifier.Predict(Text(i), i % 7 == 0 ? Text(i + 3) : null, values, Name(i));
            Assert.Equal(wanted.Label, got[i].Best.Label);
            Assert.InRange(ServedModel.Distance([.. got[i].Probabilities], values), 0, 1e-5);
        }
        Assert.Equal(0, queue.Depth);
    }

    [SharedFact]
    public async Task A_full_queue_refuses_at_once_and_takes_again_when_there_is_room()
    {
        await using var queue = new ClassifierQueue(_classifier, new ClassifierQueueOptions { Capacity = 3 });
        var lane = await HoldAsync();
        var waiting = Enumerable.Range(0, 2).Select(i => queue.PredictAsync(Text(i))).ToList();
        // Two texts at once do not find room: neither is taken.
        var full = await Assert.ThrowsAsync<QueueFullException>(() => queue.PredictAsync([(Text(2), null), (Text(3), null)]));
        Assert.Equal((2, 3), (full.Waiting, full.Capacity));
        waiting.Add(queue.PredictAsync(Text(2)));
        await Assert.ThrowsAsync<QueueFullException>(() => queue.PredictAsync(Text(3)));
        await Assert.ThrowsAsync<InputException>(() => queue.PredictAsync([.. Enumerable.Range(0, 4).Select(i => (Text(i), (string?)null))]));
        _classifier.Model.Return(lane);
        await Task.WhenAll(waiting);
        Assert.Equal(_classifier.Predict(Text(3)).Label, (await queue.PredictAsync(Text(3))).Best.Label);
    }

    [SharedFact]
    public async Task What_is_cancelled_leaves_the_queue()
    {
        await using var queue = new ClassifierQueue(_classifier, new ClassifierQueueOptions { Capacity = 2 });
        var lane = await HoldAsync();
        using var stop = new CancellationTokenSource();
        var cancelled = queue.PredictAsync(Text(1), cancellation: stop.Token);
        var stays = queue.PredictAsync(Text(2), adapter: "b");
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled);
        Assert.Equal(1, queue.Depth);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => queue.PredictAsync(Text(1), cancellation: stop.Token));
        var next = queue.PredictAsync(Text(3));
        _classifier.Model.Return(lane);
        Assert.Equal(_classifier.Predict(Text(2), "b").Label, (await stays).Best.Label);
        await next;
    }

    /// <summary>Ids that the model does not know fail alone, whatever they share a batch with.</summary>
    [SharedFact]
    public async Task A_bad_request_harms_no_other()
    {
        await using var queue = new ClassifierQueue(_classifier);
        var lane = await HoldAsync();
        var good = queue.PredictAsync(Text(4), adapter: "a");
        var bad = queue.PredictAsync(new int[] { 2, 1_000_000, 3 });
        var alsoGood = queue.PredictAsync(new int[] { 2, 7, 8, 3 }, adapter: "b");
        _classifier.Model.Return(lane);
        Assert.Contains("outside", (await Assert.ThrowsAsync<InputException>(() => bad)).Message);
        var values = new float[_classifier.Classes];
        _classifier.Predict(Text(4), null, values, "a");
        Assert.InRange(ServedModel.Distance([.. (await good).Probabilities], values), 0, 1e-5);
        _classifier.Predict([2, 7, 8, 3], values, "b");
        Assert.InRange(ServedModel.Distance([.. (await alsoGood).Probabilities], values), 0, 1e-5);
        Assert.Contains("there is no adapter \"x\"", (await Assert.ThrowsAsync<InputException>(() => queue.PredictAsync("aa", adapter: "x"))).Message);
        await Assert.ThrowsAsync<InputException>(() => queue.PredictAsync(ReadOnlyMemory<int>.Empty));
        await Assert.ThrowsAsync<ArgumentException>(() => queue.PredictAsync(new int[] { 2, 3 }, new int[] { 0 }));
        Assert.Contains("capacity", Assert.Throws<InputException>(() => new ClassifierQueue(_classifier, new ClassifierQueueOptions { Capacity = 0 })).Message);
    }

    [SharedFact]
    public async Task A_queue_that_is_drained_serves_what_waits_and_one_that_is_disposed_of_refuses_it()
    {
        await using (var queue = new ClassifierQueue(_classifier))
        {
            var lane = await HoldAsync();
            var waiting = queue.PredictAsync(Text(1));
            var draining = queue.DrainAsync();
            await Assert.ThrowsAsync<ObjectDisposedException>(() => queue.PredictAsync(Text(2)));
            Assert.False(draining.IsCompleted);
            _classifier.Model.Return(lane);
            await draining;
            Assert.True(waiting.IsCompletedSuccessfully || (await waiting) is not null);
        }
        var other = new ClassifierQueue(_classifier);
        var held = await HoldAsync();
        var refused = other.PredictAsync(Text(1));
        await other.DisposeAsync();
        await Assert.ThrowsAsync<ObjectDisposedException>(() => refused);
        await Assert.ThrowsAsync<ObjectDisposedException>(() => other.PredictAsync(Text(2)));
        _classifier.Model.Return(held);
        Assert.NotNull(_classifier.Predict(Text(1)).Label);
        other.Dispose();
    }

    /// <summary>Many callers, some of which give up, while adapters come and go: each gets its own result, and nothing is left waiting.</summary>
    [SharedFact]
    public async Task Callers_are_served_while_adapters_come_and_go()
    {
        await using var queue = new ClassifierQueue(_classifier, new ClassifierQueueOptions { BatchSequences = 8 });
        string?[] names = ["a", "b", AdapterSource.None];
        var wanted = Enumerable.Range(0, 30).Select(i => names.Select(n => _classifier.Predict(Text(i), n)).ToArray()).ToArray();
        using var done = new CancellationTokenSource();
        var changes = Task.Run(() =>
        {
            var count = 0;
            while (!done.IsCancellationRequested || count == 0)
            {
                _classifier.AddAdapter(Source("d", count % 2 == 0 ? "lora-patterns" : "lora-all"));
                Assert.True(_classifier.RemoveAdapter("d"));
                count++;
            }
            return count;
        });
        var callers = Enumerable.Range(0, 6).Select(c => Task.Run(async () =>
        {
            for (var i = 0; i < 60; i++)
            {
                var (text, name) = ((c + i) % 30, i % 3);
                using var stop = new CancellationTokenSource();
                if (i % 10 == 9)
                {
                    var given = queue.PredictAsync(Text(text), adapter: names[name], cancellation: stop.Token);
                    await stop.CancelAsync();
                    await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
                    {
                        await given;
                        throw new OperationCanceledException("it was done already");
                    });
                    continue;
                }
                var got = (await queue.PredictAsync(Text(text), adapter: names[name])).Best;
                Assert.Equal(wanted[text][name].Label, got.Label);
                Assert.Equal(wanted[text][name].Value, got.Value, 1e-5);
                if (i % 7 == 0 && _classifier.HasAdapter("d"))
                    await Record.ExceptionAsync(() => queue.PredictAsync(Text(text), adapter: "d"));
            }
        })).ToArray();
        await Task.WhenAll(callers).WaitAsync(TimeSpan.FromSeconds(60));
        await done.CancelAsync();
        Assert.True(await changes > 0);
        Assert.Equal(0, queue.Depth);
    }

    public void Dispose()
    {
        _classifier.Dispose();
        _served.Dispose();
        _model.Dispose();
    }
}
