using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Products by cuBLAS on the device's stream. All matrices are row-major here; the columns of cuBLAS are turned inside.</summary>
internal sealed unsafe class CudaBlas : IDisposable
{
    private const int Normal = 0, Transposed = 1, Compute32 = 68, DefaultAlgorithm = -1;

    private readonly CudaContext _context;
    private readonly nint _handle;
    private readonly nint _workspace;
    private readonly delegate* unmanaged<nint, int> _destroy;
    private readonly delegate* unmanaged<nint, int, int, int, int, int, float*, nint, int, int, nint, int, int, float*, nint, int, int, int, int, int> _product;

    internal CudaBlas(CudaContext context)
    {
        _context = context;
        var library = context.Driver.Libraries.Blas();
        _destroy = (delegate* unmanaged<nint, int>)Export(library, "cublasDestroy_v2");
        _product = (delegate* unmanaged<nint, int, int, int, int, int, float*, nint, int, int, nint, int, int, float*, nint, int, int, int, int, int>)
            Export(library, "cublasGemmEx");
        var create = (delegate* unmanaged<nint*, int>)Export(library, "cublasCreate_v2");
        var setStream = (delegate* unmanaged<nint, nint, int>)Export(library, "cublasSetStream_v2");
        var setWorkspace = (delegate* unmanaged<nint, nint, nuint, int>)Export(library, "cublasSetWorkspace_v2");
        context.Enter();
        nint handle;
        Check(create(&handle), "cublasCreate");
        _handle = handle;
        // A workspace of our own keeps sums in the same order from run to run; as large as cuBLAS itself has on these GPUs.
        WorkspaceBytes = context.Info.Major >= 9 ? 32 << 20 : 4 << 20;
        _workspace = context.Allocate(WorkspaceBytes);
        // The workspace is set after the stream: setting a stream takes it back.
        Check(setStream(_handle, context.Stream), "cublasSetStream");
        Check(setWorkspace(_handle, _workspace, (nuint)WorkspaceBytes), "cublasSetWorkspace");
    }

    /// <summary>Bytes on the device that cuBLAS works in.</summary>
    public long WorkspaceBytes { get; }

    /// <summary>
    /// C = alpha · op(A) · op(B) + beta · C with C [m, n], op(A) [m, k], op(B) [k, n], row-major; sums in fp32 whatever the types.
    /// fp32 operands are multiplied in full fp32 (no TF32). A and B have the same type.
    /// </summary>
    /// <remarks>turnA: A is stored [k, m]; turnB: B is stored [n, k]; strides are elements between rows.</remarks>
    public void Product(
        bool turnA, bool turnB, int m, int n, int k, float alpha, nint a, ElementType typeA, long strideA, nint b, ElementType typeB, long strideB,
        float beta, nint c, ElementType typeC, long strideC)
    {
        if (m == 0 || n == 0)
            return;
        if (m < 0 || n < 0 || k < 0 || typeA != typeB || !Fits(strideA, turnA ? m : k) || !Fits(strideB, turnB ? k : n) || !Fits(strideC, n))
            throw Misfit(m, n, k, typeA, strideA, typeB, strideB, strideC);
        _context.Enter();
        // A row-major matrix is its transpose to cuBLAS: Cᵀ = op(B)ᵀ · op(A)ᵀ.
        var result = _product(
            _handle, turnB ? Transposed : Normal, turnA ? Transposed : Normal, n, m, k, &alpha, b, Code(typeB), (int)strideB, a, Code(typeA), (int)strideA,
            &beta, c, Code(typeC), (int)strideC, Compute32, DefaultAlgorithm);
        if (result != 0)
            Check(result, "cublasGemmEx");
    }

    private static bool Fits(long stride, int columns) => stride >= Math.Max(1, columns) && stride <= int.MaxValue;

    private static int Code(ElementType type) => type switch
    {
        ElementType.F32 => 0,
        ElementType.F16 => 2,
        ElementType.BF16 => 14,
        _ => throw new ArgumentException($"cuBLAS has no products of {type} here", nameof(type)),
    };

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static ArgumentException Misfit(int m, int n, int k, ElementType typeA, long strideA, ElementType typeB, long strideB, long strideC) =>
        new($"a product of {m} x {n} x {k}: A {typeA} by rows of {strideA}, B {typeB} by {strideB}, C by {strideC}");

    private void Check(int result, string what)
    {
        if (result != 0)
            throw _context.Driver.Failure(BlasError, $"{what} (cuBLAS status {result})");
    }

    // The driver's number for an error of no other name.
    private const int BlasError = 999;

    private static nint Export(nint library, string name) => NativeLibrary.TryGetExport(library, name, out var address)
        ? address
        : throw new InputException($"CUDA: cuBLAS has no {name}; install a newer one");

    public void Dispose()
    {
        _context.Enter();
        _destroy(_handle);
        _context.Free(_workspace);
    }
}
