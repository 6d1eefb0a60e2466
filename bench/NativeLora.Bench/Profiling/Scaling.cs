using System.Diagnostics;
using System.Globalization;
using NativeLora.Bench.Compare;
using NativeLora.Tensors;
using ScottPlot;

namespace NativeLora.Bench.Profiling;

/// <summary>How the time of a training step grows with tokens, layers, rank and threads: a table in CSV and a picture.</summary>
internal static class Scaling
{
    private const string Command = "dotnet run -c Release --project bench/NativeLora.Bench -- scaling";

    public static void Run(Options options)
    {
        var output = options.Text("output", Path.Combine("bench", "results"));
        var precision = options.Text("precision", "fp32") == "bf16" ? ElementType.BF16 : ElementType.F32;
        var (steps, threads) = (options.Number("steps", 11), options.Number("threads", Environment.ProcessorCount));
        var only = options.Text("filter");
        var shape = TrainingCase.MiniLm;
        var series = new (string Name, string Axis, int[] At, Func<int, (TrainingCase Case, int Threads)> Of)[]
        {
            ("tokens", "tokens of a batch (sequences of 128)", [128, 256, 512, 1024, 2048, 4096, 8192], n => (shape with { Batch = n / shape.Length }, threads)),
            ("layers", "layers, all adapted (random weights)", [1, 2, 4, 6, 8, 12], n => (Layers(shape, n), threads)),
            ("rank", "LoRA rank", [1, 2, 4, 8, 16, 32, 64, 128], n => (shape with { Rank = n }, threads)),
            ("threads", $"threads, on {Environment.ProcessorCount} processors", [1, 2, 4, 8], n => (shape, n)),
        };
        Directory.CreateDirectory(output);
        var csv = new List<string> { "series,value,threads,steps,median_ms,p25_ms,p75_ms" };
        var pictures = new List<(string Axis, int[] At, Spread[] Times)>();
        foreach (var (name, axis, at, of) in series.Where(s => only is null || s.Name == only))
        {
            var times = at.Select(n => of(n)).Select(w => Time(w.Case, w.Threads, steps, precision, options.Text("model"))).ToArray();
            pictures.Add((axis, at, times));
            foreach (var (i, time) in times.Index())
            {
                csv.Add(string.Create(CultureInfo.InvariantCulture,
                    $"{name},{at[i]},{of(at[i]).Threads},{steps},{time.Median * 1e3:0.###},{time.P25 * 1e3:0.###},{time.P75 * 1e3:0.###}"));
                Console.WriteLine(csv[^1]);
            }
        }
        var place = Path.Combine(output, precision == ElementType.BF16 ? "scaling-bf16" : "scaling");
        File.WriteAllLines(place + ".csv", csv);
        Draw(place + ".png", pictures, precision, threads);
    }

    private static TrainingCase Layers(TrainingCase shape, int layers) => shape with
    {
        Name = $"{shape.Name}-{layers}-layers",
        Folder = null,
        Config = shape.Config.Replace("\"num_hidden_layers\": 6", $"\"num_hidden_layers\": {layers}", StringComparison.Ordinal),
        Masks = [new string('1', layers)],
    };

    private static Spread Time(TrainingCase timed, int threads, int steps, ElementType precision, string? model)
    {
        using var engine = new EngineStep(timed, timed.FindModel(timed.Folder is null ? null : model, out _), timed.Masks[0], threads, precision);
        // Untimed at first, until the compiler has seen the kernels at work: at least two steps and as many as go into a while.
        var begin = Stopwatch.GetTimestamp();
        for (var i = 0; i < 2 || Stopwatch.GetElapsedTime(begin).TotalSeconds < 1.5; i++)
            engine.Step();
        var seconds = new double[steps];
        for (var i = 0; i < steps; i++)
        {
            var start = Stopwatch.GetTimestamp();
            engine.Step();
            seconds[i] = Stopwatch.GetElapsedTime(start).TotalSeconds;
        }
        return Spread.Of(seconds);
    }

    private static void Draw(string path, List<(string Axis, int[] At, Spread[] Times)> pictures, ElementType precision, int threads)
    {
        if (Array.Find(["DejaVu Sans", "Noto Sans", "Liberation Sans", "Arial"], new HashSet<string>(SkiaSharp.SKFontManager.Default.FontFamilies).Contains) is { } font)
            Fonts.Default = font;
        var all = new Multiplot();
        all.AddPlots(pictures.Count);
        all.Layout = new ScottPlot.MultiplotLayouts.Grid((pictures.Count + 1) / 2, Math.Min(2, pictures.Count));
        foreach (var (i, (axis, at, times)) in pictures.Index())
        {
            var plot = all.GetPlot(i);
            if (i == 0)
                plot.Title($"MiniLM step, {(precision == ElementType.BF16 ? "bf16" : "fp32")}, {threads} threads: {Command}", 12);
            var line = plot.Add.Scatter(at.Select(n => (double)n).ToArray(), times.Select(t => t.Median * 1e3).ToArray());
            (line.LineWidth, line.MarkerSize) = (2, 7);
            foreach (var (n, time) in at.Zip(times))
                plot.Add.Line(n, time.P25 * 1e3, n, time.P75 * 1e3).Color = line.Color;
            plot.XLabel(axis);
            plot.YLabel("ms a step (median, quartiles)");
            plot.Axes.SetLimits(0, at[^1] * 1.05, 0, times.Max(t => t.P75) * 1.1e3);
        }
        all.SavePng(path, 1500, 500 * ((pictures.Count + 1) / 2));
    }
}
