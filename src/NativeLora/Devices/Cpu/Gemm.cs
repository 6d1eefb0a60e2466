using System.Runtime.InteropServices;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cpu;

/// <summary>
/// The matrix product of every linear layer. Operands are packed into panels that caches and registers hold: B (the frozen
/// weights) once for all threads, A by the worker that needs its rows. The second product extends the depth of the first, so
/// LoRA's term needs no pass over C of its own. Work is split by tiles of C only and each element sums in order of depth, so
/// the bits do not depend on the number of threads. One run at a time: within a parallel body each worker needs its own.
/// </summary>
internal sealed unsafe partial class Gemm : IParallelBody, IDisposable
{
    // A block of A (BlockRows x the kernel's depth) stays in the second-level cache, a panel of B in the first.
    // A rank-r rest of the depth may join the last block.
    private const int ExtraDepthBytes = 72 * sizeof(float);
    private const int MaxDepthBytes = (384 * sizeof(float)) + ExtraDepthBytes;
    private const int BlockRows = 96;
    private const int MinBlockRows = 48;
    private const int BlockColumns = 2048;
    private const int SharedBytes = 4 << 20;
    private const int MaxColumns = 32;
    private const int MaxRows = 12;
    private const int BlockBytes = BlockRows * MaxDepthBytes;
    private const int PanelBytes = MaxDepthBytes * MaxColumns;
    private const int SpillBytes = MaxRows * MaxColumns * sizeof(float);

    // Sums of a block of C that is not fp32 itself, until all of the depth is in them.
    private const int SumColumns = 512;
    private const int SumBytes = BlockRows * SumColumns * sizeof(float);

    // A second operand that is made: a block of it, whole tiles.
    private const int MostDownColumns = 64;
    private const int DownBytes = (BlockRows + MaxRows) * MostDownColumns * sizeof(float);
    private const int WorkerBytes = BlockBytes + PanelBytes + SpillBytes + SumBytes + DownBytes + 512;
    private const int PanelsPerTask = 4;

    // With so few rows B is read once and not used again: packing would cost more than the product.
    private const int DotRows = 4;
    private const int DotDepth = 8192;
    private const int DotChunk = 1024;

    // Below this, waking a thread takes longer than the product.
    private const double InlineFlops = 1e6;

    private readonly CpuThreads _threads;
    private readonly GemmKernel _full;
    private readonly GemmKernel? _brain;
    private byte* _workspace;

    private GemmArgs _g;
    private GemmKernel _kernel;
    private int _k, _total, _bytes;
    private bool _sums;
    private bool _packed, _finishes;
    private int _downColumns;
    private nint _downPanels;
    private Phase _phase;
    private int _depth, _firstBlock, _blocks;
    private int _column, _columns, _paddedColumns, _taskColumns, _columnTasks, _taskRows;

    public Gemm(CpuThreads threads, CpuPath path)
    {
        if (!CpuPaths.IsSupported(path))
            throw new ArgumentException($"this machine has no {path}", nameof(path));
        _threads = threads;
        Path = path;
        _kernel = _full = GemmKernel.For(path);
        _brain = path == CpuPath.Avx512 ? GemmBrain.Create() : null;
        _workspace = (byte*)NativeMemory.AlignedAlloc((nuint)WorkspaceBytes(threads.Count), 4096);
    }

    public Gemm(CpuThreads threads) : this(threads, CpuPaths.Best) { }

    ~Gemm() => Free();

    private enum Phase
    {
        Fill,
        Dot,
        PrivateB,
        PackB,
        SharedB,
    }

    public CpuPath Path { get; }

    /// <summary>Bytes that an instance over so many threads holds from its construction on.</summary>
    public static long WorkspaceBytes(int threads) => SharedBytes + ((long)threads * WorkerBytes);

    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    /// <summary>Computes C. Allocates nothing.</summary>
    public void Run(in GemmArgs args)
    {
        ObjectDisposedException.ThrowIf(_workspace == null, this);
        args.Check();
        if (args.M == 0 || args.N == 0)
            return;
        _downColumns = 0;
        if (args.Down.Data != null && !MakesDown(args))
        {
            Run(new GemmArgs
            {
                M = args.M,
                N = args.K2,
                K = args.K,
                A = args.A,
                B = args.Down,
                Alpha = args.DownAlpha,
                C = args.A2.Data,
                CStride = args.A2.Stride,
                Brain = args.Brain,
            });
            _downColumns = 0;
        }
        _g = args;
        _kernel = KernelOf(args.Brain);
        _bytes = _kernel.PackedBytes;
        _k = RoundUp(args.K, _kernel.DepthUnit);
        // The panels of a weight are used where they lie, if those of a second operand need not stand behind them.
        _packed = args.B.Panels != null && (args.K2 == 0 || (_kernel.TakesRest && PackedBytes(args.K2, args.N, args.Brain) <= SharedBytes / 4));
        _sums = args.CType != ElementType.F32 || (args.Addend != null && args.AddendType != ElementType.F32);
        _finishes = _sums && _kernel.Finishes;
        var total = _total = _k + RoundUp(args.K2, _kernel.DepthUnit);
        var threads = 2.0 * args.M * args.N * total < InlineFlops ? 1 : _threads.Count;
        if (total == 0)
        {
            _phase = Phase.Fill;
            Run(0, 0);
            return;
        }
        var extra = ExtraDepthBytes / _bytes;
        var depthBlocks = Math.Max(1, Blocks(total - extra, _kernel.MaxDepth));
        _depth = RoundUp(Blocks(total, depthBlocks), 8);
        depthBlocks = Blocks(total, _depth);
        if (args.M <= DotRows && (args.K == 0 || args.B.Transposed) && (args.K2 == 0 || args.B2.Transposed))
        {
            RunDots(threads);
        }
        else
        {
            if (_packed && args.K2 > 0)
                PackPanels(_kernel, args.B2, args.K2, args.N, 1, _workspace);
            if (args.M <= BlockRows)
                RunPrivate(threads, depthBlocks);
            else
                RunShared(threads, depthBlocks);
        }
        GC.KeepAlive(this);
    }

    /// <summary>Bytes that <see cref="PackWhole"/> writes.</summary>
    public long PackedBytes(int k, int n, bool brain)
    {
        var kernel = KernelOf(brain);
        long whole = n / kernel.Columns * kernel.Columns, rest = n % kernel.Columns;
        return (whole + (rest == 0 ? 0 : kernel.PanelColumns((int)rest))) * RoundUp(k, kernel.DepthUnit) * kernel.PackedBytes;
    }

    /// <summary>Packs a matrix [k, n] as the operand B of any product, once and for all: for weights that do not change.</summary>
    public void PackWhole(in GemmMatrix b, int k, int n, bool brain, void* target) =>
        PackPanels(KernelOf(brain), b, k, n, 1, (byte*)target);

    private static void PackPanels(GemmKernel kernel, in GemmMatrix b, int k, int n, float factor, byte* target)
    {
        nint depth = RoundUp(k, kernel.DepthUnit);
        for (var j = 0; j < n; j += kernel.Columns)
        {
            var width = kernel.PanelColumns(n - j);
            var to = target + (j * depth * kernel.PackedBytes);
            if (b.Transposed)
                kernel.PackRows(b, j, Math.Min(width, n - j), width, 0, k, factor, to);
            else
                kernel.PackColumns(b, j, Math.Min(width, n - j), width, 0, k, factor, to);
        }
    }

    private GemmKernel KernelOf(bool brain) => brain && _brain is not null ? _brain : _full;

    /// <summary>Whether the second operand is made on the way: all depth in one block, which stays packed for both products.</summary>
    private bool MakesDown(in GemmArgs args)
    {
        var kernel = KernelOf(args.Brain);
        if (args.M <= BlockRows || args.K2 > MostDownColumns || RoundUp(args.K, kernel.DepthUnit) > kernel.MaxDepth)
            return false;
        _downColumns = args.K2 <= kernel.NarrowColumns ? kernel.NarrowColumns : RoundUp(args.K2, kernel.Columns);
        return true;
    }

    void IParallelBody.Run(int task, int worker) => Run(task, worker);

    private void RunDots(int threads)
    {
        _taskColumns = Math.Clamp(RoundUp(Blocks(_g.N, 4 * threads), 4), 16, 256);
        Start(Phase.Dot, Blocks(_g.N, _taskColumns), threads);
    }

    private void RunPrivate(int threads, int depthBlocks)
    {
        // Each task packs A anew: not too narrow.
        var tasks = threads == 1 ? 1 : 2 * threads;
        _taskColumns = Math.Max(RoundUp(Blocks(_g.N, tasks), _kernel.Columns), 2 * _kernel.Columns);
        (_firstBlock, _blocks) = (0, depthBlocks);
        Start(Phase.PrivateB, Blocks(_g.N, _taskColumns), threads);
    }

    private void RunShared(int threads, int depthBlocks)
    {
        _taskRows = Math.Clamp(RoundUp(Blocks(_g.M, 4 * threads), _kernel.Rows), MinBlockRows, BlockRows);
        var rowTasks = Blocks(_g.M, _taskRows);
        var room = SharedBytes;
        if (_downColumns > 0)
        {
            room -= RoundUp(_k * _downColumns * _bytes, 64);
            _downPanels = room;
            PackDown();
        }
        // Sums that are rounded at the end need all of the depth at once.
        var most = _sums ? Math.Clamp(room / (depthBlocks * _depth * _bytes) / _kernel.Columns * _kernel.Columns, _kernel.Columns, BlockColumns) : BlockColumns;
        var columns = RoundUp(Blocks(_g.N, _packed ? 1 : Blocks(_g.N, most)), _kernel.Columns);
        var blocksAtOnce = _packed ? depthBlocks : Math.Max(1, room / (columns * _depth * _bytes));
        if (_sums && blocksAtOnce < depthBlocks)
            throw new NotSupportedException($"a depth of {_total} is too much for sums of {_g.CType}");
        for (_column = 0; _column < _g.N; _column += columns)
        {
            _columns = Math.Min(columns, _g.N - _column);
            _paddedColumns = RoundUp(_columns, _kernel.Columns);
            _columnTasks = rowTasks >= 3 * threads ? 1 : Math.Clamp(Blocks(3 * threads, rowTasks), 1, Blocks(_columns, 256));
            for (_firstBlock = 0; _firstBlock < depthBlocks; _firstBlock += blocksAtOnce)
            {
                _blocks = Math.Min(blocksAtOnce, depthBlocks - _firstBlock);
                _taskColumns = PanelsPerTask * _kernel.Columns;
                if (!_packed)
                    Start(Phase.PackB, _blocks * Blocks(_columns, _taskColumns), threads);
                _taskColumns = RoundUp(Blocks(_columns, _columnTasks), _kernel.Columns);
                _columnTasks = Blocks(_columns, _taskColumns);
                Start(Phase.SharedB, rowTasks * _columnTasks, threads);
            }
        }
    }

    private void Start(Phase phase, int tasks, int threads)
    {
        _phase = phase;
        if (threads > 1)
        {
            _threads.For(tasks, this);
            return;
        }
        for (var task = 0; task < tasks; task++)
            Run(task, 0);
    }

    private void Run(int task, int worker)
    {
        var scratch = _workspace + SharedBytes + ((nint)worker * WorkerBytes);
        switch (_phase)
        {
            case Phase.Fill:
                Fill();
                break;
            case Phase.Dot:
                Dots(task, scratch);
                break;
            case Phase.PrivateB:
                MultiplyPrivate(task, scratch);
                break;
            case Phase.PackB:
                PackShared(task);
                break;
            case Phase.SharedB:
                MultiplyShared(task, scratch);
                break;
        }
    }

    private void PackShared(int task)
    {
        var groups = Blocks(_columns, _taskColumns);
        var (block, group) = Math.DivRem(task, groups);
        var (from, depth) = DepthOf(_firstBlock + block);
        var target = _workspace + ((nint)block * _depth * _paddedColumns * _bytes);
        var end = Math.Min(_columns, (group + 1) * _taskColumns);
        for (var j = group * _taskColumns; j < end; j += _kernel.Columns)
            PackB(_column + j, _column + _columns, from, depth, target + ((nint)j * depth * _bytes));
    }

    private void MultiplyShared(int task, byte* scratch)
    {
        var (rowTask, columnTask) = Math.DivRem(task, _columnTasks);
        var row = rowTask * _taskRows;
        var rows = Math.Min(_taskRows, _g.M - row);
        var end = Math.Min(_columns, (columnTask + 1) * _taskColumns);
        var step = _sums ? SumColumns : _taskColumns;
        for (var first = columnTask * _taskColumns; first < end; first += step)
        {
            var stop = Math.Min(end, first + step);
            for (var block = 0; block < _blocks; block++)
            {
                var (from, depth) = DepthOf(_firstBlock + block);
                var packed = _workspace + ((nint)block * _depth * _paddedColumns * _bytes);
                if (_blocks > 1 || first == columnTask * _taskColumns)
                {
                    if (_downColumns > 0)
                        PackDownA(row, rows, depth, scratch, keep: columnTask == 0);
                    else
                        PackA(row, rows, from, depth, scratch);
                }
                for (var j = first; j < stop; j += _kernel.Columns)
                    MultiplyPanel(scratch, _packed ? PanelOf(_column + j, from) : packed + ((nint)j * depth * _bytes), row, rows, _column + j, j - first, from, depth, scratch);
            }
            if (_sums && !_finishes)
                Finish(row, rows, _column + first, stop - first, SumsOf(scratch), SumColumns);
        }
    }

    private void MultiplyPrivate(int task, byte* scratch)
    {
        var panel = scratch + BlockBytes;
        var end = Math.Min(_g.N, (task + 1) * _taskColumns);
        var step = _sums ? SumColumns : _taskColumns;
        for (var first = task * _taskColumns; first < end; first += step)
        {
            var stop = Math.Min(end, first + step);
            for (var block = 0; block < _blocks; block++)
            {
                var (from, depth) = DepthOf(block);
                PackA(0, _g.M, from, depth, scratch);
                for (var j = first; j < stop; j += _kernel.Columns)
                {
                    if (!_packed)
                        PackB(j, _g.N, from, depth, panel);
                    MultiplyPanel(scratch, _packed ? PanelOf(j, from) : panel, 0, _g.M, j, j - first, from, depth, scratch);
                }
            }
            if (_sums && !_finishes)
                Finish(0, _g.M, first, stop - first, SumsOf(scratch), SumColumns);
        }
    }

    /// <summary>Multiplies a block of packed A with one packed panel of B, into C or, where that is not fp32, into this worker's sums.</summary>
    private void MultiplyPanel(byte* a, byte* b, int row, int rows, int column, int sumColumn, int from, int depth, byte* scratch)
    {
        var columns = Math.Min(_kernel.Columns, _g.N - column);
        var first = from == 0;
        var finish = _finishes && from + depth == _total;
        nint stride = _sums ? SumColumns : _g.CStride;
        var c = _sums ? SumsOf(scratch) + sumColumn : (float*)_g.C + (row * stride) + column;
        var s = !first ? c : _sums || _g.Addend == null ? null : (float*)_g.Addend + ((nint)row * _g.AddendStride) + column;
        var sourceStride = first && !_sums ? _g.AddendStride : stride;
        var bias = first && !_sums && _g.Bias != null ? _g.Bias + column : null;
        var spill = (float*)(scratch + BlockBytes + PanelBytes);
        var tile = new GemmTile { Depth = depth, B = b, Columns = _kernel.PanelColumns(columns), SourceStride = sourceStride };
        if (_packed && from + depth > _k)
        {
            tile.Depth = Math.Max(0, _k - from);
            tile.RestDepth = depth - tile.Depth;
            tile.Rest = RestOf(column, Math.Max(0, from - _k));
        }
        for (int i = 0, height; i < rows; i += height)
        {
            height = _kernel.PanelRows(rows - i);
            tile.A = a + ((nint)i * depth * _bytes);
            tile.Rows = height;
            if (height <= rows - i && tile.Columns == columns)
            {
                tile.Source = s;
                if (finish)
                {
                    Finished(ref tile, row + i, column);
                }
                else
                {
                    tile.Bias = bias;
                    tile.C = c;
                    tile.CStride = stride;
                }
                _kernel.Multiply(tile);
                c += height * stride;
                s += s == null ? 0 : height * sourceStride;
                continue;
            }
            tile.Source = null;
            tile.Bias = null;
            tile.Addend = null;
            tile.C = spill;
            tile.CStride = tile.Columns;
            tile.CType = 0;
            _kernel.Multiply(tile);
            var valid = Math.Min(height, rows - i);
            for (var r = 0; r < valid; r++, c += stride, s += s == null ? 0 : sourceStride)
                Finish(spill + (r * tile.Columns), s, bias, finish ? spill + (r * tile.Columns) : c, columns);
            if (finish)
                Finish(row + i, valid, column, columns, spill, tile.Columns);
        }
    }

    /// <summary>Has a tile stored where and as it belongs, with what is added to it.</summary>
    private void Finished(ref GemmTile tile, int row, int column)
    {
        var brain = _g.CType == ElementType.BF16;
        tile.Bias = _g.Bias == null ? null : _g.Bias + column;
        tile.C = (byte*)_g.C + ((((nint)row * _g.CStride) + column) * (brain ? sizeof(ushort) : sizeof(float)));
        tile.CStride = _g.CStride;
        tile.CType = GemmBrain.Code(_g.CType);
        if (_g.Addend == null)
            return;
        tile.Addend = (byte*)_g.Addend + ((((nint)row * _g.AddendStride) + column) * (_g.AddendType == ElementType.BF16 ? sizeof(ushort) : sizeof(float)));
        tile.AddendStride = _g.AddendStride;
        tile.AddendType = GemmBrain.Code(_g.AddendType);
    }

    /// <summary>The end of a tile that reaches over the edge of C, added in the same order as in a whole one.</summary>
    private static void Finish(float* product, float* source, float* bias, float* c, int columns)
    {
        for (var j = 0; j < columns; j++)
            c[j] = (source == null ? product[j] : product[j] + source[j]) + (bias == null ? 0 : bias[j]);
    }

    /// <summary>C from finished sums: C = (sums + addend) + bias, rounded once.</summary>
    private void Finish(int row, int rows, int column, int columns, float* sums, int stride)
    {
        columns = Math.Min(columns, _g.N - column);
        for (var r = 0; r < rows; r++, sums += stride)
        {
            var c = ((nint)(row + r) * _g.CStride) + column;
            var addend = _g.Addend == null ? 0 : ((nint)(row + r) * _g.AddendStride) + column;
            for (var j = 0; j < columns; j += RowMath.Lanes)
            {
                var left = columns - j;
                var value = RowMath.Load(sums + j, left);
                if (_g.Addend != null)
                    value += _g.AddendType == ElementType.F32
                        ? RowMath.Load((float*)_g.Addend + addend + j, left)
                        : RowMath.Load((BFloat16*)_g.Addend + addend + j, left);
                if (_g.Bias != null)
                    value += RowMath.Load(_g.Bias + column + j, left);
                if (_g.CType == ElementType.F32)
                    RowMath.Store(value, (float*)_g.C + c + j, left);
                else
                    RowMath.Store(value, (BFloat16*)_g.C + c + j, left);
            }
        }
    }

    private void PackA(int row, int rows, int from, int depth, byte* target)
    {
        for (int i = 0, height; i < rows; i += height)
        {
            height = _kernel.PanelRows(rows - i);
            var lanes = Math.Min(height, rows - i);
            var t = target + ((nint)i * depth * _bytes);
            var (at, left) = (from, depth);
            if (at < _k)
            {
                var count = Math.Min(left, _k - at);
                Pack(_g.A, !_g.A.Transposed, row + i, lanes, height, at, Math.Min(count, _g.K - at), _g.Alpha, t);
                t += (nint)height * count * _bytes;
                (at, left) = (_k, left - count);
            }
            if (left > 0)
                Pack(_g.A2, !_g.A2.Transposed, row + i, lanes, height, at - _k, Math.Min(left, _g.K2 - (at - _k)), _g.Alpha2, t);
        }
    }

    /// <summary>A panel of B that was packed before, from some depth on.</summary>
    private byte* PanelOf(int column, int from) =>
        (byte*)_g.B.Panels + ((((nint)column * _k) + ((nint)from * _kernel.PanelColumns(_g.N - column))) * _bytes);

    /// <summary>A panel of the second operand, packed by itself, from some depth on.</summary>
    private byte* RestOf(int column, int from) =>
        _workspace + ((((nint)column * (_total - _k)) + ((nint)from * _kernel.PanelColumns(_g.N - column))) * _bytes);

    /// <summary>The factor that makes the second operand, packed once for all workers.</summary>
    private void PackDown() => PackPanels(_kernel, _g.Down, _g.K, _g.K2, _g.DownAlpha, _workspace + _downPanels);

    /// <summary>Packs rows of A, makes those of the second operand from them, and packs these behind.</summary>
    private void PackDownA(int row, int rows, int depth, byte* target, bool keep)
    {
        var made = (float*)((byte*)SumsOf(target) + SumBytes);
        for (int i = 0, height; i < rows; i += height)
        {
            height = _kernel.PanelRows(rows - i);
            var lanes = Math.Min(height, rows - i);
            var t = target + ((nint)i * depth * _bytes);
            Pack(_g.A, !_g.A.Transposed, row + i, lanes, height, 0, _g.K, _g.Alpha, t);
            var block = made + (i * _downColumns);
            for (var j = 0; j < _g.K2; j += _kernel.Columns)
            {
                _kernel.Multiply(new GemmTile
                {
                    Depth = _k,
                    A = t,
                    Rows = height,
                    B = _workspace + _downPanels + ((nint)j * _k * _bytes),
                    Columns = _kernel.PanelColumns(_g.K2 - j),
                    C = block + j,
                    CStride = _downColumns,
                });
            }
            if (keep)
                for (var r = 0; r < lanes; r++)
                    RowMath.Copy(block + (r * _downColumns), (float*)_g.A2.Data + ((nint)(row + i + r) * _g.A2.Stride), _g.K2);
            _kernel.PackRows(new GemmMatrix(block, _downColumns), 0, lanes, height, 0, _g.K2, _g.Alpha2, t + ((nint)height * _k * _bytes));
        }
    }

    private void PackB(int column, int endColumn, int from, int depth, byte* target)
    {
        var width = _kernel.PanelColumns(endColumn - column);
        var lanes = Math.Min(width, endColumn - column);
        if (from < _k)
        {
            var count = Math.Min(depth, _k - from);
            if (_g.B.Panels != null)
                Buffer.MemoryCopy(PanelOf(column, from), target, (nint)width * count * _bytes, (nint)width * count * _bytes);
            else
                Pack(_g.B, _g.B.Transposed, column, lanes, width, from, Math.Min(count, _g.K - from), 1, target);
            target += (nint)width * count * _bytes;
            (from, depth) = (_k, depth - count);
        }
        if (depth > 0)
            Pack(_g.B2, _g.B2.Transposed, column, lanes, width, from - _k, Math.Min(depth, _g.K2 - (from - _k)), 1, target);
    }

    private void Pack(
        in GemmMatrix m, bool alongDepth, int lane, int lanes, int width, int from, int depth, float factor, byte* target)
    {
        if (alongDepth)
            _kernel.PackRows(m, lane, lanes, width, from, depth, factor, target);
        else
            _kernel.PackColumns(m, lane, lanes, width, from, depth, factor, target);
    }

    private void Fill()
    {
        var zeros = stackalloc float[SumColumns];
        new Span<float>(zeros, SumColumns).Clear();
        for (var j = 0; j < _g.N; j += SumColumns)
            Finish(0, _g.M, j, Math.Min(SumColumns, _g.N - j), zeros, 0);
    }

    private (int From, int Depth) DepthOf(int block)
    {
        var from = block * _depth;
        return (from, Math.Min(_depth, _total - from));
    }

    private static float* SumsOf(byte* scratch) => (float*)(scratch + BlockBytes + PanelBytes + SpillBytes);

    private static int Blocks(int size, int block) => (int)(((long)size + block - 1) / block);

    private static int RoundUp(int size, int unit) => Blocks(size, unit) * unit;

    private void Free()
    {
        NativeMemory.AlignedFree(_workspace);
        _workspace = null;
    }
}
