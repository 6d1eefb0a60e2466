using System.Runtime.ExceptionServices;

namespace NativeLora.Selection;

/// <summary>
/// How much each layer changes the representation: every measure between the features before layer l (index l) and after it
/// (index l + 1), for a model of L layers with features 0 (after the embeddings) to L.
/// </summary>
public sealed class LayerSimilarities
{
    private const long MostGramBytes = 64L << 20;

    internal LayerSimilarities(IReadOnlyList<PairSimilarity> pairs) => Pairs = pairs;

    /// <summary>One entry a layer: X is the layer's input, Y its output.</summary>
    public IReadOnlyList<PairSimilarity> Pairs { get; }

    /// <summary>Number of layers, L.</summary>
    public int Layers => Pairs.Count;

    /// <summary>Number of samples, n.</summary>
    public long Samples => Pairs[0].Samples;

    /// <summary>Layers whose input is constant over the samples, such as layer 0 at BERT's CLS token.</summary>
    public IReadOnlyList<int> ConstantInputs => [.. Enumerable.Range(0, Layers).Where(l => Pairs[l].ConstantX)];

    /// <summary>What layers are ranked by.</summary>
    public LayerScores Scores => new()
    {
        Cka = [.. Pairs.Select(p => p.Cka)],
        CkaClamped = [.. Pairs.Select(p => p.CkaClamped)],
        CkaDebiased = [.. Pairs.Select(p => p.CkaDebiased)],
        Cosine = [.. Pairs.Select(p => p.Cosine)],
        ConstantInput = [.. Pairs.Select(p => p.ConstantX)],
    };

    /// <summary>
    /// Compares adjacent layers. Each layer's Gram or covariance norm is computed once for both pairs it belongs to; Gram matrices of
    /// some 64 MiB, or one covariance matrix, are held at a time.
    /// </summary>
    /// <param name="features">Features of L + 1 layers over the same samples.</param>
    /// <param name="form">Which sums to make.</param>
    /// <exception cref="InputException">Fewer than two feature matrices, or different samples.</exception>
    /// <exception cref="RunException">A value is not finite.</exception>
    public static LayerSimilarities Compute(IReadOnlyList<FeatureMatrix> features, CkaForm form = CkaForm.Auto)
    {
        Require(features);
        for (var l = 0; l < features.Count; l++)
            features[l].RequireFinite($"features of layer {l}");
        var gram = form == CkaForm.Gram || (form == CkaForm.Auto && features[0].Rows < features.Max(f => f.Columns));
        var pairs = new PairSimilarity[features.Count - 1];
        if (gram)
        {
            // Side by side, as many layers as fit into a bounded memory, and the last of those before.
            var products = Enumerable.Range(0, Environment.ProcessorCount).Select(_ => new PanelProduct()).ToArray();
            var held = (int)Math.Clamp(MostGramBytes / (8L * features[0].Rows * features[0].Rows), products.Length, features.Count);
            var grams = new GramMatrix[features.Count];
            for (var first = 0; first < grams.Length; first += held)
            {
                var last = Math.Min(grams.Length, first + held);
                SideBySide(products.Length, first, last, (worker, l) => grams[l] = GramMatrix.Of(features[l], products[worker]));
                SideBySide(products.Length, Math.Max(1, first), last, (_, l) =>
                {
                    var (x, y) = (grams[l - 1], grams[l]);
                    pairs[l - 1] = PairSimilarity.From(y.Samples, x.Terms, y.Terms, x.Inner(y), x.Unbiased(y), Rows(features[l - 1], features[l]));
                });
                Array.Clear(grams, 0, last - 1);
            }
        }
        else
        {
            var x = Moments(features[0], features[0]).Terms;
            for (var l = 0; l < pairs.Length; l++)
            {
                var y = Moments(features[l + 1], features[l + 1]).Terms;
                var cross = Moments(features[l], features[l + 1]);
                pairs[l] = PairSimilarity.From(cross.Samples, x, y, cross.Inner, cross.Unbiased, Rows(features[l], features[l + 1]));
                x = y;
            }
        }
        return new LayerSimilarities(pairs);
    }

    internal static void SideBySide(int workers, int first, int last, Action<int, int> work)
    {
        try
        {
            Parallel.For(0, workers, worker =>
            {
                for (var l = first + worker; l < last; l += workers)
                    work(worker, l);
            });
        }
        catch (AggregateException e)
        {
            ExceptionDispatchInfo.Throw(e.InnerExceptions[0]);
        }
    }

    internal static void Require(IReadOnlyList<FeatureMatrix> features)
    {
        ArgumentNullException.ThrowIfNull(features);
        if (features.Count < 2)
            throw new InputException($"{features.Count} feature matrices: layer similarity needs the features before and after at least one layer");
        foreach (var layer in features)
            LinearCka.RequireSameSamples(features[0], layer);
    }

    private static RowSimilarity Rows(FeatureMatrix x, FeatureMatrix y)
    {
        var rows = new RowSimilarity();
        rows.Add(x, y);
        return rows;
    }

    private static PairMoments Moments(FeatureMatrix x, FeatureMatrix y)
    {
        var moments = new PairMoments(x.Columns, y.Columns, symmetric: x == y);
        moments.Add(x, y);
        return moments;
    }
}

/// <summary>
/// <see cref="LayerSimilarities"/> over samples that come in blocks and are not kept: memory (2L + 1) d² fp64 for L layers.
/// </summary>
public sealed class StreamingLayerSimilarities
{
    private readonly PairMoments[] _layers;
    private readonly PairMoments[] _pairs;
    private readonly RowSimilarity[] _rows;

    /// <summary>Starts empty.</summary>
    /// <param name="widths">Columns of the features of each of the L + 1 layers.</param>
    /// <exception cref="InputException">Fewer than two layers, or a width below 1.</exception>
    public StreamingLayerSimilarities(IReadOnlyList<int> widths)
    {
        ArgumentNullException.ThrowIfNull(widths);
        if (widths.Count < 2 || widths.Any(w => w < 1))
            throw new InputException("layer similarity needs the features before and after at least one layer, each at least 1 wide");
        _layers = [.. widths.Select(w => new PairMoments(w, w, symmetric: true))];
        _pairs = [.. widths.Skip(1).Select((w, l) => new PairMoments(widths[l], w, symmetric: false))];
        _rows = [.. _pairs.Select(_ => new RowSimilarity())];
    }

    /// <summary>Samples added so far.</summary>
    public long Samples => _layers[0].Samples;

    /// <summary>Adds a block of samples. Blocks of some hundred samples are the fastest.</summary>
    /// <param name="features">Features of all L + 1 layers.</param>
    /// <exception cref="InputException">The sizes do not fit.</exception>
    /// <exception cref="RunException">A value is not finite.</exception>
    public void Add(IReadOnlyList<FeatureMatrix> features)
    {
        LayerSimilarities.Require(features);
        if (features.Count != _layers.Length)
            throw new InputException($"features of {features.Count} layers, but the sums are of {_layers.Length}");
        for (var l = 0; l < features.Count; l++)
        {
            if (features[l].Columns != _layers[l].C.Columns)
                throw new InputException($"features of layer {l} are {features[l].Columns} wide, but its sums are {_layers[l].C.Columns} wide");
            features[l].RequireFinite($"features of layer {l}");
        }
        for (var l = 0; l < features.Count; l++)
            _layers[l].Add(features[l], features[l]);
        for (var l = 0; l < _pairs.Length; l++)
        {
            _pairs[l].Add(features[l], features[l + 1]);
            _rows[l].Add(features[l], features[l + 1]);
        }
    }

    /// <summary>The measures over all samples so far; more may be added afterwards.</summary>
    /// <exception cref="InputException">No sample was added.</exception>
    public LayerSimilarities Result()
    {
        if (Samples == 0)
            throw new InputException("no samples were added: similarity needs at least one");
        var terms = _layers.Select(m => m.Terms).ToArray();
        return new LayerSimilarities([.. _pairs.Select((pair, l) =>
            PairSimilarity.From(Samples, terms[l], terms[l + 1], pair.Inner, pair.Unbiased, _rows[l]))]);
    }
}
