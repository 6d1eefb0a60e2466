using System.Runtime.InteropServices;

namespace NativeLora.Tests.Devices;

/// <summary>Native floats between guard zones, which must be untouched at the end.</summary>
internal sealed unsafe class Floats : IDisposable
{
    private const int Guard = 16;
    private const uint Canary = 0x7f8abcde;
    private uint* _memory;

    public Floats(int count)
    {
        Count = count;
        _memory = (uint*)NativeMemory.Alloc((nuint)(count + 2 * Guard) * sizeof(float));
        new Span<uint>(_memory, count + 2 * Guard).Fill(Canary);
    }

    public Floats(IReadOnlyList<double> values) : this(values.Count)
    {
        for (var i = 0; i < Count; i++)
            At[i] = (float)values[i];
    }

    public int Count { get; }

    public float* At => (float*)(_memory + Guard);

    public Span<float> Span => new(At, Count);

    /// <summary>Values that look normal with the given spread, the same for the same seed.</summary>
    public static Floats Random(int count, int seed, double spread = 1, double center = 0)
    {
        var random = new Random(seed * 7919 + count);
        var result = new Floats(count);
        for (var i = 0; i < count; i++)
            result.At[i] = (float)(center + spread * (random.NextDouble() + random.NextDouble() + random.NextDouble() - 1.5) * 2);
        return result;
    }

    public Floats Clone()
    {
        var copy = new Floats(Count);
        Span.CopyTo(copy.Span);
        return copy;
    }

    public double[] Doubles()
    {
        var result = new double[Count];
        for (var i = 0; i < Count; i++)
            result[i] = At[i];
        return result;
    }

    public int[] Bits() => MemoryMarshal.Cast<float, int>(Span).ToArray();

    public void Dispose()
    {
        if (_memory == null)
            return;
        var intact = true;
        for (var i = 0; i < Guard; i++)
            intact &= _memory[i] == Canary && _memory[Guard + Count + i] == Canary;
        NativeMemory.Free(_memory);
        _memory = null;
        Assert.True(intact, "a kernel wrote beyond its buffer");
    }
}

/// <summary>Native integers.</summary>
internal sealed unsafe class Ints : IDisposable
{
    public Ints(params int[] values)
    {
        Values = values;
        At = (int*)NativeMemory.Alloc((nuint)(values.Length + 1) * sizeof(int));
        values.CopyTo(new Span<int>(At, values.Length));
    }

    public int[] Values { get; }

    public int* At { get; }

    public static Ints Random(int count, int below, int seed)
    {
        var random = new Random(seed * 104729 + count);
        return new Ints(Enumerable.Range(0, count).Select(_ => random.Next(below)).ToArray());
    }

    public void Dispose() => NativeMemory.Free(At);
}

/// <summary>Comparisons and derivatives for kernel tests.</summary>
internal static class Check
{
    /// <summary>|actual - expected| ≤ relative · |expected| + absolute, element by element.</summary>
    public static void Near(IReadOnlyList<double> expected, Floats actual, double relative, double absolute)
    {
        Assert.Equal(expected.Count, actual.Count);
        for (var i = 0; i < expected.Count; i++)
            Near(expected[i], actual.Span[i], relative, absolute, i);
    }

    public static void Near(double expected, double actual, double relative, double absolute, int index = 0)
    {
        var error = Math.Abs(actual - expected);
        // The message is built only on failure: sweeps compare hundreds of thousands of elements.
        if (!(error <= relative * Math.Abs(expected) + absolute))
            Assert.Fail($"element {index}: {actual:R}, wanted {expected:R}, error {error:G3}");
    }

    /// <summary>Near with a tolerance that is relative to the largest element, as rounding errors of sums are.</summary>
    /// <param name="expected">What is wanted.</param>
    /// <param name="actual">What a kernel gave.</param>
    /// <param name="tolerance">Relative to the largest.</param>
    /// <param name="terms">The size of the terms, where they cancel to something smaller.</param>
    public static void NearMax(IReadOnlyList<double> expected, Floats actual, double tolerance, double terms = 0)
    {
        var max = expected.Count == 0 ? 0 : Math.Max(terms, expected.Max(Math.Abs));
        Near(expected, actual, 0, tolerance * max + 1e-12);
    }

    /// <summary>d(Σ dy · f(x)) / dx by central differences in double.</summary>
    public static double[] Gradient(Func<double[], double[]> f, double[] x, double[] dy, double step = 1e-5)
    {
        var result = new double[x.Length];
        var moved = (double[])x.Clone();
        for (var i = 0; i < x.Length; i++)
        {
            moved[i] = x[i] + step;
            var up = f(moved);
            moved[i] = x[i] - step;
            var down = f(moved);
            moved[i] = x[i];
            for (var j = 0; j < dy.Length; j++)
                result[i] += dy[j] * (up[j] - down[j]) / (2 * step);
        }
        return result;
    }
}
