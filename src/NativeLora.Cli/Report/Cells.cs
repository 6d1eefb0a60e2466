using System.Globalization;
using NativeLora.Cli.Show;

namespace NativeLora.Cli.Report;

/// <summary>Numbers as a report shows them.</summary>
internal static class Cells
{
    public const string None = "–";

    /// <summary>A similarity, a metric, a loss.</summary>
    public static ReportCell Number(double? value) => Of(value, v => v.ToString("0.0000", CultureInfo.InvariantCulture));

    /// <summary>A difference, with its sign.</summary>
    public static ReportCell Signed(double? value) => Of(value, Difference);

    public static string Difference(double value) => value.ToString("+0.0000;−0.0000;0.0000", CultureInfo.InvariantCulture);

    /// <summary>Of any size.</summary>
    public static ReportCell Any(double? value) => Of(value, v => v != 0 && (Math.Abs(v) < 1e-3 || Math.Abs(v) >= 1e6)
        ? v.ToString("0.000e+0", CultureInfo.InvariantCulture) : v.ToString("0.####", CultureInfo.InvariantCulture));

    public static ReportCell Count(double? value) => Of(value, v => v.ToString("N0", CultureInfo.InvariantCulture));

    public static ReportCell Bytes(double? value) => Of(value, v => Ui.MiB((long)Math.Round(v)));

    public static ReportCell Flops(double? value) => Of(value, v => Ui.Flops(v));

    public static ReportCell Milliseconds(double? seconds) => Of(seconds, v => (v * 1e3).ToString("0.000", CultureInfo.InvariantCulture));

    public static ReportCell Seconds(double? seconds) => Of(seconds, v => v.ToString("0.000", CultureInfo.InvariantCulture));

    public static ReportCell Percent(double? share) => Of(share, v => (100 * v).ToString("0.0", CultureInfo.InvariantCulture) + " %");

    /// <summary>What a part is less than the whole, in percent.</summary>
    public static ReportCell Saves(double? part, double? whole) =>
        part is { } p && whole is { } w && w != 0 ? new ReportCell(Ui.Saves(p, w), (p - w) / w) : None;

    private static ReportCell Of(double? value, Func<double, string> show) => value is { } v && double.IsFinite(v) ? new ReportCell(show(v), v) : None;
}
