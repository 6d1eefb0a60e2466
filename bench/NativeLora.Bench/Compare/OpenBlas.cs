using System.Runtime.InteropServices;

namespace NativeLora.Bench.Compare;

/// <summary>OpenBLAS where the system has it, as another yardstick for products.</summary>
internal sealed unsafe class OpenBlas : GemmPeer
{
    private const int RowMajor = 101, NoTranspose = 111, Transpose = 112;

    private readonly delegate* unmanaged<int, int, int, int, int, int, float, float*, int, float*, int, float, float*, int, void> _sgemm;
    private readonly delegate* unmanaged<int, void> _setThreads;

    private OpenBlas(nint library)
    {
        _sgemm = (delegate* unmanaged<int, int, int, int, int, int, float, float*, int, float*, int, float, float*, int, void>)
            NativeLibrary.GetExport(library, "cblas_sgemm");
        _setThreads = (delegate* unmanaged<int, void>)NativeLibrary.GetExport(library, "openblas_set_num_threads");
        var core = (delegate* unmanaged<byte*>)NativeLibrary.GetExport(library, "openblas_get_corename");
        Core = Marshal.PtrToStringUTF8((nint)core()) ?? "";
    }

    public override string Name => "OpenBLAS";

    /// <summary>The kernels it took.</summary>
    public string Core { get; }

    /// <summary>Null where there is none.</summary>
    public static OpenBlas? Find()
    {
        // It reads the C environment when it is loaded: its own choice of kernels is the best there is.
        if (OperatingSystem.IsLinux())
            _ = unsetenv("OPENBLAS_CORETYPE");
        foreach (var name in new[] { "libopenblas.so.0", "libopenblas.so", "openblas", "libopenblas.dll" })
            if (NativeLibrary.TryLoad(name, out var library))
                return new OpenBlas(library);
        return null;
    }

    public override void SetThreads(int threads) => _setThreads(threads);

    public override GemmProblem Prepare(GemmShape shape, float[] x, float[] w) => new Problem(this, shape, x, w);

    [DllImport("libc")]
    private static extern int unsetenv([MarshalAs(UnmanagedType.LPUTF8Str)] string name);

    private sealed class Problem(OpenBlas blas, GemmShape shape, float[] x, float[] w) : GemmProblem
    {
        private readonly float* _x = Copy(x), _w = Copy(w), _c = Copy(new float[shape.M * shape.N]);

        public override void Run() => blas._sgemm(
            RowMajor, NoTranspose, Transpose, shape.M, shape.N, shape.K, 1, _x, shape.K, _w, shape.K, 0, _c, shape.N);

        public override float[] Result() => new Span<float>(_c, shape.M * shape.N).ToArray();

        public override void Dispose()
        {
            NativeMemory.AlignedFree(_x);
            NativeMemory.AlignedFree(_w);
            NativeMemory.AlignedFree(_c);
        }

        private static float* Copy(float[] values)
        {
            var at = (float*)NativeMemory.AlignedAlloc((nuint)values.Length * 4, 64);
            values.CopyTo(new Span<float>(at, values.Length));
            return at;
        }
    }
}
