namespace NativeLora.Data;

/// <summary>pass@k, the chance that one of k samples is right, by the unbiased estimator 1 - C(n-c, k) / C(n, k).</summary>
public static class PassAtK
{
    /// <summary>pass@k of one problem. It is 1 wherever fewer than <paramref name="k"/> samples are wrong, even with n below k.</summary>
    /// <param name="n">Samples drawn.</param>
    /// <param name="c">Samples that are right.</param>
    /// <param name="k">Samples that one may try.</param>
    /// <exception cref="InputException">Not 0 ≤ c ≤ n, or n or k is below 1.</exception>
    public static double Estimate(int n, int c, int k)
    {
        if (n < 1 || c < 0 || c > n || k < 1)
            throw new InputException($"pass@k is not defined for n = {n}, c = {c}, k = {k}; give 0 <= c <= n, n >= 1 and k >= 1");
        if (n - c < k)
            return 1;
        // The ratio of the two binomials is the same with c and k exchanged; the shorter product is taken.
        var (few, many) = c < k ? (c, k) : (k, c);
        var wrong = 1.0;
        for (var i = 0; i < few && wrong > 0; i++)
            wrong *= (double)(n - many - i) / (n - i);
        return 1 - wrong;
    }

    /// <summary>pass@k of a benchmark, the mean over its problems; NaN for none.</summary>
    /// <param name="problems">For each problem the samples drawn and those that are right.</param>
    /// <param name="k">Samples that one may try.</param>
    /// <exception cref="InputException">As <see cref="Estimate"/>.</exception>
    public static double Mean(IReadOnlyList<(int Samples, int Right)> problems, int k)
    {
        ArgumentNullException.ThrowIfNull(problems);
        var sum = 0.0;
        foreach (var (samples, right) in problems)
            sum += Estimate(samples, right, k);
        return problems.Count == 0 ? double.NaN : sum / problems.Count;
    }
}
