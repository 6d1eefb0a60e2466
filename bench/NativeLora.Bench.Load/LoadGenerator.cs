using System.Diagnostics;
using System.Net;
using System.Runtime.InteropServices;
using System.Threading.Channels;

namespace NativeLora.Bench.Load;

/// <summary>What came of a stretch of load.</summary>
/// <param name="Seconds">How long it took, the last answer included.</param>
/// <param name="Latencies">Seconds of each good answer.</param>
/// <param name="Full">Answers 503.</param>
/// <param name="Errors">Anything else that is not 200.</param>
internal sealed record LoadResult(double Seconds, double[] Latencies, int Full, int Errors);

/// <summary>Asks a server over the loopback address, as fast as it answers or at a fixed rate.</summary>
internal sealed class LoadGenerator(IPEndPoint server, byte[][] requests)
{
    /// <summary>Closed loop: each connection asks again as soon as it has its answer.</summary>
    public async Task<LoadResult> ClosedAsync(int connections, double seconds)
    {
        var tally = new Tally();
        var start = Stopwatch.GetTimestamp();
        var next = -1;
        await Task.WhenAll(Enumerable.Range(0, connections).Select(_ => Task.Run(async () =>
        {
            using var connection = new HttpConnection(server);
            while (Stopwatch.GetElapsedTime(start).TotalSeconds < seconds)
            {
                var from = Stopwatch.GetTimestamp();
                tally.Add(await connection.AskAsync(requests[(uint)Interlocked.Increment(ref next) % requests.Length]), from);
            }
        })));
        return tally.Result(start);
    }

    /// <summary>
    /// Open loop: a request is due every 1/rate seconds whatever became of those before. Latency counts from when it was due, so that a server
    /// that stalls is charged for all that should have come meanwhile. Where all connections are busy a request waits for one, on that account.
    /// </summary>
    public async Task<LoadResult> OpenAsync(double rate, double seconds, int connections)
    {
        var tally = new Tally();
        var due = Channel.CreateUnbounded<(long At, int Number)>(new UnboundedChannelOptions { SingleWriter = true });
        var asking = Enumerable.Range(0, connections).Select(_ => Task.Run(async () =>
        {
            using var connection = new HttpConnection(server);
            await foreach (var (at, number) in due.Reader.ReadAllAsync())
                tally.Add(await connection.AskAsync(requests[number % requests.Length]), at);
        })).ToArray();
        var start = Stopwatch.GetTimestamp();
        var pacer = new Thread(() =>
        {
            var count = (int)(rate * seconds);
            for (var i = 0; i < count; i++)
            {
                var at = start + (long)(i / rate * Stopwatch.Frequency);
                Pause.Until(at);
                due.Writer.TryWrite((at, i));
            }
            due.Writer.Complete();
        });
        pacer.Start();
        await Task.WhenAll(asking);
        return tally.Result(start);
    }

    private sealed class Tally
    {
        private readonly List<double> _latencies = [];
        private int _full, _errors;

        public void Add(int status, long from)
        {
            var seconds = Stopwatch.GetElapsedTime(from).TotalSeconds;
            lock (_latencies)
            {
                if (status == 200)
                    _latencies.Add(seconds);
                else if (status == 503)
                    _full++;
                else
                    _errors++;
            }
        }

        public LoadResult Result(long start) => new(Stopwatch.GetElapsedTime(start).TotalSeconds, [.. _latencies], _full, _errors);
    }

    /// <summary>Sleeps to a point in time: to some 0.1 ms where the system lets it, without taking a processor meanwhile.</summary>
    private static class Pause
    {
        public static void Until(long at)
        {
            while (at - Stopwatch.GetTimestamp() is > 0 and var left)
            {
                var nanoseconds = (long)(left * 1e9 / Stopwatch.Frequency);
                if (!OperatingSystem.IsLinux())
                    Thread.Sleep((int)Math.Max(1, nanoseconds / 1_000_000));
                else if (nanosleep(new Span((nint)(nanoseconds / 1_000_000_000), (nint)(nanoseconds % 1_000_000_000)), 0) != 0)
                    Thread.Sleep(0);
            }
        }

        [StructLayout(LayoutKind.Sequential)]
        private readonly record struct Span(nint Seconds, nint Nanoseconds);

        [DllImport("libc")]
#pragma warning disable IDE1006, SYSLIB1054, CA5392 // libc's name; a blittable call needs no generated code
        private static extern int nanosleep(in Span time, nint left);
#pragma warning restore IDE1006, SYSLIB1054, CA5392
    }
}
