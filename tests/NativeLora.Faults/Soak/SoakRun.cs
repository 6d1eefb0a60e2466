using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace NativeLora.Faults.Soak;

/// <summary>Samples a process while something works in it, and judges in the end.</summary>
internal sealed class SoakRun(string name, TimeSpan length, string folder)
{
    private static readonly TimeSpan Between = TimeSpan.FromSeconds(5);

    /// <summary>Works and samples until the time is over; writes <c>NAME.csv</c> and <c>NAME.md</c>.</summary>
    /// <param name="work">Works until it is cancelled.</param>
    /// <param name="nativeBytes">The device's counter.</param>
    /// <param name="done">Steps or requests so far.</param>
    /// <param name="what">What was done, for the page.</param>
    /// <returns>Whether everything was flat.</returns>
    public bool Go(Action<CancellationToken> work, Func<long> nativeBytes, Func<long> done, Func<string> what)
    {
        Directory.CreateDirectory(folder);
        using var stop = new CancellationTokenSource();
        Exception? failure = null;
        var worker = new Thread(() =>
        {
            try
            {
                work(stop.Token);
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        worker.Start();
        var watch = Stopwatch.StartNew();
        // No growth of its own is to be seen in what it measures.
        var samples = new List<SoakSample>((int)(length / Between) + 16);
        using (var csv = new StreamWriter(Path.Combine(folder, $"{name}.csv")))
        {
            csv.WriteLine(SoakSample.Header);
            while (watch.Elapsed < length && worker.IsAlive)
            {
                Thread.Sleep(Between);
                samples.Add(SoakSample.Take(watch.Elapsed.TotalSeconds, nativeBytes(), done()));
                csv.WriteLine(samples[^1].ToCsv());
                csv.Flush();
            }
        }
        stop.Cancel();
        worker.Join();
        if (failure is not null)
        {
            Console.Error.WriteLine($"{name}: the work failed: {failure}");
            return false;
        }
        if (samples.Count < 2 * Flatness.Blocks)
        {
            Console.Error.WriteLine($"{name}: too short to judge: {samples.Count} samples");
            return false;
        }
        var verdicts = Judge(samples);
        File.WriteAllText(Path.Combine(folder, $"{name}.md"), Page(samples, verdicts, what()));
        SoakPicture.Save(Path.Combine(folder, $"{name}.png"), samples);
        foreach (var verdict in verdicts)
            Console.WriteLine(verdict.ToRow());
        return verdicts.All(v => v.IsFlat);
    }

    private static Flatness[] Judge(List<SoakSample> samples) =>
    [
        Flatness.Of("resident memory, MiB", samples, s => s.ResidentKiB / 1024.0, 4),
        Flatness.Of("anonymous memory, MiB", samples, s => s.AnonymousKiB / 1024.0, 4),
        Flatness.Of("the collector's, MiB", samples, s => s.CommittedKiB / 1024.0, 4),
        Flatness.Of("anonymous less the collector's, MiB", samples, s => (s.AnonymousKiB - s.CommittedKiB) / 1024.0, 4),
        Flatness.Of("managed and alive, KiB", samples, s => s.LiveBytes / 1024.0, 1024),
        Flatness.Of("allocated by the device, KiB", samples, s => s.NativeBytes / 1024.0, 64),
        Flatness.Of("handles", samples, s => s.Handles, 2, floor: true),
        Flatness.Of("threads", samples, s => s.Threads, 2, floor: true),
    ];

    private string Page(List<SoakSample> samples, Flatness[] verdicts, string what)
    {
        var text = new StringBuilder();
        text.AppendLine(CultureInfo.InvariantCulture, $"# {name}").AppendLine();
        text.AppendLine(CultureInfo.InvariantCulture, $"{what}").AppendLine();
        text.AppendLine(CultureInfo.InvariantCulture, $"{samples[^1].Seconds / 60:0.0} minutes, {samples.Count} samples. A line through the means of {Flatness.Blocks} equal spans of the second half; growth per hour with its 95 % interval; flat is what stays below the bound.").AppendLine();
        text.AppendLine("| | mean | growth per hour | interval | bound | |").AppendLine("|---|---|---|---|---|---|");
        foreach (var verdict in verdicts)
            text.AppendLine(verdict.ToRow());
        return text.ToString();
    }
}
