using NativeLora.Devices.Cpu;

namespace NativeLora.Tests.Devices;

/// <summary>One attention problem with random operands, run by the kernels or the reference.</summary>
internal sealed unsafe class AttentionCase
{
    // Around every output, to notice writes out of bounds.
    private const int Guard = 32;
    private const float GuardValue = 12345f;

    public readonly int[] Lengths;
    public int Heads = 2, KvHeads = 2, HeadDim = 16;
    public float Scale;
    public bool Causal;
    public int Window;
    public float Softcap;
    public int[]? KeyVisible;
    public float Dropout;
    public float[] Q = [], K = [], V = [], DOut = [];

    public AttentionCase(int[] lengths, int heads, int kvHeads, int headDim, float size = 1f, int seed = 1)
    {
        (Lengths, Heads, KvHeads, HeadDim) = (lengths, heads, kvHeads, headDim);
        Scale = 1f / MathF.Sqrt(headDim);
        var random = new Random(seed);
        Q = Normal(random, Tokens * heads * headDim, size);
        K = Normal(random, Tokens * kvHeads * headDim, size);
        V = Normal(random, Tokens * kvHeads * headDim, 1f);
        DOut = Normal(random, Tokens * heads * headDim, 1f);
    }

    public int Tokens => Lengths.Sum();

    public int[] CuSeqlens
    {
        get
        {
            var offsets = new int[Lengths.Length + 1];
            for (var i = 0; i < Lengths.Length; i++)
                offsets[i + 1] = offsets[i] + Lengths[i];
            return offsets;
        }
    }

    public AttentionReference Reference() => new()
    {
        Q = Doubles(Q),
        K = Doubles(K),
        V = Doubles(V),
        CuSeqlens = CuSeqlens,
        KeyVisible = KeyVisible,
        Heads = Heads,
        KvHeads = KvHeads,
        HeadDim = HeadDim,
        Scale = Scale,
        Causal = Causal,
        Window = Window,
        Softcap = Softcap,
        Dropout = Dropout,
        Seed = 77,
        Stream = 5,
        Step = 3,
    };

    public (float[] Out, float[] Lse) Forward(CpuThreads threads, int bits = 0, int maxHeadDim = 0)
    {
        using var kernel = new AttentionForward(threads, Math.Max(maxHeadDim, HeadDim), bits);
        float[] output = Guarded(Q.Length), lse = Guarded(Tokens * Heads);
        fixed (float* q = Q, k = K, v = V, o = output, l = lse)
        fixed (int* cu = CuSeqlens, visible = KeyVisible)
        {
            Bind(kernel, q, k, v, cu, visible);
            kernel.Out = o + Guard;
            kernel.Lse = l + Guard;
            kernel.Execute(Lengths.Length);
        }
        return (Unguarded(output), Unguarded(lse));
    }

    /// <summary>Gradients; those not wanted are left out of the call and come back empty.</summary>
    public (float[] DQ, float[] DK, float[] DV) Backward(CpuThreads threads, int bits = 0, string wanted = "qkv", bool? tiles = null)
    {
        var (output, lse) = Forward(threads, bits);
        using var kernel = new AttentionBackward(threads, HeadDim, bits) { ForceTiles = tiles };
        float[] dq = Guarded(Q.Length), dk = Guarded(K.Length), dv = Guarded(V.Length);
        fixed (float* q = Q, k = K, v = V, o = output, l = lse, d = DOut, pq = dq, pk = dk, pv = dv)
        fixed (int* cu = CuSeqlens, visible = KeyVisible)
        {
            Bind(kernel, q, k, v, cu, visible);
            kernel.Out = o;
            kernel.Lse = l;
            kernel.DOut = d;
            kernel.DQ = wanted.Contains('q') ? pq + Guard : null;
            kernel.DK = wanted.Contains('k') ? pk + Guard : null;
            kernel.DV = wanted.Contains('v') ? pv + Guard : null;
            kernel.Execute(Lengths.Length);
        }
        return (wanted.Contains('q') ? Unguarded(dq) : [], wanted.Contains('k') ? Unguarded(dk) : [],
            wanted.Contains('v') ? Unguarded(dv) : []);
    }

    public void Bind(AttentionKernel kernel, float* q, float* k, float* v, int* cuSeqlens, int* visible)
    {
        kernel.Q = q;
        kernel.K = k;
        kernel.V = v;
        kernel.CuSeqlens = cuSeqlens;
        kernel.KeyVisible = visible;
        (kernel.Heads, kernel.KvHeads, kernel.HeadDim, kernel.Scale) = (Heads, KvHeads, HeadDim, Scale);
        (kernel.Causal, kernel.Window, kernel.Dropout, kernel.Softcap) = (Causal, Window, Dropout, Softcap);
        (kernel.Seed, kernel.Stream, kernel.Step) = (77, 5, 3);
    }

    /// <summary>Forward and backward in all vector widths against the reference.</summary>
    public void Check(double tolerance = 1e-5)
    {
        using var threads = new CpuThreads(2);
        var reference = Reference();
        var (output, lse) = reference.Forward();
        var (dq, dk, dv) = reference.Backward(Doubles(DOut));
        foreach (var bits in new[] { 128, 256, 512 })
        {
            var name = $"{this} {bits} bits";
            var fast = Forward(threads, bits, HeadDim + 20);
            Near(output, fast.Out, tolerance, name + " out");
            Near(lse, fast.Lse, tolerance, name + " lse");
            foreach (var tiles in new[] { false, true })
            {
                var gradients = Backward(threads, bits, tiles: tiles);
                Near(dq, gradients.DQ, tolerance, name + " dq");
                Near(dk, gradients.DK, tolerance, name + " dk");
                Near(dv, gradients.DV, tolerance, name + " dv");
            }
        }
    }

    /// <summary>Errors relative to the largest number of the expected ones, at least 1.</summary>
    public static void Near(double[] expected, float[] actual, double tolerance, string name)
    {
        Assert.Equal(expected.Length, actual.Length);
        var size = expected.Where(double.IsFinite).Select(Math.Abs).DefaultIfEmpty(0).Max();
        var allowed = tolerance * Math.Max(1, size);
        for (var i = 0; i < expected.Length; i++)
        {
            if (double.IsNegativeInfinity(expected[i]) && float.IsNegativeInfinity(actual[i]))
                continue;
            if (!(Math.Abs(expected[i] - actual[i]) <= allowed))
                Assert.Fail($"{name}: [{i}] is {actual[i]}, expected {expected[i]}");
        }
    }

    public static double[] Doubles(float[] from) => Array.ConvertAll(from, x => (double)x);

    public override string ToString() =>
        $"lengths {string.Join(' ', Lengths)}, {Heads}/{KvHeads} heads of {HeadDim}, causal {Causal}, window {Window}, dropout {Dropout}";

    private static float[] Normal(Random random, int count, float size)
    {
        var values = new float[count];
        for (var i = 0; i < count; i++)
            values[i] = size * (float)(Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble()));
        return values;
    }

    // NaN until written.
    private static float[] Guarded(int count)
    {
        var values = new float[count + 2 * Guard];
        Array.Fill(values, float.NaN, Guard, count);
        Array.Fill(values, GuardValue, 0, Guard);
        Array.Fill(values, GuardValue, Guard + count, Guard);
        return values;
    }

    private static float[] Unguarded(float[] values)
    {
        Assert.All(values[..Guard], x => Assert.Equal(GuardValue, x));
        Assert.All(values[^Guard..], x => Assert.Equal(GuardValue, x));
        return values[Guard..^Guard];
    }
}
