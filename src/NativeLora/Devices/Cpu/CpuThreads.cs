using System.Diagnostics;
using System.Runtime.ExceptionServices;

namespace NativeLora.Devices.Cpu;

/// <summary>Work that is split into independent tasks. Which worker runs a task must not change the task's result.</summary>
internal interface IParallelBody
{
    /// <summary>Runs task <paramref name="task"/>; <paramref name="worker"/> is 0 to Count-1 and owns scratch of that number.</summary>
    void Run(int task, int worker);
}

/// <summary>
/// A fixed set of worker threads. The calling thread is worker 0. Workers join a job that is open; the caller waits only for
/// those that joined, so a worker that the system does not schedule delays nobody.
/// </summary>
internal sealed class CpuThreads : IDisposable
{
    // State: the job's number (upper 32 bits), whether workers may still join it, and how many are in it.
    private const long Open = 1L << 31;
    private const long Active = Open - 1;

    // Kernels follow one another within microseconds; past this, a millisecond, a worker sleeps until the next job. Not shorter: a worker
    // that was woken on its caller's processor must be seen to run beside it for a while before the system moves it to a free one.
    private static readonly long s_spinTicks = Stopwatch.Frequency / 1000;

    [ThreadStatic]
    private static CpuThreads? t_pool;

    [ThreadStatic]
    private static int t_worker;

    private readonly Lock _caller = new();
    private readonly object _sleep = new();
    private readonly object _done = new();
    private readonly Thread[] _threads;
    private readonly bool _spins;
    private long _state;
    private uint _job;
    private IParallelBody? _body;
    private int _tasks;
    private int _next;
    private Exception? _failure;
    private int _sleepers;
    private int _callerSleeps;
    private volatile bool _stop;

    public CpuThreads(int count)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        Count = count;
        // With more threads than processors a spinning thread only keeps a working one from running.
        _spins = count <= Environment.ProcessorCount;
        _threads = new Thread[count - 1];
        for (var i = 0; i < _threads.Length; i++)
        {
            var worker = i + 1;
            _threads[i] = new Thread(() => Work(worker)) { IsBackground = true, Name = $"nativelora-{worker}" };
            _threads[i].Start();
        }
    }

    /// <summary>How many workers there are, the caller included.</summary>
    public int Count { get; }

    /// <summary>
    /// Runs tasks 0 to <paramref name="tasks"/>-1 and returns when all are done. Allocates nothing. Called from within a body it
    /// runs the tasks in order on that body's worker. The first exception of a body is rethrown here; tasks not yet started are
    /// then left out.
    /// </summary>
    public void For(int tasks, IParallelBody body)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(tasks);
        if (ReferenceEquals(t_pool, this))
        {
            for (var i = 0; i < tasks; i++)
                body.Run(i, t_worker);
            return;
        }
        lock (_caller)
        {
            ObjectDisposedException.ThrowIf(_stop, this);
            var (outerPool, outerWorker) = (t_pool, t_worker);
            (t_pool, t_worker) = (this, 0);
            try
            {
                if (tasks <= 1 || Count == 1)
                {
                    for (var i = 0; i < tasks; i++)
                        body.Run(i, 0);
                }
                else
                {
                    Share(tasks, body);
                }
            }
            finally
            {
                (t_pool, t_worker) = (outerPool, outerWorker);
            }
        }
    }

    /// <summary>Ends the threads. Not to be called from within a body.</summary>
    public void Dispose()
    {
        lock (_caller)
        {
            _stop = true;
            lock (_sleep)
                Monitor.PulseAll(_sleep);
            foreach (var thread in _threads)
                thread.Join();
        }
    }

    private void Share(int tasks, IParallelBody body)
    {
        _body = body;
        _tasks = tasks;
        _next = 0;
        Interlocked.Exchange(ref _state, ((long)++_job << 32) | Open);
        if (Volatile.Read(ref _sleepers) > 0)
        {
            lock (_sleep)
            {
                for (var i = Math.Min(tasks - 1, _sleepers); i > 0; i--)
                    Monitor.Pulse(_sleep);
            }
        }
        RunTasks(0);
        if ((Interlocked.And(ref _state, ~Open) & Active) != 0)
            AwaitWorkers();
        _body = null;
        if (_failure is { } failure)
        {
            _failure = null;
            ExceptionDispatchInfo.Throw(failure);
        }
    }

    private void AwaitWorkers()
    {
        if (_spins)
        {
            var until = Stopwatch.GetTimestamp() + s_spinTicks;
            do
            {
                Thread.SpinWait(8);
                if ((Volatile.Read(ref _state) & Active) == 0)
                    return;
            }
            while (Stopwatch.GetTimestamp() < until);
        }
        lock (_done)
        {
            // Either this store is seen by the last worker that leaves, or its leaving is seen here.
            Interlocked.Exchange(ref _callerSleeps, 1);
            while ((Volatile.Read(ref _state) & Active) != 0)
                Monitor.Wait(_done);
            _callerSleeps = 0;
        }
    }

    private void RunTasks(int worker)
    {
        var (body, tasks) = (_body!, _tasks);
        try
        {
            for (var task = Interlocked.Increment(ref _next) - 1; task < tasks; task = Interlocked.Increment(ref _next) - 1)
                body.Run(task, worker);
        }
        catch (Exception e)
        {
            Interlocked.CompareExchange(ref _failure, e, null);
            Volatile.Write(ref _next, tasks);
        }
    }

    private void Work(int worker)
    {
        (t_pool, t_worker) = (this, worker);
        var last = 0u;
        while (AwaitJob(ref last))
        {
            RunTasks(worker);
            var state = Interlocked.Decrement(ref _state);
            if ((state & (Open | Active)) == 0 && Volatile.Read(ref _callerSleeps) != 0)
            {
                lock (_done)
                    Monitor.Pulse(_done);
            }
        }
    }

    /// <summary>Joins the next open job after <paramref name="last"/>; false when the pool ends.</summary>
    private bool AwaitJob(ref uint last)
    {
        var until = _spins ? Stopwatch.GetTimestamp() + s_spinTicks : 0;
        while (!_stop)
        {
            var state = Volatile.Read(ref _state);
            if (IsNew(state, last))
            {
                if (Interlocked.CompareExchange(ref _state, state + 1, state) != state)
                    continue;
                last = (uint)(state >> 32);
                return true;
            }
            if (_spins && Stopwatch.GetTimestamp() < until)
            {
                Thread.SpinWait(8);
                continue;
            }
            lock (_sleep)
            {
                // Either the caller sees this sleeper and wakes it, or the job is seen here.
                Interlocked.Increment(ref _sleepers);
                if (!_stop && !IsNew(Volatile.Read(ref _state), last))
                    Monitor.Wait(_sleep);
                Interlocked.Decrement(ref _sleepers);
            }
        }
        return false;
    }

    private static bool IsNew(long state, uint last) => (state & Open) != 0 && (uint)(state >> 32) != last;
}
