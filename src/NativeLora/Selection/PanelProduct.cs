using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace NativeLora.Selection;

/// <summary>A row-major fp64 matrix whose rows and columns are padded with zeros to whole tiles.</summary>
internal sealed class PaddedMatrix
{
    public PaddedMatrix(int rows, int columns)
    {
        Rows = rows;
        Columns = columns;
        Stride = PanelProduct.RoundUp(columns, PanelProduct.TileColumns);
        var size = (long)PanelProduct.RoundUp(rows, PanelProduct.TileColumns) * Stride;
        if (size > Array.MaxLength)
            throw new InputException($"a matrix of {rows} by {columns} is too large to hold: compare fewer samples, or use the covariance form");
        Values = new double[size];
    }

    public int Rows { get; }

    public int Columns { get; }

    public int Stride { get; }

    public double[] Values { get; }

    public Span<double> Row(int row) => Values.AsSpan(row * Stride, Columns);

    /// <summary>Copies the upper triangle over the lower one.</summary>
    public void Mirror()
    {
        // Rows of the lower triangle by groups, so that the columns read for them are whole cache lines.
        const int Group = 8;
        for (var first = 0; first < Rows; first += Group)
            for (var j = 0; j < Math.Min(Rows, first + Group); j++)
                for (var i = Math.Max(first, j + 1); i < Math.Min(Rows, first + Group); i++)
                    Values[i * Stride + j] = Values[j * Stride + i];
    }

    /// <summary>Σ_ij this_ij other_ij, of two matrices of the same size.</summary>
    public double Inner(PaddedMatrix other) => TensorPrimitives.Dot<double>(Values, other.Values);
}

/// <summary>
/// fp64 matrix products for Gram and covariance matrices. Both operands are packed into panels of 8 columns by k, so that one
/// tile kernel (8 x 16, all sums in registers) serves XᵀY and XXᵀ. Sums run in a fixed order.
/// </summary>
internal sealed class PanelProduct
{
    public const int TileColumns = 16;
    private const int Panel = 8;
    private const int Depth = 256;

    private double[] _left = [];
    private double[] _right = [];

    public static int RoundUp(int value, int multiple) => checked((value + multiple - 1) / multiple * multiple);

    /// <summary>target += Σ_k x_k ⊗ y_k over the first <paramref name="count"/> rows. With <paramref name="symmetric"/>
    /// y is x and only tiles that touch the upper triangle are computed.</summary>
    public void AddOuter(ReadOnlySpan<double> x, int strideX, ReadOnlySpan<double> y, int strideY, int count, PaddedMatrix target, bool symmetric)
    {
        for (var from = 0; from < count; from += Depth)
        {
            var depth = Math.Min(Depth, count - from);
            var left = PackColumns(ref _left, x[(from * strideX)..], strideX, target.Rows, depth);
            var right = symmetric ? left : PackColumns(ref _right, y[(from * strideY)..], strideY, target.Columns, depth);
            Multiply(left, right, depth, target, symmetric);
        }
    }

    /// <summary>target += X Xᵀ for row-major X [n, d], then mirrored.</summary>
    public void AddGram(ReadOnlySpan<double> x, int columns, PaddedMatrix target)
    {
        for (var from = 0; from < columns; from += Depth)
        {
            var depth = Math.Min(Depth, columns - from);
            var packed = PackRows(ref _left, x, columns, target.Rows, from, depth);
            Multiply(packed, packed, depth, target, symmetric: true);
        }
        target.Mirror();
    }

    private static ReadOnlySpan<double> PackColumns(ref double[] store, ReadOnlySpan<double> source, int stride, int columns, int depth)
    {
        var packed = Space(ref store, columns, depth);
        for (var at = 0; at * Panel < columns; at++)
        {
            var width = Math.Min(Panel, columns - at * Panel);
            var panel = packed.Slice(at * depth * Panel, depth * Panel);
            for (var k = 0; k < depth; k++)
                source.Slice(k * stride + at * Panel, width).CopyTo(panel[(k * Panel)..]);
        }
        return packed;
    }

    private static ReadOnlySpan<double> PackRows(ref double[] store, ReadOnlySpan<double> source, int stride, int rows, int from, int depth)
    {
        var packed = Space(ref store, rows, depth);
        for (var row = 0; row < rows; row++)
        {
            var panel = packed.Slice(row / Panel * depth * Panel, depth * Panel);
            var values = source.Slice(row * stride + from, depth);
            var at = row % Panel;
            for (var k = 0; k < values.Length; k++)
                panel[k * Panel + at] = values[k];
        }
        return packed;
    }

    private static Span<double> Space(ref double[] store, int columns, int depth)
    {
        var size = checked(RoundUp(columns, TileColumns) * depth);
        if (store.Length < size)
            store = new double[size];
        var packed = store.AsSpan(0, size);
        // Only the last panels have padding, and it must not keep what an earlier product left there.
        packed[(columns / Panel * depth * Panel)..].Clear();
        return packed;
    }

    private static void Multiply(ReadOnlySpan<double> left, ReadOnlySpan<double> right, int depth, PaddedMatrix target, bool symmetric)
    {
        var step = depth * Panel;
        for (var j = 0; j < target.Columns; j += TileColumns)
        {
            var y0 = right.Slice(j / Panel * step, step);
            var y1 = right.Slice((j / Panel + 1) * step, step);
            for (var i = 0; i < target.Rows && !(symmetric && i >= j + TileColumns); i += Panel)
            {
                var x = left.Slice(i / Panel * step, step);
                var tile = target.Values.AsSpan(i * target.Stride + j, (Panel - 1) * target.Stride + TileColumns);
                if (Vector512.IsHardwareAccelerated)
                {
                    Tile512(x, y0, y1, tile, target.Stride);
                }
                else
                {
                    for (var half = 0; half < 2; half++)
                    {
                        Tile256(x, 4 * half, y0, tile[(4 * half * target.Stride)..], target.Stride);
                        Tile256(x, 4 * half, y1, tile[(4 * half * target.Stride + Panel)..], target.Stride);
                    }
                }
            }
        }
    }

    /// <summary>A depth of a panel: read as one value, its lanes need no check each.</summary>
    private readonly record struct Lanes(double A, double B, double C, double D, double E, double F, double G, double H);

    private static void Tile512(ReadOnlySpan<double> x, ReadOnlySpan<double> y0, ReadOnlySpan<double> y1, Span<double> tile, int stride)
    {
        var left = MemoryMarshal.Cast<double, Lanes>(x);
        var right0 = MemoryMarshal.Cast<double, Vector512<double>>(y0)[..left.Length];
        var right1 = MemoryMarshal.Cast<double, Vector512<double>>(y1)[..left.Length];
        Vector512<double> a0 = default, a1 = default, b0 = default, b1 = default, c0 = default, c1 = default, d0 = default, d1 = default;
        Vector512<double> e0 = default, e1 = default, f0 = default, f1 = default, g0 = default, g1 = default, h0 = default, h1 = default;
        for (var k = 0; k < left.Length; k++)
        {
            ref readonly var s = ref left[k];
            var r0 = right0[k];
            var r1 = right1[k];
            var v = Vector512.Create(s.A);
            a0 = Vector512.FusedMultiplyAdd(v, r0, a0);
            a1 = Vector512.FusedMultiplyAdd(v, r1, a1);
            v = Vector512.Create(s.B);
            b0 = Vector512.FusedMultiplyAdd(v, r0, b0);
            b1 = Vector512.FusedMultiplyAdd(v, r1, b1);
            v = Vector512.Create(s.C);
            c0 = Vector512.FusedMultiplyAdd(v, r0, c0);
            c1 = Vector512.FusedMultiplyAdd(v, r1, c1);
            v = Vector512.Create(s.D);
            d0 = Vector512.FusedMultiplyAdd(v, r0, d0);
            d1 = Vector512.FusedMultiplyAdd(v, r1, d1);
            v = Vector512.Create(s.E);
            e0 = Vector512.FusedMultiplyAdd(v, r0, e0);
            e1 = Vector512.FusedMultiplyAdd(v, r1, e1);
            v = Vector512.Create(s.F);
            f0 = Vector512.FusedMultiplyAdd(v, r0, f0);
            f1 = Vector512.FusedMultiplyAdd(v, r1, f1);
            v = Vector512.Create(s.G);
            g0 = Vector512.FusedMultiplyAdd(v, r0, g0);
            g1 = Vector512.FusedMultiplyAdd(v, r1, g1);
            v = Vector512.Create(s.H);
            h0 = Vector512.FusedMultiplyAdd(v, r0, h0);
            h1 = Vector512.FusedMultiplyAdd(v, r1, h1);
        }
        Store(tile, a0, a1);
        Store(tile[stride..], b0, b1);
        Store(tile[(2 * stride)..], c0, c1);
        Store(tile[(3 * stride)..], d0, d1);
        Store(tile[(4 * stride)..], e0, e1);
        Store(tile[(5 * stride)..], f0, f1);
        Store(tile[(6 * stride)..], g0, g1);
        Store(tile[(7 * stride)..], h0, h1);

        static void Store(Span<double> row, Vector512<double> low, Vector512<double> high)
        {
            (Vector512.Create<double>(row) + low).CopyTo(row);
            (Vector512.Create<double>(row[Panel..]) + high).CopyTo(row[Panel..]);
        }
    }

    private static void Tile256(ReadOnlySpan<double> x, int offset, ReadOnlySpan<double> y, Span<double> tile, int stride)
    {
        var right = MemoryMarshal.Cast<double, Vector256<double>>(y);
        Vector256<double> a0 = default, a1 = default, b0 = default, b1 = default, c0 = default, c1 = default, d0 = default, d1 = default;
        for (var k = 0; 2 * k + 1 < right.Length; k++)
        {
            var s = x.Slice(k * Panel + offset, 4);
            var r0 = right[2 * k];
            var r1 = right[2 * k + 1];
            var v = Vector256.Create(s[0]);
            a0 = Vector256.MultiplyAddEstimate(v, r0, a0);
            a1 = Vector256.MultiplyAddEstimate(v, r1, a1);
            v = Vector256.Create(s[1]);
            b0 = Vector256.MultiplyAddEstimate(v, r0, b0);
            b1 = Vector256.MultiplyAddEstimate(v, r1, b1);
            v = Vector256.Create(s[2]);
            c0 = Vector256.MultiplyAddEstimate(v, r0, c0);
            c1 = Vector256.MultiplyAddEstimate(v, r1, c1);
            v = Vector256.Create(s[3]);
            d0 = Vector256.MultiplyAddEstimate(v, r0, d0);
            d1 = Vector256.MultiplyAddEstimate(v, r1, d1);
        }
        Store(tile, a0, a1);
        Store(tile[stride..], b0, b1);
        Store(tile[(2 * stride)..], c0, c1);
        Store(tile[(3 * stride)..], d0, d1);

        static void Store(Span<double> row, Vector256<double> low, Vector256<double> high)
        {
            (Vector256.Create<double>(row) + low).CopyTo(row);
            (Vector256.Create<double>(row[4..]) + high).CopyTo(row[4..]);
        }
    }
}
