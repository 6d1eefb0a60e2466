using System.Diagnostics;
using NativeLora.Devices.Cpu;

namespace NativeLora.Tests.Devices;

public class CpuThreadsTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    [InlineData(9)]
    public void Every_task_runs_once_on_a_worker_of_the_pool(int count)
    {
        using var threads = new CpuThreads(count);
        Assert.Equal(count, threads.Count);
        foreach (var tasks in new[] { 0, 1, 2, 3, 17, 1000 })
        {
            var runs = new int[tasks];
            var busy = new int[count];
            var body = new Body((task, worker) =>
            {
                Assert.Equal(1, Interlocked.Increment(ref busy[worker]));
                Interlocked.Increment(ref runs[task]);
                Interlocked.Decrement(ref busy[worker]);
            });
            for (var round = 0; round < 20; round++)
                threads.For(tasks, body);
            Assert.All(runs, times => Assert.Equal(20, times));
        }
    }

    [Fact]
    public void Work_is_shared_among_threads()
    {
        using var threads = new CpuThreads(3);
        using var all = new Barrier(3);
        var seen = new int[3];
        // Each task waits for the other two, so one thread alone could not end any of them.
        threads.For(3, new Body((_, worker) =>
        {
            Assert.True(all.SignalAndWait(TimeSpan.FromSeconds(20)));
            Interlocked.Increment(ref seen[worker]);
        }));
        Assert.Equal([1, 1, 1], seen);
    }

    [Fact]
    public void Sleeping_workers_wake_up()
    {
        using var threads = new CpuThreads(2);
        using var both = new Barrier(2);
        for (var round = 0; round < 5; round++)
        {
            Thread.Sleep(20);
            threads.For(2, new Body((_, _) => Assert.True(both.SignalAndWait(TimeSpan.FromSeconds(20)))));
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public void An_exception_reaches_the_caller_and_the_pool_lives_on(int count)
    {
        using var threads = new CpuThreads(count);
        for (var round = 0; round < 50; round++)
        {
            var bad = round % 40;
            var caught = Assert.Throws<RunException>(() => threads.For(40, new Body((task, _) =>
            {
                if (task == bad)
                    throw new RunException($"task {task}");
            })));
            Assert.Equal($"task {bad}", caught.Message);
            var sum = 0;
            threads.For(40, new Body((task, _) => Interlocked.Add(ref sum, task)));
            Assert.Equal(780, sum);
        }
    }

    [Fact]
    public void A_nested_loop_runs_on_the_worker_of_its_body()
    {
        using var threads = new CpuThreads(4);
        var inner = 0;
        threads.For(20, new Body((_, worker) => threads.For(7, new Body((_, nested) =>
        {
            Assert.Equal(worker, nested);
            Interlocked.Increment(ref inner);
        }))));
        Assert.Equal(140, inner);
    }

    [Fact]
    public void Several_callers_take_turns()
    {
        using var threads = new CpuThreads(3);
        var inside = 0;
        var sum = 0;
        var callers = Enumerable.Range(0, 4).Select(_ => new Thread(() =>
        {
            for (var round = 0; round < 50; round++)
            {
                threads.For(3, new Body((_, worker) =>
                {
                    if (worker == 0)
                    {
                        Assert.Equal(1, Interlocked.Increment(ref inside));
                        Interlocked.Decrement(ref inside);
                    }
                    Interlocked.Increment(ref sum);
                }));
            }
        })).ToList();
        callers.ForEach(c => c.Start());
        callers.ForEach(c => c.Join());
        Assert.Equal(600, sum);
    }

    [Fact]
    public void More_threads_than_processors_do_not_collapse()
    {
        using var threads = new CpuThreads(4 * Environment.ProcessorCount);
        var sum = 0;
        var body = new Body((task, _) => Interlocked.Add(ref sum, task));
        var clock = Stopwatch.StartNew();
        for (var round = 0; round < 2000; round++)
            threads.For(16, body);
        // A pool that waits for threads that are not scheduled takes a time slice of milliseconds a round.
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(6), $"2000 rounds took {clock.Elapsed}");
        Assert.Equal(2000 * 120, sum);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(8)]
    public void A_loop_allocates_nothing(int count)
    {
        using var threads = new CpuThreads(count);
        var sum = 0;
        var body = new Body((task, _) => Interlocked.Add(ref sum, task));
        for (var round = 0; round < 200; round++)
            threads.For(8, body);
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var round = 0; round < 200; round++)
            threads.For(8, body);
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
    }

    [Fact]
    public void After_disposal_it_refuses_work()
    {
        var threads = new CpuThreads(3);
        threads.For(3, new Body((_, _) => { }));
        threads.Dispose();
        threads.Dispose();
        Assert.Throws<ObjectDisposedException>(() => threads.For(2, new Body((_, _) => { })));
    }

    private sealed class Body(Action<int, int> action) : IParallelBody
    {
        public void Run(int task, int worker) => action(task, worker);
    }
}
