using System.Runtime.Intrinsics.X86;

namespace NativeLora.Devices.Cpu;

/// <summary>Which instructions the CPU kernels use.</summary>
internal enum CpuPath
{
    /// <summary>128-bit vectors of any machine.</summary>
    Portable,

    /// <summary>AVX2 and FMA.</summary>
    Avx2,

    /// <summary>AVX-512F.</summary>
    Avx512,
}

/// <summary>Finds the path to take.</summary>
internal static class CpuPaths
{
    /// <summary>Names the path to take instead of the widest one the machine has.</summary>
    public const string Variable = "NATIVELORA_CPU";

    /// <summary>The path named by the environment, else the widest one this machine has.</summary>
    public static CpuPath Best => Choose(Environment.GetEnvironmentVariable(Variable));

    public static bool IsSupported(CpuPath path) => path switch
    {
        CpuPath.Avx512 => Avx512F.IsSupported && IsSupported(CpuPath.Avx2),
        CpuPath.Avx2 => Avx2.IsSupported && Fma.IsSupported,
        _ => true,
    };

    /// <summary>The path called <paramref name="name"/>; for null or an empty name the widest supported one.</summary>
    public static CpuPath Choose(string? name)
    {
        if (string.IsNullOrEmpty(name))
            return IsSupported(CpuPath.Avx512) ? CpuPath.Avx512 : IsSupported(CpuPath.Avx2) ? CpuPath.Avx2 : CpuPath.Portable;
        var path = name switch
        {
            "portable" => CpuPath.Portable,
            "avx2" => CpuPath.Avx2,
            "avx512" => CpuPath.Avx512,
            _ => throw new InputException($"{Variable}: unknown path '{name}'; give portable, avx2 or avx512, or leave it unset"),
        };
        if (!IsSupported(path))
            throw new InputException($"{Variable}: this machine has no {name}; give another path or leave it unset");
        return path;
    }
}
