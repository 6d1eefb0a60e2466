using System.Numerics.Tensors;
using NativeLora.Data;

namespace NativeLora.Selection;

/// <summary>How firmly one layer is chosen or not.</summary>
public sealed record LayerStability
{
    /// <summary>Share of the resamples in which the layer was chosen.</summary>
    public required double SelectedFraction { get; init; }

    /// <summary>Mean of the biased CKA over resamples; null where undefined.</summary>
    public required double? CkaMean { get; init; }

    /// <summary>2.5th percentile of the biased CKA.</summary>
    public required double? CkaLow { get; init; }

    /// <summary>97.5th percentile of the biased CKA.</summary>
    public required double? CkaHigh { get; init; }

    /// <summary>2.5th percentile of the debiased CKA over halves of the samples, drawn without replacement; null where undefined.</summary>
    public double? CkaDebiasedLow { get; init; }

    /// <summary>97.5th percentile of it.</summary>
    public double? CkaDebiasedHigh { get; init; }
}

/// <summary>
/// Stability of a selection under resampling: B times n samples are drawn with replacement (Efron 1979), layers are scored and chosen anew.
/// </summary>
/// <remarks>
/// Nothing is computed from features again. With counts c of a resample and Gram matrices K, L of the full samples, n = Σc,
/// ⟨HK'H, HL'H⟩ = cᵀ(K∘L)c - 2/n Σ c_i (Kc)_i (Lc)_i + (cᵀKc)(cᵀLc)/n² for the resampled K', L'; all resamples go through as one
/// matrix product. Of more than 1024 samples a random 1024 are resampled, so the intervals are then those of 1024 samples: wider than
/// those of all. A resample holds some samples twice, which raises its CKA a little, the debiased one more: intervals of that are taken
/// over halves of the samples instead, in which none is twice. An estimate from n/2 of n samples lies about that from all as far as
/// that from all lies about the truth, since 1/(n/2) - 1/n = 1/n (the delete-half jackknife).
/// </remarks>
public sealed class Bootstrap
{
    /// <summary>Resampling works on n x n matrices of at most this many samples.</summary>
    public const int MostSamples = 1024;

    private Bootstrap(int resamples, int samples, IReadOnlyList<LayerStability> layers, IReadOnlyDictionary<string, int> masks)
    {
        Resamples = resamples;
        Samples = samples;
        Layers = layers;
        Masks = masks;
    }

    /// <summary>Number of resamples, B.</summary>
    public int Resamples { get; }

    /// <summary>Samples that were resampled.</summary>
    public int Samples { get; }

    /// <summary>One entry a layer.</summary>
    public IReadOnlyList<LayerStability> Layers { get; }

    /// <summary>How often each mask was chosen, most frequent first. A resample without any defined score chooses nothing and is not here.</summary>
    public IReadOnlyDictionary<string, int> Masks { get; }

    /// <summary>Resamples, scores and chooses.</summary>
    /// <param name="features">Features of L + 1 layers over the same samples, at least 4 of them.</param>
    /// <param name="options">What to choose in each resample.</param>
    /// <param name="resamples">Number of resamples, B.</param>
    /// <param name="seed">Seed of the draws.</param>
    /// <exception cref="InputException">Too few samples or resamples, or options that do not fit.</exception>
    /// <exception cref="RunException">A value is not finite.</exception>
    public static Bootstrap Run(IReadOnlyList<FeatureMatrix> features, SelectionOptions options, int resamples = 100, ulong seed = 0)
    {
        LayerSimilarities.Require(features);
        ArgumentNullException.ThrowIfNull(options);
        if (resamples is < 1 or > 100_000)
            throw new InputException($"{resamples} bootstrap resamples: give 1 to 100000");
        if (features[0].Rows < 4)
            throw new InputException($"{features[0].Rows} samples are too few to resample: give at least 4");
        var random = new SplitMix64(seed);
        var subset = Subset(features[0].Rows, random);
        var samples = subset?.Length ?? features[0].Rows;
        var both = Score(features, subset, Beside(samples, Draw(samples, resamples, random), DrawHalves(samples, resamples, random)));
        var (scores, halves) = (both[..resamples], both[resamples..]);

        var layers = features.Count - 1;
        var times = new int[layers];
        var masks = new Dictionary<string, int>();
        foreach (var score in scores)
        {
            if (Undefined(score, options.Strategy))
                continue;
            var selection = LayerSelection.Select(layers, score, options);
            foreach (var layer in selection.Selected)
                times[layer]++;
            masks[selection.Mask] = masks.GetValueOrDefault(selection.Mask) + 1;
        }
        var stability = Enumerable.Range(0, layers).Select(l =>
        {
            double[] values = [.. scores.Select(s => s.Cka[l]).OfType<double>().Order()];
            double[] debiased = [.. halves.Select(s => s.CkaDebiased![l]).OfType<double>().Order()];
            return new LayerStability
            {
                SelectedFraction = (double)times[l] / resamples,
                CkaMean = values.Length == 0 ? null : values.Average(),
                CkaLow = Percentile(values, 0.025),
                CkaHigh = Percentile(values, 0.975),
                CkaDebiasedLow = Percentile(debiased, 0.025),
                CkaDebiasedHigh = Percentile(debiased, 0.975),
            };
        });
        return new Bootstrap(resamples, samples, [.. stability],
            masks.OrderByDescending(m => m.Value).ThenBy(m => m.Key, StringComparer.Ordinal).ToDictionary());
    }

    /// <summary>The samples to work on, ascending; null for all.</summary>
    internal static int[]? Subset(int samples, SplitMix64 random) =>
        samples <= MostSamples ? null : [.. random.Permutation(samples).Take(MostSamples).Order()];

    /// <summary>For each resample, how often each sample is in it: [samples, resamples].</summary>
    internal static double[] Draw(int samples, int resamples, SplitMix64 random)
    {
        var counts = new double[checked(samples * resamples)];
        for (var b = 0; b < resamples; b++)
            for (var i = 0; i < samples; i++)
                counts[random.NextInt32(samples) * resamples + b]++;
        return counts;
    }

    /// <summary>For each resample, which half of the samples is in it: [samples, resamples].</summary>
    internal static double[] DrawHalves(int samples, int resamples, SplitMix64 random)
    {
        var counts = new double[checked(samples * resamples)];
        for (var b = 0; b < resamples; b++)
            foreach (var i in random.Permutation(samples).Take(samples / 2))
                counts[i * resamples + b] = 1;
        return counts;
    }

    private static double[] Beside(int samples, double[] left, double[] right)
    {
        var each = left.Length / samples;
        var both = new double[checked(left.Length + right.Length)];
        for (var i = 0; i < samples; i++)
        {
            left.AsSpan(i * each, each).CopyTo(both.AsSpan(2 * i * each));
            right.AsSpan(i * each, each).CopyTo(both.AsSpan((2 * i + 1) * each));
        }
        return both;
    }

    /// <summary>The scores of all layers in each resample.</summary>
    internal static LayerScores[] Score(IReadOnlyList<FeatureMatrix> features, int[]? subset, double[] counts)
    {
        var samples = subset?.Length ?? features[0].Rows;
        var resamples = counts.Length / samples;
        var layers = features.Count - 1;
        var cka = Table(resamples, layers);
        var debiased = Table(resamples, layers);
        var cosine = Table(resamples, layers);
        var clamped = Enumerable.Range(0, resamples).Select(_ => new double[layers]).ToArray();
        var constant = new bool[layers];

        var drawn = new double[resamples];
        for (var i = 0; i < samples; i++)
            TensorPrimitives.Add(drawn, counts.AsSpan(i * resamples, resamples), drawn);
        var product = new PanelProduct();
        var each = new double[samples];
        var xFeatures = Layer(features, 0, subset);
        var x = new Resampled(GramMatrix.Of(xFeatures, product), counts, drawn, product);
        for (var l = 0; l < layers; l++)
        {
            var yFeatures = Layer(features, l + 1, subset);
            var y = new Resampled(GramMatrix.Of(yFeatures, product), counts, drawn, product);
            constant[l] = x.Gram.Terms.Constant;
            var (cross, unbiased) = x.With(y, product);
            var rows = new RowSimilarity();
            rows.Add(xFeatures, yFeatures, each);
            for (var b = 0; b < resamples; b++)
            {
                cka[b][l] = Hsic.Biased(cross[b], x.Terms[b], y.Terms[b]);
                clamped[b][l] = Hsic.BiasedClamped(cross[b], x.Terms[b], y.Terms[b]);
                debiased[b][l] = Hsic.Debiased((long)drawn[b], unbiased[b], x.Terms[b], y.Terms[b]);
                cosine[b][l] = rows.Cosine is null ? null : Weighted(each, counts, b, resamples) / drawn[b];
            }
            (x, xFeatures) = (y, yFeatures);
        }
        return [.. Enumerable.Range(0, resamples).Select(b => new LayerScores
        {
            Cka = cka[b], CkaClamped = clamped[b], CkaDebiased = debiased[b], Cosine = cosine[b], ConstantInput = constant,
        })];

        static double?[][] Table(int rows, int columns) => [.. Enumerable.Range(0, rows).Select(_ => new double?[columns])];
    }

    private static FeatureMatrix Layer(IReadOnlyList<FeatureMatrix> features, int layer, int[]? subset)
    {
        var taken = subset is null ? features[layer] : features[layer].Take(subset);
        taken.RequireFinite($"features of layer {layer}");
        return taken;
    }

    private static double Weighted(double[] values, double[] counts, int b, int resamples)
    {
        var sum = 0.0;
        for (var i = 0; i < values.Length; i++)
            sum += values[i] * counts[i * resamples + b];
        return sum;
    }

    private static bool Undefined(LayerScores scores, SelectionStrategy strategy) => strategy switch
    {
        SelectionStrategy.Cka => scores.Cka.All(v => v is null),
        SelectionStrategy.CkaDebiased => scores.CkaDebiased!.All(v => v is null),
        _ => false,
    };

    /// <summary>Linear interpolation between order statistics, as NumPy's default.</summary>
    private static double? Percentile(double[] sorted, double share)
    {
        if (sorted.Length == 0)
            return null;
        var at = share * (sorted.Length - 1);
        var low = (int)at;
        var high = Math.Min(low + 1, sorted.Length - 1);
        return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
    }

    /// <summary>One layer's Gram matrix and what all resamples need of it.</summary>
    private sealed class Resampled
    {
        private readonly double[] _counts;
        private readonly double[] _drawn; // samples of each resample
        private readonly int _resamples;
        private readonly PaddedMatrix _rows; // (Kc)_i for each resample
        private readonly double[] _total; // cᵀKc
        private readonly double[] _trace; // Σ c_i K_ii

        public Resampled(GramMatrix gram, double[] counts, double[] drawn, PanelProduct product)
        {
            var resamples = drawn.Length;
            Gram = gram;
            (_counts, _drawn, _resamples) = (counts, drawn, resamples);
            _rows = Times(gram.Values, product);
            _total = new double[resamples];
            _trace = new double[resamples];
            for (var i = 0; i < gram.Samples; i++)
            {
                var c = Counts(i);
                TensorPrimitives.MultiplyAdd(c, _rows.Row(i), _total, _total);
                TensorPrimitives.MultiplyAdd(c, gram.Diagonal[i], _trace, _trace);
            }
            var (inner, unbiased) = With(this, product);
            Terms = new LayerTerms[resamples];
            for (var b = 0; b < resamples; b++)
            {
                // A resample of one sample over and over has nothing but rounding left once centred.
                var nothing = !(inner[b] > 1e-12 * gram.Terms.Inner);
                Terms[b] = new LayerTerms(inner[b], unbiased[b], gram.Terms.Constant || nothing);
            }
        }

        public GramMatrix Gram { get; }

        public LayerTerms[] Terms { get; }

        public (double[] Cross, double[] Unbiased) With(Resampled other, PanelProduct product)
        {
            var elementwise = new PaddedMatrix(Gram.Samples, Gram.Samples);
            TensorPrimitives.Multiply(Gram.Values.Values, other.Gram.Values.Values, elementwise.Values);
            var times = Times(elementwise, product);
            var quadratic = new double[_resamples];
            var rows = new double[_resamples];
            var diagonals = new double[_resamples];
            var offRows = new double[_resamples];
            var k = new double[_resamples];
            var l = new double[_resamples];
            for (var i = 0; i < Gram.Samples; i++)
            {
                var c = Counts(i);
                TensorPrimitives.MultiplyAdd(c, times.Row(i), quadratic, quadratic);
                TensorPrimitives.MultiplyAdd(c, Gram.Diagonal[i] * other.Gram.Diagonal[i], diagonals, diagonals);
                TensorPrimitives.Multiply(_rows.Row(i), other._rows.Row(i), k);
                TensorPrimitives.MultiplyAdd(c, k, rows, rows);
                TensorPrimitives.Subtract(_rows.Row(i), Gram.Diagonal[i], k);
                TensorPrimitives.Subtract(other._rows.Row(i), other.Gram.Diagonal[i], l);
                TensorPrimitives.Multiply(k, l, k);
                TensorPrimitives.MultiplyAdd(c, k, offRows, offRows);
            }
            var cross = new double[_resamples];
            var unbiased = new double[_resamples];
            for (var b = 0; b < _resamples; b++)
            {
                var n = _drawn[b];
                cross[b] = quadratic[b] - 2 / n * rows[b] + _total[b] / n * (other._total[b] / n);
                unbiased[b] = quadratic[b] - diagonals[b]
                    + (_total[b] - _trace[b]) * (other._total[b] - other._trace[b]) / ((n - 1) * (n - 2)) - 2 / (n - 2) * offRows[b];
            }
            return (cross, unbiased);
        }

        private ReadOnlySpan<double> Counts(int sample) => _counts.AsSpan(sample * _resamples, _resamples);

        /// <summary>matrix * counts, for a symmetric matrix.</summary>
        private PaddedMatrix Times(PaddedMatrix matrix, PanelProduct product)
        {
            var times = new PaddedMatrix(matrix.Rows, _resamples);
            product.AddOuter(matrix.Values, matrix.Stride, _counts, _resamples, matrix.Rows, times, symmetric: false);
            return times;
        }
    }
}
