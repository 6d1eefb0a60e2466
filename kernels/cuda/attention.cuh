// What the attention kernels share: operands, which tile of which sequence a block has, what a query sees, and products of tiles.
//
// Tokens are packed; sequence s has rows cu[s] to cu[s + 1]. The host knows rows and sequences, not lengths: tile t of TILE rows is
// found by search, for the tiles of sequence s begin at slot cu[s] / TILE + s, and the next sequence's begin behind its last. Slots
// that no tile has are left at once.
//
// 256 threads as 16 x 16 own 4 x 4 of a 64 x 64 tile: rows 4 y to 4 y + 3, columns 4 x to 4 x + 3. A row's values lie in 16 lanes of
// one warp. Products over the head's width go by chunks of DEPTH columns through shared memory, read 16 bytes at a time; rows lie
// DEPTH + 4 floats apart, so that eight rows in turn fill all banks.
#pragma once
#include "nl.cuh"

constexpr int TILE = 64;
constexpr int THREADS = 256;
constexpr int WEIGHT_PITCH = TILE + 4;

typedef float floats2 __attribute__((ext_vector_type(2)));
typedef float floats4 __attribute__((ext_vector_type(4)));

struct AttentionArgs
{
    const void* q;
    const void* k;
    const void* v;
    void* out;
    float* lse;
    const int32* cuSeqlens;
    const int32* keyVisible;  // null: all
    const void* dout;
    void* dq;
    void* dk;
    void* dv;
    float* dot;               // [rows, heads]: dout · out
    const float* relativeKeys;     // [relative rows, heads · headDim]; null: none
    const float* relativeQueries;
    const int32* rowOf;       // row of each distance + maxLength - 1; then distances by row; then where each row's begin
    float* keySums;           // by distance, for the gradients of relative keys and queries
    float* querySums;
    float* dRelativeKeys;
    float* dRelativeQueries;
    const int32* slots;       // of a cache: where each sequence is, and how much of it there was before
    const int32* past;
    float* parts;
    Random random;
    int32 sequences, rows;
    int32 heads, kvHeads, headDim;
    int32 causal, window, dropout;
    float scale, softcap;
    int32 maxLength, relativeRows;
    int32 diagonals, groups;
    int32 length, splits;
    int32 aligned;            // whether every row of every head begins at a multiple of 16 bytes
};

// Rows `from` to `from + count` of a sequence that begins at row `start` and has `length` rows.
struct Part
{
    int start, length, from, count;
};

NL_INLINE int sequenceSlot(const AttentionArgs& a, int tileRows, int sequence) { return a.cuSeqlens[sequence] / tileRows + sequence; }

// The sequence of a slot, and its tile; false where there is none.
NL_INLINE bool locate(const AttentionArgs& a, int tileRows, int slot, Part& part, int& sequence)
{
    int low = 0, high = a.sequences - 1;
    while (low < high)
    {
        int middle = (low + high + 1) >> 1;
        if (sequenceSlot(a, tileRows, middle) <= slot)
            low = middle;
        else
            high = middle - 1;
    }
    sequence = low;
    part.start = a.cuSeqlens[low];
    part.length = a.cuSeqlens[low + 1] - part.start;
    part.from = (slot - sequenceSlot(a, tileRows, low)) * tileRows;
    part.count = minimum(tileRows, part.length - part.from);
    return part.count > 0;
}
NL_INLINE bool locate(const AttentionArgs& a, int slot, Part& part)
{
    int sequence;
    return locate(a, TILE, slot, part, sequence);
}

// Keys that a tile of queries at places [from, end) may see, as far as places tell. Window, causal: the last `window`; else |q - k| <= window / 2.
NL_INLINE void keyRange(const AttentionArgs& a, int from, int end, int length, int& begin, int& stop)
{
    begin = 0;
    stop = length;
    if (a.causal)
    {
        stop = minimum(length, end);
        if (a.window > 0)
            begin = maximum(0, from - a.window + 1);
    }
    else if (a.window > 0)
    {
        begin = maximum(0, from - a.window / 2);
        stop = minimum(length, end + a.window / 2);
    }
}
NL_INLINE void queryRange(const AttentionArgs& a, int from, int end, int length, int& begin, int& stop)
{
    begin = 0;
    stop = length;
    if (a.causal)
    {
        begin = from;
        if (a.window > 0 && a.window <= length - end)
            stop = end - 1 + a.window;
    }
    else if (a.window > 0)
    {
        begin = maximum(0, from - a.window / 2);
        stop = minimum(length, end + a.window / 2);
    }
}
// Keys at places low to high - 1 are what the mask lets one query see; queries, what may see one key.
struct Seen
{
    int low, high;
    NL_INLINE bool has(int place) const { return place >= low && place < high; }
};
constexpr int NOWHERE = 0x7fffffff;
NL_INLINE Seen seenKeys(const AttentionArgs& a, int query, int length)
{
    Seen s{0, length};
    if (a.causal)
    {
        s.high = minimum(length, query + 1);
        if (a.window > 0)
            s.low = query - a.window + 1;
    }
    else if (a.window > 0)
    {
        s.low = query - a.window / 2;
        s.high = minimum(length, query + a.window / 2 + 1);
    }
    return s;
}
NL_INLINE Seen seenQueries(const AttentionArgs& a, int key, int length)
{
    Seen s{0, length};
    if (a.causal)
    {
        s.low = key;
        if (a.window > 0)
            s.high = key + minimum(length - key, a.window);
    }
    else if (a.window > 0)
    {
        s.low = key - a.window / 2;
        s.high = minimum(length, key + a.window / 2 + 1);
    }
    return s;
}
// The place of a key; nowhere where there is none or it is hidden. `start` is the row of the first.
NL_INLINE int shownKey(const int32* visible, int64 start, int key, int length) { return key < length && (!visible || visible[start + key] != 0) ? key : NOWHERE; }

constexpr uint32 INFINITE = 0x7f800000u, MINUS_INFINITE = 0xff800000u;

NL_INLINE float hyperbolicTangent(float x)
{
    float m = minimum(10.0f, absolute(x)), s = m * m, p = fma(-5.70498872745e-3f, s, 2.06390887954e-2f);
    p = fma(p, s, -5.37397155531e-2f);
    p = fma(p, s, 1.33314422036e-1f);
    p = fma(p, s, -3.33332819422e-1f);
    float near = fma(p * s, m, m), far = 1.0f - divideRounded(2.0f, exponential(m + m) + 1.0f);
    float r = m < 0.625f ? near : far;
    return x < 0.0f ? -r : r;
}
NL_INLINE float capped(const AttentionArgs& a, float score)
{
    return a.softcap > 0.0f ? a.softcap * hyperbolicTangent(divideRounded(score, a.softcap)) : score;
}

// Dropout factors of four keys from `key`, a multiple of 4, on.
NL_INLINE void dropoutFactors(const AttentionArgs& a, int token, int head, int key, float (&factor)[4])
{
    uint64 group = (((uint64)token * (uint32)a.heads + (uint32)head) << 18) + ((uint32)key >> 2);
    uint32 c0 = (uint32)group, c1 = (uint32)(group >> 32), c2 = a.random.stream, c3 = a.random.step;
    uint32 k0 = (uint32)a.random.key, k1 = (uint32)(a.random.key >> 32);
#pragma unroll 1
    for (int round = 0; round < 10; round++)
    {
        uint64 p0 = (uint64)0xD2511F53u * c0, p1 = (uint64)0xCD9E8D57u * c2;
        c0 = (uint32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32)p1;
        c2 = (uint32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    factor[0] = c0 >= a.random.threshold ? a.random.keepScale : 0.0f;
    factor[1] = c1 >= a.random.threshold ? a.random.keepScale : 0.0f;
    factor[2] = c2 >= a.random.threshold ? a.random.keepScale : 0.0f;
    factor[3] = c3 >= a.random.threshold ? a.random.keepScale : 0.0f;
}

NL_INLINE int threadX() { return thread() & 15; }
NL_INLINE int threadY() { return thread() >> 4; }

// Over the 16 lanes that share a row.
NL_INLINE float rowMax(float v) { for (int m = 8; m > 0; m >>= 1) v = maximum(v, shuffleXor(v, m)); return v; }
NL_INLINE float rowSum(float v) { for (int m = 8; m > 0; m >>= 1) v += shuffleXor(v, m); return v; }

// Rows of one head: `pitch` elements apart, `count` of them.
template<typename E> struct Rows
{
    const E* at;
    int64 pitch;
    int count;
};
template<typename E> NL_INLINE Rows<E> rowsOf(const void* base, int64 row, int heads, int head, int headDim, int count)
{
    int64 pitch = (int64)heads * headDim;
    return Rows<E>{(const E*)base + row * pitch + (int64)head * headDim, pitch, count};
}

// Columns depth to depth + DEPTH of 64 rows into shared memory, 0 where there are none. SPREAD: row 4 x + j lies at place 16 j + x.
template<int DEPTH, bool SPREAD, typename E> NL_INLINE void loadDepth(const Rows<E>& rows, int depth, int headDim, float* to)
{
#pragma unroll 2
    for (int n = 0; n < TILE * DEPTH / THREADS; n++)
    {
        int x = n * THREADS + thread(), r = x / DEPTH, c = x % DEPTH;
        float value = r < rows.count && depth + c < headDim ? widen(rows.at[r * rows.pitch + depth + c]) : 0.0f;
        to[(SPREAD ? (r & 3) * 16 + (r >> 2) : r) * (DEPTH + 4) + c] = value;
    }
}

// Columns from `column` on, WIDTH of them, of 64 rows: to[row * WIDTH + column].
template<int WIDTH, typename E> NL_INLINE void loadColumns(const Rows<E>& rows, int column, int headDim, float* to)
{
#pragma unroll 4
    for (int n = 0; n < TILE * WIDTH / THREADS; n++)
    {
        int x = n * THREADS + thread(), r = x / WIDTH, c = x % WIDTH;
        to[x] = r < rows.count && column + c < headDim ? widen(rows.at[r * rows.pitch + column + c]) : 0.0f;
    }
}

// sum[i][j] += row 4 y + i of one · row 4 x + j of the other, over a chunk.
template<int DEPTH> NL_INLINE void multiplyChunk(const float* rows, const float* columns, float (&sum)[4][4])
{
    constexpr int PITCH = DEPTH + 4;
    int x = threadX(), y = threadY();
#pragma unroll 2
    for (int d = 0; d < DEPTH; d += 4)
    {
        floats4 a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
        {
            a[i] = *(const floats4*)(rows + (y * 4 + i) * PITCH + d);
            b[i] = *(const floats4*)(columns + (i * 16 + x) * PITCH + d);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    sum[i][j] = fma(a[i][e], b[j][e], sum[i][j]);
    }
}

// sum = rows · columnsᵀ over the whole width of the head. `tiles` has 2 · 64 · (DEPTH + 4) floats, free again after a barrier.
template<int DEPTH, typename E> NL_INLINE void multiplyRows(const Rows<E>& rows, const Rows<E>& columns, int headDim, float* tiles, float (&sum)[4][4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            sum[i][j] = 0.0f;
    float* second = tiles + TILE * (DEPTH + 4);
    for (int depth = 0; depth < headDim; depth += DEPTH)
    {
        barrier();
        loadDepth<DEPTH, false>(rows, depth, headDim, tiles);
        loadDepth<DEPTH, true>(columns, depth, headDim, second);
        barrier();
        multiplyChunk<DEPTH>(tiles, second, sum);
    }
}

// sum[i][w] += weights[4 y + i][k] · columns[k][W x + w] over `count` rows k; what the tile has beyond them is 0.
template<int W> NL_INLINE void multiplyWeights(const float* weights, const float* columns, int count, float (&sum)[4][W])
{
    int x = threadX(), y = threadY();
#pragma unroll 1
    for (int k = 0; k < count; k += 4)
    {
        floats4 p[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            p[i] = *(const floats4*)(weights + (y * 4 + i) * WEIGHT_PITCH + k);
#pragma unroll
        for (int e = 0; e < 4; e++)
        {
            float c[W];
            if constexpr (W == 4)
            {
                floats4 v = *(const floats4*)(columns + (k + e) * (16 * W) + x * W);
                c[0] = v[0]; c[1] = v[1]; c[2] = v[2]; c[3] = v[3];
            }
            else
            {
                floats2 v = *(const floats2*)(columns + (k + e) * (16 * W) + x * W);
                c[0] = v[0]; c[1] = v[1];
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int w = 0; w < W; w++)
                    sum[i][w] = fma(p[i][e], c[w], sum[i][w]);
        }
    }
}

NL_INLINE void storeWeights(float* weights, const float (&values)[4][4])
{
    int x = threadX(), y = threadY();
#pragma unroll
    for (int i = 0; i < 4; i++)
        *(floats4*)(weights + (y * 4 + i) * WEIGHT_PITCH + x * 4) = floats4{values[i][0], values[i][1], values[i][2], values[i][3]};
}

// Rows 4 y + i, columns of chunk n, as far as there are any.
template<typename E, int W, int N> NL_INLINE void storeRows(void* base, int64 row, int heads, int head, int headDim, int count, const float (&sum)[N][4][W])
{
    int x = threadX(), y = threadY();
    int64 pitch = (int64)heads * headDim;
#pragma unroll
    for (int i = 0; i < 4; i++)
    {
        if (y * 4 + i >= count)
            continue;
        E* to = (E*)base + (row + y * 4 + i) * pitch + (int64)head * headDim;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int w = 0; w < W; w++)
            {
                int c = n * 16 * W + x * W + w;
                if (c < headDim)
                    to[c] = narrow<E>(sum[n][i][w]);
            }
    }
}

template<int W, int N> NL_INLINE void clear(float (&sum)[N][4][W])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int w = 0; w < W; w++)
                sum[n][i][w] = 0.0f;
}

// --- relative positions -------------------------------------------------------------------------------------------------------------

// The distances of two tiles: row r and column c of the tile have index r - c + 63, of 127.
struct Distances
{
    const int32* rowOf;
    int maxLength, base, sign;
};
NL_INLINE int relativeRow(const Distances& d, int index)
{
    int distance = d.base + d.sign * (index - (TILE - 1));
    distance = minimum(maximum(distance, 1 - d.maxLength), d.maxLength - 1);
    return d.rowOf[distance + d.maxLength - 1];
}

// Relative rows by distance: index i lies at place 32 (i % 4) + i / 4, so that threads side by side read places side by side.
template<int DEPTH> NL_INLINE void loadRelative(const float* table, const Distances& distances, int heads, int head, int headDim, int depth, float* to)
{
    int64 pitch = (int64)heads * headDim;
    const float* from = table + (int64)head * headDim;
#pragma unroll 2
    for (int n = 0; n < 2 * TILE * DEPTH / THREADS; n++)
    {
        int x = n * THREADS + thread(), i = x / DEPTH, c = x % DEPTH;
        to[((i & 3) * 32 + (i >> 2)) * (DEPTH + 4) + c] = depth + c < headDim ? from[relativeRow(distances, i) * pitch + depth + c] : 0.0f;
    }
}

// sum[i][j] += tile row · relative row of the pair's distance; the tile is by rows, or by columns as SPREAD lays it.
template<int DEPTH, bool BY_ROW> NL_INLINE void multiplyRelative(const float* tile, const float* relative, float (&sum)[4][4])
{
    constexpr int PITCH = DEPTH + 4;
    int x = threadX(), y = threadY();
#pragma unroll 2
    for (int d = 0; d < DEPTH; d += 4)
    {
        floats4 a[4], r[7];
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = *(const floats4*)(tile + (BY_ROW ? y * 4 + i : i * 16 + x) * PITCH + d);
        // Index 4 (y - x) + i - j + 63 = 4 (y - x + 15) + (i - j + 3).
#pragma unroll
        for (int e = 0; e < 7; e++)
            r[e] = *(const floats4*)(relative + ((e & 3) * 32 + y - x + 15 + (e >> 2)) * PITCH + d);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    sum[i][j] = fma(a[BY_ROW ? i : j][e], r[i - j + 3][e], sum[i][j]);
    }
}

// As multiplyRows, with the position parts: + row · first[distance] + column · second[distance]; null ones are left out.
template<int DEPTH, typename E> NL_INLINE void multiplyDisentangled(
    const Rows<E>& rows, const Rows<E>& columns, const float* first, const float* second, const Distances& distances, int heads, int head, int headDim,
    float* tiles, float (&sum)[4][4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            sum[i][j] = 0.0f;
    float* other = tiles + TILE * (DEPTH + 4);
    float* firstRows = other + TILE * (DEPTH + 4);
    float* secondRows = firstRows + 2 * TILE * (DEPTH + 4);
    for (int depth = 0; depth < headDim; depth += DEPTH)
    {
        barrier();
        loadDepth<DEPTH, false>(rows, depth, headDim, tiles);
        loadDepth<DEPTH, true>(columns, depth, headDim, other);
        if (first)
            loadRelative<DEPTH>(first, distances, heads, head, headDim, depth, firstRows);
        if (second)
            loadRelative<DEPTH>(second, distances, heads, head, headDim, depth, secondRows);
        barrier();
        multiplyChunk<DEPTH>(tiles, other, sum);
        if (first)
            multiplyRelative<DEPTH, true>(tiles, firstRows, sum);
        if (second)
            multiplyRelative<DEPTH, false>(other, secondRows, sum);
    }
}
