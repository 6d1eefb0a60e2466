using System.Runtime.InteropServices;
using NativeLora.Selection;

namespace NativeLora.Devices.Cuda;

/// <summary>Linear CKA of features on the device: centred Gram matrices in fp64, and their HSIC terms. Only these and the moments of columns come back.</summary>
internal sealed class CudaCka(CudaDevice device)
{
    private const int TileRows = 64, RowTerms = 7, Terms = 11;

    private readonly CudaFunction _means = device.Function("gram_means_f32");
    private readonly CudaFunction _gram = device.Function("gram_centred_f32");
    private readonly CudaFunction _rows = device.Function("cka_rows_f64");
    private readonly CudaFunction _sum = device.Function("cka_sum_f64");

    [StructLayout(LayoutKind.Sequential)]
    private struct GramMeansArgs
    {
        public nint Features, Mean, Variance;
        public int N, D;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct GramArgs
    {
        public nint Features, Mean, Gram;
        public int N, D;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct CkaRowsArgs
    {
        public nint K, L, Rows;
        public long N;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct CkaSumArgs
    {
        public nint Rows, Sums;
        public long N;
    }

    /// <summary>The centred Gram matrix of the features of one layer.</summary>
    /// <param name="features">Device address of [n, d] fp32.</param>
    /// <param name="n">Samples, at least 1.</param>
    /// <param name="d">Features, at least 1.</param>
    public CudaGram Gram(nint features, int n, int d)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(n, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(d, 1);
        using var moments = device.Allocate(16L * d);
        var gram = device.Allocate(8L * n * n);
        try
        {
            var means = new GramMeansArgs { Features = features, Mean = moments.Address, Variance = moments.Address + ((nint)d * 8), N = n, D = d };
            _means.Launch((d + 127) / 128, 128, in means);
            var product = new GramArgs { Features = features, Mean = moments.Address, Gram = gram.Address, N = n, D = d };
            var tiles = (n + TileRows - 1) / TileRows;
            _gram.Launch(tiles, tiles, 1, 256, 0, in product);
            var values = new double[2 * d];
            moments.Read(0, MemoryMarshal.AsBytes(values.AsSpan()));
            return new CudaGram(gram, n, Hsic.IsConstant(values.AsSpan(0, d), values.AsSpan(d)));
        }
        catch
        {
            gram.Dispose();
            throw;
        }
    }

    /// <summary>Every term of two Gram matrices of the same samples.</summary>
    public CudaCkaTerms Compare(CudaGram x, CudaGram y)
    {
        if (x.Samples != y.Samples)
            throw new InputException($"features of {x.Samples} and of {y.Samples} samples: similarity needs the same samples on both sides");
        using var rows = device.Allocate(8L * RowTerms * x.Samples);
        using var sums = device.Allocate(8L * Terms);
        var byRow = new CkaRowsArgs { K = x.Values.Address, L = y.Values.Address, Rows = rows.Address, N = x.Samples };
        _rows.Launch(x.Samples, 256, in byRow);
        var total = new CkaSumArgs { Rows = rows.Address, Sums = sums.Address, N = x.Samples };
        _sum.Launch(1, 256, in total);
        var s = new double[Terms];
        sums.Read(0, MemoryMarshal.AsBytes(s.AsSpan()));
        double n = x.Samples;
        double Unbiased(double inner, double diagonals, double sumX, double sumY, double rowSums) =>
            n < 4 ? 0 : inner - diagonals + (sumX * sumY / ((n - 1) * (n - 2))) - (2 / (n - 2) * rowSums);
        return new CudaCkaTerms(x.Samples, s[0], Unbiased(s[0], s[3], s[9], s[10], s[6]),
            new LayerTerms(s[1], Unbiased(s[1], s[4], s[9], s[9], s[7]), x.IsConstant), new LayerTerms(s[2], Unbiased(s[2], s[5], s[10], s[10], s[8]), y.IsConstant));
    }
}

/// <summary>A centred Gram matrix on the device, [n, n] fp64.</summary>
internal sealed class CudaGram(DeviceBuffer values, int samples, bool isConstant) : IDisposable
{
    /// <summary>Its bytes.</summary>
    public DeviceBuffer Values { get; } = values;

    /// <summary>n.</summary>
    public int Samples { get; } = samples;

    /// <summary>Whether the features are the same in every sample, up to rounding.</summary>
    public bool IsConstant { get; } = isConstant;

    public void Dispose() => Values.Dispose();
}

/// <summary>What the CKA of two layers is made of.</summary>
/// <param name="Samples">n.</param>
/// <param name="Inner">⟨K, L⟩.</param>
/// <param name="Unbiased">n(n-3) times the unbiased HSIC.</param>
/// <param name="X">Terms of the one layer.</param>
/// <param name="Y">Terms of the other.</param>
internal readonly record struct CudaCkaTerms(long Samples, double Inner, double Unbiased, LayerTerms X, LayerTerms Y)
{
    /// <summary>Linear CKA; null where either side is constant.</summary>
    public double? Cka => Hsic.Biased(Inner, X, Y);

    /// <summary>From the unbiased HSIC; null for n &lt; 4 or a constant side.</summary>
    public double? CkaDebiased => Hsic.Debiased(Samples, Unbiased, X, Y);
}
