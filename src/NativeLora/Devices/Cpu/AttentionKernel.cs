using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace NativeLora.Devices.Cpu;

/// <summary>The operands of attention that do not depend on the type of the activations.</summary>
internal abstract unsafe class AttentionKernel : IDisposable
{
    /// <summary>Dropout elements are numbered with this many bits for the key.</summary>
    public const int MaxDropoutLength = 1 << 20;

    public float* Lse;

    /// <summary>[sequences + 1] ascending token offsets.</summary>
    public int* CuSeqlens;

    /// <summary>[tokens], 0 hides a key; null shows all.</summary>
    public int* KeyVisible;

    public int Heads, KvHeads, HeadDim;
    public float Scale;
    public bool Causal;

    /// <summary>0: none. Causal: key k is visible to query q if k > q - Window. Bidirectional: if |q - k| &lt;= Window / 2.</summary>
    public int Window;

    /// <summary>Scores become Softcap · tanh(score / Softcap); 0: none.</summary>
    public float Softcap;

    /// <summary>Drop probability of attention weights; the mask is that of <see cref="Philox"/>.</summary>
    public float Dropout;
    public ulong Seed;

    /// <summary>Tokens of a larger batch that lie before these: dropouts are those of the larger one.</summary>
    public int TokensBefore;
    public uint Stream, Step;

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>
/// What the forward and the backward of attention share: operands, which keys a query sees, scratch, and finding a task's tile.
/// Activations are packed [tokens, width]; tiles are fp32 whatever E is. Head h reads key/value head h / (Heads / KvHeads). Tiles of scores lie
/// transposed, [keys, queries]: the softmax then runs down columns, vectors of queries side by side, and only the queries are
/// ever transposed.
/// </summary>
internal abstract unsafe class AttentionKernel<E> : AttentionKernel, IParallelBody
    where E : unmanaged
{
    private const int CursorFloats = 16;

    public E* Q, K, V, Out;

    private readonly CpuThreads _threads;
    private readonly int _vectorBits;
    private readonly int _maxHeadDim;
    private readonly nint _floatsPerWorker;
    private readonly RelativeScores? _relative;
    private float* _scratch;
    private int _sequences;

    private protected AttentionKernel(CpuThreads threads, int maxHeadDim, int vectorBits, nint floatsPerWorker, RelativeScores? relative)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(maxHeadDim, 1);
        if (vectorBits is not (0 or 128 or 256 or 512))
            throw new ArgumentOutOfRangeException(nameof(vectorBits), vectorBits, "128, 256 or 512, or 0 for the widest of the machine");
        _threads = threads;
        _maxHeadDim = maxHeadDim;
        _relative = relative;
        _vectorBits = vectorBits == 0 ? VectorMath.WidestBits : vectorBits;
        _floatsPerWorker = floatsPerWorker;
        _scratch = (float*)NativeMemory.AlignedAlloc((nuint)WorkerBytes(floatsPerWorker) * (nuint)threads.Count, 64);
        // Padding is computed on, though never read: it must not start as a signalling or slow number.
        NativeMemory.Clear(_scratch, (nuint)WorkerBytes(floatsPerWorker) * (nuint)threads.Count);
    }

    ~AttentionKernel() => Free();

    public override void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    public void Run(int task, int worker)
    {
        var cursor = (Cursor*)((byte*)_scratch + worker * WorkerBytes(_floatsPerWorker));
        var scratch = (float*)cursor + CursorFloats;
        switch (_vectorBits)
        {
            case 512:
                Run<Vector512<float>, TileLanes512>(task, worker, cursor, scratch);
                break;
            case 256:
                Run<Vector256<float>, TileLanes256>(task, worker, cursor, scratch);
                break;
            default:
                Run<Vector128<float>, TileLanes128>(task, worker, cursor, scratch);
                break;
        }
    }

    private protected abstract void Run<VF, W>(int task, int worker, Cursor* cursor, float* scratch)
        where VF : struct where W : struct, ITileLanes<VF>;

    private protected static nint WorkerBytes(nint floats) => (CursorFloats + floats) * sizeof(float);

    /// <summary>Position parts of the scores, or null.</summary>
    private protected RelativeScores? Relative => _relative;

    private protected int MaxHeadDim => _maxHeadDim;

    private protected int Workers => _threads.Count;

    private protected int Sequences => _sequences;

    /// <summary>Checks the operands and resets the cursors.</summary>
    private protected void Begin(int sequences)
    {
        ObjectDisposedException.ThrowIf(_scratch == null, this);
        ArgumentOutOfRangeException.ThrowIfNegative(sequences);
        ArgumentOutOfRangeException.ThrowIfLessThan(HeadDim, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(HeadDim, _maxHeadDim);
        ArgumentOutOfRangeException.ThrowIfLessThan(KvHeads, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(Heads, KvHeads);
        ArgumentOutOfRangeException.ThrowIfNotEqual(Heads % KvHeads, 0, nameof(Heads));
        ArgumentOutOfRangeException.ThrowIfNegative(Window);
        ArgumentOutOfRangeException.ThrowIfNegative(Softcap);
        if (!(Dropout is >= 0f and < 1f))
            throw new ArgumentOutOfRangeException(nameof(Dropout), Dropout, "from 0 to below 1");
        for (var s = 0; s < sequences; s++)
        {
            var length = CuSeqlens[s + 1] - CuSeqlens[s];
            ArgumentOutOfRangeException.ThrowIfNegative(length, nameof(CuSeqlens));
            if (Dropout > 0f)
                ArgumentOutOfRangeException.ThrowIfGreaterThan(length, MaxDropoutLength, nameof(CuSeqlens));
        }
        if (_relative is not null)
        {
            ArgumentOutOfRangeException.ThrowIfNotEqual(KvHeads, Heads);
            _relative.Check(CuSeqlens, sequences, Heads, HeadDim);
        }
        _sequences = sequences;
        for (var w = 0; w < _threads.Count; w++)
            *(Cursor*)((byte*)_scratch + w * WorkerBytes(_floatsPerWorker)) = default;
    }

    /// <summary>Whether rows of Q, K and V can be multiplied where they lie.</summary>
    private protected static bool Direct => typeof(E) == typeof(float);

    /// <summary>Rows in fp32, and floats from one to the next: where they lie, or else copied into a tile.</summary>
    private protected FloatRows Widen<VF, W>(E* rows, nint stride, float* tile, int padded, int count)
        where VF : struct where W : struct, ITileLanes<VF>
    {
        if (Direct)
            return new FloatRows((float*)rows, (int)stride);
        Tile.Load<VF, W, E>(rows, stride, tile, padded, count, HeadDim);
        return new FloatRows(tile, padded);
    }

    private protected void For(int tasks) => _threads.For(tasks, this);

    /// <summary>Tiles of all sequences.</summary>
    private protected int CountTiles()
    {
        var tiles = 0;
        for (var s = 0; s < _sequences; s++)
            tiles += TilesOf(s);
        return tiles;
    }

    /// <summary>Finds a tile's sequence. A worker's tasks mostly ascend, so that it searches on from its last.</summary>
    private protected TileSpan Locate(int tile, Cursor* cursor)
    {
        if (tile < cursor->FirstTile)
            *cursor = default;
        int count;
        while (tile >= cursor->FirstTile + (count = TilesOf(cursor->Sequence)))
        {
            cursor->FirstTile += count;
            cursor->Sequence++;
        }
        return At(cursor->Sequence, (tile - cursor->FirstTile) * Tile.Size);
    }

    private protected TileSpan At(int sequence, int from)
    {
        var start = CuSeqlens[sequence];
        var length = CuSeqlens[sequence + 1] - start;
        return new TileSpan(start, length, from);
    }

    /// <summary>Whether any query of one tile may see any key of another, going by their places alone.</summary>
    private protected bool Visits(TileSpan queries, TileSpan keys)
    {
        if (Causal)
            return keys.From < queries.End && (Window == 0 || keys.End - 1 > queries.From - Window);
        return Window == 0 || (keys.From - (queries.End - 1) <= Window / 2 && queries.From - (keys.End - 1) <= Window / 2);
    }

    /// <summary>Whether the tiles meet at the diagonal, where blocks of Tile.Pad keys above it are left out of products.</summary>
    private protected bool OnDiagonal(TileSpan queries, TileSpan keys) => Causal && queries.From == keys.From;

    /// <summary>
    /// Product of <paramref name="left"/> [keys, depth] and the transposed queries [depth, columns] into a tile [keys, columns].
    /// On the diagonal, blocks of queries that precede the keys are left as they were.
    /// </summary>
    private protected static void ScoreProduct<VF, W>(float* left, int stride, float* right, float* tile, int keys, int columns,
        int depth, bool diagonal, bool add = false)
        where VF : struct where W : struct, ITileLanes<VF>
    {
        if (!diagonal)
        {
            TileProduct.Run<VF, W, RowOrder>(left, stride, right, columns, tile, columns, keys, columns, depth, add);
            return;
        }
        for (var j = 0; j < keys; j += Tile.Pad)
            TileProduct.Run<VF, W, RowOrder>(left + (nint)j * stride, stride, right + j, columns, tile + j * columns + j, columns,
                Math.Min(Tile.Pad, keys - j), columns - j, depth, add);
    }

    /// <summary>[queries, padded] from a tile [keys, columns] and keys or values [keys, padded].</summary>
    private protected static void QueryProduct<VF, W>(float* tile, int columns, float* right, float* to, int padded, int queries,
        int keys, bool add, bool diagonal)
        where VF : struct where W : struct, ITileLanes<VF>
    {
        if (!diagonal)
        {
            TileProduct.Run<VF, W, ColumnOrder>(tile, columns, right, padded, to, padded, queries, padded, keys, add);
            return;
        }
        for (var i = 0; i < queries; i += Tile.Pad)
            TileProduct.Run<VF, W, ColumnOrder>(tile + i, columns, right, padded, to + i * padded, padded,
                Math.Min(Tile.Pad, queries - i), padded, Math.Min(keys, i + Tile.Pad), add);
    }

    /// <summary>Adds to [keys, padded] the product of a tile [keys, columns] and [queries, padded].</summary>
    private protected static void KeyProduct<VF, W>(float* tile, int columns, float* right, int padded, float* to, int stride,
        int keys, int queries, bool diagonal)
        where VF : struct where W : struct, ITileLanes<VF>
    {
        if (!diagonal)
        {
            TileProduct.Run<VF, W, RowOrder>(tile, columns, right, padded, to, stride, keys, padded, queries, true);
            return;
        }
        for (var j = 0; j < keys; j += Tile.Pad)
            TileProduct.Run<VF, W, RowOrder>(tile + j * columns + j, columns, right + j * padded, padded, to + (nint)j * stride, stride,
                Math.Min(Tile.Pad, keys - j), padded, queries - j, true);
    }

    /// <summary>Caps the scores of a tile [keys, columns], before a mask hides some.</summary>
    private protected void Cap<VF, W>(float* tile, int columns, int keys, bool diagonal)
        where VF : struct where W : struct, ITileLanes<VF>
    {
        if (Softcap == 0f)
            return;
        var cap = W.Broadcast(Softcap);
        var inverse = W.Broadcast(1f / Softcap);
        for (var c = 0; c < columns; c += W.Count)
            for (var j = 0; j < KeysOf(c, keys, diagonal); j++)
                W.Store(W.Multiply(cap, W.Tanh(W.Multiply(W.Load(tile + j * columns + c), inverse))), tile + j * columns + c);
    }

    /// <summary>Keys of a tile that the queries from column <paramref name="column"/> on may see.</summary>
    private protected static int KeysOf(int column, int keys, bool diagonal) =>
        diagonal ? Math.Min(keys, (column & -Tile.Pad) + Tile.Pad) : keys;

    /// <summary>Sets the scores that a mask hides to -inf.</summary>
    private protected void Hide(float* tile, int columns, TileSpan queries, TileSpan keys)
    {
        const float Hidden = float.NegativeInfinity;
        var half = Window / 2;
        bool partial;
        if (Causal)
            partial = keys.End - 1 > queries.From || (Window > 0 && keys.From <= queries.End - 1 - Window);
        else
            partial = Window > 0 && (queries.End - 1 - keys.From > half || keys.End - 1 - queries.From > half);
        if (!partial && KeyVisible == null)
            return;
        var diagonal = OnDiagonal(queries, keys);
        var visible = KeyVisible == null ? null : KeyVisible + keys.Start + keys.From;
        for (var j = 0; j < keys.Count; j++)
        {
            var row = tile + j * columns;
            var left = diagonal ? j & -Tile.Pad : 0;
            int low = 0, high = columns;
            if (visible != null && visible[j] == 0)
            {
                high = 0;
            }
            else if (Causal)
            {
                var first = keys.From + j - queries.From;
                low = Math.Clamp(first, 0, columns);
                if (Window > 0)
                    high = (int)Math.Clamp((long)first + Window, 0, columns);
            }
            else if (Window > 0)
            {
                var at = (long)keys.From + j - queries.From;
                low = (int)Math.Clamp(at - half, 0, columns);
                high = (int)Math.Clamp(at + half + 1, 0, columns);
            }
            low = Math.Min(low, high);
            for (var i = left; i < low; i++)
                row[i] = Hidden;
            for (var i = Math.Max(left, high); i < columns; i++)
                row[i] = Hidden;
        }
    }

    /// <summary>Fills the dropout factors of a tile [keys, columns].</summary>
    private protected void FillDropout(float* mask, int columns, TileSpan queries, TileSpan keys, int head) =>
        Philox.FillTile(mask, columns, Philox.AttentionIndex(TokensBefore + queries.Start + queries.From, Heads, head, keys.From) >> 2,
            (ulong)Heads << 18, columns, (keys.Count + 3) / 4, Seed, Stream, Step, Philox.Threshold(Dropout),
            Philox.KeepScale(Dropout), _vectorBits);

    private int TilesOf(int sequence) => (CuSeqlens[sequence + 1] - CuSeqlens[sequence] + Tile.Size - 1) / Tile.Size;

    private protected virtual void Free()
    {
        NativeMemory.AlignedFree(_scratch);
        _scratch = null;
    }

    /// <summary>Where a worker's last tile was.</summary>
    private protected struct Cursor
    {
        public int Sequence, FirstTile;
    }

    /// <summary>Rows of floats.</summary>
    private protected readonly struct FloatRows(float* at, int stride)
    {
        public void Deconstruct(out float* first, out int step)
        {
            first = at;
            step = stride;
        }
    }

    /// <summary>A tile of a sequence: tokens Start + From to Start + End of the batch.</summary>
    private protected readonly record struct TileSpan(int Start, int Length, int From)
    {
        public int End => Math.Min(Length, From + Tile.Size);
        public int Count => End - From;
        public nint Token => Start + From;
    }
}
