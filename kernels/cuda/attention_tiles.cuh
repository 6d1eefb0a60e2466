// Attention and its gradients by 64 x 64 tiles with a running softmax, fp32 arithmetic on the ordinary units. W: columns that a thread
// owns of a chunk of 16 W of the head's width, N: chunks. RELATIVE: with the position parts of disentangled attention, W = 2.
//
// Shared memory: 35 KiB, tiles of the operands (2 x 64 x 36 floats) and of the weights (64 x 68); RELATIVE 47 KiB.
// With D = rowsum(dout * out), P = exp(S - lse) and the dropout factors M: dV = (P * M)ᵀ dout, dS = P * (M * (dout Vᵀ) - D),
// dQ = scale dS K, dK = scale dSᵀ Q. One kernel has a tile of queries and passes over the keys, the other a tile of keys and passes over
// the queries of all heads of its group: every element is summed by one thread in one order. Grid: slots of tiles x heads, or
// x key/value heads. The log-sum-exp is that of the scores before dropout; a query that sees no key gets 0 and -inf.
//
// Traffic: keys and values are read once a tile of queries, queries once a tile of keys (from L2); outputs are written once.
#pragma once
#include "attention.cuh"

template<bool RELATIVE> struct Sizes
{
    static constexpr int DEPTH = RELATIVE ? 16 : 32;
    static constexpr int TILES = (RELATIVE ? 6 : 2) * TILE * (DEPTH + 4);
    static constexpr int ALL = TILES + TILE * WEIGHT_PITCH;
};

// Scores of queries (rows) and keys (columns), or, TURNED, of keys (rows) and queries (columns): scaled and capped, no mask.
template<typename E, bool RELATIVE, bool TURNED> NL_INLINE void scoreTile(
    const AttentionArgs& a, const Rows<E>& queries, const Rows<E>& keys, int head, int apart, float* tiles, float (&scores)[4][4])
{
    constexpr int DEPTH = Sizes<RELATIVE>::DEPTH;
    const Rows<E>& rows = TURNED ? keys : queries;
    const Rows<E>& columns = TURNED ? queries : keys;
    if constexpr (RELATIVE)
    {
        Distances distances{a.rowOf, a.maxLength, apart, TURNED ? -1 : 1};
        multiplyDisentangled<DEPTH>(rows, columns, TURNED ? a.relativeQueries : a.relativeKeys, TURNED ? a.relativeKeys : a.relativeQueries,
            distances, a.heads, head, a.headDim, tiles, scores);
    }
    else
    {
        multiplyRows<DEPTH>(rows, columns, a.headDim, tiles, scores);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            scores[i][j] = RELATIVE ? scores[i][j] * a.scale : capped(a, scores[i][j] * a.scale);
}

// Queries `q` against the keys of rows keyStart to keyStart + keyLength; query i stands at place `offset` + i among them.
template<typename E, int W, int N, bool RELATIVE> NL_INLINE void attendTile(
    const AttentionArgs& a, const Part& q, int head, const void* keyBase, const void* valueBase, int64 keyStart, int keyLength, int offset, const int32* visible, float* shared)
{
    constexpr int WIDTH = 16 * W;
    int x = threadX(), y = threadY(), kvHead = head / (a.heads / a.kvHeads);
    float* tiles = shared;
    float* weights = shared + Sizes<RELATIVE>::TILES;
    Rows<E> queries = rowsOf<E>(a.q, q.start + q.from, a.heads, head, a.headDim, q.count);
    float out[N][4][W], top[4], total[4];
    clear(out);
#pragma unroll
    for (int i = 0; i < 4; i++)
    {
        top[i] = floatOf(MINUS_INFINITE);
        total[i] = 0.0f;
    }
    int place = offset + q.from, begin, stop;
    Seen seen[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        seen[i] = seenKeys(a, place + y * 4 + i, keyLength);
    keyRange(a, place, place + q.count, keyLength, begin, stop);
    for (int from = begin & -TILE; from < stop; from += TILE)
    {
        int count = minimum(TILE, keyLength - from);
        Rows<E> keys = rowsOf<E>(keyBase, keyStart + from, a.kvHeads, kvHead, a.headDim, count);
        float scores[4][4];
        scoreTile<E, RELATIVE, false>(a, queries, keys, head, place - from, tiles, scores);
#pragma unroll
        for (int j = 0; j < 4; j++)
        {
            int key = shownKey(visible, keyStart, from + x * 4 + j, keyLength);
#pragma unroll
            for (int i = 0; i < 4; i++)
                scores[i][j] = seen[i].has(key) ? scores[i][j] : floatOf(MINUS_INFINITE);
        }
        float shrink[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
        {
            float now = maximum(top[i], rowMax(maximum(maximum(scores[i][0], scores[i][1]), maximum(scores[i][2], scores[i][3]))));
            // Without a visible key yet: -inf - 0 instead of -inf - -inf.
            float level = now == floatOf(MINUS_INFINITE) ? 0.0f : now;
            shrink[i] = exponential(top[i] - level);
            top[i] = now;
            float sum = 0.0f;
#pragma unroll
            for (int j = 0; j < 4; j++)
            {
                scores[i][j] = exponential(scores[i][j] - level);
                sum += scores[i][j];
            }
            total[i] = total[i] * shrink[i] + rowSum(sum);
            if (a.dropout)
            {
                float factor[4];
                dropoutFactors(a, q.start + q.from + y * 4 + i, head, from + x * 4, factor);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    scores[i][j] *= factor[j];
            }
        }
        storeWeights(weights, scores);
        Rows<E> values = rowsOf<E>(valueBase, keyStart + from, a.kvHeads, kvHead, a.headDim, count);
#pragma unroll
        for (int n = 0; n < N; n++)
        {
            if (n * WIDTH < a.headDim)
            {
                barrier();
                loadColumns<WIDTH>(values, n * WIDTH, a.headDim, tiles);
                barrier();
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int w = 0; w < W; w++)
                        out[n][i][w] *= shrink[i];
                multiplyWeights<W>(weights, tiles, count, out[n]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
    {
        float share = total[i] == 0.0f ? 0.0f : divideRounded(1.0f, total[i]);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int w = 0; w < W; w++)
                out[n][i][w] *= share;
        if (x == 0 && y * 4 + i < q.count)
            a.lse[(int64)(q.start + q.from + y * 4 + i) * a.heads + head] =
                total[i] == 0.0f ? floatOf(MINUS_INFINITE) : top[i] + log2Approx(total[i]) * 0.693147180559945f;
    }
    storeRows<E, W, N>(a.out, q.start + q.from, a.heads, head, a.headDim, q.count, out);
}

// Late tiles first: with a causal mask they have most to do.
template<typename E, int W, int N, bool RELATIVE> NL_INLINE void attend(const AttentionArgs& a, float* shared)
{
    Part q;
    if (locate(a, blocks() - 1 - block(), q))
        attendTile<E, W, N, RELATIVE>(a, q, blockY(), a.k, a.v, q.start, q.length, 0, a.keyVisible, shared);
}

// Over a cache, which holds the new keys and values already.
template<typename E, int W, int N> NL_INLINE void attendCached(const AttentionArgs& a, float* shared)
{
    Part q;
    int s;
    if (!locate(a, TILE, blocks() - 1 - block(), q, s))
        return;
    attendTile<E, W, N, false>(a, q, blockY(), a.k, a.v, (int64)a.slots[s] * a.length, a.past[s] + q.length, a.past[s], nullptr, shared);
}

// Scores to the (dropped) weights, and the gradients of the weights to those of the unscaled scores; one query, one key.
template<bool RELATIVE> NL_INLINE void differentiate(const AttentionArgs& a, float lse, float dot, float factor, float& score, float& gradient)
{
    float p = exponential(score - lse), g = p * a.scale * (gradient * factor - dot);
    if (!RELATIVE && a.softcap > 0.0f)
    {
        // A hidden score is -inf: it counts as one at the bound, whose slope is 0.
        float t = divideRounded(maximum(score, -a.softcap), a.softcap);
        g *= 1.0f - t * t;
    }
    gradient = g;
    score = p * factor;
}

// Log-sum-exp as the backward wants it: exp(anything - +inf) = 0, no gradient where no key was seen, nor beyond the tile.
NL_INLINE float seenLse(const AttentionArgs& a, bool there, int64 at)
{
    float lse = there ? a.lse[at] : floatOf(INFINITE);
    return lse == floatOf(MINUS_INFINITE) ? floatOf(INFINITE) : lse;
}

// Gradients of the scores of a tile of queries (rows) against one of keys (columns).
template<typename E, bool RELATIVE> NL_INLINE void scoreGradients(
    const AttentionArgs& a, const Part& q, int head, int from, const float (&lse)[4], const float (&dot)[4], float* tiles, float (&gradients)[4][4])
{
    constexpr int DEPTH = Sizes<RELATIVE>::DEPTH;
    int x = threadX(), y = threadY(), kvHead = head / (a.heads / a.kvHeads), count = minimum(TILE, q.length - from);
    Rows<E> keys = rowsOf<E>(a.k, q.start + from, a.kvHeads, kvHead, a.headDim, count);
    float scores[4][4];
    scoreTile<E, RELATIVE, false>(a, rowsOf<E>(a.q, q.start + q.from, a.heads, head, a.headDim, q.count), keys, head, q.from - from, tiles, scores);
    multiplyRows<DEPTH>(rowsOf<E>(a.dout, q.start + q.from, a.heads, head, a.headDim, q.count),
        rowsOf<E>(a.v, q.start + from, a.kvHeads, kvHead, a.headDim, count), a.headDim, tiles, gradients);
    int shown[4];
#pragma unroll
    for (int j = 0; j < 4; j++)
        shown[j] = shownKey(a.keyVisible, q.start, from + x * 4 + j, q.length);
#pragma unroll
    for (int i = 0; i < 4; i++)
    {
        Seen seen = seenKeys(a, q.from + y * 4 + i, q.length);
        float factor[4] = {1.0f, 1.0f, 1.0f, 1.0f};
        if (a.dropout)
            dropoutFactors(a, q.start + q.from + y * 4 + i, head, from + x * 4, factor);
#pragma unroll
        for (int j = 0; j < 4; j++)
        {
            if (!seen.has(shown[j]))
                scores[i][j] = floatOf(MINUS_INFINITE);
            differentiate<RELATIVE>(a, lse[i], dot[i], factor[j], scores[i][j], gradients[i][j]);
        }
    }
}

// sum[i][w] += weights[4 y + i][c] · relative[distance of (4 y + i, c)][W x + w], the relative rows by index, 16 W floats apart.
template<int W> NL_INLINE void multiplySkewed(const float* weights, const float* relative, int count, float (&sum)[4][W])
{
    static_assert(W == 2, "relative rows are read two columns at a time");
    int x = threadX(), y = threadY();
#pragma unroll 1
    for (int c = 0; c < count; c += 4)
    {
        floats4 p[4];
        floats2 r[7];
#pragma unroll
        for (int i = 0; i < 4; i++)
            p[i] = *(const floats4*)(weights + (y * 4 + i) * WEIGHT_PITCH + c);
#pragma unroll
        for (int e = 0; e < 7; e++)
            r[e] = *(const floats2*)(relative + (y * 4 - c + 60 + e) * (16 * W) + x * W);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
            {
                sum[i][0] = fma(p[i][j], r[i - j + 3][0], sum[i][0]);
                sum[i][1] = fma(p[i][j], r[i - j + 3][1], sum[i][1]);
            }
    }
}

// Columns from `column` on, 32 of them, of the relative rows of all 127 indices and one more.
NL_INLINE void loadRelativeColumns(const float* table, const Distances& distances, int heads, int head, int headDim, int column, float* to)
{
    int64 pitch = (int64)heads * headDim;
    const float* from = table + (int64)head * headDim + column;
#pragma unroll 2
    for (int x = thread(); x < 2 * TILE * 32; x += THREADS)
    {
        int i = x >> 5, c = x & 31;
        to[x] = column + c < headDim ? from[relativeRow(distances, i) * pitch + c] : 0.0f;
    }
}

// dq of a tile of queries, over the tiles of keys.
template<typename E, int W, int N, bool RELATIVE> NL_INLINE void queryGradients(const AttentionArgs& a, float* shared)
{
    constexpr int WIDTH = 16 * W;
    Part q;
    if (!locate(a, blocks() - 1 - block(), q))
        return;
    int y = threadY(), head = blockY(), kvHead = head / (a.heads / a.kvHeads);
    float* tiles = shared;
    float* weights = shared + Sizes<RELATIVE>::TILES;
    float dq[N][4][W], lse[4], dot[4];
    clear(dq);
#pragma unroll
    for (int i = 0; i < 4; i++)
    {
        bool there = y * 4 + i < q.count;
        int64 at = (int64)(q.start + q.from + y * 4 + i) * a.heads + head;
        lse[i] = seenLse(a, there, at);
        dot[i] = there ? a.dot[at] : 0.0f;
    }
    int begin, stop;
    keyRange(a, q.from, q.from + q.count, q.length, begin, stop);
    for (int from = begin & -TILE; from < stop; from += TILE)
    {
        int count = minimum(TILE, q.length - from);
        float gradients[4][4];
        scoreGradients<E, RELATIVE>(a, q, head, from, lse, dot, tiles, gradients);
        storeWeights(weights, gradients);
        Rows<E> keys = rowsOf<E>(a.k, q.start + from, a.kvHeads, kvHead, a.headDim, count);
#pragma unroll
        for (int n = 0; n < N; n++)
        {
            if (n * WIDTH < a.headDim)
            {
                barrier();
                loadColumns<WIDTH>(keys, n * WIDTH, a.headDim, tiles);
                barrier();
                multiplyWeights<W>(weights, tiles, count, dq[n]);
                if constexpr (RELATIVE)
                {
                    if (a.relativeKeys)
                    {
                        barrier();
                        loadRelativeColumns(a.relativeKeys, Distances{a.rowOf, a.maxLength, q.from - from, 1}, a.heads, head, a.headDim, n * WIDTH, tiles);
                        barrier();
                        multiplySkewed<W>(weights, tiles, count, dq[n]);
                    }
                }
            }
        }
    }
    storeRows<E, W, N>(a.dq, q.start + q.from, a.heads, head, a.headDim, q.count, dq);
}

// dk and dv of a tile of keys, over the heads of its group and the tiles of queries; a null one is not computed.
template<typename E, int W, int N, bool RELATIVE> NL_INLINE void keyGradients(const AttentionArgs& a, float* shared)
{
    constexpr int WIDTH = 16 * W, DEPTH = Sizes<RELATIVE>::DEPTH;
    Part k;
    if (!locate(a, block(), k))
        return;
    int x = threadX(), y = threadY(), kvHead = blockY(), group = a.heads / a.kvHeads;
    float* tiles = shared;
    float* weights = shared + Sizes<RELATIVE>::TILES;
    float dk[N][4][W], dv[N][4][W];
    clear(dk);
    clear(dv);
    Seen seen[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
    {
        bool shown = shownKey(a.keyVisible, k.start, k.from + y * 4 + i, k.length) != NOWHERE;
        seen[i] = shown ? seenQueries(a, k.from + y * 4 + i, k.length) : Seen{0, 0};
    }
    Rows<E> keys = rowsOf<E>(a.k, k.start + k.from, a.kvHeads, kvHead, a.headDim, k.count);
    Rows<E> values = rowsOf<E>(a.v, k.start + k.from, a.kvHeads, kvHead, a.headDim, k.count);
    int begin, stop;
    queryRange(a, k.from, k.from + k.count, k.length, begin, stop);
    for (int head = kvHead * group; head < (kvHead + 1) * group; head++)
    {
        for (int from = begin & -TILE; from < stop; from += TILE)
        {
            int count = minimum(TILE, k.length - from);
            Rows<E> queries = rowsOf<E>(a.q, k.start + from, a.heads, head, a.headDim, count);
            Rows<E> dout = rowsOf<E>(a.dout, k.start + from, a.heads, head, a.headDim, count);
            float scores[4][4], gradients[4][4];
            scoreTile<E, RELATIVE, true>(a, queries, keys, head, from - k.from, tiles, scores);
            if (a.dk)
                multiplyRows<DEPTH>(values, dout, a.headDim, tiles, gradients);
#pragma unroll
            for (int j = 0; j < 4; j++)
            {
                int query = from + x * 4 + j;
                bool there = x * 4 + j < count;
                int64 at = (int64)(k.start + query) * a.heads + head;
                float lse = seenLse(a, there, at), dot = there && a.dk ? a.dot[at] : 0.0f;
                float factor[4] = {1.0f, 1.0f, 1.0f, 1.0f};
                if (a.dropout)
                    dropoutFactors(a, k.start + query, head, k.from + y * 4, factor);
#pragma unroll
                for (int i = 0; i < 4; i++)
                {
                    if (!seen[i].has(query))
                        scores[i][j] = floatOf(MINUS_INFINITE);
                    if (a.dk)
                        differentiate<RELATIVE>(a, lse, dot, factor[i], scores[i][j], gradients[i][j]);
                    else
                        scores[i][j] = exponential(scores[i][j] - lse) * factor[i];
                }
            }
            if (a.dv)
            {
                barrier();
                storeWeights(weights, scores);
#pragma unroll
                for (int n = 0; n < N; n++)
                {
                    if (n * WIDTH < a.headDim)
                    {
                        barrier();
                        loadColumns<WIDTH>(dout, n * WIDTH, a.headDim, tiles);
                        barrier();
                        multiplyWeights<W>(weights, tiles, count, dv[n]);
                    }
                }
            }
            if (a.dk)
            {
                barrier();
                storeWeights(weights, gradients);
#pragma unroll
                for (int n = 0; n < N; n++)
                {
                    if (n * WIDTH < a.headDim)
                    {
                        barrier();
                        loadColumns<WIDTH>(queries, n * WIDTH, a.headDim, tiles);
                        barrier();
                        multiplyWeights<W>(weights, tiles, count, dk[n]);
                        if constexpr (RELATIVE)
                        {
                            if (a.relativeQueries)
                            {
                                barrier();
                                loadRelativeColumns(a.relativeQueries, Distances{a.rowOf, a.maxLength, from - k.from, -1}, a.heads, head, a.headDim, n * WIDTH, tiles);
                                barrier();
                                multiplySkewed<W>(weights, tiles, count, dk[n]);
                            }
                        }
                    }
                }
            }
        }
    }
    if (a.dk)
        storeRows<E, W, N>(a.dk, k.start + k.from, a.kvHeads, kvHead, a.headDim, k.count, dk);
    if (a.dv)
        storeRows<E, W, N>(a.dv, k.start + k.from, a.kvHeads, kvHead, a.headDim, k.count, dv);
}
