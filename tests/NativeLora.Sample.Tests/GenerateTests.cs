using System.Text.Json;
using NativeLora.Generation;
using NativeLora.Hosting;
using NativeLora.Tests.Checkpoints;

namespace NativeLora.Tests.Samples;

/// <summary>A service that generates, with one place.</summary>
public sealed class GenerateFixture : IAsyncLifetime
{
    internal TemporaryFolder Folder { get; } = new();

    internal RunningService Service { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        if (Shared.Root is null)
            return;
        Models.WriteAdapters(Models.Decoder, Folder.Path, 1, classifier: false);
        Service = await RunningService.StartAsync($"--Generator={Models.Decoder}", $"--GeneratorAdapters={Folder.Path}", "--GeneratorQueueLength=1", "--MaxNewTokens=400");
    }

    public async Task DisposeAsync()
    {
        if (Service is not null)
            await Service.DisposeAsync();
        Folder.Dispose();
    }
}

/// <summary>Generation with adapters, at once and piece by piece.</summary>
public sealed class GenerateTests(GenerateFixture fixture) : IClassFixture<GenerateFixture>
{
    private const string Prompt = "The capital of France is";
    private readonly RunningService _service = fixture.Service;
    private readonly TemporaryFolder _folder = fixture.Folder;

    [SharedFact]
    public async Task Text_comes_at_once_or_in_pieces()
    {
        using var alone = Generator.Open(Models.Decoder, new InferenceOptions { Adapters = [new("tenant-0", _folder.File("tenant-0"))], Threads = 1 });
        foreach (var adapter in (string[])["tenant-0", ""])
        {
            var wanted = await alone.GenerateAsync(Prompt, new GenerationOptions { MaxNewTokens = 5 }, adapter);
            var answer = await _service.AskAsync("/v1/generate", new { prompt = Prompt, adapter, max_new_tokens = 5 });
            Assert.Equal(wanted.Text, answer.GetProperty("text").GetString());
            Assert.Equal(wanted.Ids.Count, answer.GetProperty("tokens").GetInt32());
            using var response = await _service.PostAsync("/v1/generate", JsonSerializer.Serialize(new { prompt = Prompt, adapter, max_new_tokens = 5, stream = true }));
            Assert.Equal("text/event-stream", response.Content.Headers.ContentType?.MediaType);
            var events = (await response.Content.ReadAsStringAsync()).Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
            var pieces = events.Where(e => e.StartsWith("event: piece\ndata: ", StringComparison.Ordinal)).Select(e => JsonDocument.Parse(e["event: piece\ndata: ".Length..]).RootElement.GetProperty("text").GetString()).ToList();
            Assert.True(pieces.Count > 1);
            Assert.Equal(wanted.Text, string.Concat(pieces));
            Assert.StartsWith("event: done\ndata: ", events[^1]);
        }
    }

    [SharedFact]
    public async Task One_place_is_one_generation_and_is_free_when_the_client_goes()
    {
        using var stop = new CancellationTokenSource();
        using (var request = new HttpRequestMessage(HttpMethod.Post, "/v1/generate") { Content = RunningService.Json("""{"prompt": "Once upon a time", "max_new_tokens": 400, "stream": true}""") })
        using (var response = await _service.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, stop.Token))
        {
            await using var stream = await response.Content.ReadAsStreamAsync();
            Assert.NotEqual(0, await stream.ReadAsync(new byte[8]));
            using var full = await _service.PostAsync("/v1/generate", """{"prompt": "Next", "max_new_tokens": 1}""");
            Assert.Contains("full", await RunningService.ProblemAsync(full, 503));
            Assert.NotNull(full.Headers.RetryAfter);
        }
        await stop.CancelAsync();
        // The connection is gone: the generation stops, long before its 400 tokens.
        var end = Environment.TickCount64 + 20_000;
        while (true)
        {
            using var next = await _service.PostAsync("/v1/generate", """{"prompt": "Next", "max_new_tokens": 1}""");
            if (next.IsSuccessStatusCode)
                break;
            Assert.True(Environment.TickCount64 < end);
            await Task.Delay(20);
        }
    }

    [SharedTheory]
    [InlineData("""{"prompt": "a", "max_new_tokens": 2000000000}""", 400, "1 to 400")]
    [InlineData("""{"prompt": "a", "max_new_tokens": 0}""", 400, "1 to 400")]
    [InlineData("""{"prompt": "a", "max_new_tokens": 99999999999999}""", 400, "$.max_new_tokens")]
    [InlineData("""{"prompt": "a", "temperature": -1}""", 400, "temperature")]
    [InlineData("""{"prompt": "a", "top_p": 7}""", 400, "top-p")]
    [InlineData("""{"prompt": "a", "stop": ["a", "b", "c", "d", "e"]}""", 400, "stop")]
    [InlineData("""{"prompt": "a", "stop": [""]}""", 400, "stop")]
    [InlineData("""{"prompt": ""}""", 400, "empty")]
    [InlineData("""{}""", 400, "empty")]
    [InlineData("""{"prompt": "a", "adapter": "../tenant-0"}""", 404, "no adapter")]
    public async Task A_wrong_request_gets_a_line(string body, int status, string says)
    {
        using var response = await _service.PostAsync("/v1/generate", body);
        Assert.Contains(says, await RunningService.ProblemAsync(response, status));
    }

    [SharedFact]
    public async Task A_prompt_longer_than_the_model_takes_is_400()
    {
        using var response = await _service.PostAsync("/v1/generate", JsonSerializer.Serialize(new { prompt = string.Concat(Enumerable.Repeat("a b ", 4900)), stream = true }));
        await RunningService.ProblemAsync(response, 400);
        await _service.AskAsync("/v1/generate", new { prompt = "a", max_new_tokens = 1 });
    }
}
