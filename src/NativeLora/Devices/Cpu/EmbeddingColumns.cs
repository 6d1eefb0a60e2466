namespace NativeLora.Devices.Cpu;

/// <summary>P[t, j] = factor·A[j, ids[t]] for A [r, entries]. The ids are range-checked before they get here.</summary>
internal sealed unsafe class EmbeddingColumnsForward(CpuThreads threads, int rank, int entries) : IParallelBody
{
    private const int TokensPerTask = 128;

    public int* Ids;
    public float* A;
    public float* Output;
    public float Factor = 1f;

    private int _rows;

    public void Execute(int rows)
    {
        _rows = rows;
        threads.For(RowMath.Tasks(rows, TokensPerTask), this);
    }

    public void Run(int task, int worker)
    {
        var end = Math.Min(_rows, (task + 1) * TokensPerTask);
        for (var t = task * TokensPerTask; t < end; t++)
        {
            var p = Output + ((long)t * rank);
            var a = A + Ids[t];
            for (var j = 0; j < rank; j++)
                p[j] = Factor * a[(long)j * entries];
        }
    }
}

/// <summary>dA[j, ids[t]] (+)= factor·dP[t, j]. Split by rows of A, tokens in order, so the sum does not depend on the threads.</summary>
internal sealed unsafe class EmbeddingColumnsBackward(CpuThreads threads, int rank, int entries) : IParallelBody
{
    public int* Ids;
    public float* Gradient;
    public float* Result;
    public float Factor = 1f;
    public bool Accumulate;

    private int _rows;

    public void Execute(int rows)
    {
        _rows = rows;
        threads.For(rank, this);
    }

    public void Run(int task, int worker)
    {
        var to = Result + ((long)task * entries);
        if (!Accumulate)
            RowMath.Clear(to, entries);
        for (var t = 0; t < _rows; t++)
            to[Ids[t]] += Factor * Gradient[((long)t * rank) + task];
    }
}
