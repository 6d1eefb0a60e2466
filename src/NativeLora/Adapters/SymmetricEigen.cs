using System.Numerics;
using System.Numerics.Tensors;
using System.Runtime.InteropServices;

namespace NativeLora.Adapters;

/// <summary>
/// Eigenvalues and -vectors of a symmetric matrix in fp64: Householder's tridiagonal form and the QL method with implicit shifts
/// (Bowdler, Martin, Reinsch and Wilkinson 1968), all at full accuracy.
/// </summary>
internal static class SymmetricEigen
{
    private const double Epsilon = 2.220446049250313e-16;

    // QL takes two or three rounds an eigenvalue; this many mean that the numbers are not finite.
    private const int MaxRounds = 200;

    /// <summary>The largest eigenvalues, falling, with their vectors [count][n].</summary>
    /// <param name="matrix">[n, n], both halves filled; it is overwritten.</param>
    /// <param name="n">Rows.</param>
    /// <param name="count">How many are wanted.</param>
    /// <exception cref="ArithmeticException">The matrix has values that are not finite.</exception>
    public static (double[] Values, double[][] Vectors) Largest(double[] matrix, int n, int count)
    {
        var (d, e, factors) = (new double[n], new double[n], new double[n]);
        Reduce(matrix, n, d, e, factors);
        var rotations = Ql(d, e, n);
        var order = Enumerable.Range(0, n).OrderByDescending(i => d[i]).Take(count).ToArray();
        var vectors = new double[count][];
        for (var i = 0; i < count; i++)
        {
            var vector = vectors[i] = rotations.AsSpan(order[i] * n, n).ToArray();
            for (var k = n - 3; k >= 0; k--)
            {
                var v = matrix.AsSpan((k * n) + k + 1, n - k - 1);
                var part = vector.AsSpan(k + 1);
                TensorPrimitives.MultiplyAdd(v, -factors[k] * TensorPrimitives.Dot<double>(v, part), part, part);
            }
        }
        return ([.. order.Select(i => d[i])], vectors);
    }

    /// <summary>Tridiagonal form: diagonal d, off-diagonal e. Row k keeps its reflector right of the diagonal: I - factor·v vᵀ.</summary>
    private static void Reduce(double[] a, int n, double[] d, double[] e, double[] factors)
    {
        var (p, q) = (new double[n], new double[n]);
        for (var k = 0; k < n; k++)
        {
            d[k] = a[(k * n) + k];
            if (k == n - 1)
                break;
            var v = a.AsSpan((k * n) + k + 1, n - k - 1);
            e[k] = v[0];
            if (k >= n - 2)
                continue;
            var rest = TensorPrimitives.SumOfSquares<double>(v[1..]);
            if (rest == 0)
                continue;
            var norm = Math.Sqrt((v[0] * v[0]) + rest);
            e[k] = v[0] > 0 ? -norm : norm;
            v[0] -= e[k];
            var factor = factors[k] = 2 / ((v[0] * v[0]) + rest);
            var m = n - k - 1;
            var pk = p.AsSpan(0, m);
            var qk = q.AsSpan(0, m);
            for (var i = 0; i < m; i++)
                pk[i] = factor * TensorPrimitives.Dot<double>(a.AsSpan(((k + 1 + i) * n) + k + 1, m), v);
            TensorPrimitives.MultiplyAdd(v, -0.5 * factor * TensorPrimitives.Dot<double>(v, pk), pk, qk);
            for (var i = 0; i < m; i++)
            {
                var row = a.AsSpan(((k + 1 + i) * n) + k + 1, m);
                TensorPrimitives.MultiplyAdd(qk, -v[i], row, row);
                TensorPrimitives.MultiplyAdd(v, -qk[i], row, row);
            }
        }
    }

    /// <summary>Diagonalises; d becomes the eigenvalues, the rows of the result their vectors.</summary>
    private static double[] Ql(double[] d, double[] e, int n)
    {
        var z = new double[(long)n * n];
        for (var i = 0; i < n; i++)
            z[(i * n) + i] = 1;
        double shift = 0, largest = 0;
        for (var l = 0; l < n; l++)
        {
            largest = Math.Max(largest, Math.Abs(d[l]) + Math.Abs(e[l]));
            var m = l;
            while (m < n - 1 && Math.Abs(e[m]) > Epsilon * largest)
                m++;
            for (var round = 0; m > l && Math.Abs(e[l]) > Epsilon * largest; round++)
            {
                if (round == MaxRounds || !double.IsFinite(largest))
                    throw new ArithmeticException("the matrix has values that are not finite");
                var g = d[l];
                var p = (d[l + 1] - g) / (2 * e[l]);
                var r = double.Hypot(p, 1);
                if (p < 0)
                    r = -r;
                d[l] = e[l] / (p + r);
                d[l + 1] = e[l] * (p + r);
                var next = d[l + 1];
                var h = g - d[l];
                for (var i = l + 2; i < n; i++)
                    d[i] -= h;
                shift += h;
                p = d[m];
                double c = 1, c2 = 1, c3 = 1, s = 0, s2 = 0;
                var after = e[l + 1];
                for (var i = m - 1; i >= l; i--)
                {
                    (c3, c2, s2) = (c2, c, s);
                    g = c * e[i];
                    h = c * p;
                    r = double.Hypot(p, e[i]);
                    e[i + 1] = s * r;
                    s = e[i] / r;
                    c = p / r;
                    p = (c * d[i]) - (s * g);
                    d[i + 1] = h + (s * ((c * g) + (s * d[i])));
                    Rotate(z.AsSpan(i * n, n), z.AsSpan((i + 1) * n, n), c, s);
                }
                p = -s * s2 * c3 * after * e[l] / next;
                e[l] = s * p;
                d[l] = c * p;
            }
            d[l] += shift;
            e[l] = 0;
        }
        return z;
    }

    private static void Rotate(Span<double> first, Span<double> second, double c, double s)
    {
        var x = MemoryMarshal.Cast<double, Vector<double>>(first);
        var y = MemoryMarshal.Cast<double, Vector<double>>(second);
        var (cv, sv) = (new Vector<double>(c), new Vector<double>(s));
        for (var i = 0; i < x.Length; i++)
        {
            var (a, b) = (x[i], y[i]);
            y[i] = (sv * a) + (cv * b);
            x[i] = (cv * a) - (sv * b);
        }
        for (var i = x.Length * Vector<double>.Count; i < first.Length; i++)
        {
            var (a, b) = (first[i], second[i]);
            second[i] = (s * a) + (c * b);
            first[i] = (c * a) - (s * b);
        }
    }
}
