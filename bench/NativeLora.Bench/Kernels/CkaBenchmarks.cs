using BenchmarkDotNet.Attributes;
using NativeLora.Bench.Compare;
using NativeLora.Selection;

namespace NativeLora.Bench.Kernels;

/// <summary>Features of n samples by d columns.</summary>
public sealed record FeatureWork(int Samples, int Columns) : Work($"n {Samples} d {Columns}", 0, 0);

/// <summary>CKA of two layers from n x n Gram matrices and from d x d covariances.</summary>
public class CkaBenchmarks
{
    private FeatureMatrix _x = null!, _y = null!;

    /// <summary>Fewer samples than features, and more.</summary>
    public static IEnumerable<FeatureWork> Shapes => [new(128, 384), new(128, 576), new(500, 768), new(2000, 384), new(2000, 768)];

    /// <summary>The one at hand.</summary>
    [ParamsSource(nameof(Shapes))]
    public FeatureWork Shape { get; set; } = null!;

    /// <summary>Makes the features.</summary>
    [GlobalSetup]
    public void Setup()
    {
        var (n, d) = (Shape.Samples, Shape.Columns);
        (_x, _y) = (new FeatureMatrix(n, d, Values.Normal(n * d, 1)), new FeatureMatrix(n, d, Values.Normal(n * d, 2)));
    }

    /// <summary>K = X Xᵀ.</summary>
    [Benchmark(Baseline = true)]
    public PairSimilarity Gram() => LinearCka.Compare(_x, _y, CkaForm.Gram);

    /// <summary>Xᵀ Y, streamed.</summary>
    [Benchmark]
    public PairSimilarity Covariance() => LinearCka.Compare(_x, _y, CkaForm.Covariance);
}
