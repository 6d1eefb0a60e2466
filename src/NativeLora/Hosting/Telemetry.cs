using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace NativeLora.Hosting;

/// <summary>
/// Names under which calls can be observed: activities of the source <c>NativeLora</c>, and the meter <c>NativeLora</c> with the counters
/// <c>nativelora.calls</c>, <c>nativelora.sequences</c> and <c>nativelora.tokens</c> and the histogram <c>nativelora.call.duration</c>
/// (seconds, waiting included). Each has the tags <c>operation</c> (classify, embed, generate, select, train) and <c>outcome</c> (ok, cancelled, refused,
/// full, failed). A <see cref="ClassifierQueue"/> adds <c>nativelora.queue.depth</c>, <c>nativelora.queue.wait</c> (seconds until a batch
/// takes a text) and <c>nativelora.batch.sequences</c>, <c>nativelora.batch.tokens</c> and <c>nativelora.batch.adapters</c> (of each batch).
/// Where nobody listens nothing is measured or allocated.
/// </summary>
public static class Telemetry
{
    /// <summary>Name of the <see cref="ActivitySource"/> and of the <see cref="Meter"/>.</summary>
    public const string Name = "NativeLora";

    private static readonly ActivitySource s_source = new(Name);
    private static readonly Meter s_meter = new(Name);
    private static readonly Counter<long> s_calls = s_meter.CreateCounter<long>("nativelora.calls", "{call}", "Calls of hosted models.");
    private static readonly Counter<long> s_sequences = s_meter.CreateCounter<long>("nativelora.sequences", "{sequence}", "Texts of these calls.");
    private static readonly Counter<long> s_tokens = s_meter.CreateCounter<long>("nativelora.tokens", "{token}", "Tokens read, and written where text is generated.");
    private static readonly Histogram<double> s_duration = s_meter.CreateHistogram<double>("nativelora.call.duration", "s", "Time of a call, waiting for a session included.");

    private static readonly Histogram<double> s_wait = s_meter.CreateHistogram<double>("nativelora.queue.wait", "s", "Time that a text waits until a batch takes it.");
    private static readonly Histogram<int> s_batchSequences = s_meter.CreateHistogram<int>("nativelora.batch.sequences", "{sequence}", "Texts of a batch.");
    private static readonly Histogram<int> s_batchTokens = s_meter.CreateHistogram<int>("nativelora.batch.tokens", "{token}", "Tokens of a batch.");
    private static readonly Histogram<int> s_batchAdapters = s_meter.CreateHistogram<int>("nativelora.batch.adapters", "{adapter}", "Different adapters of a batch, the model itself included.");
    private static readonly ObservableUpDownCounter<long> s_depth = s_meter.CreateObservableUpDownCounter("nativelora.queue.depth", () => Interlocked.Read(ref s_waiting), "{sequence}", "Texts that wait in queues.");
    private static long s_waiting;

    /// <summary>Tells that texts have come to a queue, or left it where the number is negative.</summary>
    internal static void Waiting(int change) => Interlocked.Add(ref s_waiting, change);

    internal static void Waited(TimeSpan time) => s_wait.Record(time.TotalSeconds);

    internal static void Batch(int sequences, int tokens, int adapters)
    {
        s_batchSequences.Record(sequences);
        s_batchTokens.Record(tokens);
        s_batchAdapters.Record(adapters);
    }

    internal static Call Begin(string operation) => new(operation);

    /// <summary>One call. It is a struct so that it costs no allocation.</summary>
    internal struct Call
    {
        private readonly string _operation;
        private readonly Activity? _activity;
        private readonly long _start;
        private readonly bool _measured;

        public Call(string operation)
        {
            _operation = operation;
            _activity = s_source.HasListeners() ? s_source.StartActivity(operation) : null;
            _measured = s_calls.Enabled || s_sequences.Enabled || s_tokens.Enabled || s_duration.Enabled;
            _start = _measured ? Stopwatch.GetTimestamp() : 0;
        }

        public long Sequences { get; set; }

        public long Tokens { get; set; }

        /// <summary>Tells who listens how it ended.</summary>
        public readonly void End(Exception? error = null)
        {
            if (!_measured && _activity is null)
                return;
            var outcome = error switch
            {
                null => "ok",
                OperationCanceledException => "cancelled",
                InputException or ArgumentException => "refused",
                QueueFullException => "full",
                _ => "failed",
            };
            if (_measured)
                Measure(outcome);
            if (_activity is null)
                return;
            _activity.SetTag("nativelora.sequences", Sequences);
            _activity.SetTag("nativelora.tokens", Tokens);
            _activity.SetTag("outcome", outcome);
            if (error is not null)
                _activity.SetStatus(ActivityStatusCode.Error, error.Message);
            _activity.Dispose();
        }

        private readonly void Measure(string outcome)
        {
            KeyValuePair<string, object?> operation = new("operation", _operation), how = new("outcome", outcome);
            s_calls.Add(1, operation, how);
            s_sequences.Add(Sequences, operation, how);
            s_tokens.Add(Tokens, operation, how);
            s_duration.Record(Stopwatch.GetElapsedTime(_start).TotalSeconds, operation, how);
        }
    }
}
