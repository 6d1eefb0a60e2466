using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Globalization;
using System.Text;
using NativeLora.Hosting;

namespace NativeLora.Sample.Web;

/// <summary>The meters of the library and of ASP.NET Core as Prometheus reads them. Counting allocates nothing once a series is there.</summary>
public sealed class PrometheusMetrics : IDisposable
{
    private const int MostSeries = 1000;
    private static readonly double[] s_seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
    private static readonly double[] s_counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
    private readonly MeterListener _listener = new();
    private readonly Lock _lock = new();
    private readonly List<Family> _families = [];

    public PrometheusMetrics()
    {
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Meter.Name is not (Telemetry.Name or "Microsoft.AspNetCore.Hosting"))
                return;
            var family = new Family(instrument);
            lock (_lock)
                _families.Add(family);
            listener.EnableMeasurementEvents(instrument, family);
        };
        _listener.SetMeasurementEventCallback<int>(static (_, value, tags, state) => ((Family)state!).Record(value, tags));
        _listener.SetMeasurementEventCallback<long>(static (_, value, tags, state) => ((Family)state!).Record(value, tags));
        _listener.SetMeasurementEventCallback<double>(static (_, value, tags, state) => ((Family)state!).Record(value, tags));
        _listener.Start();
    }

    public Task WriteAsync(HttpContext context)
    {
        _listener.RecordObservableInstruments();
        var text = new StringBuilder();
        Family[] families;
        lock (_lock)
            families = [.. _families];
        // Where there are several meters of one name their series are one family.
        foreach (var family in families.GroupBy(f => f.Name).OrderBy(g => g.Key, StringComparer.Ordinal))
        {
            text.Append(CultureInfo.InvariantCulture, $"# HELP {family.Key} {family.First().Help}\n# TYPE {family.Key} {family.First().Type}\n");
            Family.Write(family, text);
        }
        text.Append(CultureInfo.InvariantCulture, $"# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {Environment.WorkingSet}\n");
        context.Response.ContentType = "text/plain; version=0.0.4; charset=utf-8";
        return context.Response.WriteAsync(text.ToString(), context.RequestAborted);
    }

    public void Dispose() => _listener.Dispose();

    /// <summary>An instrument with a series for each set of tags.</summary>
    private sealed class Family
    {
        private readonly Dictionary<string, Series> _series = new(StringComparer.Ordinal);
        private readonly Dictionary<string, Series>.AlternateLookup<ReadOnlySpan<char>> _lookup;
        private readonly double[]? _bounds;
        private readonly bool _replaces;

        public Family(Instrument instrument)
        {
            var histogram = instrument is Histogram<int> or Histogram<long> or Histogram<double>;
            var counter = instrument is Counter<int> or Counter<long> or Counter<double>;
            _bounds = !histogram ? null : instrument.Unit == "s" ? s_seconds : s_counts;
            _replaces = instrument.IsObservable;
            Type = histogram ? "histogram" : counter ? "counter" : "gauge";
            Name = instrument.Name.Replace('.', '_') + (instrument.Unit == "s" ? "_seconds" : "") + (counter ? "_total" : "");
            Help = (instrument.Description ?? "").Replace('\n', ' ');
            _lookup = _series.GetAlternateLookup<ReadOnlySpan<char>>();
        }

        public string Name { get; }

        public string Type { get; }

        public string Help { get; }

        public void Record(double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            Span<char> buffer = stackalloc char[512];
            var labels = Labels(tags, buffer);
            lock (_series)
            {
                if (!_lookup.TryGetValue(labels, out var series))
                {
                    // Who names ever new things must not fill the memory.
                    if (_series.Count >= MostSeries)
                        return;
                    _series[labels.ToString()] = series = new Series(_bounds?.Length ?? 0);
                }
                series.Sum = _replaces ? value : series.Sum + value;
                series.Count++;
                for (var b = 0; b < series.Buckets.Length; b++)
                    if (value <= _bounds![b])
                    {
                        series.Buckets[b]++;
                        break;
                    }
            }
        }

        private static ReadOnlySpan<char> Labels(ReadOnlySpan<KeyValuePair<string, object?>> tags, Span<char> buffer)
        {
            var at = 0;
            foreach (var (key, value) in tags)
            {
                var from = at;
                if (!(at == 0 || Put(",", buffer, ref at)) || !Key(key, buffer, ref at) || !Put("=\"", buffer, ref at) || !Value(value, buffer, ref at) || !Put("\"", buffer, ref at))
                    return buffer[..from];
            }
            return buffer[..at];
        }

        private static bool Put(ReadOnlySpan<char> text, Span<char> buffer, ref int at)
        {
            if (!text.TryCopyTo(buffer[at..]))
                return false;
            at += text.Length;
            return true;
        }

        private static bool Key(string key, Span<char> buffer, ref int at)
        {
            var from = at;
            if (!Put(key, buffer, ref at))
                return false;
            buffer[from..at].Replace('.', '_');
            return true;
        }

        private static bool Value(object? value, Span<char> buffer, ref int at)
        {
            if (value is ISpanFormattable number)
            {
                if (!number.TryFormat(buffer[at..], out var written, "", CultureInfo.InvariantCulture))
                    return false;
                at += written;
                return true;
            }
            foreach (var c in value is bool truth ? (truth ? "true" : "false") : value as string ?? "")
                if (!Put(c is '"' or '\\' or '\n' or '\r' ? "_" : new ReadOnlySpan<char>(in c), buffer, ref at))
                    return false;
            return true;
        }

        public static void Write(IEnumerable<Family> families, StringBuilder text)
        {
            foreach (var family in families)
                lock (family._series)
                    foreach (var (labels, series) in family._series)
                        family.Write(labels, series, text);
        }

        private void Write(string labels, Series series, StringBuilder text)
        {
            var braces = labels.Length > 0 ? $"{{{labels}}}" : "";
            if (_bounds is null)
            {
                text.Append(CultureInfo.InvariantCulture, $"{Name}{braces} {series.Sum}\n");
                return;
            }
            long below = 0;
            var comma = labels.Length > 0 ? "," : "";
            for (var b = 0; b < _bounds.Length; b++)
                text.Append(CultureInfo.InvariantCulture, $"{Name}_bucket{{{labels}{comma}le=\"{_bounds[b]}\"}} {below += series.Buckets[b]}\n");
            text.Append(CultureInfo.InvariantCulture, $"{Name}_bucket{{{labels}{comma}le=\"+Inf\"}} {series.Count}\n{Name}_sum{braces} {series.Sum}\n{Name}_count{braces} {series.Count}\n");
        }
    }

    private sealed class Series(int buckets)
    {
        public double Sum;
        public long Count;
        public readonly long[] Buckets = new long[buckets];
    }
}
