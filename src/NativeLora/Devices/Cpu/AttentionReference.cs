using NativeLora.Ops;

namespace NativeLora.Devices.Cpu;

/// <summary>Attention and its gradients as plain scalar loops in double: what the fast kernels are compared with.</summary>
internal sealed class AttentionReference
{
    public required double[] Q, K, V;
    public required int[] CuSeqlens;
    public int[]? KeyVisible;
    public required int Heads, KvHeads, HeadDim;
    public required double Scale;
    public bool Causal;
    public int Window;
    public double Softcap;
    public float Dropout;
    public ulong Seed;
    public uint Stream, Step;

    /// <summary>Relative keys and queries [rows, Heads * HeadDim] of disentangled attention, and the row of each distance.</summary>
    public double[]? RelativeKeys, RelativeQueries;
    public RelativePositions? Positions;

    /// <summary>Gradients of the relative keys and queries, after <see cref="Backward"/>.</summary>
    public double[] DRelativeKeys = [], DRelativeQueries = [];

    /// <summary>Output [tokens, Heads * HeadDim] and log-sum-exp [tokens, Heads].</summary>
    public (double[] Out, double[] Lse) Forward()
    {
        var output = new double[Q.Length];
        var lse = new double[Q.Length / HeadDim];
        ForEachQuery((start, length, i, head, weights) =>
        {
            lse[(start + i) * Heads + head] = Weights(start, length, i, head, weights);
            for (var j = 0; j < length; j++)
            {
                var w = weights[j] * Factor(start, i, j, head);
                for (var d = 0; d < HeadDim; d++)
                    output[QueryAt(start + i, head) + d] += w * V[KeyAt(start + j, head) + d];
            }
        });
        return (output, lse);
    }

    /// <summary>Gradients of sum(dOut * Out).</summary>
    public (double[] DQ, double[] DK, double[] DV) Backward(double[] dOut)
    {
        var dq = new double[Q.Length];
        var dk = new double[K.Length];
        var dv = new double[V.Length];
        DRelativeKeys = new double[RelativeKeys?.Length ?? 0];
        DRelativeQueries = new double[RelativeQueries?.Length ?? 0];
        ForEachQuery((start, length, i, head, weights) =>
        {
            Weights(start, length, i, head, weights);
            var q = QueryAt(start + i, head);
            var slopes = Slopes(start, length, i, head);
            var dWeights = new double[length];
            double dot = 0;
            for (var j = 0; j < length; j++)
            {
                var k = KeyAt(start + j, head);
                var factor = Factor(start, i, j, head);
                for (var d = 0; d < HeadDim; d++)
                {
                    dWeights[j] += factor * dOut[q + d] * V[k + d];
                    dv[k + d] += factor * weights[j] * dOut[q + d];
                }
                dot += weights[j] * dWeights[j];
            }
            for (var j = 0; j < length; j++)
            {
                var k = KeyAt(start + j, head);
                var dScore = weights[j] * (dWeights[j] - dot) * Scale * slopes[j];
                for (var d = 0; d < HeadDim; d++)
                {
                    dq[q + d] += dScore * K[k + d];
                    dk[k + d] += dScore * Q[q + d];
                    if (RelativeKeys is not null)
                    {
                        dq[q + d] += dScore * RelativeKeys[RelativeAt(i - j, head) + d];
                        DRelativeKeys[RelativeAt(i - j, head) + d] += dScore * Q[q + d];
                    }
                    if (RelativeQueries is not null)
                    {
                        dk[k + d] += dScore * RelativeQueries[RelativeAt(i - j, head) + d];
                        DRelativeQueries[RelativeAt(i - j, head) + d] += dScore * K[k + d];
                    }
                }
            }
        });
        return (dq, dk, dv);
    }

    /// <summary>Whether the mask lets query i see key j, both counted in the sequence from token <paramref name="start"/>.</summary>
    public bool Sees(int start, int i, int j)
    {
        if (KeyVisible is not null && KeyVisible[start + j] == 0)
            return false;
        if (Causal)
            return j <= i && (Window == 0 || j > i - Window);
        return Window == 0 || Math.Abs(i - j) <= Window / 2;
    }

    private void ForEachQuery(Action<int, int, int, int, double[]> body)
    {
        for (var s = 0; s + 1 < CuSeqlens.Length; s++)
        {
            int start = CuSeqlens[s], length = CuSeqlens[s + 1] - start;
            var weights = new double[length];
            for (var i = 0; i < length; i++)
            {
                for (var head = 0; head < Heads; head++)
                    body(start, length, i, head, weights);
            }
        }
    }

    // Softmax of one query's scores; returns their log-sum-exp.
    private double Weights(int start, int length, int i, int head, double[] weights)
    {
        var top = double.NegativeInfinity;
        for (var j = 0; j < length; j++)
        {
            var score = double.NegativeInfinity;
            if (Sees(start, i, j))
            {
                score = Score(start, i, j, head);
                if (Softcap > 0)
                    score = Softcap * Math.Tanh(score / Softcap);
            }
            weights[j] = score;
            top = Math.Max(top, score);
        }
        if (double.IsNegativeInfinity(top))
        {
            Array.Clear(weights);
            return top;
        }
        double sum = 0;
        for (var j = 0; j < length; j++)
            sum += weights[j] = Math.Exp(weights[j] - top);
        for (var j = 0; j < length; j++)
            weights[j] /= sum;
        return top + Math.Log(sum);
    }

    private double Score(int start, int i, int j, int head)
    {
        double score = 0;
        for (var d = 0; d < HeadDim; d++)
        {
            var (q, k) = (Q[QueryAt(start + i, head) + d], K[KeyAt(start + j, head) + d]);
            score += q * k;
            if (RelativeKeys is not null)
                score += q * RelativeKeys[RelativeAt(i - j, head) + d];
            if (RelativeQueries is not null)
                score += k * RelativeQueries[RelativeAt(i - j, head) + d];
        }
        return score * Scale;
    }

    // Of the capped scores by the scores: 1 / cosh².
    private double[] Slopes(int start, int length, int i, int head) =>
        [.. Enumerable.Range(0, length).Select(j => Softcap > 0 ? Math.Pow(Math.Cosh(Score(start, i, j, head) / Softcap), -2) : 1)];

    private double Factor(int start, int i, int j, int head)
    {
        if (Dropout == 0f)
            return 1;
        var index = Philox.AttentionIndex(start + i, Heads, head, j);
        return Philox.Keep(Seed, Stream, Step, index, Philox.Threshold(Dropout)) ? Philox.KeepScale(Dropout) : 0;
    }

    private int RelativeAt(int distance, int head) => (Positions!.Rows[distance + Positions.MaxLength - 1] * Heads + head) * HeadDim;

    private int QueryAt(int token, int head) => (token * Heads + head) * HeadDim;

    private int KeyAt(int token, int head) => (token * KvHeads + head / (Heads / KvHeads)) * HeadDim;
}
