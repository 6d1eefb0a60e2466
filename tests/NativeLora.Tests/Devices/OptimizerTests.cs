using System.Text.Json;
using NativeLora.Devices.Cpu;
using NativeLora.Training;

namespace NativeLora.Tests.Devices;

public unsafe class OptimizerTests
{
    [SharedTheory]
    [InlineData("adamw")]
    [InlineData("adamw_other")]
    public void AdamWAsTorch(string run)
    {
        using var file = JsonDocument.Parse(File.ReadAllText(Shared.Path("fixtures", "text", "train", "adamw.json")));
        var options = file.RootElement.GetProperty("runs").GetProperty(run);
        var (first, second) = (options.GetProperty("options"), options.GetProperty("second_group"));
        double Option(string name) => first.GetProperty(name).GetDouble();
        double Second(string name) => second.TryGetProperty(name, out var own) ? own.GetDouble() : Option(name);
        var rate = Option("lr");
        var betas = Numbers(first.GetProperty("betas"));

        var start = file.RootElement.GetProperty("start");
        var (a, b) = (start[0].GetArrayLength(), start[1].GetArrayLength());
        using var p = new Floats([.. Numbers(start[0]), .. Numbers(start[1])]);
        using var g = new Floats(a + b);
        using var m = new Floats(new double[a + b]);
        using var v = new Floats(new double[a + b]);
        using var threads = new CpuThreads(2);
        var optimizer = new AdamW(
            threads,
            [
                new OptimizerSegment(0, a, Option("weight_decay")),
                new OptimizerSegment(a, b, Second("weight_decay"), Second("lr") / rate),
            ],
            betas[0], betas[1], Option("eps"))
        {
            Parameters = p.At,
            Gradients = g.At,
            FirstMoments = m.At,
            SecondMoments = v.At,
        };

        var compared = 0;
        var gradients = file.RootElement.GetProperty("gradients");
        for (var step = 1; step <= gradients.GetArrayLength(); step++)
        {
            var of = gradients[step - 1];
            double[] all = [.. Numbers(of[0]), .. Numbers(of[1])];
            for (var i = 0; i < all.Length; i++)
                g.At[i] = (float)all[i];
            optimizer.Execute(rate, step);
            if (!options.GetProperty("after").TryGetProperty(step.ToString(), out var after))
                continue;
            Check.Near(Joined(after, "param"), p, 1e-5, 0);
            Check.Near(Joined(after, "exp_avg"), m, 1e-5, 1e-8);
            Check.Near(Joined(after, "exp_avg_sq"), v, 1e-5, 0);
            compared++;
        }
        Assert.Equal(4, compared);
    }

    [SharedFact]
    public void ClippingAsTorch()
    {
        using var file = JsonDocument.Parse(File.ReadAllText(Shared.Path("fixtures", "text", "train", "clip.json")));
        using var threads = new CpuThreads(2);
        var compared = 0;
        foreach (var of in file.RootElement.EnumerateArray())
        {
            if (of.GetProperty("norm").ValueKind != JsonValueKind.Number)
                continue;
            double[] Both(string name) => of.GetProperty(name).EnumerateArray().SelectMany(Numbers).ToArray();
            using var g = new Floats(Both("gradients"));
            var norm = Math.Sqrt(new SumOfSquares(threads, g.Count) { Input = g.At }.Execute(g.Count));
            Check.Near(of.GetProperty("norm").GetDouble(), norm, 1e-6, 0);
            var scale = GradientClipping.Scale(norm, of.GetProperty("max_norm").GetDouble());
            new Scale(threads, g.Count) { Input = g.At, Output = g.At, Factor = scale }.Execute(1);
            Check.Near(Both("clipped"), g, 1e-6, 0);
            compared++;
        }
        Assert.True(compared >= 5, $"only {compared} cases");
    }

    [Fact]
    public void AdamWOfManySizesAndSegments()
    {
        using var threads = new CpuThreads(2);
        foreach (var n in Enumerable.Range(0, 36).Select(i => 2 * i + 1).Append(40000))
        {
            using var p = Floats.Random(n, 1);
            using var g = Floats.Random(n, 2);
            using var m = new Floats(new double[n]);
            using var v = new Floats(new double[n]);
            var cut = n / 3;
            // The last element belongs to no segment and must stay.
            OptimizerSegment[] segments = [new(0, cut, 0.1), new(cut, n - 1 - cut, 0, 16)];
            var optimizer = new AdamW(threads, segments, 0.9, 0.999, 1e-8)
            {
                Parameters = p.At,
                Gradients = g.At,
                FirstMoments = m.At,
                SecondMoments = v.At,
            };
            var (ep, em, ev) = (p.Doubles(), new double[n], new double[n]);
            for (var step = 1; step <= 3; step++)
            {
                optimizer.Execute(1e-3 * step, step, gradientScale: 0.5f);
                for (var i = 0; i < n - 1; i++)
                    ReferenceLosses.AdamW(
                        ref ep[i], 0.5 * g.At[i], ref em[i], ref ev[i],
                        1e-3 * step * (i < cut ? 1 : 16), 0.9, 0.999, 1e-8, i < cut ? 0.1 : 0, step);
            }
            Check.Near(ep, p, 1e-6, 1e-6);
            Check.Near(em, m, 1e-6, 1e-7);
            // 1 - beta2 rounded to fp32, as torch has it.
            Check.Near(ev, v, 1e-6, 1e-9);
        }
    }

    [Fact]
    public void ScaleWhileReadingIsScalingBefore()
    {
        using var threads = new CpuThreads(1);
        var bits = new List<int[]>();
        foreach (var before in new[] { false, true })
        {
            using var p = Floats.Random(100, 1);
            using var g = Floats.Random(100, 2);
            using var m = new Floats(new double[100]);
            using var v = new Floats(new double[100]);
            var optimizer = new AdamW(threads, [new(0, 100, 0.01)], 0.9, 0.999, 1e-8)
            {
                Parameters = p.At,
                Gradients = g.At,
                FirstMoments = m.At,
                SecondMoments = v.At,
            };
            if (before)
                new Scale(threads, 100) { Input = g.At, Output = g.At, Factor = 0.37f }.ExecuteCount(100);
            optimizer.Execute(1e-2, 1, before ? 1f : 0.37f);
            bits.Add([.. p.Bits(), .. m.Bits(), .. v.Bits()]);
        }
        Assert.Equal(bits[0], bits[1]);
    }

    [Fact]
    public void SumOfSquaresOfManySizes()
    {
        using var threads = new CpuThreads(2);
        foreach (var n in Enumerable.Range(0, 71).Append(100_001))
        {
            using var x = Floats.Random(n, 1, 100);
            Check.Near(x.Doubles().Sum(v => v * v), new SumOfSquares(threads, n) { Input = x.At }.Execute(n), 1e-13, 0);
        }
        using var huge = new Floats([1e30, -1e30]);
        Check.Near(2e60, new SumOfSquares(threads, 2) { Input = huge.At }.Execute(2), 1e-6, 0);
    }

    private static double[] Joined(JsonElement after, string name) =>
        after.EnumerateArray().SelectMany(of => Numbers(of.GetProperty(name))).ToArray();

    private static double[] Numbers(JsonElement of) => of.EnumerateArray().Select(x => x.GetDouble()).ToArray();
}
