using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using NativeLora.Bench.Compare;
using NativeLora.Hosting;

namespace NativeLora.Bench.Load;

/// <summary>Hundreds of adapters over one base: each count in a process of its own.</summary>
internal static class ManyAdapters
{
    private const int Length = 32, Batch = 64;

    public static void Run(Options options)
    {
        var model = ReferenceFiles.Require(options.Text("model"), "model", "models", "minilm-l6");
        // None at all comes first: a merged model.
        int[] counts = [0, .. options.Numbers("counts", 1, 64, 256)];
        var (rank, threads, calls) = (options.Number("rank", 8), options.Number("threads", Environment.ProcessorCount), options.Number("calls", 300));
        using var folder = new TemporaryFolder();
        MadeAdapters.Write(model, folder.Place("adapters"), counts.Max() + 1, rank);
        MadeAdapters.WriteMerged(model, folder.Place("merged"));
        var measured = new List<JsonNode>();
        foreach (var count in counts)
        {
            var start = new ProcessStartInfo(Environment.ProcessPath!) { RedirectStandardOutput = true };
            if (Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet")
                start.ArgumentList.Add(typeof(ManyAdapters).Assembly.Location);
            foreach (var argument in (string[])["adapters-of-one-process", "--model", count == 0 ? folder.Place("merged") : model, "--folder", folder.Place("adapters"), "--loaded", $"{count}", "--threads", $"{threads}", "--calls", $"{calls}"])
                start.ArgumentList.Add(argument);
            using var process = Process.Start(start)!;
            var text = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            if (process.ExitCode != 0)
                throw new RunException($"the process with {count} adapters ended with code {process.ExitCode}");
            measured.Add(JsonNode.Parse(text)!);
            Console.Error.WriteLine($"{count} adapters: {text.Trim()}");
        }
        var least = measured[1];
        double Of(JsonNode node, string key) => node[key]!.GetValue<double>();
        var output = new Output("adapters");
        output.Table("loaded", ["adapters loaded", "resident MiB", "KiB for each (measured)", "KiB for each (its tensors, predicted)", "managed KiB for each", "open ms", "add one ms", "remove one ms"],
            measured.Select(m => new object[]
            {
                (int)Of(m, "count"), Of(m, "resident") / 1048576,
                Of(m, "count") <= Of(least, "count") ? double.NaN : (Of(m, "resident") - Of(least, "resident")) / (Of(m, "count") - Of(least, "count")) / 1024,
                Of(m, "predicted") / 1024,
                Of(m, "count") <= Of(least, "count") ? double.NaN : (Of(m, "managed") - Of(least, "managed")) / (Of(m, "count") - Of(least, "count")) / 1024,
                Of(m, "open"), Of(m, "add"), Of(m, "remove"),
            }));
        output.Table("calls", ["adapters loaded", "in use", "one call, p50 ms", "one call, p99 ms", "one call, p999 ms", $"batch of {Batch}, p50 ms"],
            measured.SelectMany(m => m["calls"]!.AsArray().Select(c => new object[]
            {
                (int)Of(m, "count"), Of(c!, "used") == 0 ? "none: a merged model" : $"{Of(c!, "used")}", Of(c!, "p50"), Of(c!, "p99"), Of(c!, "p999"), Of(c!, "batch"),
            })));
        output.Note($"{Path.GetFileName(Path.TrimEndingDirectorySeparator(model))}, adapters of rank {rank} on query and value of every layer, each with a classifier of its own; one session of {threads} thread(s); sequences of {Length} tokens. "
            + $"Each count is a process of its own; resident memory after opening, a call and a compacting collection, the differences over the process with the fewest adapters. {calls} calls of each kind, by turns; in use: so many adapters in turn, call by call, or row by row within a batch.");
        output.Write(options);
    }

    /// <summary>What one process measures, as JSON.</summary>
    public static void RunOne(Options options)
    {
        var folder = options.Text("folder")!;
        var (count, threads, calls) = (int.Parse(options.Text("loaded", "1"), CultureInfo.InvariantCulture), options.Number("threads", 2), options.Number("calls", 300));
        AdapterSource Source(int i) => new(MadeAdapters.Name(i), Path.Combine(folder, MadeAdapters.Name(i)));
        var start = Stopwatch.GetTimestamp();
        using var classifier = Classifier.Open(options.Text("model")!, new InferenceOptions { Adapters = [.. Enumerable.Range(0, count).Select(Source)], Threads = threads, MaxLength = 128, PackWeights = true });
        var open = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        int[] ids = [.. Enumerable.Range(0, Length).Select(t => 2000 + (t * 7919 % 20000))];
        var values = new float[Batch * classifier.Classes];
        classifier.Predict(ids, values);
        GC.Collect(2, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        GC.WaitForPendingFinalizers();
        GC.Collect(2, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        double resident = Environment.WorkingSet, managed = GC.GetTotalMemory(forceFullCollection: true);
        var predicted = count == 0 ? 0 : (double)classifier.AdapterBytes(MadeAdapters.Name(0));

        int[] used = count == 0 ? [0] : [.. new[] { 1, 16, 64, 256 }.Where(u => u <= count)];
        var singles = used.ToDictionary(u => u, _ => new List<double>());
        var batches = used.ToDictionary(u => u, _ => new List<double>());
        int[] many = [.. Enumerable.Repeat(ids, Batch).SelectMany(x => x)], lengths = [.. Enumerable.Repeat(Length, Batch)];
        var names = used.ToDictionary(u => u, u => Enumerable.Range(0, Math.Max(1, u)).Select(i => u == 0 ? null : MadeAdapters.Name(i)).ToArray());
        for (var i = -20; i < calls; i++)
            foreach (var u in used)
            {
                start = Stopwatch.GetTimestamp();
                classifier.Predict(ids, values, names[u][Math.Max(0, i) % names[u].Length]);
                if (i >= 0)
                    singles[u].Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            }
        for (var i = -2; i < Math.Max(5, calls / 20); i++)
            foreach (var u in used)
            {
                string?[] rows = [.. Enumerable.Range(0, Batch).Select(r => names[u][r * names[u].Length / Batch])];
                start = Stopwatch.GetTimestamp();
                classifier.PredictBatch(many, lengths, rows, values);
                if (i >= 0)
                    batches[u].Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            }
        var (add, remove) = (new List<double>(), new List<double>());
        for (var i = 0; i < 10; i++)
        {
            start = Stopwatch.GetTimestamp();
            classifier.AddAdapter(new AdapterSource("one more", Path.Combine(folder, MadeAdapters.Name(count))));
            add.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            start = Stopwatch.GetTimestamp();
            classifier.RemoveAdapter("one more");
            remove.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
        }
        Console.WriteLine(new JsonObject
        {
            ["count"] = (double)count,
            ["open"] = open,
            ["resident"] = resident,
            ["managed"] = managed,
            ["predicted"] = predicted,
            ["add"] = Quantile(add, 0.5),
            ["remove"] = Quantile(remove, 0.5),
            ["calls"] = new JsonArray([.. used.Select(u => (JsonNode)new JsonObject
            {
                ["used"] = (double)u,
                ["p50"] = Quantile(singles[u], 0.5),
                ["p99"] = Quantile(singles[u], 0.99),
                ["p999"] = Quantile(singles[u], 0.999),
                ["batch"] = Quantile(batches[u], 0.5),
            })]),
        }.ToJsonString());
    }

    public static double Quantile(List<double> values, double part)
    {
        var sorted = values.Order().ToList();
        return sorted[Math.Clamp((int)Math.Ceiling(part * sorted.Count) - 1, 0, sorted.Count - 1)];
    }
}
