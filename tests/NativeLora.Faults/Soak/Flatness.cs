using System.Globalization;

namespace NativeLora.Faults.Soak;

/// <summary>
/// Whether a series is flat over the second half of a soak. Samples that follow one another are alike, so the line is fitted through the
/// means of <see cref="Blocks"/> equal spans, and its slope's 95 % interval is Student's over them.
/// </summary>
/// <param name="Name">Of the series.</param>
/// <param name="Mean">Over the second half.</param>
/// <param name="PerHour">Slope.</param>
/// <param name="Low">Lower end of its interval.</param>
/// <param name="High">Upper end.</param>
/// <param name="Bound">Growth in an hour that would be called a leak: the upper end must stay below.</param>
public sealed record Flatness(string Name, double Mean, double PerHour, double Low, double High, double Bound)
{
    public const int Blocks = 12;
    private const double Student10 = 2.228;

    public bool IsFlat => High <= Bound;

    /// <summary>Fits the line.</summary>
    /// <param name="name">Of the series.</param>
    /// <param name="samples">All of them.</param>
    /// <param name="value">What is looked at.</param>
    /// <param name="bound">Growth in an hour that is called a leak.</param>
    /// <param name="floor">Whether the least of each span counts and not its mean: callers come and go, a leak raises the floor.</param>
    public static Flatness Of(string name, IReadOnlyList<SoakSample> samples, Func<SoakSample, double> value, double bound, bool floor = false)
    {
        var end = samples[^1].Seconds;
        var half = samples.Where(s => s.Seconds >= end / 2).ToList();
        var mean = half.Average(value);
        var (x, y) = (new double[Blocks], new double[Blocks]);
        for (var b = 0; b < Blocks; b++)
        {
            var block = half[(b * half.Count / Blocks)..((b + 1) * half.Count / Blocks)];
            (x[b], y[b]) = (block.Average(s => s.Seconds) / 3600, floor ? block.Min(value) : block.Average(value));
        }
        var (mx, my) = (x.Average(), y.Average());
        var sxx = x.Sum(v => (v - mx) * (v - mx));
        var slope = x.Zip(y, (a, b) => (a - mx) * (b - my)).Sum() / sxx;
        var rest = x.Zip(y, (a, b) => b - my - (slope * (a - mx))).Sum(r => r * r);
        var half95 = Student10 * Math.Sqrt(rest / (Blocks - 2) / sxx);
        return new Flatness(name, mean, slope, slope - half95, slope + half95, bound);
    }

    public string ToRow() => string.Create(CultureInfo.InvariantCulture,
        $"| {Name} | {Mean:0.##} | {PerHour:0.###} | {Low:0.###} to {High:0.###} | {Bound:0.##} | {(IsFlat ? "flat" : "GROWS")} |");
}
