namespace NativeLora.Devices.Cpu;

/// <summary>Norms as their formulas say, in double: what the fast kernels are checked against.</summary>
internal static class ReferenceNorms
{
    public static double[] LayerNorm(double[] x, double[]? weight, double[]? bias, int columns, double epsilon)
    {
        var y = new double[x.Length];
        for (var at = 0; at < x.Length; at += columns)
        {
            double mean = 0, variance = 0;
            for (var c = 0; c < columns; c++)
                mean += x[at + c] / columns;
            for (var c = 0; c < columns; c++)
                variance += (x[at + c] - mean) * (x[at + c] - mean) / columns;
            for (var c = 0; c < columns; c++)
                y[at + c] = (x[at + c] - mean) / Math.Sqrt(variance + epsilon) * (weight?[c] ?? 1) + (bias?[c] ?? 0);
        }
        return y;
    }

    public static double[] RmsNorm(double[] x, double[] weight, int columns, double epsilon, double weightOffset)
    {
        var y = new double[x.Length];
        for (var at = 0; at < x.Length; at += columns)
        {
            double square = 0;
            for (var c = 0; c < columns; c++)
                square += x[at + c] * x[at + c] / columns;
            for (var c = 0; c < columns; c++)
                y[at + c] = x[at + c] / Math.Sqrt(square + epsilon) * (weight[c] + weightOffset);
        }
        return y;
    }
}
