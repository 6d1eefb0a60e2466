namespace NativeLora.Ops;

/// <summary>
/// Which row of a table of relative embeddings stands for a distance between query and key. Near distances have a row each; with
/// buckets, far ones share rows on a logarithmic scale (He et al. 2021, DeBERTa; the scale of mDeBERTa and DeBERTa-v3).
/// </summary>
public sealed class RelativePositions
{
    private readonly int[] _rows;

    /// <summary>Makes the rows of all distances that occur.</summary>
    /// <param name="maxLength">Tokens of the longest sequence.</param>
    /// <param name="buckets">Buckets a side; 0 for a row of its own for each distance.</param>
    /// <param name="maxPosition">Distance that the logarithmic scale ends at; without buckets, the rows a side.</param>
    public RelativePositions(int maxLength, int buckets, int maxPosition)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(maxLength, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(buckets);
        ArgumentOutOfRangeException.ThrowIfLessThan(maxPosition, 1);
        Sizes = (maxLength, buckets, maxPosition);
        MaxLength = maxLength;
        Span = buckets > 0 ? buckets : maxPosition;
        _rows = new int[2 * maxLength - 1];
        for (var i = 0; i < _rows.Length; i++)
        {
            var distance = i - (maxLength - 1);
            var bucket = buckets > 0 ? Bucket(distance, buckets, maxPosition) : distance;
            _rows[i] = (int)Math.Clamp(bucket + Span, 0, 2L * Span - 1);
        }
    }

    /// <summary>Tokens of the longest sequence.</summary>
    public int MaxLength { get; }

    /// <summary>Rows of the table a side.</summary>
    public int Span { get; }

    /// <summary>What it was made of: two of the same sizes are the same.</summary>
    internal (int MaxLength, int Buckets, int MaxPosition) Sizes { get; }

    /// <summary>Rows of the table by distance plus <see cref="MaxLength"/> - 1.</summary>
    public ReadOnlySpan<int> Rows => _rows;

    /// <summary>Whether the logarithmic scale is defined for these sizes.</summary>
    public static bool IsDefined(int buckets, int maxPosition) => buckets / 2 >= 1 && maxPosition - 1 != buckets / 2;

    /// <summary>Bucket of a distance: itself up to half the buckets, then on a logarithmic scale; in fp32, as the reference computes it.</summary>
    public static long Bucket(int distance, int buckets, int maxPosition)
    {
        var middle = buckets / 2;
        var far = Math.Abs(distance);
        if (far <= middle)
            return distance;
        var scale = MathF.Log((float)((maxPosition - 1) / (double)middle));
        var log = MathF.Ceiling(MathF.Log((float)far / middle) / scale * (middle - 1)) + middle;
        return (long)log * Math.Sign(distance);
    }
}
