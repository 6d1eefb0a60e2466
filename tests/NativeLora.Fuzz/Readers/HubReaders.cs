using System.Net;
using System.Security.Cryptography;
using System.Text;
using NativeLora.Hub;
using static NativeLora.Fuzz.CheckpointReaders;

namespace NativeLora.Fuzz;

/// <summary>Readers of the hub's answers and of its cache.</summary>
internal static class HubReaders
{
    private const string Id = "some-one/tiny.model";
    private const string Repository = "hub/models--some-one--tiny.model/";
    private static readonly string Commit = new('a', 40);

    private static readonly string[] Words =
    [
        "\"../../../outside\"", "\"/absolute\"", "\"a/../../b\"", "\"a\\\\b\"", "\"C:x\"", "\"rfilename\"", "\"sha\"", "\"siblings\"", "\"config.json\"", "\"adapter_config.json\"", "\"model.safetensors\"", "\"a/./b\"", "\"a//b\"", "\"a\\u0000b\"",
        "200", "206", "301", "302", "304", "401", "403", "404", "416", "429", "500", "ETag: \"../../x\"", "ETag: W/\"abc\"", "Location: http://elsewhere.example/x", "Location: file:///etc/passwd", "Location: //x", "Location: \\", "X-Linked-Size: -1",
        "X-Linked-Size: 9223372036854775807", "X-Linked-ETag: \"abc\"", "Content-Range: bytes 0-5/9", "Content-Range: bytes 5-2/1", "Retry-After: -5", "Retry-After: 99999999999999", "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT", "X-Repo-Commit: ../x", "X-Error-Code: GatedRepo",
    ];

    public static IEnumerable<FuzzReader> All =>
    [
        FuzzReader.Of("hub", "answers of a hub", Answers, folder =>
        {
            var options = Options(folder) with { Handler = new Answering(folder) };
            using var client = new HubClient(options);
            _ = client.FindAsync(HubReference.Parse(Id)!, HubKind.Any).GetAwaiter().GetResult();
        }) with { Writes = true, MayFail = true, NamesFile = false, Words = Words },
        FuzzReader.Of("hub-cache", "refs/main and an index in the hub's cache", Cached, folder =>
        {
            using var client = new HubClient(Options(folder) with { Offline = true });
            var found = client.FindAsync(HubReference.Parse(Id)!, HubKind.Model).GetAwaiter().GetResult();
            if (!Path.GetFullPath(found).StartsWith(folder, StringComparison.Ordinal))
                throw new InvalidOperationException($"{found} lies outside the cache");
        }) with { MayFail = true, NamesFile = false, Words = ["../../../..", "/etc", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\"../x.safetensors\"", "\"weight_map\""] },
    ];

    private static HubOptions Options(string folder) => new()
    {
        CacheFolder = Path.Combine(folder, "hub"),
        Endpoint = new Uri("http://127.0.0.1:9"),
        Attempts = 3,
        Stall = TimeSpan.FromSeconds(5),
        Delay = (_, _) => Task.CompletedTask,
    };

    private static IReadOnlyList<FuzzCase> Answers()
    {
        var body = Utf8("{\"weight_map\": {\"a\": \"model-1.safetensors\", \"b\": \"model-2.safetensors\"}}");
        var tag = Convert.ToHexStringLower(SHA1.HashData([.. Encoding.ASCII.GetBytes($"blob {body.Length}\0"), .. body]));
        var api = $"{{\"id\": \"{Id}\", \"sha\": \"{Commit}\", \"siblings\": [{{\"rfilename\": \"config.json\"}}, {{\"rfilename\": \"sub/README.md\"}}, {{\"rfilename\": \"model.safetensors.index.json\"}}, {{\"rfilename\": \"model-1.safetensors\"}}, {{\"rfilename\": \"model-2.safetensors\"}}]}}";
        var adapter = $"{{\"sha\": \"{Commit}\", \"siblings\": [{{\"rfilename\": \"adapter_config.json\"}}, {{\"rfilename\": \"adapter_model.safetensors\"}}, {{\"rfilename\": \"labels.json\"}}]}}";
        var head = Utf8($"200\nX-Repo-Commit: {Commit}\nETag: \"{tag}\"\n");
        var away = Utf8($"302\nX-Repo-Commit: {Commit}\nX-Linked-ETag: \"{tag}\"\nX-Linked-Size: {body.Length}\nLocation: http://localhost:9/store\n");
        return
        [
            FuzzCase.Of(("api.json", Utf8(api)), ("api.head", Utf8("200\n")), ("file.head", head), ("file.body", body)),
            FuzzCase.Of(("api.json", Utf8(adapter)), ("api.head", Utf8($"200\nX-Repo-Commit: {Commit}\n")), ("file.head", away), ("file.body", body), ("store.head", Utf8("200\nETag: \"x\"\n"))),
        ];
    }

    private static IReadOnlyList<FuzzCase> Cached() =>
    [
        FuzzCase.Of((Repository + "refs/main", Utf8(Commit)), ($"{Repository}snapshots/{Commit}/model.safetensors.index.json", Utf8("{\"weight_map\": {\"a\": \"model-1.safetensors\"}}")))
            .Beside(($"{Repository}snapshots/{Commit}/config.json", Utf8("{}")), ($"{Repository}snapshots/{Commit}/model-1.safetensors", Utf8("x"))),
    ];

    /// <summary>Answers from the files of the input: the status in the first line, then headers.</summary>
    private sealed class Answering(string folder) : HttpMessageHandler
    {
        protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var (head, body) = request.RequestUri!.AbsolutePath switch
            {
                "/store" => ("store.head", "file.body"),
                var path when path.StartsWith("/api/", StringComparison.Ordinal) => ("api.head", "api.json"),
                _ => ("file.head", "file.body"),
            };
            if (!File.Exists(Path.Combine(folder, head)))
                return Task.FromResult(new HttpResponseMessage(HttpStatusCode.NotFound) { RequestMessage = request });
            var lines = Encoding.Latin1.GetString(File.ReadAllBytes(Path.Combine(folder, head))).Split('\n');
            var status = int.TryParse(lines[0].Trim(), out var code) && code is >= 100 and <= 999 ? code : 502;
            var content = File.ReadAllBytes(Path.Combine(folder, body));
            var response = new HttpResponseMessage((HttpStatusCode)status) { RequestMessage = request, Content = new ByteArrayContent(request.Method == HttpMethod.Head ? [] : content) };
            if (request.Method == HttpMethod.Head)
                response.Content.Headers.ContentLength = content.Length;
            foreach (var line in lines.Skip(1))
                if (line.Split(':', 2) is [var name, var value] && name.Length > 0 && !name.Equals("Content-Length", StringComparison.OrdinalIgnoreCase)
                    && !response.Headers.TryAddWithoutValidation(name, value.Trim('\r', ' ')))
                    response.Content.Headers.TryAddWithoutValidation(name, value.Trim('\r', ' '));
            return Task.FromResult(response);
        }
    }
}
