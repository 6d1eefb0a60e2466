using System.Buffers;
using NativeLora.Training;

namespace NativeLora.Mpi;

/// <summary>
/// Ranks that Open MPI's mpirun started. Only what is sent from one rank to another is used of MPI: which bits a sum has must not depend
/// on the algorithm that a library chooses for a collective. Messages move whenever something is asked; no thread of its own does that.
/// </summary>
public sealed unsafe class MpiLink : IRankLink
{
    private readonly MpiLibrary _mpi;
    private readonly int _thread = Environment.CurrentManagedThreadId;
    private nint[] _requests = new nint[64];
    private MemoryHandle[] _pins = new MemoryHandle[64];
    private int[] _free = [.. Enumerable.Range(0, 64)];
    private int _freeCount = 64;

    private MpiLink(MpiLibrary mpi) => (_mpi, Rank, Size, Description) = (mpi, mpi.Rank, mpi.Size, mpi.Version);

    /// <summary>Whether Open MPI's mpirun (or a PMIx launcher that says as much) started this process as one of several.</summary>
    public static bool IsLaunched => int.TryParse(Environment.GetEnvironmentVariable("OMPI_COMM_WORLD_SIZE"), out var size) && size > 1;

    /// <summary>Another launcher that started this process as one of several, such as MPICH's; null for none.</summary>
    public static string? OtherLauncher =>
        Environment.GetEnvironmentVariable("OMPI_COMM_WORLD_SIZE") is null && int.TryParse(Environment.GetEnvironmentVariable("PMI_SIZE"), out var size) && size > 1
            ? Environment.GetEnvironmentVariable("HYDI_CONTROL_FD") is not null || Environment.GetEnvironmentVariable("MPIR_CVAR_CH3_INTERFACE_HOSTNAME") is not null ? "MPICH's mpirun" : "a PMI launcher"
            : null;

    /// <summary>Joins the others. Once in a process, and by the thread that trains.</summary>
    /// <exception cref="InputException">There is no Open MPI.</exception>
    /// <exception cref="RunException">The others cannot be reached.</exception>
    public static MpiLink Join() => new(MpiLibrary.Load());

    /// <inheritdoc/>
    public int Rank { get; }

    /// <inheritdoc/>
    public int Size { get; }

    /// <inheritdoc/>
    public string Description { get; }

    /// <inheritdoc/>
    public int Send(int to, int tag, ReadOnlyMemory<byte> bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)to, (uint)Size, nameof(to));
        var pin = bytes.Pin();
        return Begin(_mpi.Send((byte*)pin.Pointer, bytes.Length, to, tag), pin);
    }

    /// <inheritdoc/>
    public int Receive(int from, int tag, Memory<byte> bytes)
    {
        if (from != IRankLink.Anyone)
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)from, (uint)Size, nameof(from));
        var pin = bytes.Pin();
        return Begin(_mpi.Receive((byte*)pin.Pointer, bytes.Length, from, tag), pin);
    }

    /// <inheritdoc/>
    public bool IsDone(int ticket)
    {
        if (Environment.CurrentManagedThreadId != _thread)
            throw new InvalidOperationException("MPI was joined by another thread (MPI_THREAD_FUNNELED)");
        if (!_mpi.Test(ref _requests[ticket]))
            return false;
        _pins[ticket].Dispose();
        _pins[ticket] = default;
        _free[_freeCount++] = ticket;
        return true;
    }

    private int Begin(nint request, MemoryHandle pin)
    {
        if (_freeCount == 0)
            Grow();
        var ticket = _free[--_freeCount];
        (_requests[ticket], _pins[ticket]) = (request, pin);
        return ticket;
    }

    private void Grow()
    {
        var before = _requests.Length;
        Array.Resize(ref _requests, 2 * before);
        Array.Resize(ref _pins, 2 * before);
        Array.Resize(ref _free, 2 * before);
        for (var ticket = before; ticket < _requests.Length; ticket++)
            _free[_freeCount++] = ticket;
    }

    /// <inheritdoc/>
    public void Close() => _mpi.Finish();

    /// <summary>Lets go. Without <see cref="Close"/> the others are not waited for: mpirun sees this process end, and ends the job.</summary>
    public void Dispose() { }
}
