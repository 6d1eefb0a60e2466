using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;

namespace NativeLora.Tests.Graphs;

/// <summary>
/// Compares the gradient of every trainable tensor with finite differences of the loss. The direction has random magnitudes and the
/// signs of the gradient that is tested: then the derivative is as large as it can be, which fp32 needs, and still every element takes
/// part with a weight of its own: a gradient that is wrong, scaled or 0 where it should not be changes one side and not the other.
/// </summary>
internal static class DirectionalDerivatives
{
    // Four points make the error of the difference O(h⁴): below a thousandth where a step moves the tensor by at most a fiftieth of its
    // norm and the loss by about a hundredth. What is left is that the loss is an fp32 number: some units in its last place, over h.
    private const double Step = 0.02;
    private const double LossStep = 0.01;
    private const double Relative = 2e-3;
    private const double LossNoise = 2.5e-7;

    /// <summary>Checks all tensors.</summary>
    /// <remarks>A <paramref name="stepFactor"/> under 1 is for losses that bend more than the usual step allows: O(h⁴) becomes less, noise more.</remarks>
    public static void Check(Device device, Graph backward, Graph forward, ModelWeights weights, ParameterStore parameters, PackedBatch batch, RunSettings settings, BatchSize? capacity = null, double stepFactor = 1, Action<string>? moved = null)
    {
        var size = capacity ?? new BatchSize(batch.TokenCapacity, batch.SequenceCapacity, 0);
        using var gradients = new Session(device, MemoryPlan.For(backward, size), weights, parameters);
        using var losses = new Session(device, MemoryPlan.For(forward, size), weights, parameters);
        gradients.Load(batch);
        losses.Load(batch);
        gradients.Run(settings);
        var loss = gradients.Read(backward.Loss!)[0];
        double Loss()
        {
            losses.Run(settings);
            return losses.Read(forward.Loss!)[0];
        }
        Assert.Equal(loss, Loss());
        Assert.True(loss > 0 && float.IsFinite(loss));

        var random = new Random(backward.Nodes.Count);
        var failures = new List<string>();
        foreach (var name in parameters.Names)
        {
            var values = parameters.Read(name);
            var gradient = parameters.ReadGradient(name);
            var direction = new double[values.Length];
            for (var i = 0; i < direction.Length; i++)
                direction[i] = (0.1 + random.NextDouble()) * (gradient[i] != 0 ? Math.Sign(gradient[i]) : random.Next(2) * 2 - 1);
            var norm = Math.Sqrt(direction.Sum(v => v * v));
            var wanted = direction.Zip(gradient, (d, g) => d * g / norm).Sum();
            var scale = Math.Max(1, loss);
            var h = stepFactor * Math.Min(Step * Math.Max(0.5, Math.Sqrt(values.Sum(v => (double)v * v))), LossStep * scale / wanted);
            double At(double steps)
            {
                parameters.Write(name, [.. values.Select((v, i) => (float)(v + steps * h * direction[i] / norm))]);
                moved?.Invoke(name);
                return Loss();
            }
            var difference = (8 * (At(1) - At(-1)) - (At(2) - At(-2))) / (12 * h);
            parameters.Write(name, values);
            moved?.Invoke(name);
            var allowed = Relative * Math.Abs(wanted) + LossNoise * scale / h;
            if (!(Math.Abs(difference - wanted) <= allowed))
                failures.Add($"{name}: {wanted:g5} by the backward, {difference:g5} by differences, {Math.Abs(difference - wanted) / allowed:g3} times the tolerance");
        }
        Assert.True(failures.Count == 0, string.Join('\n', failures));
        Assert.Equal(loss, Loss());
    }
}
