namespace NativeLora.Selection;

/// <summary>What one layer contributes on its own: computed once, used in both pairs it belongs to.</summary>
/// <param name="Inner">‖K‖² = ‖XᵀX‖² of the centred features.</param>
/// <param name="Unbiased">n(n-3) times the unbiased HSIC of the layer with itself; 0 for n &lt; 4.</param>
/// <param name="Constant">The features are the same in every sample, up to rounding.</param>
internal readonly record struct LayerTerms(double Inner, double Unbiased, bool Constant);

/// <summary>The HSIC estimators on sums, whichever way the sums were made.</summary>
internal static class Hsic
{
    /// <summary>The paper's code keeps its denominator at least this large.</summary>
    private const double Clamp = 1e-12;

    /// <summary>Relative size under which features count as constant: fp32 arithmetic leaves 1e-7, real layers differ by 1e-3.</summary>
    private const double ConstantTolerance = 1e-6;

    /// <summary>
    /// n(n-3) HSIC₁ = Σ_{i≠j} K_ij L_ij + (Σ_{i≠j} K_ij)(Σ_{i≠j} L_ij) / ((n-1)(n-2)) - 2/(n-2) Σ_i k_i l_i with k_i = Σ_{j≠i} K_ij
    /// (Song et al. 2012, eq. 5), for centred features: there Σ_j K_ij = 0, so that k_i = -K_ii.
    /// </summary>
    public static double UnbiasedCentred(long n, double inner, double diagonals, double traceX, double traceY) =>
        n < 4 ? 0 : inner - diagonals + traceX * traceY / ((n - 1.0) * (n - 2)) - 2 * diagonals / (n - 2);

    public static double? Biased(double cross, LayerTerms x, LayerTerms y)
    {
        var low = Math.Sqrt(x.Inner) * Math.Sqrt(y.Inner);
        return x.Constant || y.Constant || low == 0 ? null : cross / low;
    }

    public static double BiasedClamped(double cross, LayerTerms x, LayerTerms y) =>
        x.Constant || y.Constant ? 0 : cross / Math.Max(Math.Sqrt(x.Inner) * Math.Sqrt(y.Inner), Clamp);

    public static double? Debiased(long n, double crossUnbiased, LayerTerms x, LayerTerms y) =>
        n < 4 || x.Constant || y.Constant || Vanishes(x) || Vanishes(y)
            ? null
            : crossUnbiased / (Math.Sqrt(x.Unbiased) * Math.Sqrt(y.Unbiased));

    /// <summary>Nothing but rounding is left of the U-centred Gram matrix, as where all rows but one are equal.</summary>
    private static bool Vanishes(LayerTerms layer) => !(layer.Unbiased > 1e-13 * layer.Inner);

    /// <summary>
    /// Whether features are constant over the samples up to rounding: the deviation of each column relative to the larger of its own
    /// size and the median column's, root mean square over columns, is at most 1e-6. Relative to the whole norm, one column of
    /// huge values, as trained models have, would hide the variation of all others.
    /// </summary>
    public static bool IsConstant(ReadOnlySpan<double> mean, ReadOnlySpan<double> variance)
    {
        var size = new double[mean.Length];
        for (var j = 0; j < size.Length; j++)
            size[j] = Math.Sqrt(mean[j] * mean[j] + variance[j]);
        var sorted = (double[])size.Clone();
        Array.Sort(sorted);
        var median = sorted[sorted.Length / 2];
        var sum = 0.0;
        for (var j = 0; j < size.Length; j++)
        {
            var scale = Math.Max(size[j], median);
            if (scale > 0)
                sum += variance[j] / scale / scale;
        }
        return Math.Sqrt(sum / size.Length) <= ConstantTolerance;
    }
}
