using ScottPlot;

namespace NativeLora.Faults.Soak;

/// <summary>The course of memory and handles as a small picture.</summary>
internal static class SoakPicture
{
    public static void Save(string path, IReadOnlyList<SoakSample> samples)
    {
        using var plot = new Plot();
        double[] minutes = [.. samples.Select(s => s.Seconds / 60)];
        Add("resident, MiB", s => s.ResidentKiB / 1024.0);
        Add("anonymous, MiB", s => s.AnonymousKiB / 1024.0);
        Add("managed alive, MiB", s => s.LiveBytes / 1048576.0);
        Add("the collector's, MiB", s => s.CommittedKiB / 1024.0);
        Add("handles", s => s.Handles);
        Add("threads", s => s.Threads);
        plot.Axes.SetLimitsY(0, 1.1 * samples.Max(s => s.ResidentKiB / 1024.0));
        plot.XLabel("minutes");
        plot.ShowLegend(Alignment.UpperLeft);
        plot.SavePng(path, 700, 360);

        void Add(string name, Func<SoakSample, double> value)
        {
            var line = plot.Add.ScatterLine(minutes, [.. samples.Select(value)]);
            line.LegendText = name;
        }
    }
}
