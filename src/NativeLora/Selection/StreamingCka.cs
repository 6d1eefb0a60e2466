namespace NativeLora.Selection;

/// <summary>
/// Linear CKA, debiased CKA, cosine and angle of two feature matrices that come in blocks of samples. Memory O(d²) whatever the number
/// of samples: the d x d sums are kept about running means in fp64.
/// </summary>
public sealed class StreamingCka
{
    private readonly PairMoments _x;
    private readonly PairMoments _y;
    private readonly PairMoments _cross;
    private readonly RowSimilarity _rows = new();
    private readonly int _widthX;
    private readonly int _widthY;

    /// <summary>Starts empty.</summary>
    /// <param name="widthX">Columns of X.</param>
    /// <param name="widthY">Columns of Y.</param>
    public StreamingCka(int widthX, int widthY)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(widthX, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(widthY, 1);
        (_widthX, _widthY) = (widthX, widthY);
        _x = new PairMoments(widthX, widthX, symmetric: true);
        _y = new PairMoments(widthY, widthY, symmetric: true);
        _cross = new PairMoments(widthX, widthY, symmetric: false);
    }

    /// <summary>Samples added so far.</summary>
    public long Samples => _cross.Samples;

    /// <summary>Adds a block of samples. Blocks of some hundred samples are the fastest.</summary>
    /// <param name="x">Rows of X.</param>
    /// <param name="y">Rows of Y, of the same samples.</param>
    /// <exception cref="InputException">The sizes do not fit.</exception>
    /// <exception cref="RunException">A value is not finite.</exception>
    public void Add(FeatureMatrix x, FeatureMatrix y)
    {
        ArgumentNullException.ThrowIfNull(x);
        ArgumentNullException.ThrowIfNull(y);
        LinearCka.RequireSameSamples(x, y);
        if (x.Columns != _widthX || y.Columns != _widthY)
            throw new InputException($"a block of {x.Columns} and {y.Columns} columns cannot be added to sums of {_widthX} and {_widthY} columns");
        x.RequireFinite("features X");
        y.RequireFinite("features Y");
        _x.Add(x, x);
        _y.Add(y, y);
        _cross.Add(x, y);
        _rows.Add(x, y);
    }

    /// <summary>Adds all samples of another accumulator. The other keeps its samples; neither may be in use elsewhere meanwhile.</summary>
    /// <param name="other">Sums over other samples of the same widths.</param>
    /// <exception cref="InputException">The widths differ.</exception>
    public void Merge(StreamingCka other)
    {
        ArgumentNullException.ThrowIfNull(other);
        if (other == this || other._widthX != _widthX || other._widthY != _widthY)
            throw new InputException($"sums of {other._widthX} and {other._widthY} columns cannot be merged into these of {_widthX} and {_widthY} columns");
        _x.Merge(other._x);
        _y.Merge(other._y);
        _cross.Merge(other._cross);
        _rows.Merge(other._rows);
    }

    /// <summary>The measures over all samples so far; more may be added afterwards.</summary>
    /// <exception cref="InputException">No sample was added.</exception>
    public PairSimilarity Result() => Samples == 0
        ? throw new InputException("no samples were added: similarity needs at least one")
        : PairSimilarity.From(Samples, _x.Terms, _y.Terms, _cross.Inner, _cross.Unbiased, _rows);
}
