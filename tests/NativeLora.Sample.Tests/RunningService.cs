using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using NativeLora.Hosting;
using NativeLora.Sample.Web;

namespace NativeLora.Tests.Samples;

/// <summary>The sample on a port of its own, over a model of which the tests may hold the only session.</summary>
internal sealed class RunningService : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly ClassifierService? _classifier;

    private RunningService(WebApplication app, ClassifierService? classifier)
    {
        (_app, _classifier) = (app, classifier);
        Client = new HttpClient { BaseAddress = new Uri(app.Urls.First()) };
    }

    public HttpClient Client { get; }

    public WebApplication App => _app;

    public int Port => Client.BaseAddress!.Port;

    public ClassifierService Classifier => _classifier!;

    public static async Task<RunningService> StartAsync(params string[] settings)
    {
        ClassifierService? made = null;
        string[] args = ["--Urls=http://127.0.0.1:0", "--Threads=1", .. settings];
        var classifies = settings.Any(s => s.StartsWith("--Model=", StringComparison.Ordinal));
        var app = Service.Build(args, classifies ? options => made = new ClassifierService(options) : null);
        await app.StartAsync();
        return new RunningService(app, made);
    }

    /// <summary>Holds the only session: what comes waits until the lane is returned.</summary>
    public async Task<Lane> HoldAsync() => await Classifier.Classifier.Model.RentAsync(default);

    public void Release(Lane lane) => Classifier.Classifier.Model.Return(lane);

    public Task WaitForAsync(int waiting) => UntilAsync(() => Classifier.Waiting == waiting);

    public static async Task UntilAsync(Func<bool> holds)
    {
        var end = Environment.TickCount64 + 30_000;
        while (!holds())
        {
            Assert.True(Environment.TickCount64 < end, "it did not come about in 30 s");
            await Task.Delay(5);
        }
    }

    public Task<HttpResponseMessage> PostAsync(string path, string json, CancellationToken cancellation = default) =>
        Client.PostAsync(path, Json(json), cancellation);

    public static StringContent Json(string json) => new(json, Encoding.UTF8, new MediaTypeHeaderValue("application/json"));

    /// <summary>Posts what must succeed, and gives the answer.</summary>
    public async Task<JsonElement> AskAsync(string path, object body)
    {
        using var response = await PostAsync(path, JsonSerializer.Serialize(body));
        var text = await response.Content.ReadAsStringAsync();
        Assert.True(response.IsSuccessStatusCode, $"{(int)response.StatusCode}: {text}");
        return JsonDocument.Parse(text).RootElement;
    }

    /// <summary>A problem in the form of RFC 9457, with one line that says what is wrong.</summary>
    public static async Task<string> ProblemAsync(HttpResponseMessage response, int status)
    {
        var text = await response.Content.ReadAsStringAsync();
        Assert.True(status == (int)response.StatusCode, $"{status} is expected, not {(int)response.StatusCode}: {text}");
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
        var problem = JsonDocument.Parse(text).RootElement;
        Assert.Equal(status, problem.GetProperty("status").GetInt32());
        var detail = problem.GetProperty("detail").GetString()!;
        Assert.DoesNotContain('\n', detail);
        Assert.InRange(detail.Length, 10, 300);
        Assert.DoesNotContain("System.", detail);
        Assert.DoesNotContain(" at NativeLora", detail);
        return detail;
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await _app.StopAsync();
        await _app.DisposeAsync();
    }
}
