using System.Runtime.InteropServices;

namespace NativeLora.Devices.Cuda;

/// <summary>Finds NVIDIA's libraries when the program runs: nothing of them is needed to build or to start it.</summary>
internal sealed class CudaLibraries
{
    /// <summary>A folder that is looked into first, before the places that the system knows.</summary>
    public const string Variable = "NATIVELORA_CUDA_LIBRARIES";

    private readonly string? _folder;

    public CudaLibraries(string? folder) => _folder = string.IsNullOrWhiteSpace(folder) ? null : folder;

    private static string[] DriverNames => OperatingSystem.IsWindows() ? ["nvcuda.dll"] : ["libcuda.so.1"];

    private static string[] BlasNames => OperatingSystem.IsWindows()
        ? ["cublas64_13.dll", "cublas64_12.dll"]
        : ["libcublas.so.13", "libcublas.so.12"];

    public nint Driver() => Load(DriverNames, "the NVIDIA driver", "install it");

    public nint Blas() => Load(BlasNames, "cuBLAS", "install it (it is part of the CUDA toolkit)");

    private nint Load(string[] names, string what, string advice)
    {
        if (_folder is not null)
            foreach (var name in names)
                if (NativeLibrary.TryLoad(Path.Combine(Path.GetFullPath(_folder), name), out var own))
                    return own;
        foreach (var name in names)
            if (NativeLibrary.TryLoad(name, out var library))
                return library;
        // Toolkits are often installed beside the paths that the loader knows.
        foreach (var folder in Toolkits())
            foreach (var name in names)
                if (NativeLibrary.TryLoad(Path.Combine(folder, name), out var library))
                    return library;
        var places = _folder is null ? "the system's library paths" : $"{_folder} and the system's library paths";
        throw new InputException($"CUDA: {what} is not there ({string.Join(", ", names)} looked for in {places}): {advice}, set {Variable} to the folder it lies in, or use the CPU");
    }

    private static IEnumerable<string> Toolkits()
    {
        if (Environment.GetEnvironmentVariable("CUDA_PATH") is { Length: > 0 } toolkit)
            foreach (var under in (string[])["bin", "bin/x64", "lib64"])
                yield return Path.Combine(toolkit, under);
        if (!OperatingSystem.IsWindows())
            yield return "/usr/local/cuda/lib64";
    }
}
