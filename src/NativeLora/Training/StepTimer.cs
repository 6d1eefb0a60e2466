using NativeLora.Devices;

namespace NativeLora.Training;

/// <summary>Where the time of a few training steps went.</summary>
/// <param name="Steps">Steps that were timed.</param>
/// <param name="MicroBatches">Micro-batches of them: each runs all nodes once.</param>
/// <param name="Tokens">Tokens of them.</param>
/// <param name="Seconds">Seconds of them in all, batches, optimizer and the timing itself included; evaluations and files are not.</param>
/// <param name="NodeSeconds">Seconds of each node of the plan in all.</param>
public sealed record StepTimes(int Steps, int MicroBatches, long Tokens, double Seconds, IReadOnlyList<double> NodeSeconds);

/// <summary>Times the nodes of some steps, once two steps have run without it.</summary>
internal sealed class StepTimer(Session session, int steps)
{
    private const int WarmUp = 2;
    private int _seen;
    private int _timed;
    private int _batches;
    private long _tokens;
    private double _seconds;
    private bool _on;

    public StepTimes? Times { get; private set; }

    /// <param name="left">Steps that the training still has, this one included: a short one is timed from where it can be.</param>
    public void BeforeStep(int left)
    {
        if (_on || Times is not null || (_seen < WarmUp && left > steps))
            return;
        session.Profile();
        _on = true;
    }

    public void AfterStep(double seconds, int tokens, int batches)
    {
        _seen++;
        if (!_on)
            return;
        (_seconds, _tokens, _batches) = (_seconds + seconds, _tokens + tokens, _batches + batches);
        Times = new StepTimes(++_timed, _batches, _tokens, _seconds, [.. session.NodeSeconds!]);
        if (_timed < steps)
            return;
        session.EndProfile();
        _on = false;
    }
}
