using System.Numerics.Tensors;

namespace NativeLora.Selection;

/// <summary>Cosine and angle between a sample's features before and after a layer, accumulated over samples in fp64.</summary>
internal sealed class RowSimilarity
{
    private double _cosines;
    private double _angles;
    private long _rows;
    private bool _undefined;

    /// <summary>Mean cos(x_i, y_i); null where a row is 0 or the widths differ.</summary>
    public double? Cosine => _undefined || _rows == 0 ? null : _cosines / _rows;

    /// <summary>Mean arccos(cos(x_i, y_i)) / π, 0 for equal directions and 1 for opposite ones; null as the cosine.</summary>
    public double? Angular => _undefined || _rows == 0 ? null : _angles / _rows;

    /// <summary>Adds rows; each row's cosine also goes to <paramref name="each"/> if given.</summary>
    public void Add(FeatureMatrix x, FeatureMatrix y, Span<double> each = default)
    {
        _undefined |= x.Columns != y.Columns;
        if (_undefined)
            return;
        var a = new double[x.Columns];
        var b = new double[x.Columns];
        for (var i = 0; i < x.Rows; i++)
        {
            TensorPrimitives.ConvertTruncating(x.Row(i), a.AsSpan());
            TensorPrimitives.ConvertTruncating(y.Row(i), b.AsSpan());
            var normA = TensorPrimitives.Norm<double>(a);
            var normB = TensorPrimitives.Norm<double>(b);
            if (normA == 0 || normB == 0)
            {
                _undefined = true;
                return;
            }
            var cosine = TensorPrimitives.Dot<double>(a, b) / (normA * normB);
            if (!each.IsEmpty)
                each[i] = cosine;
            _cosines += cosine;

            // 2 atan2(|u - v|, |u + v|) of the unit vectors keeps its digits at small angles, where arccos loses half of them.
            TensorPrimitives.Divide(a, normA, a);
            TensorPrimitives.Divide(b, normB, b);
            var apart = TensorPrimitives.Distance<double>(a, b);
            TensorPrimitives.Add(a, b, a);
            _angles += 2 * Math.Atan2(apart, TensorPrimitives.Norm<double>(a)) / Math.PI;
            _rows++;
        }
    }

    public void Merge(RowSimilarity other)
    {
        _undefined |= other._undefined;
        _cosines += other._cosines;
        _angles += other._angles;
        _rows += other._rows;
    }
}
