using System.Runtime.InteropServices;
using System.Text;

namespace NativeLora.Mpi;

/// <summary>
/// Open MPI's library, by its exported symbols. MPI fixes no binary interface: what a communicator or a type is differs between
/// implementations, so this is Open MPI's alone, where they are addresses of data symbols (the same from version 1.3 to 5).
/// </summary>
internal sealed unsafe class MpiLibrary
{
    private const int Success = 0;
    private const int ThreadFunneled = 1;
    private const int MaxErrorString = 256, MaxLibraryVersion = 256;
    private static readonly string[] Names = ["libmpi.so.40", "libmpi.so"];

    private readonly delegate* unmanaged[Cdecl]<int*, byte***, int, int*, int> _init;
    private readonly delegate* unmanaged[Cdecl]<int> _finalize;
    private readonly delegate* unmanaged[Cdecl]<nint, int*, int> _rank, _size;
    private readonly delegate* unmanaged[Cdecl]<nint, nint, int> _setErrorHandler;
    private readonly delegate* unmanaged[Cdecl]<void*, int, nint, int, int, nint, nint*, int> _send, _receive;
    private readonly delegate* unmanaged[Cdecl]<nint*, int*, void*, int> _test;
    private readonly delegate* unmanaged[Cdecl]<int, byte*, int*, int> _errorString;
    private readonly delegate* unmanaged[Cdecl]<byte*, int*, int> _version;
    private readonly nint _world, _byte;

    private MpiLibrary(nint library, string path)
    {
        nint At(string name) => NativeLibrary.TryGetExport(library, name, out var address)
            ? address
            : throw new InputException($"{path} has no {name}: it is no Open MPI (MPICH and others have another binary interface); install Open MPI and start with its mpirun, or train with --parallel off");
        (_world, _byte) = (At("ompi_mpi_comm_world"), At("ompi_mpi_byte"));
        _init = (delegate* unmanaged[Cdecl]<int*, byte***, int, int*, int>)At("MPI_Init_thread");
        _finalize = (delegate* unmanaged[Cdecl]<int>)At("MPI_Finalize");
        _rank = (delegate* unmanaged[Cdecl]<nint, int*, int>)At("MPI_Comm_rank");
        _size = (delegate* unmanaged[Cdecl]<nint, int*, int>)At("MPI_Comm_size");
        _setErrorHandler = (delegate* unmanaged[Cdecl]<nint, nint, int>)At("MPI_Comm_set_errhandler");
        _send = (delegate* unmanaged[Cdecl]<void*, int, nint, int, int, nint, nint*, int>)At("MPI_Isend");
        _receive = (delegate* unmanaged[Cdecl]<void*, int, nint, int, int, nint, nint*, int>)At("MPI_Irecv");
        _test = (delegate* unmanaged[Cdecl]<nint*, int*, void*, int>)At("MPI_Test");
        _errorString = (delegate* unmanaged[Cdecl]<int, byte*, int*, int>)At("MPI_Error_string");
        _version = (delegate* unmanaged[Cdecl]<byte*, int*, int>)At("MPI_Get_library_version");
        var errorsReturn = At("ompi_mpi_errors_return");
        int provided;
        Check(_init(null, null, ThreadFunneled, &provided), "MPI_Init_thread");
        if (provided < ThreadFunneled)
            throw new InputException($"{path} was built without threads (MPI_THREAD_FUNNELED); install one that has them");
        Check(_setErrorHandler(_world, errorsReturn), "MPI_Comm_set_errhandler");
    }

    /// <summary>Loads the library and joins the others. Whoever calls this makes all later calls too (MPI_THREAD_FUNNELED).</summary>
    public static MpiLibrary Load()
    {
        foreach (var name in Names)
            if (NativeLibrary.TryLoad(name, out var library))
                return new MpiLibrary(library, name);
        throw new InputException($"Open MPI's library ({string.Join(" or ", Names)}) cannot be loaded; install it (Debian: apt install openmpi-bin), or train with --parallel off");
    }

    public int Rank => Number(_rank, "MPI_Comm_rank");

    public int Size => Number(_size, "MPI_Comm_size");

    /// <summary>Such as <c>Open MPI v4.1.4</c>.</summary>
    public string Version
    {
        get
        {
            // A C string of the library's own length at most; it may be longer than the standard's 256 in older ones.
            var text = stackalloc byte[32 * MaxLibraryVersion];
            int length;
            Check(_version(text, &length), "MPI_Get_library_version");
            return Encoding.UTF8.GetString(text, Math.Clamp(length, 0, 32 * MaxLibraryVersion)).Split(',')[0].TrimEnd('\0');
        }
    }

    /// <summary>Begins to send; the bytes must stay where they are until the request is done.</summary>
    public nint Send(byte* bytes, int count, int to, int tag)
    {
        nint request;
        Check(_send(bytes, count, _byte, to, tag, _world, &request), "MPI_Isend");
        return request;
    }

    /// <summary>Begins to receive; -1 is MPI_ANY_SOURCE.</summary>
    public nint Receive(byte* bytes, int count, int from, int tag)
    {
        nint request;
        Check(_receive(bytes, count, _byte, from, tag, _world, &request), "MPI_Irecv");
        return request;
    }

    /// <summary>Moves all that is under way, and says whether that request is done; it is void then.</summary>
    public bool Test(ref nint request)
    {
        int flag;
        fixed (nint* at = &request)
            Check(_test(at, &flag, null), "MPI_Test");
        return flag != 0;
    }

    public void Finish() => Check(_finalize(), "MPI_Finalize");

    private int Number(delegate* unmanaged[Cdecl]<nint, int*, int> call, string name)
    {
        int value;
        Check(call(_world, &value), name);
        return value;
    }

    private void Check(int code, string call)
    {
        if (code == Success)
            return;
        var text = stackalloc byte[MaxErrorString];
        int length;
        var words = _errorString(code, text, &length) == Success ? Encoding.UTF8.GetString(text, Math.Clamp(length, 0, MaxErrorString)) : $"error {code}";
        throw new RunException($"{call}: {words.ReplaceLineEndings(" ").TrimEnd('\0')}: another rank or the network is gone");
    }
}
