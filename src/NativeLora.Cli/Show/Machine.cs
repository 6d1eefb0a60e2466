using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace NativeLora.Cli.Show;

/// <summary>What the machine has.</summary>
internal static class Machine
{
    /// <summary>The processor's name, as far as the system tells it.</summary>
    public static string Processor
    {
        get
        {
            try
            {
                var name = File.Exists("/proc/cpuinfo")
                    ? File.ReadLines("/proc/cpuinfo").FirstOrDefault(l => l.StartsWith("model name", StringComparison.Ordinal))?.Split(':', 2)[^1].Trim()
                    : null;
                return name ?? Environment.GetEnvironmentVariable("PROCESSOR_IDENTIFIER") ?? RuntimeInformation.ProcessArchitecture.ToString();
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                return RuntimeInformation.ProcessArchitecture.ToString();
            }
        }
    }

    /// <summary>Vector instructions that .NET may use here.</summary>
    public static IReadOnlyList<string> Features
    {
        get
        {
            (string Name, bool Has)[] known =
            [
                ("sse4.2", Sse42.IsSupported), ("avx2", Avx2.IsSupported), ("fma", Fma.IsSupported), ("avx512f", Avx512F.IsSupported),
                ("avx512bw", Avx512BW.IsSupported), ("avx512vbmi", Avx512Vbmi.IsSupported), ("neon", AdvSimd.IsSupported),
            ];
            return [.. known.Where(k => k.Has).Select(k => k.Name)];
        }
    }

    /// <summary>Bytes of memory that this process may use.</summary>
    public static long Memory => GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;
}
