namespace NativeLora.Selection;

/// <summary>How the sums of linear CKA are made. Both forms give the same numbers to rounding.</summary>
public enum CkaForm
{
    /// <summary>The Gram form where there are fewer samples than features, else the covariance form.</summary>
    Auto,

    /// <summary>n x n Gram matrices of the samples: ⟨K, L⟩ with K = XXᵀ.</summary>
    Gram,

    /// <summary>d x d covariance matrices, streamed over samples: ‖XᵀY‖².</summary>
    Covariance,
}

/// <summary>How similar two feature matrices of the same samples are, such as a layer's input and output.</summary>
public sealed record PairSimilarity
{
    /// <summary>Number of samples, n.</summary>
    public required long Samples { get; init; }

    /// <summary>Linear CKA (biased); null where it is 0/0, that is where either side is constant over the samples.</summary>
    public required double? Cka { get; init; }

    /// <summary>Linear CKA as the paper's code orders by it: denominator at least 1e-12, and 0 where either side is constant.</summary>
    public required double CkaClamped { get; init; }

    /// <summary>CKA from the unbiased HSIC; null for n &lt; 4 or a constant side.</summary>
    public required double? CkaDebiased { get; init; }

    /// <summary>Mean over samples of cos(x_i, y_i); null where a row is 0 or the widths differ.</summary>
    public required double? Cosine { get; init; }

    /// <summary>Mean over samples of arccos(cos(x_i, y_i)) / π; null as the cosine.</summary>
    public required double? Angular { get; init; }

    /// <summary>X is the same in every sample, up to rounding.</summary>
    public required bool ConstantX { get; init; }

    /// <summary>Y is the same in every sample, up to rounding.</summary>
    public required bool ConstantY { get; init; }

    /// <summary>Block influence, 1 - cosine (Men et al. 2024, "ShortGPT").</summary>
    public double? BlockInfluence => 1 - Cosine;

    internal static PairSimilarity From(long samples, LayerTerms x, LayerTerms y, double cross, double crossUnbiased, RowSimilarity rows) => new()
    {
        Samples = samples,
        Cka = Hsic.Biased(cross, x, y),
        CkaClamped = Hsic.BiasedClamped(cross, x, y),
        CkaDebiased = Hsic.Debiased(samples, crossUnbiased, x, y),
        Cosine = rows.Cosine,
        Angular = rows.Angular,
        ConstantX = x.Constant,
        ConstantY = y.Constant,
    };
}

/// <summary>
/// Linear centred kernel alignment of X [n, d1] and Y [n, d2], columns centred (Kornblith et al. 2019, "Similarity of neural network
/// representations revisited", arXiv 1905.00414): CKA = ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) = ⟨K, L⟩ / (‖K‖ ‖L‖) with K = XXᵀ, L = YYᵀ and
/// Frobenius norms. "Layer-wise LoRA fine-tuning: a similarity metric approach" (arXiv 2602.05988) ranks layers by it.
/// </summary>
/// <remarks>
/// Everything is computed in fp64. Features that are constant over the samples up to rounding have no CKA (0/0): they are detected
/// from their deviation (relative 1e-6 by column), since rounding noise divided by rounding noise can be anything.
/// </remarks>
public static class LinearCka
{
    /// <summary>Every measure of two feature matrices.</summary>
    /// <param name="x">Features [n, d1].</param>
    /// <param name="y">Features [n, d2] of the same samples.</param>
    /// <param name="form">Which sums to make.</param>
    /// <exception cref="InputException">The numbers of samples differ.</exception>
    /// <exception cref="RunException">A value is not finite.</exception>
    public static PairSimilarity Compare(FeatureMatrix x, FeatureMatrix y, CkaForm form = CkaForm.Auto)
    {
        ArgumentNullException.ThrowIfNull(x);
        ArgumentNullException.ThrowIfNull(y);
        RequireSameSamples(x, y);
        if (form == CkaForm.Covariance || (form == CkaForm.Auto && x.Rows >= Math.Max(x.Columns, y.Columns)))
        {
            var streaming = new StreamingCka(x.Columns, y.Columns);
            streaming.Add(x, y);
            return streaming.Result();
        }
        x.RequireFinite("features X");
        y.RequireFinite("features Y");
        var product = new PanelProduct();
        var k = GramMatrix.Of(x, product);
        var l = GramMatrix.Of(y, product);
        var rows = new RowSimilarity();
        rows.Add(x, y);
        return PairSimilarity.From(x.Rows, k.Terms, l.Terms, k.Inner(l), k.Unbiased(l), rows);
    }

    /// <summary>Biased linear CKA, ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖); null where either side is constant.</summary>
    /// <param name="x">Features [n, d1].</param>
    /// <param name="y">Features [n, d2] of the same samples.</param>
    /// <param name="form">Which sums to make.</param>
    public static double? Biased(FeatureMatrix x, FeatureMatrix y, CkaForm form = CkaForm.Auto) => Compare(x, y, form).Cka;

    /// <summary>Biased linear CKA with the denominator clamped at 1e-12 as in the paper's function; 0 where either side is constant.</summary>
    /// <param name="x">Features [n, d1].</param>
    /// <param name="y">Features [n, d2] of the same samples.</param>
    /// <param name="form">Which sums to make.</param>
    public static double BiasedClamped(FeatureMatrix x, FeatureMatrix y, CkaForm form = CkaForm.Auto) => Compare(x, y, form).CkaClamped;

    /// <summary>
    /// Debiased CKA: HSIC₁(X, Y) / √(HSIC₁(X, X) HSIC₁(Y, Y)) with the unbiased estimator HSIC₁ of Song et al. 2012 ("Feature selection
    /// via dependence maximization"), as in Nguyen et al. 2021 (arXiv 2010.15327); null for n &lt; 4 or a constant side. About 0 for
    /// independent features, where the biased value grows with d/n.
    /// </summary>
    /// <param name="x">Features [n, d1].</param>
    /// <param name="y">Features [n, d2] of the same samples.</param>
    /// <param name="form">Which sums to make.</param>
    public static double? Debiased(FeatureMatrix x, FeatureMatrix y, CkaForm form = CkaForm.Auto) => Compare(x, y, form).CkaDebiased;

    internal static void RequireSameSamples(FeatureMatrix x, FeatureMatrix y)
    {
        if (x.Rows != y.Rows)
            throw new InputException($"features of {x.Rows} and of {y.Rows} samples: similarity needs the same samples on both sides");
    }
}
