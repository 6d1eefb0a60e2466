using System.Runtime.InteropServices;

namespace NativeLora.Devices.Cpu;

/// <summary>
/// The native kernels of <c>kernels/cpu</c>, if they were built and lie beside the library. Without them all of it runs managed. The
/// calls are short and take no lock: they skip the transition that lets the collector in.
/// </summary>
internal static unsafe class NativeCpu
{
    /// <summary>Set to 0, the native kernels are left alone.</summary>
    public const string Variable = "NATIVELORA_NATIVE";

    private const string Name = "nativelora_cpu";
    private const int Version = 3;

    private static readonly delegate* unmanaged[SuppressGCTransition]<void*, int, long, int, int, int, float, void*, void> s_packRows;
    private static readonly delegate* unmanaged[SuppressGCTransition]<void*, int, long, int, int, int, float, void*, void> s_packColumns;
    private static readonly delegate* unmanaged[SuppressGCTransition]<GemmTile*, int> s_tile;

#pragma warning disable CA1810 // what can be found decides on all fields together
    static NativeCpu()
#pragma warning restore CA1810
    {
        Status = "off";
        if (Environment.GetEnvironmentVariable(Variable) == "0")
            return;
        Status = "not built";
        if (!NativeLibrary.TryLoad(Name, typeof(NativeCpu).Assembly, DllImportSearchPath.AssemblyDirectory, out var library))
            return;
        if (!NativeLibrary.TryGetExport(library, "nativelora_cpu_version", out var version) || ((delegate* unmanaged<int>)version)() != Version)
        {
            Status = "of another version";
            return;
        }
        var features = ((delegate* unmanaged<int>)NativeLibrary.GetExport(library, "nativelora_cpu_features"))();
        Status = "not for this processor";
        if ((features & 1) == 0)
            return;
        Status = "AVX512-BF16";
        s_packRows = (delegate* unmanaged[SuppressGCTransition]<void*, int, long, int, int, int, float, void*, void>)NativeLibrary.GetExport(library, "nativelora_bf16_pack_rows");
        s_packColumns = (delegate* unmanaged[SuppressGCTransition]<void*, int, long, int, int, int, float, void*, void>)NativeLibrary.GetExport(library, "nativelora_bf16_pack_columns");
        s_tile = (delegate* unmanaged[SuppressGCTransition]<GemmTile*, int>)NativeLibrary.GetExport(library, "nativelora_bf16_tile");
    }

    /// <summary>What is used, or why nothing is.</summary>
    public static string Status { get; }

    /// <summary>Whether products of bf16 can be made.</summary>
    public static bool HasBrainProducts => s_tile != null;

    public static void PackRows(void* data, int type, long stride, int lanes, int width, int depth, float factor, void* target) =>
        s_packRows(data, type, stride, lanes, width, depth, factor, target);

    public static void PackColumns(void* data, int type, long stride, int lanes, int width, int depth, float factor, void* target) =>
        s_packColumns(data, type, stride, lanes, width, depth, factor, target);

    public static int Tile(GemmTile* tile) => s_tile(tile);
}
