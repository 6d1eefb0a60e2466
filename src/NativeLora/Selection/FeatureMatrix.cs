using System.Numerics.Tensors;

namespace NativeLora.Selection;

/// <summary>The representation of each sample at one layer: <see cref="Rows"/> samples by <see cref="Columns"/> features, fp32, row-major.</summary>
public sealed class FeatureMatrix
{
    private readonly float[] _values;

    /// <summary>Wraps values without copying them.</summary>
    /// <param name="rows">Number of samples, at least 1.</param>
    /// <param name="columns">Number of features, at least 1.</param>
    /// <param name="values">Row-major values; exactly rows * columns of them.</param>
    /// <exception cref="InputException">The sizes do not fit.</exception>
    public FeatureMatrix(int rows, int columns, float[] values)
    {
        ArgumentNullException.ThrowIfNull(values);
        if (rows < 1 || columns < 1)
            throw new InputException($"features of {rows} samples by {columns} columns: both must be at least 1");
        if ((long)rows * columns != values.LongLength)
            throw new InputException($"features of {rows} samples by {columns} columns need {(long)rows * columns} values, not {values.LongLength}");
        Rows = rows;
        Columns = columns;
        _values = values;
    }

    /// <summary>Number of samples, n.</summary>
    public int Rows { get; }

    /// <summary>Number of features, d.</summary>
    public int Columns { get; }

    /// <summary>All values, row-major.</summary>
    public ReadOnlySpan<float> Values => _values;

    /// <summary>The features of one sample.</summary>
    /// <param name="row">Index of the sample.</param>
    public ReadOnlySpan<float> Row(int row) => _values.AsSpan(row * Columns, Columns);

    /// <summary>A copy of some rows, in the given order; a row may appear more than once.</summary>
    /// <param name="rows">Indices of samples, at least one.</param>
    /// <exception cref="InputException">No row, or one that does not exist.</exception>
    public FeatureMatrix Take(ReadOnlySpan<int> rows)
    {
        var taken = new float[(long)rows.Length * Columns];
        for (var i = 0; i < rows.Length; i++)
        {
            if ((uint)rows[i] >= (uint)Rows)
                throw new InputException($"sample {rows[i]} is not among the {Rows} samples");
            Row(rows[i]).CopyTo(taken.AsSpan(i * Columns));
        }
        return new FeatureMatrix(rows.Length, Columns, taken);
    }

    /// <summary>Throws if a value is infinite or not a number: no similarity would mean anything.</summary>
    internal void RequireFinite(string name)
    {
        if (TensorPrimitives.IsFiniteAll<float>(_values))
            return;
        for (var i = 0; i < _values.Length; i++)
        {
            if (!float.IsFinite(_values[i]))
                throw new RunException($"{name}: sample {i / Columns}, column {i % Columns} is {_values[i]}; the forward pass overflowed or the weights are damaged: try fp32");
        }
    }
}
