using System.Net;
using System.Net.Sockets;
using System.Text;
using NativeLora.Tests.Cli;

namespace NativeLora.Tests.Samples;

/// <summary>A service with narrow limits.</summary>
public sealed class HostileFixture : IAsyncLifetime
{
    private SmallModel? _model;

    internal RunningService Service { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        if (Shared.Root is null)
            return;
        _model = new SmallModel();
        Service = await RunningService.StartAsync($"--Model={_model.Path}", "--MaxBodyBytes=4096", "--MaxTexts=4", "--MaxTextChars=200", "--MaxLength=16");
    }

    public async Task DisposeAsync()
    {
        if (Service is not null)
            await Service.DisposeAsync();
        _model?.Dispose();
    }
}

/// <summary>Requests that mean harm, or are merely wrong: each gets a clear answer, and the next good one its result.</summary>
public sealed class HostileTests(HostileFixture fixture) : IClassFixture<HostileFixture>
{
    private readonly RunningService _service = fixture.Service;

    private Task GoodAsync() => _service.AskAsync("/v1/classify", new { text = "aa ab ac" });

    [SharedTheory]
    [InlineData("", 400, "JSON")]
    [InlineData("{", 400, "JSON")]
    [InlineData("null", 400, "null")]
    [InlineData("[]", 400, "JSON")]
    [InlineData("{}", 400, "either")]
    [InlineData("{\"text\": \"aa\"} {\"text\": \"aa\"}", 400, "JSON")]
    [InlineData("{\"text\": 5}", 400, "$.text")]
    [InlineData("{\"text\": [\"aa\"]}", 400, "$.text")]
    [InlineData("{\"text\": \"aa\", \"text\": \"ab\"}", 400, "JSON")]
    [InlineData("{\"text\": \"aa\", \"other\": 1}", 400, "JSON")]
    [InlineData("{\"text\": \"aa\", \"texts\": [\"aa\"]}", 400, "either")]
    [InlineData("{\"text\": \"\"}", 400, "empty")]
    [InlineData("{\"text\": \"  \\n \"}", 400, "empty")]
    [InlineData("{\"texts\": []}", 400, "1 to 4")]
    [InlineData("{\"texts\": [\"aa\", null]}", 400, "empty")]
    [InlineData("{\"texts\": [\"aa\", \"aa\", \"aa\", \"aa\", \"aa\"]}", 400, "1 to 4")]
    [InlineData("{\"texts\": [\"aa\"], \"pair\": \"ab\"}", 400, "pair")]
    [InlineData("{\"text\": \"aa\", \"pair\": \"\"}", 400, "empty")]
    [InlineData("{\"text\": \"\\ud800\"}", 400, "JSON")]
    [InlineData("{\"text\": \"aa\", \"adapter\": \"nobody\"}", 404, "no adapter \"nobody\"")]
    [InlineData("{\"text\": \"aa\", \"adapter\": \"../..\"}", 404, "no adapter")]
    [InlineData("{\"text\": \"aa\", \"adapter\": \"/etc/passwd\"}", 404, "no adapter")]
    [InlineData("{\"text\": \"aa\", \"adapter\": \"..\\\\..\\u0000\\n\\u2028x\"}", 404, "no adapter")]
    [InlineData("{\"text\": \"aa\", \"adapter\": {\"name\": \"a\"}}", 400, "$.adapter")]
    public async Task A_wrong_body_gets_a_line(string body, int status, string says)
    {
        using var response = await _service.PostAsync("/v1/classify", body);
        Assert.Contains(says, await RunningService.ProblemAsync(response, status));
        await GoodAsync();
    }

    [SharedFact]
    public async Task Long_and_deep_bodies_are_refused()
    {
        using (var deep = await _service.PostAsync("/v1/classify", $"{{\"text\": {new string('[', 1000)}"))
            await RunningService.ProblemAsync(deep, 400);
        using (var wide = await _service.PostAsync("/v1/classify", $$"""{"text": "{{new string('a', 201)}}"}"""))
            Assert.Contains("201 characters", await RunningService.ProblemAsync(wide, 400));
        using (var name = await _service.PostAsync("/v1/classify", $$"""{"text": "aa", "adapter": "{{new string('x', 3000)}}"}"""))
            Assert.Contains("…", await RunningService.ProblemAsync(name, 404));
        // More tokens than the model takes are cut.
        await _service.AskAsync("/v1/classify", new { text = string.Join(' ', Enumerable.Repeat("aa", 60)) });
        // Invalid UTF-8.
        using (var bytes = new ByteArrayContent([.. "{\"text\": \""u8, 0xC3, 0x28, 0xFF, .. "\"}"u8]))
        {
            bytes.Headers.ContentType = new("application/json");
            using var response = await _service.Client.PostAsync("/v1/classify", bytes);
            await RunningService.ProblemAsync(response, 400);
        }
        await GoodAsync();
    }

    [SharedTheory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_huge_body_is_413(bool saysItsLength)
    {
        // The answer comes before the body has been sent, so a client that only writes would miss it.
        using var socket = new TcpClient();
        await socket.ConnectAsync(IPAddress.Loopback, _service.Port);
        await using var stream = socket.GetStream();
        var head = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + (saysItsLength ? "Content-Length: 1000000000000\r\n\r\n" : "Transfer-Encoding: chunked\r\n\r\n");
        await stream.WriteAsync(Encoding.ASCII.GetBytes(head));
        if (!saysItsLength)
            await stream.WriteAsync(Encoding.ASCII.GetBytes("2000\r\n{\"text\": \"" + new string('a', 0x2000 - 10) + "\r\n"));
        var answer = await ReadAsync(stream);
        Assert.StartsWith("HTTP/1.1 413", answer);
        Assert.Contains("4096 bytes", answer);
        await GoodAsync();
    }

    [SharedTheory]
    [InlineData("text/plain")]
    [InlineData("application/x-www-form-urlencoded")]
    [InlineData("application/json; charset=utf-16")]
    [InlineData(null)]
    public async Task Another_type_is_415(string? type)
    {
        using var content = new ByteArrayContent("{\"text\": \"aa\"}"u8.ToArray());
        if (type is not null)
            content.Headers.TryAddWithoutValidation("Content-Type", type);
        using (var response = await _service.Client.PostAsync("/v1/classify", content))
            await RunningService.ProblemAsync(response, 415);
        using var packed = RunningService.Json("{\"text\": \"aa\"}");
        packed.Headers.ContentEncoding.Add("gzip");
        using (var response = await _service.Client.PostAsync("/v1/classify", packed))
            await RunningService.ProblemAsync(response, 415);
        await GoodAsync();
    }

    [SharedTheory]
    [InlineData("GET", "/v1/classify", 405)]
    [InlineData("DELETE", "/v1/adapters", 405)]
    [InlineData("PUT", "/v1/classify", 405)]
    [InlineData("GET", "/", 404)]
    [InlineData("GET", "/v1/../../etc/passwd", 404)]
    [InlineData("GET", "/v1/adapters/..%2f..%2fetc", 404)]
    [InlineData("POST", "/v1/generate", 404)]
    public async Task Other_addresses_and_methods_are_refused(string method, string path, int status)
    {
        using var request = new HttpRequestMessage(new HttpMethod(method), path);
        if (method == "POST")
            request.Content = RunningService.Json("{\"prompt\": \"aa\"}");
        using var response = await _service.Client.SendAsync(request);
        await RunningService.ProblemAsync(response, status);
        await GoodAsync();
    }

    /// <summary>A body that never comes is given up after seconds, and others are served meanwhile.</summary>
    [SharedFact]
    public async Task A_body_that_does_not_come_is_given_up()
    {
        var slow = new List<TcpClient>();
        for (var i = 0; i < 50; i++)
        {
            var socket = new TcpClient();
            await socket.ConnectAsync(IPAddress.Loopback, _service.Port);
            await socket.GetStream().WriteAsync("POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"text\": \"a"u8.ToArray());
            slow.Add(socket);
        }
        for (var i = 0; i < 10; i++)
            await GoodAsync();
        foreach (var socket in slow)
        {
            var answer = await ReadAsync(socket.GetStream()).WaitAsync(TimeSpan.FromSeconds(30));
            Assert.StartsWith("HTTP/1.1 408", answer);
            socket.Dispose();
        }
        await GoodAsync();
    }

    /// <summary>Who closes the connection in the middle of the body, or before the answer, harms nobody.</summary>
    [SharedFact]
    public async Task Broken_connections_harm_nobody()
    {
        for (var i = 0; i < 20; i++)
        {
            using var socket = new TcpClient();
            await socket.ConnectAsync(IPAddress.Loopback, _service.Port);
            var body = i % 2 == 0 ? "{\"text\": \"aa ab\"}" : "{\"text\": \"aa";
            await socket.GetStream().WriteAsync(Encoding.ASCII.GetBytes($"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{body}"));
            socket.Client.Close(0);
        }
        await RunningService.UntilAsync(() => _service.Classifier.Waiting == 0);
        await GoodAsync();
        Assert.DoesNotContain("outcome=\"failed\"", await _service.Client.GetStringAsync("/metrics"));
    }

    private static async Task<string> ReadAsync(NetworkStream stream)
    {
        var text = new StringBuilder();
        var buffer = new byte[4096];
        try
        {
            while (await stream.ReadAsync(buffer) is > 0 and var read)
            {
                text.Append(Encoding.UTF8.GetString(buffer, 0, read));
                // A whole answer has the end of its JSON.
                if (text.ToString().Contains("\"}", StringComparison.Ordinal))
                    break;
            }
        }
        catch (IOException)
        {
            // Reset after the answer.
        }
        return text.ToString();
    }
}
