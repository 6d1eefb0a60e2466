namespace NativeLora.Devices.Cpu;

/// <summary>Losses and the AdamW update as their formulas say, in double.</summary>
internal static class ReferenceLosses
{
    public static double CrossEntropy(double[] logits, int[] labels, int classes, double inverseCount)
    {
        double loss = 0;
        for (var row = 0; row < labels.Length; row++)
        {
            if (labels[row] == -100)
                continue;
            var of = logits.AsSpan(row * classes, classes).ToArray();
            var max = of.Max();
            loss += Math.Log(of.Sum(x => Math.Exp(x - max))) + max - of[labels[row]];
        }
        return loss * inverseCount;
    }

    public static double MeanSquaredError(double[] logits, double[] targets, double inverseCount) =>
        logits.Zip(targets, (x, t) => (x - t) * (x - t)).Sum() * inverseCount;

    /// <summary>One update of one parameter, as the paper of AdamW and torch have it.</summary>
    public static void AdamW(
        ref double parameter, double gradient, ref double first, ref double second,
        double rate, double beta1, double beta2, double epsilon, double decay, int step)
    {
        parameter *= 1 - rate * decay;
        first = beta1 * first + (1 - beta1) * gradient;
        second = beta2 * second + (1 - beta2) * gradient * gradient;
        var corrected = second / (1 - Math.Pow(beta2, step));
        parameter -= rate / (1 - Math.Pow(beta1, step)) * first / (Math.Sqrt(corrected) + epsilon);
    }
}
