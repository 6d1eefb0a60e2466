using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using NativeLora.Bench.Compare;

namespace NativeLora.Bench.Load;

/// <summary>The sample and the same service over ONNX Runtime, each in a process of its own, by turns under the same load.</summary>
internal static class LoadTest
{
    private const int Bodies = 256, AdapterCount = 16, OpenConnections = 128;
    private const double Tolerance = 1e-4;
    private static readonly string[] s_all = ["ours", "ours-16-adapters", "onnx", "onnx-alone"];

    private sealed record Row(string Server, string Load, List<LoadResult> Results, List<double> ProcessorShare);

    public static async Task RunAsync(Options options)
    {
        var model = ReferenceFiles.Require(options.Text("model"), "model", "models", "minilm-l6");
        var names = options.Text("servers")?.Split(',') ?? s_all;
        if (names.FirstOrDefault(n => !s_all.Contains(n)) is { } unknown)
            throw new InputException($"--servers {unknown}: there are {string.Join(", ", s_all)}");
        var (sessions, seconds, rounds) = (options.Number("sessions", 1), options.Number("seconds", 6), options.Number("rounds", 2));
        var threads = options.Number("threads", Math.Max(1, Environment.ProcessorCount / sessions));
        var connections = options.Numbers("connections", 1, 8, 32);
        using var folder = new TemporaryFolder();
        MadeAdapters.WriteMerged(model, folder.Place("merged"));
        MadeAdapters.Write(model, folder.Place("adapters"), AdapterCount, options.Number("rank", 8));
        var servers = new List<ServerProcess>();
        try
        {
            string[] shared = [$"--Sessions={sessions}", $"--Threads={threads}", "--QueueLength=512", "--BatchSequences=32", "--BatchTokens=2048", "--MaxLength=128"];
            foreach (var name in names)
                servers.Add(name switch
                {
                    "ours" => ServerProcess.Start(name, ["ours", $"--Model={folder.Place("merged")}", .. shared]),
                    "ours-16-adapters" => ServerProcess.Start(name, ["ours", $"--Model={model}", $"--Adapters={folder.Place("adapters")}", .. shared]),
                    "onnx" => ServerProcess.Start(name, ["onnx", $"--Model={folder.Place("merged")}", $"--Encoder={Path.Combine(model, "model.onnx")}", .. shared]),
                    _ => ServerProcess.Start(name, ["onnx", $"--Model={folder.Place("merged")}", $"--Encoder={Path.Combine(model, "model.onnx")}", "--Alone=true", .. shared]),
                });
            var agree = await AgreeAsync(servers);
            var rows = new List<Row>();
            // Until code is compiled for good and every size of batch has been seen.
            foreach (var server in servers)
                for (var i = 0; i < 2; i++)
                    await new LoadGenerator(server.Address, Requests(server.Name)).ClosedAsync(32, Math.Max(1, seconds / 3.0));
            var capacity = double.PositiveInfinity;
            for (var round = 0; round < rounds; round++)
                foreach (var server in ByTurns(servers, round))
                    foreach (var count in connections)
                    {
                        await MeasureAsync(rows, server, $"closed, {count} connections", g => g.ClosedAsync(count, seconds * 0.6));
                        if (count == connections.Max())
                            capacity = Math.Min(capacity, rows.First(r => r.Server == server.Name && r.Load == $"closed, {count} connections").Results[^1] is var last ? last.Latencies.Length / last.Seconds : 0);
                    }
            double[] rates = options.Text("rates") is not null ? [.. options.Numbers("rates").Select(r => (double)r)]
                : [.. new[] { 0.3, 0.6, 0.9 }.Select(part => Math.Max(1, Math.Round(part * capacity)))];
            for (var round = 0; round < rounds; round++)
                foreach (var server in ByTurns(servers, round))
                    foreach (var rate in rates)
                        await MeasureAsync(rows, server, string.Create(CultureInfo.InvariantCulture, $"open, {rate:0} a second"), g => g.OpenAsync(rate, seconds, OpenConnections));
            Report(options, servers, rows, agree, sessions, threads, rounds, options.Text("rates") is null);
        }
        finally
        {
            servers.ForEach(s => s.Dispose());
        }
    }

    private static IEnumerable<ServerProcess> ByTurns(List<ServerProcess> servers, int round) =>
        round % 2 == 0 ? servers : servers.AsEnumerable().Reverse();

    private static async Task MeasureAsync(List<Row> rows, ServerProcess server, string load, Func<LoadGenerator, Task<LoadResult>> measure)
    {
        // Threads that spin after the work of the server before come to rest.
        await Task.Delay(300);
        var before = server.ProcessorSeconds;
        var result = await measure(new LoadGenerator(server.Address, Requests(server.Name)));
        var row = rows.Find(r => r.Server == server.Name && r.Load == load);
        if (row is null)
            rows.Add(row = new Row(server.Name, load, [], []));
        row.Results.Add(result);
        row.ProcessorShare.Add((server.ProcessorSeconds - before) / result.Seconds);
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{server.Name,-18} {load,-24} {result.Latencies.Length / result.Seconds,7:0.0}/s  p50 {Percentile([result], 0.5):0.0} ms  p99 {Percentile([result], 0.99):0.0} ms  503: {result.Full}  errors: {result.Errors}"));
    }

    private static double Percentile(IEnumerable<LoadResult> results, double part)
    {
        double[] all = [.. results.SelectMany(r => r.Latencies).Order()];
        return all.Length == 0 ? double.NaN : 1e3 * all[Math.Min(all.Length - 1, (int)Math.Ceiling(part * all.Length) - 1 is var at && at < 0 ? 0 : at)];
    }

    private static void Report(Options options, List<ServerProcess> servers, List<Row> rows, double agree, int sessions, int threads, int rounds, bool automatic)
    {
        var output = new Output("load");
        output.Table("rows", ["load", "server", "requests", "answers/s", "p50 ms", "p99 ms", "p999 ms", "max ms", "503", "errors", "server's processors"],
            rows.OrderBy(r => rows.FindIndex(other => other.Load == r.Load)).ThenBy(r => servers.FindIndex(s => s.Name == r.Server)).Select(r => new object[]
            {
                r.Load, r.Server, r.Results.Sum(x => x.Latencies.Length + x.Full + x.Errors), r.Results.Sum(x => x.Latencies.Length) / r.Results.Sum(x => x.Seconds),
                Percentile(r.Results, 0.5), Percentile(r.Results, 0.99), Percentile(r.Results, 0.999), Percentile(r.Results, 1),
                r.Results.Sum(x => x.Full), r.Results.Sum(x => x.Errors), r.ProcessorShare.Average(),
            }));
        output.Table("memory", ["server", "resident MiB at the end"], servers.Select(s => new object[] { s.Name, s.Resident / 1048576.0 }));
        output.Note($"Server and load generator share {Environment.ProcessorCount} processors; nothing is pinned. {sessions} session(s) of {threads} thread(s) in each server, {rounds} rounds by turns, all servers running. "
            + $"Texts of 3 to 40 words, one a request, {Bodies} of them in turn.");
        output.Note("ours: one merged model, no adapter. ours-16-adapters: the base with 16 adapters (rank 8 on query and value, a head each), each request names another one, so that batches mix them. "
            + "onnx: the same service, tokenizer, JSON and Kestrel settings over ONNX Runtime, which has no adapters a request: one merged model, waiting texts padded into one batch as the session comes free, as ours are packed. "
            + "onnx-alone: each text alone. ONNX Runtime's graph is the encoder; pooler and classifier, a thousandth of the work, are vector products in the host.");
        output.Note($"Before timing all servers with the merged model answered every eighth text with the same probabilities: largest difference {agree.ToString("0.0e+0", CultureInfo.InvariantCulture)}.");
        output.Note("closed: so many connections, each asks again when it has its answer; latency from sending. open: requests are due at a fixed rate"
            + $"{(automatic ? " (30, 60 and 90 % of what the slowest server answered to the most connections)" : "")}; latency from when each was due, so that nothing is left out while a server stalls. p999 of few thousand requests rests on a few of them.");
        output.Write(options);
    }

    /// <summary>Asks every server with the merged model about the same texts; they must give the same.</summary>
    private static async Task<double> AgreeAsync(List<ServerProcess> servers)
    {
        var merged = servers.Where(s => s.Name != "ours-16-adapters").ToList();
        double largest = 0;
        foreach (var text in Texts().Where((_, i) => i % 8 == 0))
        {
            var request = Request(text, null);
            double? first = null;
            foreach (var server in merged)
            {
                using var connection = new HttpConnection(server.Address);
                var (status, body) = await connection.AskForBodyAsync(request);
                if (status != 200)
                    throw new RunException($"{server.Name} answers {status}: {body}");
                var value = JsonNode.Parse(body)!["results"]![0]!["probabilities"]![0]!.GetValue<double>();
                first ??= value;
                largest = Math.Max(largest, Math.Abs(value - first.Value));
            }
        }
        return largest <= Tolerance ? largest : throw new RunException($"probabilities differ by {largest}: the servers do not compute the same, so nothing is timed");
    }

    private static byte[][] Requests(string server) =>
        [.. Texts().Select((text, i) => Request(text, server == "ours-16-adapters" ? MadeAdapters.Name(i % AdapterCount) : null))];

    private static byte[] Request(string text, string? adapter) =>
        HttpConnection.Post("/v1/classify", JsonSerializer.SerializeToUtf8Bytes(adapter is null ? new Dictionary<string, string> { ["text"] = text } : new() { ["text"] = text, ["adapter"] = adapter }));

    /// <summary>Texts of 3 to 40 words, the same at every run.</summary>
    private static IEnumerable<string> Texts()
    {
        string[] words = ["the", "film", "was", "a", "long", "and", "quiet", "story", "of", "two", "people", "who", "never", "said", "what", "they", "wanted", "but", "music", "made", "it", "good", "in", "parts", "market", "prices", "rose", "again"];
        var random = new Random(1);
        for (var i = 0; i < Bodies; i++)
            yield return string.Join(' ', Enumerable.Range(0, 3 + random.Next(38)).Select(_ => words[random.Next(words.Length)]));
    }
}
