using System.Diagnostics;
using System.Diagnostics.Metrics;
using NativeLora.Hosting;
using NativeLora.Tests.Cli;

namespace NativeLora.Tests.Hosting;

/// <summary>What listeners are told of calls.</summary>
public sealed class TelemetryTests
{
    [SharedFact]
    public void Calls_are_counted_and_traced()
    {
        using var model = new SmallModel();
        using var classifier = Classifier.Open(model.Path);
        var numbers = new List<(string Name, double Value, string Outcome)>();
        var activities = new List<Activity>();
        var thread = Environment.CurrentManagedThreadId;
        using var meters = new MeterListener { InstrumentPublished = (instrument, listener) => { if (instrument.Meter.Name == Telemetry.Name) listener.EnableMeasurementEvents(instrument); } };
        // Other tests run beside this one: only what this thread does is looked at.
        void Told(string name, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            if (Environment.CurrentManagedThreadId == thread && (string?)tags[0].Value == "classify")
                numbers.Add((name, value, (string)tags[1].Value!));
        }
        meters.SetMeasurementEventCallback<long>((i, value, tags, _) => Told(i.Name, value, tags));
        meters.SetMeasurementEventCallback<double>((i, value, tags, _) => Told(i.Name, value, tags));
        meters.Start();
        using var traces = new ActivityListener
        {
            ShouldListenTo = source => source.Name == Telemetry.Name,
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = activity => { if (Environment.CurrentManagedThreadId == thread) activities.Add(activity); },
        };
        ActivitySource.AddActivityListener(traces);
        classifier.PredictBatch([5, 6, 7], [2, 1], new float[2 * classifier.Classes]);
        Assert.Throws<InputException>(() => classifier.Predict([-1], new float[classifier.Classes]));

        Assert.Equal([1, 1], numbers.Where(n => n.Name == "nativelora.calls").Select(n => n.Value));
        Assert.Equal(["ok", "refused"], numbers.Where(n => n.Name == "nativelora.calls").Select(n => n.Outcome));
        Assert.Equal(3, numbers.First(n => n.Name == "nativelora.tokens").Value);
        Assert.Equal(2, numbers.First(n => n.Name == "nativelora.sequences").Value);
        Assert.True(numbers.First(n => n.Name == "nativelora.call.duration").Value > 0);
        Assert.Equal(["classify", "classify"], activities.Select(a => a.OperationName));
        Assert.Equal((3L, ActivityStatusCode.Unset), (activities[0].GetTagItem("nativelora.tokens"), activities[0].Status));
        Assert.Equal(ActivityStatusCode.Error, activities[1].Status);
    }
}
