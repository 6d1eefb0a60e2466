using System.Runtime.InteropServices;

namespace NativeLora.Devices.Cuda;

/// <summary>The driver API, each function by its pointer. One a folder of libraries and process.</summary>
internal sealed unsafe class CudaDriver
{
    private const int OutOfMemory = 2;

    private static readonly Lock s_gate = new();
    private static readonly Dictionary<string, CudaDriver> s_open = [];

    public readonly delegate* unmanaged<int*, int> DeviceGetCount;
    public readonly delegate* unmanaged<int*, int, int> DeviceGet;
    public readonly delegate* unmanaged<byte*, int, int, int> DeviceGetName;
    public readonly delegate* unmanaged<int*, int, int, int> DeviceGetAttribute;
    public readonly delegate* unmanaged<nuint*, int, int> DeviceTotalMemory;
    public readonly delegate* unmanaged<nint*, int, int> PrimaryContextRetain;
    public readonly delegate* unmanaged<int, int> PrimaryContextRelease;
    public readonly delegate* unmanaged<nint, int> ContextSetCurrent;
    public readonly delegate* unmanaged<nint*, uint, int> StreamCreate;
    public readonly delegate* unmanaged<nint, int> StreamDestroy;
    public readonly delegate* unmanaged<nint, int> StreamSynchronize;
    public readonly delegate* unmanaged<nint*, uint, int> EventCreate;
    public readonly delegate* unmanaged<nint, nint, int> EventRecord;
    public readonly delegate* unmanaged<nint, int> EventSynchronize;
    public readonly delegate* unmanaged<nint, int> EventDestroy;
    public readonly delegate* unmanaged<nint*, nuint, int> MemoryAllocate;
    public readonly delegate* unmanaged<nint, int> MemoryFree;
    public readonly delegate* unmanaged<nint*, nuint, int> HostAllocate;
    public readonly delegate* unmanaged<nint, int> HostFree;
    public readonly delegate* unmanaged<nint, void*, nuint, nint, int> CopyToDevice;
    public readonly delegate* unmanaged<void*, nint, nuint, nint, int> CopyToHost;
    public readonly delegate* unmanaged<nint, byte, nuint, nint, int> Fill;
    public readonly delegate* unmanaged<nint*, void*, uint, int*, void**, int> ModuleLoad;
    public readonly delegate* unmanaged<nint, int> ModuleUnload;
    public readonly delegate* unmanaged<nint*, nint, byte*, int> ModuleGetFunction;
    public readonly delegate* unmanaged<nint, int, int, int> FunctionSetAttribute;
    public readonly delegate* unmanaged<nint, uint, uint, uint, uint, uint, uint, uint, nint, void**, void**, int> LaunchKernel;

    public readonly delegate* unmanaged<nint, int, int> BeginCapture;
    public readonly delegate* unmanaged<nint, nint*, int> EndCapture;
    public readonly delegate* unmanaged<nint*, nint, ulong, int> GraphInstantiate;
    public readonly delegate* unmanaged<nint, nint, int> GraphLaunch;
    public readonly delegate* unmanaged<nint, int> GraphDestroy;
    public readonly delegate* unmanaged<nint, int> GraphExecDestroy;

    private readonly delegate* unmanaged<int, byte**, int> _errorName;
    private readonly delegate* unmanaged<int, byte**, int> _errorText;
    private readonly delegate* unmanaged<byte*> _fault, _refusal;
    private readonly nint _library;

    private CudaDriver(CudaLibraries libraries)
    {
        Libraries = libraries;
        _library = libraries.Driver();
        _errorName = (delegate* unmanaged<int, byte**, int>)Export("cuGetErrorName");
        _errorText = (delegate* unmanaged<int, byte**, int>)Export("cuGetErrorString");
        DeviceGetCount = (delegate* unmanaged<int*, int>)Export("cuDeviceGetCount");
        DeviceGet = (delegate* unmanaged<int*, int, int>)Export("cuDeviceGet");
        DeviceGetName = (delegate* unmanaged<byte*, int, int, int>)Export("cuDeviceGetName");
        DeviceGetAttribute = (delegate* unmanaged<int*, int, int, int>)Export("cuDeviceGetAttribute");
        DeviceTotalMemory = (delegate* unmanaged<nuint*, int, int>)Export("cuDeviceTotalMem_v2");
        PrimaryContextRetain = (delegate* unmanaged<nint*, int, int>)Export("cuDevicePrimaryCtxRetain");
        PrimaryContextRelease = (delegate* unmanaged<int, int>)Export("cuDevicePrimaryCtxRelease_v2");
        ContextSetCurrent = (delegate* unmanaged<nint, int>)Export("cuCtxSetCurrent");
        StreamCreate = (delegate* unmanaged<nint*, uint, int>)Export("cuStreamCreate");
        StreamDestroy = (delegate* unmanaged<nint, int>)Export("cuStreamDestroy_v2");
        StreamSynchronize = (delegate* unmanaged<nint, int>)Export("cuStreamSynchronize");
        EventCreate = (delegate* unmanaged<nint*, uint, int>)Export("cuEventCreate");
        EventRecord = (delegate* unmanaged<nint, nint, int>)Export("cuEventRecord");
        EventSynchronize = (delegate* unmanaged<nint, int>)Export("cuEventSynchronize");
        EventDestroy = (delegate* unmanaged<nint, int>)Export("cuEventDestroy_v2");
        MemoryAllocate = (delegate* unmanaged<nint*, nuint, int>)Export("cuMemAlloc_v2");
        MemoryFree = (delegate* unmanaged<nint, int>)Export("cuMemFree_v2");
        HostAllocate = (delegate* unmanaged<nint*, nuint, int>)Export("cuMemAllocHost_v2");
        HostFree = (delegate* unmanaged<nint, int>)Export("cuMemFreeHost");
        CopyToDevice = (delegate* unmanaged<nint, void*, nuint, nint, int>)Export("cuMemcpyHtoDAsync_v2");
        CopyToHost = (delegate* unmanaged<void*, nint, nuint, nint, int>)Export("cuMemcpyDtoHAsync_v2");
        Fill = (delegate* unmanaged<nint, byte, nuint, nint, int>)Export("cuMemsetD8Async");
        ModuleLoad = (delegate* unmanaged<nint*, void*, uint, int*, void**, int>)Export("cuModuleLoadDataEx");
        ModuleUnload = (delegate* unmanaged<nint, int>)Export("cuModuleUnload");
        ModuleGetFunction = (delegate* unmanaged<nint*, nint, byte*, int>)Export("cuModuleGetFunction");
        FunctionSetAttribute = (delegate* unmanaged<nint, int, int, int>)Export("cuFuncSetAttribute");
        LaunchKernel = (delegate* unmanaged<nint, uint, uint, uint, uint, uint, uint, uint, nint, void**, void**, int>)Export("cuLaunchKernel");
        BeginCapture = (delegate* unmanaged<nint, int, int>)Export("cuStreamBeginCapture_v2");
        EndCapture = (delegate* unmanaged<nint, nint*, int>)Export("cuStreamEndCapture");
        GraphInstantiate = (delegate* unmanaged<nint*, nint, ulong, int>)Export("cuGraphInstantiateWithFlags");
        GraphLaunch = (delegate* unmanaged<nint, nint, int>)Export("cuGraphLaunch");
        GraphDestroy = (delegate* unmanaged<nint, int>)Export("cuGraphDestroy");
        GraphExecDestroy = (delegate* unmanaged<nint, int>)Export("cuGraphExecDestroy");
        IsInterpreted = Find("nlEmulatorVersion") != 0;
        _fault = (delegate* unmanaged<byte*>)Find("nlEmulatorFault");
        _refusal = (delegate* unmanaged<byte*>)Find("nlEmulatorRefusal");
        var result = ((delegate* unmanaged<uint, int>)Export("cuInit"))(0);
        if (result != 0)
            throw new InputException($"CUDA: the driver finds no GPU to work with ({Name(result)}); use the CPU, or see that the GPU is visible to this process");
        int version;
        Check(((delegate* unmanaged<int*, int>)Export("cuDriverGetVersion"))(&version), "cuDriverGetVersion");
        if (version < 11_040)
            throw new InputException($"CUDA: the driver supports CUDA {version / 1000}.{version % 1000 / 10}; 11.4 or newer is needed");
    }

    public CudaLibraries Libraries { get; }

    /// <summary>Whether the stand-in of the tests answers, and no GPU is there.</summary>
    public bool IsInterpreted { get; }

    /// <summary>A function of the library beside the driver's, such as the stand-in's counters; 0 if it is not there.</summary>
    public nint Find(string name) => NativeLibrary.TryGetExport(_library, name, out var address) ? address : 0;

    /// <summary>Loads the driver, or returns the one that was loaded from the same places.</summary>
    /// <exception cref="InputException">There is no driver, or no GPU.</exception>
    public static CudaDriver Open(string? folder)
    {
        lock (s_gate)
        {
            if (!s_open.TryGetValue(folder ?? "", out var driver))
                s_open[folder ?? ""] = driver = new CudaDriver(new CudaLibraries(folder));
            return driver;
        }
    }

    /// <summary>Throws unless a call succeeded.</summary>
    public void Check(int result, string what)
    {
        if (result != 0)
            throw Failure(result, what);
    }

    /// <summary>The error of a call: one line, with what the stand-in found where it runs.</summary>
    public RunException Failure(int result, string what)
    {
        var advice = result == OutOfMemory ? "; make the batch or the model smaller, or let layers be recomputed" : "";
        var found = _fault == null ? "" : Marshal.PtrToStringUTF8((nint)_fault())!;
        if (found.Length == 0 && _refusal != null)
            found = Marshal.PtrToStringUTF8((nint)_refusal())!;
        return new RunException(Line($"CUDA: {what}: {Name(result)}{(found.Length == 0 ? "" : $": {found}")}{advice}"));
    }

    private string Name(int result)
    {
        byte* name, text;
        if (_errorName(result, &name) != 0 || name == null)
            return $"error {result}";
        return _errorText(result, &text) != 0 || text == null
            ? Marshal.PtrToStringUTF8((nint)name)!
            : $"{Marshal.PtrToStringUTF8((nint)name)}, {Marshal.PtrToStringUTF8((nint)text)}";
    }

    private static string Line(string text) => text.ReplaceLineEndings(" ");

    private nint Export(string name) => NativeLibrary.TryGetExport(_library, name, out var address)
        ? address
        : throw new InputException($"CUDA: the driver has no {name}; install a newer one");
}
