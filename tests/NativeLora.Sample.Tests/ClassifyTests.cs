using System.Net;
using System.Text.Json;
using NativeLora.Hosting;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Samples;

/// <summary>A service over a real model with six adapters.</summary>
public sealed class ClassifyFixture : IAsyncLifetime
{
    internal const int Adapters = 6;

    internal TemporaryFolder Folder { get; } = new();

    internal RunningService Service { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        if (Shared.Root is null)
            return;
        Models.WriteAdapters(Models.Minilm, Folder.Path, Adapters);
        Service = await RunningService.StartAsync($"--Model={Models.Minilm}", $"--Adapters={Folder.Path}", "--QueueLength=12", "--MaxLength=64");
    }

    public async Task DisposeAsync()
    {
        if (Service is not null)
            await Service.DisposeAsync();
        Folder.Dispose();
    }
}

/// <summary>A real model with adapters for each request: results, queue, limits, metrics and the end.</summary>
public sealed class ClassifyTests(ClassifyFixture fixture) : IClassFixture<ClassifyFixture>
{
    private const int Adapters = ClassifyFixture.Adapters;
    private readonly RunningService _service = fixture.Service;
    private readonly TemporaryFolder _folder = fixture.Folder;

    private static string Text(int i) => string.Join(' ', Enumerable.Range(0, 3 + i).Select(j => ((i * 7) + j) % 3 == 0 ? "market" : "prices rose again"));

    private static void Same(Prediction wanted, ReadOnlySpan<float> values, JsonElement got)
    {
        Assert.Equal(wanted.Label, got.GetProperty("label").GetString());
        Assert.Equal(wanted.Class, got.GetProperty("class").GetInt32());
        Assert.Equal(wanted.Value, got.GetProperty("probability").GetSingle(), 1e-5);
        var probabilities = got.GetProperty("probabilities").EnumerateArray().Select(p => p.GetSingle()).ToArray();
        Assert.Equal(values.Length, probabilities.Length);
        for (var c = 0; c < values.Length; c++)
            Assert.Equal(values[c], probabilities[c], 1e-5);
    }

    [SharedFact]
    public async Task Texts_pairs_and_adapters_have_the_results_of_the_library()
    {
        using var alone = Classifier.Open(Models.Minilm, new InferenceOptions
        {
            Adapters = [.. Enumerable.Range(0, Adapters).Select(i => new AdapterSource($"tenant-{i}", _folder.File($"tenant-{i}")))],
            Threads = 1,
            MaxLength = 64,
        });
        var values = new float[alone.Classes];
        var answer = await _service.AskAsync("/v1/classify", new { text = Text(2), pair = Text(3), adapter = "tenant-4" });
        Assert.Equal("tenant-4", answer.GetProperty("adapter").GetString());
        Assert.Equal(["no", "perhaps", "yes"], answer.GetProperty("labels").EnumerateArray().Select(l => l.GetString()!));
        Same(alone.Predict(Text(2), Text(3), values, "tenant-4"), values, answer.GetProperty("results")[0]);
        answer = await _service.AskAsync("/v1/classify", new { texts = (string[])[Text(0), Text(1), Text(5)] });
        Assert.Equal(3, answer.GetProperty("results").GetArrayLength());
        for (var (i, n) = (0, 0); n < 3; i += i == 1 ? 4 : 1, n++)
            Same(alone.Predict(Text(i), null, values), values, answer.GetProperty("results")[n]);
        var listed = JsonDocument.Parse(await _service.Client.GetStringAsync("/v1/adapters")).RootElement.GetProperty("adapters");
        Assert.Equal(alone.Adapters, listed.EnumerateArray().Select(a => a.GetProperty("name").GetString()!));
        Assert.Equal(alone.AdapterBytes("tenant-0"), listed[0].GetProperty("bytes").GetInt64());

        // All adapters in one batch, while the session is held up.
        var lane = await _service.HoldAsync();
        var asked = Enumerable.Range(0, 12).Select(i => _service.AskAsync("/v1/classify", new { text = Text(i), adapter = $"tenant-{i % Adapters}" })).ToList();
        await _service.WaitForAsync(12);
        _service.Release(lane);
        var got = await Task.WhenAll(asked);
        for (var i = 0; i < got.Length; i++)
            Same(alone.Predict(Text(i), null, values, $"tenant-{i % Adapters}"), values, got[i].GetProperty("results")[0]);
        var metrics = await _service.Client.GetStringAsync("/metrics");
        Assert.Contains("# TYPE nativelora_calls_total counter", metrics);
        Assert.Matches("nativelora_calls_total\\{operation=\"classify\",outcome=\"ok\"\\} [1-9]", metrics);
        // Of all queues of this process, other tests' too.
        Assert.Matches("nativelora_queue_depth [0-9]", metrics);
        // A batch of twelve texts with six adapters: between 8 and 16, and between 4 and 8.
        Assert.True(Bucket(metrics, "nativelora_batch_sequences_bucket{le=\"16\"}") > Bucket(metrics, "nativelora_batch_sequences_bucket{le=\"8\"}"), metrics);
        Assert.True(Bucket(metrics, "nativelora_batch_adapters_bucket{le=\"8\"}") > Bucket(metrics, "nativelora_batch_adapters_bucket{le=\"4\"}"), metrics);
        Assert.Matches("http_server_request_duration_seconds_count\\{[^}]*http_route=\"/v1/classify\"[^}]*\\} [1-9]", metrics);
    }

    private static long Bucket(string metrics, string series) =>
        long.Parse(metrics.Split('\n').Single(l => l.StartsWith(series + " ", StringComparison.Ordinal))[(series.Length + 1)..], System.Globalization.CultureInfo.InvariantCulture);

    [SharedFact]
    public async Task A_full_queue_is_503_and_who_goes_away_leaves_it()
    {
        var lane = await _service.HoldAsync();
        using var stop = new CancellationTokenSource();
        var cancelled = _service.PostAsync("/v1/classify", """{"text": "a"}""", stop.Token);
        var waiting = Enumerable.Range(0, 11).Select(i => _service.AskAsync("/v1/classify", new { text = Text(i), adapter = "tenant-1" })).ToList();
        await _service.WaitForAsync(12);
        using (var full = await _service.PostAsync("/v1/classify", """{"text": "one more"}"""))
        {
            Assert.Contains("full", await RunningService.ProblemAsync(full, 503));
            Assert.Equal(TimeSpan.FromSeconds(1), full.Headers.RetryAfter?.Delta);
        }
        // Health and metrics answer meanwhile.
        Assert.Equal(HttpStatusCode.OK, (await _service.Client.GetAsync("/health/live")).StatusCode);
        Assert.Contains("\"waiting\":12", await _service.Client.GetStringAsync("/health/ready"));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled);
        await _service.WaitForAsync(11);
        var last = _service.AskAsync("/v1/classify", new { text = "there is room again" });
        await _service.WaitForAsync(12);
        _service.Release(lane);
        await Task.WhenAll(waiting);
        await last;
    }

    [SharedFact]
    public async Task What_takes_too_long_is_504()
    {
        await using var service = await RunningService.StartAsync($"--Model={Models.Minilm}", $"--Adapters={_folder.Path}", "--RequestSeconds=0.2");
        await service.AskAsync("/v1/classify", new { text = "warm" });
        var lane = await service.HoldAsync();
        using (var late = await service.PostAsync("/v1/classify", """{"text": "a"}"""))
            Assert.Contains("0.2 seconds", await RunningService.ProblemAsync(late, 504));
        Assert.Equal(0, service.Classifier.Waiting);
        service.Release(lane);
        await service.AskAsync("/v1/classify", new { text = "good again" });
    }

    [SharedFact]
    public async Task What_has_begun_is_ended_when_the_service_stops()
    {
        await using var service = await RunningService.StartAsync($"--Model={Models.Minilm}", $"--Adapters={_folder.Path}", "--ShutdownDelaySeconds=1");
        Assert.Equal(HttpStatusCode.OK, (await service.Client.GetAsync("/health/ready")).StatusCode);
        var lane = await service.HoldAsync();
        var begun = service.AskAsync("/v1/classify", new { text = "still here" });
        await service.WaitForAsync(1);
        var stopping = service.App.StopAsync();
        // It is told before requests are refused.
        var status = HttpStatusCode.OK;
        for (var i = 0; i < 50 && status == HttpStatusCode.OK; i++)
            status = (await service.Client.GetAsync("/health/ready")).StatusCode;
        Assert.Equal(HttpStatusCode.ServiceUnavailable, status);
        Assert.Equal(HttpStatusCode.OK, (await service.Client.GetAsync("/health/live")).StatusCode);
        await Task.Delay(1200);
        Assert.False(stopping.IsCompleted);
        service.Release(lane);
        Assert.Equal(1, (await begun).GetProperty("results").GetArrayLength());
        await stopping.WaitAsync(TimeSpan.FromSeconds(20));
        await Assert.ThrowsAsync<HttpRequestException>(() => service.Client.GetAsync("/health/live"));
    }
}
