using System.Numerics.Tensors;

namespace NativeLora.Adapters;

/// <summary>
/// The best approximation of a given rank to a sum of products BA (Eckart and Young 1936), in fp64, without the product's matrix: with
/// Q an orthonormal basis of all B's columns the sum is Q·P, and P = Qᵀ·Σ BA has as few rows as the ranks add up to.
/// </summary>
internal static class FactorProduct
{
    /// <summary>A with orthonormal rows and B with columns of falling singular values as their lengths; where the rank exceeds the sum's, zeros.</summary>
    /// <param name="parts">The factors.</param>
    /// <param name="rank">The rank of the result.</param>
    public static (float[] A, float[] B) Truncate(IReadOnlyList<CombinedPart> parts, int rank)
    {
        var (height, width) = (parts[0].Out, parts[0].In);
        var columns = parts.SelectMany(Columns).ToArray();
        var q = Basis(columns);
        var (a, b) = (new float[(long)rank * width], new float[(long)height * rank]);
        if (q.Count == 0)
            return (a, b);

        var p = new double[q.Count][];
        for (var i = 0; i < p.Length; i++)
            p[i] = new double[width];
        var row = new double[width];
        var at = 0;
        foreach (var part in parts)
            for (var r = 0; r < part.Rank; r++, at++)
            {
                TensorPrimitives.ConvertTruncating<float, double>(part.A.AsSpan(r * width, width), row);
                for (var i = 0; i < p.Length; i++)
                    TensorPrimitives.MultiplyAdd(row, TensorPrimitives.Dot<double>(q[i], columns[at]), p[i], p[i]);
            }

        var gram = new double[p.Length * p.Length];
        for (var i = 0; i < p.Length; i++)
            for (var j = 0; j < p.Length; j++)
                gram[(i * p.Length) + j] = TensorPrimitives.Dot<double>(p[Math.Max(i, j)], p[Math.Min(i, j)]);
        var vectors = SymmetricEigen.Largest(gram, p.Length, Math.Min(rank, Math.Min(p.Length, width))).Vectors;
        for (var k = 0; k < vectors.Length; k++)
        {
            // u = Q·v and σ·w = Pᵀ·v, so u·(σ·w)ᵀ is exact even where σ is all rounding.
            var (left, right) = (Combine(q, vectors[k]), Combine(p, vectors[k]));
            var sigma = TensorPrimitives.Norm<double>(right);
            if (sigma == 0)
                continue;
            for (var j = 0; j < width; j++)
                a[(k * width) + j] = (float)(right[j] / sigma);
            for (var o = 0; o < height; o++)
                b[(o * rank) + k] = (float)(left[o] * sigma);
        }
        return (a, b);
    }

    /// <summary>The columns of B, weighted.</summary>
    private static IEnumerable<double[]> Columns(CombinedPart part)
    {
        for (var r = 0; r < part.Rank; r++)
        {
            var column = new double[part.Out];
            for (var o = 0; o < column.Length; o++)
                column[o] = part.Factor * part.B[(o * part.Rank) + r];
            yield return column;
        }
    }

    /// <summary>Gram and Schmidt's method, each vector twice; one that depends on those before is left out.</summary>
    private static List<double[]> Basis(double[][] columns)
    {
        var basis = new List<double[]>();
        foreach (var column in columns)
        {
            var v = column.AsSpan().ToArray();
            var before = TensorPrimitives.Norm<double>(v);
            for (var pass = 0; pass < 2; pass++)
                foreach (var q in basis)
                    TensorPrimitives.MultiplyAdd(q, -TensorPrimitives.Dot<double>(q, v), v, v);
            var norm = TensorPrimitives.Norm<double>(v);
            if (!(norm > 1e-13 * before))
                continue;
            TensorPrimitives.Multiply(v, 1 / norm, v);
            basis.Add(v);
        }
        return basis;
    }

    private static double[] Combine(IReadOnlyList<double[]> rows, double[] factors)
    {
        var sum = new double[rows[0].Length];
        for (var i = 0; i < rows.Count; i++)
            TensorPrimitives.MultiplyAdd(rows[i], factors[i], sum, sum);
        return sum;
    }
}
