namespace NativeLora.Devices.Cpu;

/// <summary>Embedding, rotary, gather and mean as their formulas say, in double.</summary>
internal static class ReferenceRows
{
    public static double[] Embedding(int[][] ids, double[][] tables, int columns, double scale)
    {
        var y = new double[ids[0].Length * columns];
        for (var i = 0; i < y.Length; i++)
            for (var t = 0; t < tables.Length; t++)
                y[i] += scale * tables[t][ids[t][i / columns] * columns + i % columns];
        return y;
    }

    /// <summary>Turns each pair (i, i + half) of a head by position · frequency, written with complex numbers.</summary>
    public static double[] Rotary(double[] x, int[] positions, int heads, int headDim, float[] invFreq, double attentionScaling)
    {
        var y = (double[])x.Clone();
        var half = invFreq.Length;
        for (var row = 0; row < positions.Length; row++)
            for (var head = 0; head < heads; head++)
                for (var i = 0; i < half; i++)
                {
                    var at = (row * heads + head) * headDim + i;
                    var turn = System.Numerics.Complex.FromPolarCoordinates(attentionScaling, (float)positions[row] * invFreq[i]);
                    var pair = new System.Numerics.Complex(x[at], x[at + half]) * turn;
                    y[at] = pair.Real;
                    y[at + half] = pair.Imaginary;
                }
        return y;
    }

    public static double[] Gather(double[] x, int[] index, int columns)
    {
        var y = new double[index.Length * columns];
        for (var i = 0; i < y.Length; i++)
            y[i] = x[index[i / columns] * columns + i % columns];
        return y;
    }

    public static double[] Mean(double[] x, int[] cuSeqlens, int[]? visible, int columns)
    {
        var y = new double[(cuSeqlens.Length - 1) * columns];
        for (var s = 0; s + 1 < cuSeqlens.Length; s++)
        {
            var tokens = Enumerable.Range(cuSeqlens[s], cuSeqlens[s + 1] - cuSeqlens[s])
                .Where(t => visible is null || visible[t] != 0).ToArray();
            for (var c = 0; c < columns; c++)
                y[s * columns + c] = tokens.Length == 0 ? 0 : tokens.Average(t => x[t * columns + c]);
        }
        return y;
    }
}
