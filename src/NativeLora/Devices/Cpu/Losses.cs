using System.Runtime.Intrinsics;

namespace NativeLora.Devices.Cpu;

/// <summary>
/// Cross-entropy of logits [rows, classes] against integer labels, -100 ignored; other labels are range-checked by the caller.
/// loss = InverseCount · Σ (log Σ exp(logits) - logits[label]); its gradient, if wanted, is written in the same sweep and may
/// overwrite the logits. For an LM head in chunks: <see cref="ExecuteChunk"/> for each chunk, then <see cref="Sum"/>.
/// </summary>
internal sealed unsafe class CrossEntropy(CpuThreads threads, int classes) : IParallelBody
{
    public const int Ignored = -100;

    /// <summary>A multiple of the lanes.</summary>
    private const int ClassesPerSum = 512;

    /// <summary>Logits of the rows, or of the chunk at hand.</summary>
    public float* Logits;

    /// <summary>Labels of all rows.</summary>
    public int* Labels;

    /// <summary>Gradient of the rows or chunk; null if only the loss is wanted; may be <see cref="Logits"/>.</summary>
    public float* LogitsGradient;

    /// <summary>Receives the loss of each of all rows, 0 for ignored ones.</summary>
    public float* RowLosses;

    /// <summary>1 / labels that count, in the whole accumulated batch.</summary>
    public float InverseCount = 1f;

    private int _first;
    private int _rows;

    /// <summary>All rows at once. Returns the loss.</summary>
    public double Execute(int rows)
    {
        ExecuteChunk(0, rows);
        return Sum(rows);
    }

    /// <summary>Rows <paramref name="first"/> and on of the labels, whose logits are the chunk's rows from 0.</summary>
    public void ExecuteChunk(int first, int rows)
    {
        _first = first;
        _rows = rows;
        threads.For(RowMath.Tasks(rows, RowMath.RowsPerTask(classes)), this);
    }

    /// <summary>InverseCount · the sum of the row losses, in order and in double.</summary>
    public double Sum(int rows)
    {
        var total = 0.0;
        for (var row = 0; row < rows; row++)
            total += RowLosses[row];
        return total * InverseCount;
    }

    public void Run(int task, int worker)
    {
        var rows = RowMath.RowsPerTask(classes);
        var end = (int)Math.Min(_rows, (long)(task + 1) * rows);
        for (var row = task * rows; row < end; row++)
        {
            var at = (long)row * classes;
            RowLosses[_first + row] = RunRow(Logits + at, Labels[_first + row], LogitsGradient == null ? null : LogitsGradient + at);
        }
    }

    private float RunRow(float* logits, int label, float* gradient)
    {
        if (label == Ignored)
        {
            if (gradient != null)
                RowMath.Clear(gradient, classes);
            return 0f;
        }
        var max = RowMath.Max(logits, classes);
        double chosen = logits[label];
        var sum = gradient == null ? SumExp(logits, max) : SumExpInto(logits, max, gradient);
        if (gradient != null)
        {
            var factor = Vector256.Create((float)(InverseCount / sum));
            for (var c = 0; c < classes; c += RowMath.Lanes)
                RowMath.Store(RowMath.Load(gradient + c, classes - c) * factor, gradient + c, classes - c);
            // p - 1 from the other side loses nothing where p is near 1.
            gradient[label] = (float)(Math.Exp(chosen - max) / sum - 1.0) * InverseCount;
        }
        return (float)(Math.Log(sum) + (max - chosen));
    }

    /// <summary>Σ exp(logits - max): in fp32 over a span of classes, whose sums are added in double.</summary>
    private double SumExp(float* logits, float max)
    {
        var m = Vector256.Create(max);
        var sum = 0.0;
        for (var c = 0; c < classes;)
        {
            var end = Math.Min(classes, c + ClassesPerSum);
            Vector256<float> a = default, b = default;
            for (; c <= end - 2 * RowMath.Lanes; c += 2 * RowMath.Lanes)
            {
                a += RowMath.Exp(Vector256.Load(logits + c) - m);
                b += RowMath.Exp(Vector256.Load(logits + c + RowMath.Lanes) - m);
            }
            for (; c < end; c += RowMath.Lanes)
                a += RowMath.Keep(RowMath.Exp(RowMath.Load(logits + c, end - c) - m), end - c);
            sum += RowMath.SumDouble(a) + RowMath.SumDouble(b);
        }
        return sum;
    }

    /// <summary>The same sum; the exponentials are kept, possibly over the logits.</summary>
    private double SumExpInto(float* logits, float max, float* values)
    {
        var m = Vector256.Create(max);
        var sum = 0.0;
        for (var c = 0; c < classes;)
        {
            var end = Math.Min(classes, c + ClassesPerSum);
            Vector256<float> a = default, b = default;
            for (; c <= end - 2 * RowMath.Lanes; c += 2 * RowMath.Lanes)
            {
                var p = RowMath.Exp(Vector256.Load(logits + c) - m);
                var q = RowMath.Exp(Vector256.Load(logits + c + RowMath.Lanes) - m);
                p.Store(values + c);
                q.Store(values + c + RowMath.Lanes);
                a += p;
                b += q;
            }
            for (; c < end; c += RowMath.Lanes)
            {
                var p = RowMath.Keep(RowMath.Exp(RowMath.Load(logits + c, end - c) - m), end - c);
                RowMath.Store(p, values + c, end - c);
                a += p;
            }
            sum += RowMath.SumDouble(a) + RowMath.SumDouble(b);
        }
        return sum;
    }
}

/// <summary>loss = InverseCount · Σ (x - target)² over [rows, 1]; gradient 2 · (x - target) · InverseCount, which may overwrite x.</summary>
internal sealed unsafe class MeanSquaredError
{
    public float* Logits;
    public float* Targets;

    /// <summary>Null if only the loss is wanted.</summary>
    public float* LogitsGradient;

    public float InverseCount = 1f;

    /// <summary>Returns the loss. The rows are the samples of a batch: too few to be worth threads.</summary>
    public double Execute(int rows)
    {
        var total = 0.0;
        for (var row = 0; row < rows; row++)
        {
            var difference = Logits[row] - Targets[row];
            total += (double)difference * difference;
            if (LogitsGradient != null)
                LogitsGradient[row] = 2f * difference * InverseCount;
        }
        return total * InverseCount;
    }
}
