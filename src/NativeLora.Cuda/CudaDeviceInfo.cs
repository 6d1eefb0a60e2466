using System.Text;

namespace NativeLora.Devices.Cuda;

/// <summary>A GPU that the driver lists.</summary>
/// <param name="Ordinal">Its number, from 0.</param>
/// <param name="Name">Name.</param>
/// <param name="Major">Compute capability before the point.</param>
/// <param name="Minor">Compute capability behind the point.</param>
/// <param name="MemoryBytes">Memory.</param>
/// <param name="IsInterpreted">Whether it is the stand-in of the tests, which interprets kernels on the CPU; no time it takes says anything of a GPU.</param>
public sealed record CudaDeviceInfo(int Ordinal, string Name, int Major, int Minor, long MemoryBytes, bool IsInterpreted)
{
    private const int MajorAttribute = 75, MinorAttribute = 76;

    /// <summary>One line on it.</summary>
    public string Description => FormattableString.Invariant(
        $"{Name}, compute capability {Major}.{Minor}, {MemoryBytes / 1_000_000_000.0:0.0} GB{(IsInterpreted ? ", interpreted" : "")}");

    /// <summary>All GPUs that there are.</summary>
    /// <exception cref="InputException">There is no driver, no cuBLAS or no GPU; the message says what was looked for.</exception>
    public static IReadOnlyList<CudaDeviceInfo> All()
    {
        var driver = CudaDriver.Open(Environment.GetEnvironmentVariable(CudaLibraries.Variable));
        driver.Libraries.Blas();
        return [.. Enumerable.Range(0, Count(driver)).Select(ordinal => Of(driver, ordinal).Info)];
    }

    internal static unsafe (CudaDeviceInfo Info, int Device) Of(CudaDriver driver, int ordinal)
    {
        var count = Count(driver);
        if ((uint)ordinal >= (uint)count)
            throw new InputException($"CUDA: there is no GPU {ordinal}; {(count == 1 ? "there is one, number 0" : $"there are {count}, from 0")}");
        int device, major, minor;
        driver.Check(driver.DeviceGet(&device, ordinal), "cuDeviceGet");
        driver.Check(driver.DeviceGetAttribute(&major, MajorAttribute, device), "cuDeviceGetAttribute");
        driver.Check(driver.DeviceGetAttribute(&minor, MinorAttribute, device), "cuDeviceGetAttribute");
        var name = stackalloc byte[256];
        driver.Check(driver.DeviceGetName(name, 256, device), "cuDeviceGetName");
        var text = new ReadOnlySpan<byte>(name, 256);
        nuint bytes;
        driver.Check(driver.DeviceTotalMemory(&bytes, device), "cuDeviceTotalMem");
        return (new CudaDeviceInfo(ordinal, Encoding.UTF8.GetString(text[..Math.Max(0, text.IndexOf((byte)0))]), major, minor, (long)bytes, driver.IsInterpreted), device);
    }

    private static unsafe int Count(CudaDriver driver)
    {
        int count;
        driver.Check(driver.DeviceGetCount(&count), "cuDeviceGetCount");
        return count > 0 ? count : throw new InputException("CUDA: the driver is there, but no GPU; use the CPU");
    }
}
