using NativeLora.Hosting;

namespace NativeLora.Tests.Hosting;

/// <summary>Who waits, who is cancelled, and what becomes of them when the pool is closed.</summary>
public sealed class SessionPoolTests
{
    private sealed class Thing : IDisposable
    {
        public bool Disposed { get; private set; }

        public void Dispose() => Disposed = true;
    }

    [Fact]
    public void Things_are_made_when_needed_and_used_again()
    {
        var made = 0;
        using var pool = new SessionPool<Thing>(2, "pool", () =>
        {
            made++;
            return new Thing();
        });
        var first = pool.Rent(default);
        pool.Return(first);
        Assert.Same(first, pool.Rent(default));
        Assert.NotSame(first, pool.Rent(default));
        Assert.Equal(2, made);
        pool.Return(first);
        pool.Return(first);
    }

    [Fact]
    public async Task Who_waits_is_served_or_cancelled()
    {
        using var pool = new SessionPool<Thing>(1, "pool", () => new Thing());
        var held = pool.Rent(default);
        using var stop = new CancellationTokenSource();
        var cancelled = Task.Run(() => pool.Rent(stop.Token));
        var cancelledToo = pool.RentAsync(stop.Token).AsTask();
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelledToo);
        Assert.ThrowsAny<OperationCanceledException>(() => pool.Rent(stop.Token));
        var served = pool.RentAsync(default).AsTask();
        Assert.False(served.IsCompleted);
        pool.Return(held);
        Assert.Same(held, await served);
        pool.Return(held);
    }

    [Fact]
    public async Task Closing_waits_for_what_is_lent_and_refuses_the_rest()
    {
        var pool = new SessionPool<Thing>(1, "pool", () => new Thing());
        var held = pool.Rent(default);
        var waiting = pool.RentAsync(default).AsTask();
        var closing = Task.Run(pool.Dispose);
        await Task.Delay(20);
        Assert.False(closing.IsCompleted);
        Assert.False(held.Disposed);
        SpinWait.SpinUntil(() => pool.IsClosing, TimeSpan.FromSeconds(10));
        pool.Return(held);
        await closing;
        Assert.True(held.Disposed);
        await Assert.ThrowsAsync<ObjectDisposedException>(() => waiting);
        Assert.Throws<ObjectDisposedException>(() => pool.Rent(default));
        pool.Dispose();
    }

    [Fact]
    public void What_cannot_be_made_leaves_its_place_free()
    {
        var fails = true;
        using var pool = new SessionPool<Thing>(1, "pool", () => fails ? throw new RunException("no memory") : new Thing());
        Assert.Throws<RunException>(() => pool.Rent(default));
        fails = false;
        pool.Return(pool.Rent(default));
    }
}
