using System.Diagnostics;
using NativeLora.Bench.Compare;
using NativeLora.Hosting;

namespace NativeLora.Bench.Load;

/// <summary>A packed batch with another adapter in each row, against its rows one by one.</summary>
internal static class MixedBatch
{
    public static void Run(Options options)
    {
        var model = ReferenceFiles.Require(options.Text("model"), "model", "models", "minilm-l6");
        var (rows, length, runs, rank) = (options.Number("rows", 32), options.Number("length", 32), options.Number("runs", 60), options.Number("rank", 8));
        var threads = options.Number("threads", Environment.ProcessorCount);
        using var folder = new TemporaryFolder();
        MadeAdapters.Write(model, folder.Place("adapters"), rows, rank);
        AdapterSource[] adapters = [.. Enumerable.Range(0, rows).Select(i => new AdapterSource(MadeAdapters.Name(i), Path.Combine(folder.Place("adapters"), MadeAdapters.Name(i))))];
        using var classifier = Classifier.Open(model, new InferenceOptions { Adapters = adapters, Threads = threads, MaxLength = length, BatchTokens = rows * length, PackWeights = true });
        int[] ids = [.. Enumerable.Range(0, rows * length).Select(t => 2000 + (t * 7919 % 20000))], lengths = [.. Enumerable.Repeat(length, rows)];
        string?[] own = [.. adapters.Select(a => a.Name)], one = [.. Enumerable.Repeat(own[0], rows)];
        int classes = classifier.Classes;
        float[] together = new float[rows * classes], apart = new float[rows * classes];
        void OneByOne()
        {
            for (var r = 0; r < rows; r++)
                classifier.Predict(ids.AsSpan(r * length, length), apart.AsSpan(r * classes, classes), own[r]);
        }
        var kinds = new (string Name, Action Run)[]
        {
            ("one by one, each with its adapter", OneByOne),
            ("one batch, another adapter in each row", () => classifier.PredictBatch(ids, lengths, own, together)),
            ("one batch, the same adapter in all rows", () => classifier.PredictBatch(ids, lengths, one, new float[rows * classes])),
        };
        OneByOne();
        kinds[1].Run();
        var largest = together.Zip(apart, (a, b) => Math.Abs(a - b)).Max();
        if (largest > 1e-5)
            throw new RunException($"the batch differs from its rows by {largest}, so nothing is timed");
        var times = kinds.Select(_ => new List<double>()).ToArray();
        for (var run = -3; run < runs; run++)
            for (var k = 0; k < kinds.Length; k++)
            {
                var start = Stopwatch.GetTimestamp();
                kinds[k].Run();
                if (run >= 0)
                    times[k].Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            }
        var alone = ManyAdapters.Quantile(times[0], 0.5);
        var output = new Output("mixed");
        output.Table("rows", ["what", "p50 ms", "p25 ms", "p75 ms", "texts/s", "times one by one"], kinds.Select((k, i) => new object[]
        {
            k.Name, ManyAdapters.Quantile(times[i], 0.5), ManyAdapters.Quantile(times[i], 0.25), ManyAdapters.Quantile(times[i], 0.75),
            rows / ManyAdapters.Quantile(times[i], 0.5) * 1e3, alone / ManyAdapters.Quantile(times[i], 0.5),
        }));
        output.Note($"{Path.GetFileName(Path.TrimEndingDirectorySeparator(model))}, {rows} rows of {length} tokens, adapters of rank {rank} on query and value with a head each, {threads} thread(s), {runs} runs by turns. "
            + $"The mixed batch gave its rows' own probabilities: largest difference {largest:0.0e+0}.");
        output.Write(options);
    }
}
