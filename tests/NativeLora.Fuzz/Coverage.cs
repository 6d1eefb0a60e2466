using System.Runtime.InteropServices;
using SharpFuzz;
using SharpFuzz.Common;

namespace NativeLora.Fuzz;

/// <summary>
/// Which branches were taken how often, where SharpFuzz has put counters into the readers' assemblies; without them nothing is ever new, and
/// what an input led to guides alone.
/// </summary>
internal static unsafe class Coverage
{
    private const int Size = 1 << 16;
    private static readonly byte[] Seen = new byte[Size];
    private static readonly string[] Assemblies = ["NativeLora.dll", "NativeLora.Cli.dll", "NativeLora.Imaging.dll"];

    // Kernels and graphs read no files, and are what takes the time.
    private static readonly string[] Left = ["NativeLora.Devices", "NativeLora.Ops", "NativeLora.Graphs", "NativeLora.Cli.Demo", "NativeLora.Cli.Show"];

    // The counters write wherever this points, so it must be set before the first of them counts.
    static Coverage()
    {
        if (Trace.SharedMem is null)
            Trace.SharedMem = (byte*)NativeMemory.AllocZeroed(Size);
    }

    /// <summary>Forgets what the last input did.</summary>
    public static void Clear()
    {
        Trace.PrevLocation = 0;
        new Span<byte>(Trace.SharedMem, Size).Clear();
    }

    /// <summary>Whether a branch was taken that none was before, or far more often.</summary>
    public static bool IsNew()
    {
        var map = new ReadOnlySpan<byte>(Trace.SharedMem, Size);
        var any = false;
        for (var at = map.IndexOfAnyExcept((byte)0); at >= 0;)
        {
            var bucket = Bucket(map[at]);
            if ((Seen[at] & bucket) == 0)
            {
                Seen[at] |= bucket;
                any = true;
            }
            var next = map[(at + 1)..].IndexOfAnyExcept((byte)0);
            at = next < 0 ? -1 : at + 1 + next;
        }
        return any;
    }

    /// <summary>Puts counters into copies of the assemblies.</summary>
    public static void Instrument(string folder)
    {
        foreach (var name in Assemblies)
            Fuzzer.Instrument(Path.Combine(folder, name), type => !Left.Any(l => type.StartsWith(l, StringComparison.Ordinal)), Options.Value).ToList();
    }

    // 1, 2, 3, 4-7, 8-15, 16-31, 32-127, more: as AFL has it.
    private static byte Bucket(byte count) => count switch { 1 => 1, 2 => 2, 3 => 4, < 8 => 8, < 16 => 16, < 32 => 32, < 128 => 64, _ => 128 };
}
