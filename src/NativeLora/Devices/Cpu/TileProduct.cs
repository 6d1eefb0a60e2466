using System.Runtime.CompilerServices;

namespace NativeLora.Devices.Cpu;

/// <summary>How the left factor of a tile product lies in memory.</summary>
internal interface ITileOrder
{
    /// <summary>False: element (row, depth) at row * lda + depth. True: at depth * lda + row.</summary>
    static abstract bool Transposed { get; }
}

/// <summary>The left factor row by row.</summary>
internal readonly struct RowOrder : ITileOrder
{
    public static bool Transposed => false;
}

/// <summary>The left factor column by column.</summary>
internal readonly struct ColumnOrder : ITileOrder
{
    public static bool Transposed => true;
}

/// <summary>
/// C = A B or C += A B of small tiles, in blocks of registers. Every element is summed over depth in ascending order whatever
/// block it falls into, so its bits do not depend on the shape of the tile.
/// </summary>
internal static unsafe class TileProduct
{
    /// <summary>
    /// C [m, n] from A [m, depth] and B [depth, n]. <paramref name="n"/> is a multiple of <see cref="Tile.Pad"/>, and B and C
    /// have that many columns.
    /// </summary>
    public static void Run<V, W, O>(float* a, int lda, float* b, int ldb, float* c, int ldc, int m, int n, int depth, bool add)
        where V : struct where W : struct, ITileLanes<V> where O : struct, ITileOrder
    {
        nint rowA = O.Transposed ? 1 : lda;
        var column = 0;
        for (; column + 2 * W.Count <= n; column += 2 * W.Count)
        {
            var row = 0;
            if (W.Wide)
            {
                for (; row + 8 <= m; row += 8)
                    Rows8Columns2<V, W, O>(a + row * rowA, lda, b + column, ldb, c + row * (nint)ldc + column, ldc, depth, add);
            }
            for (; row + 4 <= m; row += 4)
                Rows4Columns2<V, W, O>(a + row * rowA, lda, b + column, ldb, c + row * (nint)ldc + column, ldc, depth, add);
            for (; row < m; row++)
                Rows1Columns2<V, W, O>(a + row * rowA, lda, b + column, ldb, c + row * (nint)ldc + column, ldc, depth, add);
        }
        for (; column < n; column += W.Count)
        {
            var row = 0;
            for (; row + 8 <= m; row += 8)
                Rows8Columns1<V, W, O>(a + row * rowA, lda, b + column, ldb, c + row * (nint)ldc + column, ldc, depth, add);
            for (; row + 4 <= m; row += 4)
                Rows4Columns1<V, W, O>(a + row * rowA, lda, b + column, ldb, c + row * (nint)ldc + column, ldc, depth, add);
            for (; row < m; row++)
                Rows1Columns1<V, W, O>(a + row * rowA, lda, b + column, ldb, c + row * (nint)ldc + column, ldc, depth, add);
        }
    }

    // Not inlined: the register allocator then sees one block at a time.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Rows8Columns2<V, W, O>(float* a, nint lda, float* b, nint ldb, float* c, nint ldc, int depth, bool add)
        where V : struct where W : struct, ITileLanes<V> where O : struct, ITileOrder
    {
        var z = W.Broadcast(0f);
        V s00 = z, s01 = z;
        V s10 = z, s11 = z;
        V s20 = z, s21 = z;
        V s30 = z, s31 = z;
        V s40 = z, s41 = z;
        V s50 = z, s51 = z;
        V s60 = z, s61 = z;
        V s70 = z, s71 = z;
        if (add)
        {
            s00 = W.Load(c);
            s01 = W.Load(c + W.Count);
            s10 = W.Load(c + ldc);
            s11 = W.Load(c + ldc + W.Count);
            s20 = W.Load(c + 2 * ldc);
            s21 = W.Load(c + 2 * ldc + W.Count);
            s30 = W.Load(c + 3 * ldc);
            s31 = W.Load(c + 3 * ldc + W.Count);
            s40 = W.Load(c + 4 * ldc);
            s41 = W.Load(c + 4 * ldc + W.Count);
            s50 = W.Load(c + 5 * ldc);
            s51 = W.Load(c + 5 * ldc + W.Count);
            s60 = W.Load(c + 6 * ldc);
            s61 = W.Load(c + 6 * ldc + W.Count);
            s70 = W.Load(c + 7 * ldc);
            s71 = W.Load(c + 7 * ldc + W.Count);
        }
        for (var d = 0; d < depth; d++)
        {
            var b0 = W.Load(b);
            var b1 = W.Load(b + W.Count);
            var x = W.Broadcast(a[0]);
            s00 = W.MultiplyAdd(x, b0, s00);
            s01 = W.MultiplyAdd(x, b1, s01);
            x = W.Broadcast(O.Transposed ? a[1] : a[lda]);
            s10 = W.MultiplyAdd(x, b0, s10);
            s11 = W.MultiplyAdd(x, b1, s11);
            x = W.Broadcast(O.Transposed ? a[2] : a[2 * lda]);
            s20 = W.MultiplyAdd(x, b0, s20);
            s21 = W.MultiplyAdd(x, b1, s21);
            x = W.Broadcast(O.Transposed ? a[3] : a[3 * lda]);
            s30 = W.MultiplyAdd(x, b0, s30);
            s31 = W.MultiplyAdd(x, b1, s31);
            x = W.Broadcast(O.Transposed ? a[4] : a[4 * lda]);
            s40 = W.MultiplyAdd(x, b0, s40);
            s41 = W.MultiplyAdd(x, b1, s41);
            x = W.Broadcast(O.Transposed ? a[5] : a[5 * lda]);
            s50 = W.MultiplyAdd(x, b0, s50);
            s51 = W.MultiplyAdd(x, b1, s51);
            x = W.Broadcast(O.Transposed ? a[6] : a[6 * lda]);
            s60 = W.MultiplyAdd(x, b0, s60);
            s61 = W.MultiplyAdd(x, b1, s61);
            x = W.Broadcast(O.Transposed ? a[7] : a[7 * lda]);
            s70 = W.MultiplyAdd(x, b0, s70);
            s71 = W.MultiplyAdd(x, b1, s71);
            a += O.Transposed ? lda : 1;
            b += ldb;
        }
        W.Store(s00, c);
        W.Store(s01, c + W.Count);
        W.Store(s10, c + ldc);
        W.Store(s11, c + ldc + W.Count);
        W.Store(s20, c + 2 * ldc);
        W.Store(s21, c + 2 * ldc + W.Count);
        W.Store(s30, c + 3 * ldc);
        W.Store(s31, c + 3 * ldc + W.Count);
        W.Store(s40, c + 4 * ldc);
        W.Store(s41, c + 4 * ldc + W.Count);
        W.Store(s50, c + 5 * ldc);
        W.Store(s51, c + 5 * ldc + W.Count);
        W.Store(s60, c + 6 * ldc);
        W.Store(s61, c + 6 * ldc + W.Count);
        W.Store(s70, c + 7 * ldc);
        W.Store(s71, c + 7 * ldc + W.Count);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Rows4Columns2<V, W, O>(float* a, nint lda, float* b, nint ldb, float* c, nint ldc, int depth, bool add)
        where V : struct where W : struct, ITileLanes<V> where O : struct, ITileOrder
    {
        var z = W.Broadcast(0f);
        V s00 = z, s01 = z;
        V s10 = z, s11 = z;
        V s20 = z, s21 = z;
        V s30 = z, s31 = z;
        if (add)
        {
            s00 = W.Load(c);
            s01 = W.Load(c + W.Count);
            s10 = W.Load(c + ldc);
            s11 = W.Load(c + ldc + W.Count);
            s20 = W.Load(c + 2 * ldc);
            s21 = W.Load(c + 2 * ldc + W.Count);
            s30 = W.Load(c + 3 * ldc);
            s31 = W.Load(c + 3 * ldc + W.Count);
        }
        for (var d = 0; d < depth; d++)
        {
            var b0 = W.Load(b);
            var b1 = W.Load(b + W.Count);
            var x = W.Broadcast(a[0]);
            s00 = W.MultiplyAdd(x, b0, s00);
            s01 = W.MultiplyAdd(x, b1, s01);
            x = W.Broadcast(O.Transposed ? a[1] : a[lda]);
            s10 = W.MultiplyAdd(x, b0, s10);
            s11 = W.MultiplyAdd(x, b1, s11);
            x = W.Broadcast(O.Transposed ? a[2] : a[2 * lda]);
            s20 = W.MultiplyAdd(x, b0, s20);
            s21 = W.MultiplyAdd(x, b1, s21);
            x = W.Broadcast(O.Transposed ? a[3] : a[3 * lda]);
            s30 = W.MultiplyAdd(x, b0, s30);
            s31 = W.MultiplyAdd(x, b1, s31);
            a += O.Transposed ? lda : 1;
            b += ldb;
        }
        W.Store(s00, c);
        W.Store(s01, c + W.Count);
        W.Store(s10, c + ldc);
        W.Store(s11, c + ldc + W.Count);
        W.Store(s20, c + 2 * ldc);
        W.Store(s21, c + 2 * ldc + W.Count);
        W.Store(s30, c + 3 * ldc);
        W.Store(s31, c + 3 * ldc + W.Count);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Rows1Columns2<V, W, O>(float* a, nint lda, float* b, nint ldb, float* c, nint ldc, int depth, bool add)
        where V : struct where W : struct, ITileLanes<V> where O : struct, ITileOrder
    {
        var z = W.Broadcast(0f);
        V s00 = z, s01 = z;
        if (add)
        {
            s00 = W.Load(c);
            s01 = W.Load(c + W.Count);
        }
        for (var d = 0; d < depth; d++)
        {
            var b0 = W.Load(b);
            var b1 = W.Load(b + W.Count);
            var x = W.Broadcast(a[0]);
            s00 = W.MultiplyAdd(x, b0, s00);
            s01 = W.MultiplyAdd(x, b1, s01);
            a += O.Transposed ? lda : 1;
            b += ldb;
        }
        W.Store(s00, c);
        W.Store(s01, c + W.Count);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Rows8Columns1<V, W, O>(float* a, nint lda, float* b, nint ldb, float* c, nint ldc, int depth, bool add)
        where V : struct where W : struct, ITileLanes<V> where O : struct, ITileOrder
    {
        var z = W.Broadcast(0f);
        V s00 = z;
        V s10 = z;
        V s20 = z;
        V s30 = z;
        V s40 = z;
        V s50 = z;
        V s60 = z;
        V s70 = z;
        if (add)
        {
            s00 = W.Load(c);
            s10 = W.Load(c + ldc);
            s20 = W.Load(c + 2 * ldc);
            s30 = W.Load(c + 3 * ldc);
            s40 = W.Load(c + 4 * ldc);
            s50 = W.Load(c + 5 * ldc);
            s60 = W.Load(c + 6 * ldc);
            s70 = W.Load(c + 7 * ldc);
        }
        for (var d = 0; d < depth; d++)
        {
            var b0 = W.Load(b);
            var x = W.Broadcast(a[0]);
            s00 = W.MultiplyAdd(x, b0, s00);
            x = W.Broadcast(O.Transposed ? a[1] : a[lda]);
            s10 = W.MultiplyAdd(x, b0, s10);
            x = W.Broadcast(O.Transposed ? a[2] : a[2 * lda]);
            s20 = W.MultiplyAdd(x, b0, s20);
            x = W.Broadcast(O.Transposed ? a[3] : a[3 * lda]);
            s30 = W.MultiplyAdd(x, b0, s30);
            x = W.Broadcast(O.Transposed ? a[4] : a[4 * lda]);
            s40 = W.MultiplyAdd(x, b0, s40);
            x = W.Broadcast(O.Transposed ? a[5] : a[5 * lda]);
            s50 = W.MultiplyAdd(x, b0, s50);
            x = W.Broadcast(O.Transposed ? a[6] : a[6 * lda]);
            s60 = W.MultiplyAdd(x, b0, s60);
            x = W.Broadcast(O.Transposed ? a[7] : a[7 * lda]);
            s70 = W.MultiplyAdd(x, b0, s70);
            a += O.Transposed ? lda : 1;
            b += ldb;
        }
        W.Store(s00, c);
        W.Store(s10, c + ldc);
        W.Store(s20, c + 2 * ldc);
        W.Store(s30, c + 3 * ldc);
        W.Store(s40, c + 4 * ldc);
        W.Store(s50, c + 5 * ldc);
        W.Store(s60, c + 6 * ldc);
        W.Store(s70, c + 7 * ldc);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Rows4Columns1<V, W, O>(float* a, nint lda, float* b, nint ldb, float* c, nint ldc, int depth, bool add)
        where V : struct where W : struct, ITileLanes<V> where O : struct, ITileOrder
    {
        var z = W.Broadcast(0f);
        V s00 = z;
        V s10 = z;
        V s20 = z;
        V s30 = z;
        if (add)
        {
            s00 = W.Load(c);
            s10 = W.Load(c + ldc);
            s20 = W.Load(c + 2 * ldc);
            s30 = W.Load(c + 3 * ldc);
        }
        for (var d = 0; d < depth; d++)
        {
            var b0 = W.Load(b);
            var x = W.Broadcast(a[0]);
            s00 = W.MultiplyAdd(x, b0, s00);
            x = W.Broadcast(O.Transposed ? a[1] : a[lda]);
            s10 = W.MultiplyAdd(x, b0, s10);
            x = W.Broadcast(O.Transposed ? a[2] : a[2 * lda]);
            s20 = W.MultiplyAdd(x, b0, s20);
            x = W.Broadcast(O.Transposed ? a[3] : a[3 * lda]);
            s30 = W.MultiplyAdd(x, b0, s30);
            a += O.Transposed ? lda : 1;
            b += ldb;
        }
        W.Store(s00, c);
        W.Store(s10, c + ldc);
        W.Store(s20, c + 2 * ldc);
        W.Store(s30, c + 3 * ldc);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Rows1Columns1<V, W, O>(float* a, nint lda, float* b, nint ldb, float* c, nint ldc, int depth, bool add)
        where V : struct where W : struct, ITileLanes<V> where O : struct, ITileOrder
    {
        var z = W.Broadcast(0f);
        V s00 = z;
        if (add)
        {
            s00 = W.Load(c);
        }
        for (var d = 0; d < depth; d++)
        {
            var b0 = W.Load(b);
            var x = W.Broadcast(a[0]);
            s00 = W.MultiplyAdd(x, b0, s00);
            a += O.Transposed ? lda : 1;
            b += ldb;
        }
        W.Store(s00, c);
    }
}
