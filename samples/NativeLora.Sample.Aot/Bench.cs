using System.Diagnostics;
using System.Globalization;
using NativeLora.Hosting;

namespace NativeLora.Sample.Aot;

/// <summary>
/// What it took until the first prediction, and what a call takes from then on: to standard error, a name and a number a line. Times of
/// the start are given as they pass and as the processors worked, which a loaded machine changes less.
/// </summary>
internal sealed class Bench
{
    private const int Warm = 200, Calls = 2000;

    private readonly (double Passed, double Worked) _main = Now();
    private (double Passed, double Worked) _opened;

    public void Opened() => _opened = Now();

    public void Run(Classifier classifier, string text)
    {
        var first = Now();
        Line("start to main, ms", _main.Passed, _main.Worked);
        Line("opening, ms", _opened.Passed - _main.Passed, _opened.Worked - _main.Worked);
        Line("first call, ms", first.Passed - _opened.Passed, first.Worked - _opened.Worked);
        Line("start to first prediction, ms", first.Passed, first.Worked);
        var ids = classifier.Tokenizer.Encode(text, null, classifier.MaxLength).Ids;
        var probabilities = new float[classifier.Classes];
        var times = new double[Calls];
        for (var i = 0; i < Warm; i++)
        {
            classifier.Predict(ids, probabilities);
            classifier.Predict(text, null, probabilities);
        }
        // Of all threads, not only this one.
        var before = GC.GetTotalAllocatedBytes(precise: true);
        for (var i = 0; i < Calls; i++)
        {
            var start = Stopwatch.GetTimestamp();
            classifier.Predict(ids, probabilities);
            times[i] = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        }
        var ofIds = GC.GetTotalAllocatedBytes(precise: true) - before;
        before = GC.GetTotalAllocatedBytes(precise: true);
        for (var i = 0; i < Calls; i++)
            classifier.Predict(text, null, probabilities);
        var ofTexts = GC.GetTotalAllocatedBytes(precise: true) - before;
        Array.Sort(times);
        Line("tokens", ids.Length);
        Line("p50 of a call, us", times[Calls / 2]);
        Line("p99 of a call, us", times[Calls * 99 / 100]);
        Line("bytes allocated a call on ids", ofIds / (double)Calls);
        Line("bytes allocated a call on a text", ofTexts / (double)Calls);
        Line("resident, MiB", Environment.WorkingSet / 1048576.0);
    }

    private static (double Passed, double Worked) Now()
    {
        using var process = Process.GetCurrentProcess();
        return ((DateTime.Now - process.StartTime).TotalMilliseconds, process.TotalProcessorTime.TotalMilliseconds);
    }

    private static void Line(string name, double value, double? worked = null) => Console.Error.WriteLine(string.Create(
        CultureInfo.InvariantCulture, $"{name}\t{value:0.##}{(worked is { } busy ? $"\t(processors: {busy:0.##})" : "")}"));
}
