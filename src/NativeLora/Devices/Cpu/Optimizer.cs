using System.Runtime.Intrinsics;

namespace NativeLora.Devices.Cpu;

/// <summary>A run of parameters in the flat buffer that share their weight decay and their factor on the learning rate.</summary>
internal readonly record struct OptimizerSegment(long Start, long Count, double WeightDecay, double LearningRateFactor = 1.0);

/// <summary>AdamW as torch has it: decoupled decay first, bias correction in double, state in fp32.</summary>
internal sealed unsafe class AdamW : IParallelBody
{
    public float* Parameters;
    public float* Gradients;
    public float* FirstMoments;
    public float* SecondMoments;

    private readonly CpuThreads _threads;
    private readonly OptimizerSegment[] _segments;
    private readonly (int Segment, long Start)[] _blocks;
    private readonly double _beta1;
    private readonly double _beta2;
    private readonly float _epsilon;
    private double _learningRate;
    private double _correction1;
    private float _correction2;
    private float _gradientScale;

    public AdamW(CpuThreads threads, OptimizerSegment[] segments, double beta1, double beta2, double epsilon)
    {
        _threads = threads;
        _segments = segments;
        _beta1 = beta1;
        _beta2 = beta2;
        _epsilon = (float)epsilon;
        var blocks = new List<(int, long)>();
        for (var s = 0; s < segments.Length; s++)
            for (long at = 0; at < segments[s].Count; at += RowMath.ElementsPerTask)
                blocks.Add((s, segments[s].Start + at));
        _blocks = [.. blocks];
    }

    /// <summary>One update.</summary>
    /// <param name="learningRate">Of this step; segments multiply it by their factor.</param>
    /// <param name="step">1 for the first.</param>
    /// <param name="gradientScale">Multiplies the gradients as they are read, with the same bits as a scaling before.</param>
    public void Execute(double learningRate, int step, float gradientScale = 1f)
    {
        _learningRate = learningRate;
        _correction1 = 1 - Math.Pow(_beta1, step);
        _correction2 = (float)Math.Sqrt(1 - Math.Pow(_beta2, step));
        _gradientScale = gradientScale;
        _threads.For(_blocks.Length, this);
    }

    public void Run(int task, int worker)
    {
        var (s, start) = _blocks[task];
        ref readonly var segment = ref _segments[s];
        var rate = _learningRate * segment.LearningRateFactor;
        var decay = Vector256.Create((float)(1 - rate * segment.WeightDecay));
        var step = Vector256.Create((float)(rate / _correction1));
        var weight1 = Vector256.Create((float)(1 - _beta1));
        var beta2 = Vector256.Create((float)_beta2);
        var weight2 = Vector256.Create((float)(1 - _beta2));
        var root = Vector256.Create(_correction2);
        var epsilon = Vector256.Create(_epsilon);
        var scale = Vector256.Create(_gradientScale);
        var end = Math.Min(segment.Start + segment.Count, start + RowMath.ElementsPerTask);
        for (var i = start; i < end; i += RowMath.Lanes)
        {
            var left = end - i;
            var g = RowMath.Load(Gradients + i, left) * scale;
            var m = RowMath.Load(FirstMoments + i, left);
            var v = RowMath.Load(SecondMoments + i, left);
            m += weight1 * (g - m);
            v = v * beta2 + weight2 * g * g;
            var p = RowMath.Load(Parameters + i, left) * decay;
            p -= step * (m / (Vector256.Sqrt(v) / root + epsilon));
            RowMath.Store(m, FirstMoments + i, left);
            RowMath.Store(v, SecondMoments + i, left);
            RowMath.Store(p, Parameters + i, left);
        }
    }
}

/// <summary>Σ x² of a flat buffer in double, over fixed blocks that are added in order.</summary>
internal sealed unsafe class SumOfSquares : IParallelBody
{
    public float* Input;

    private readonly CpuThreads _threads;
    private readonly double[] _blocks;
    private long _count;

    public SumOfSquares(CpuThreads threads, long maxCount)
    {
        _threads = threads;
        _blocks = new double[RowMath.Tasks(maxCount, RowMath.ElementsPerTask)];
    }

    public double Execute(long count)
    {
        var tasks = RowMath.Tasks(count, RowMath.ElementsPerTask);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(tasks, _blocks.Length);
        _count = count;
        _threads.For(tasks, this);
        var total = 0.0;
        for (var i = 0; i < tasks; i++)
            total += _blocks[i];
        return total;
    }

    public void Run(int task, int worker)
    {
        Vector256<double> low = default, high = default;
        var end = Math.Min(_count, (long)(task + 1) * RowMath.ElementsPerTask);
        for (var i = (long)task * RowMath.ElementsPerTask; i < end; i += RowMath.Lanes)
        {
            var (a, b) = Vector256.Widen(RowMath.Load(Input + i, end - i));
            low += a * a;
            high += b * b;
        }
        _blocks[task] = Vector256.Sum(low + high);
    }
}
