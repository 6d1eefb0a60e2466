namespace NativeLora.Hosting;

/// <summary>
/// So many things of a kind, made when they are first needed and lent to one caller at a time. Who finds none free waits, in turn, or is
/// cancelled. Lending allocates nothing once the things are made and one is free.
/// </summary>
internal sealed class SessionPool<T> : IDisposable where T : class, IDisposable
{
    private readonly SemaphoreSlim _free;
    private readonly Lock _lock = new();
    private readonly Lock _making = new();
    private readonly Lock _closing = new();
    private readonly Func<T> _make;
    private readonly T[] _idle;
    private readonly string _owner;
    private int _count;
    private volatile bool _disposed;

    public SessionPool(int size, string owner, Func<T> make)
    {
        (_make, _owner) = (make, owner);
        _idle = new T[size];
        _free = new SemaphoreSlim(size, size);
    }

    /// <summary>Whether nothing is lent any more.</summary>
    internal bool IsClosing => _disposed;

    /// <summary>Lends one; to be given back by <see cref="Return"/>.</summary>
    /// <exception cref="ObjectDisposedException">The pool is closed.</exception>
    /// <exception cref="OperationCanceledException">The wait was cancelled.</exception>
    public T Rent(CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        // Without a wait nothing is registered with the token.
        if (!_free.Wait(0, CancellationToken.None))
            _free.Wait(cancellation);
        return Take();
    }

    /// <inheritdoc cref="Rent"/>
    public async ValueTask<T> RentAsync(CancellationToken cancellation)
    {
        await _free.WaitAsync(cancellation).ConfigureAwait(false);
        return Take();
    }

    /// <summary>Lends one of those that nobody uses, if there is one that is wanted.</summary>
    public T? TryRent(Predicate<T> wanted)
    {
        if (!_free.Wait(0, CancellationToken.None))
            return null;
        lock (_lock)
            for (var i = _disposed ? -1 : _count - 1; i >= 0; i--)
                if (wanted(_idle[i]))
                {
                    var item = _idle[i];
                    _idle[i] = _idle[--_count];
                    return item;
                }
        _free.Release();
        return null;
    }

    public void Return(T item)
    {
        lock (_lock)
            _idle[_count++] = item;
        _free.Release();
    }

    private T Take()
    {
        try
        {
            ObjectDisposedException.ThrowIf(_disposed, _owner);
            lock (_lock)
                if (_count > 0)
                    return _idle[--_count];
            // One at a time: what they share is read and converted by the first.
            lock (_making)
                return _make();
        }
        catch
        {
            _free.Release();
            throw;
        }
    }

    /// <summary>Waits for those that are lent, and closes: who waits or comes later is told so.</summary>
    /// <returns>True for one caller, who may free what the things stand on; false for others, who come back when it is closed.</returns>
    public bool Close()
    {
        lock (_closing)
        {
            if (_disposed)
                return false;
            _disposed = true;
            for (var i = 0; i < _idle.Length; i++)
                _free.Wait();
            while (_count > 0)
                _idle[--_count].Dispose();
            _free.Release(_idle.Length);
            return true;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Close();
}
