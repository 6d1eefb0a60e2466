// Attention and its gradients for bf16 on tensor cores (mma m16n8k16, bf16 operands, fp32 sums), for heads up to D wide; D is 32, 64 or 128.
//
// A block of 4 warps has a tile of 64 queries (or keys), 16 a warp; the other side passes in tiles of 64, or in the backward at D = 128 of 32.
// Tiles lie in shared memory as rows of D values whose chunks of 16 bytes are permuted, so that ldmatrix finds no bank twice; they
// are copied by cp.async while the product before is computed. Scores stay in registers and become the next product's operand as
// they lie, in bf16. Rows whose places are no multiples of 16 bytes are copied value by value.
//
// Shared memory at D = 128: 48 KiB (forward: queries, keys, values; backward: two tiles of 64 and two of 32); D = 64: 24 and 32 KiB.
// Traffic: the block's own rows once, the other side's once a block (from L2), outputs once.
#pragma once
#include "attention.cuh"
#include "tiles.cuh"

constexpr int FLASH_THREADS = 128;
constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.693147180559945f;

struct alignas(16) Chunk { uint32 a, b, c, d; };

template<int D> NL_INLINE uint32 flashPlace(int row, int chunk)
{
    return (uint32)(row * D * 2) + (uint32)((chunk ^ (D == 32 ? (row >> 1) & 3 : row & 7)) << 4);
}

// Low half: the first.
NL_INLINE uint32 packBrains(float low, float high)
{
    uint32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
NL_INLINE float reciprocalApprox(float a) { float r; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a)); return r; }

// Copies ROWS rows of a head, zeros where there are none; asynchronously where they are aligned.
template<int D, int ROWS> NL_INLINE void loadTile(const AttentionArgs& a, const Rows<bf16>& rows, uint8* tile)
{
    constexpr int CHUNKS = D / 8;
    if (a.aligned)
    {
        uint32 to = sharedAddress(tile);
#pragma unroll
        for (int n = 0; n < ROWS * CHUNKS / FLASH_THREADS; n++)
        {
            int x = n * FLASH_THREADS + thread(), r = x / CHUNKS, c = x % CHUNKS;
            copyAsync(to + flashPlace<D>(r, c), rows.at + r * rows.pitch + c * 8, r < rows.count && c * 8 < a.headDim);
        }
        return;
    }
#pragma unroll 1
    for (int x = thread(); x < ROWS * CHUNKS; x += FLASH_THREADS)
    {
        int r = x / CHUNKS, c = x % CHUNKS;
        uint32 v[4];
#pragma unroll
        for (int e = 0; e < 4; e++)
        {
            int column = c * 8 + e * 2;
            const bf16* from = rows.at + r * rows.pitch + column;
            uint32 low = r < rows.count && column < a.headDim ? from[0].bits : 0, high = r < rows.count && column + 1 < a.headDim ? from[1].bits : 0;
            v[e] = low | high << 16;
        }
        *(Chunk*)(tile + flashPlace<D>(r, c)) = Chunk{v[0], v[1], v[2], v[3]};
    }
}

// Operand a: 16 rows from `row` on, values 16 k to 16 k + 15 of each.
template<int D> NL_INLINE Four rowsOperand(uint32 tile, int row, int k) { return loadMatrices(tile + flashPlace<D>(row + (lane() & 15), k * 2 + (lane() >> 4))); }
// Operands b of two products with rows as columns: rows `row` to row + 7 (first two words) and to row + 15, values 16 k to 16 k + 15.
template<int D> NL_INLINE Four columnsOperand(uint32 tile, int row, int k)
{
    return loadMatrices(tile + flashPlace<D>(row + (lane() & 7) + ((lane() >> 4) << 3), k * 2 + ((lane() >> 3) & 1)));
}
// Operands b of two products with rows as depth: rows `row` to row + 15, values 16 n to 16 n + 7 (first two words) and to 16 n + 15.
template<int D> NL_INLINE Four depthOperand(uint32 tile, int row, int n) { return loadMatricesTurned(tile + flashPlace<D>(row + (lane() & 15), n * 2 + (lane() >> 4))); }

// sum = 16 rows of one tile · all rows of another, transposed: N pairs of products of 8 columns.
template<int D, int N> NL_INLINE void multiplyTiles(uint32 rows, int row, uint32 columns, float (&sum)[2 * N][4])
{
#pragma unroll
    for (int n = 0; n < 2 * N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum[n][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
    {
        Four a = rowsOperand<D>(rows, row, k);
#pragma unroll
        for (int n = 0; n < N; n++)
        {
            Four b = columnsOperand<D>(columns, n * 16, k);
            multiply(sum[2 * n], a, b.a, b.b);
            multiply(sum[2 * n + 1], a, b.c, b.d);
        }
    }
}

// sum += weights [16, 16 N] · rows of a tile.
template<int D, int N> NL_INLINE void multiplyDepth(const Four (&weights)[N], uint32 tile, float (&sum)[D / 8][4])
{
#pragma unroll
    for (int k = 0; k < N; k++)
#pragma unroll
        for (int n = 0; n < D / 16; n++)
        {
            Four b = depthOperand<D>(tile, k * 16, n);
            multiply(sum[2 * n], weights[k], b.a, b.b);
            multiply(sum[2 * n + 1], weights[k], b.c, b.d);
        }
}

// Values of 16 rows as the operand of a product over their columns.
template<int N> NL_INLINE void packWeights(const float (&s)[2 * N][4], Four (&weights)[N])
{
#pragma unroll
    for (int k = 0; k < N; k++)
        weights[k] = Four{packBrains(s[2 * k][0], s[2 * k][1]), packBrains(s[2 * k][2], s[2 * k][3]),
                          packBrains(s[2 * k + 1][0], s[2 * k + 1][1]), packBrains(s[2 * k + 1][2], s[2 * k + 1][3])};
}

template<int N> NL_INLINE void clearSums(float (&sum)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum[n][e] = 0.0f;
}

// Rows `row` and row + 8 of a tile of `count`, rounded.
template<int D> NL_INLINE void storeSums(const AttentionArgs& a, void* base, int64 first, int heads, int head, int row, int count, const float (&sum)[D / 8][4])
{
    int column = (lane() & 3) * 2;
#pragma unroll
    for (int half = 0; half < 2; half++)
    {
        int r = row + half * 8;
        if (r >= count)
            continue;
        bf16* to = (bf16*)base + ((first + r) * heads + head) * a.headDim;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
        {
            int c = n * 8 + column;
            uint32 both = packBrains(sum[n][half * 2], sum[n][half * 2 + 1]);
            if (a.aligned)
            {
                if (c < a.headDim)
                    *(uint32*)(to + c) = both;
                continue;
            }
            if (c < a.headDim)
                to[c].bits = (uint16)both;
            if (c + 1 < a.headDim)
                to[c + 1].bits = (uint16)(both >> 16);
        }
    }
}

// Scaled score to the capped one.
NL_INLINE float cappedFast(const AttentionArgs& a, float score)
{
    float t = minimum(maximum(score * reciprocalApprox(a.softcap), -15.0f), 15.0f);
    return a.softcap * (1.0f - 2.0f * reciprocalApprox(exp2Approx(2.0f * LOG2_E * t) + 1.0f));
}

// Which of the four keys from `key`, a multiple of 4, on are kept: a bit each.
NL_INLINE int keptKeys(const AttentionArgs& a, int token, int head, int key)
{
    float factor[4];
    dropoutFactors(a, token, head, key, factor);
    return (factor[0] > 0.0f) | (factor[1] > 0.0f) << 1 | (factor[2] > 0.0f) << 2 | (factor[3] > 0.0f) << 3;
}

// Which of a thread's values of 8 keys are kept where rows are queries: two keys of each of two queries. Neighbours share draws.
NL_INLINE void dropQueryRows(const AttentionArgs& a, int token, int head, int key, bool (&kept)[4])
{
    int odd = lane() & 1, mine = keptKeys(a, token + odd * 8, head, key + (lane() & 2) * 2), other = shuffleXor(mine, 1);
    int first = odd ? other : mine, second = odd ? mine : other;
#pragma unroll
    for (int e = 0; e < 2; e++)
    {
        kept[e] = first >> (odd * 2 + e) & 1;
        kept[2 + e] = second >> (odd * 2 + e) & 1;
    }
}
// The same where rows are keys: `token` is that of the first of the thread's two queries, `key` the multiple of 4 that its first key is in.
NL_INLINE void dropKeyRows(const AttentionArgs& a, int token, int head, int key, bool (&kept)[4])
{
    int which = lane() >> 2 & 3, mine = keptKeys(a, token + (which & 1), head, key + (which >> 1) * 8);
#pragma unroll
    for (int e = 0; e < 4; e++)
        kept[e] = shuffle(mine, (lane() & ~12) | e << 2) >> which & 1;
}

// Whether a mask hides anything of `queries` from place `query` on against `keys` from place `key` on.
NL_INLINE bool isPartial(const AttentionArgs& a, int query, int queries, int key, int keys)
{
    if (a.causal)
        return key + keys - 1 > query || (a.window > 0 && query + queries - 1 - key >= a.window);
    return a.window > 0 && (query + queries - 1 - key > a.window / 2 || key + keys - 1 - query > a.window / 2);
}

// --- forward ------------------------------------------------------------------------------------------------------------------------

template<int D> struct FlashForward
{
    static constexpr int BYTES = 3 * TILE * D * 2;
};

// See attendTile: queries against keys that may be a cache's.
template<int D> NL_INLINE void flashTile(
    const AttentionArgs& a, const Part& q, int head, int64 keyStart, int keyLength, int offset, const int32* visible, uint8* pool)
{
    int g = lane() >> 2, t = lane() & 3, row = warp() * 16, kvHead = head / (a.heads / a.kvHeads);
    uint8* keyTile = pool + TILE * D * 2;
    uint8* valueTile = keyTile + TILE * D * 2;
    uint32 queryAt = sharedAddress(pool), keyAt = sharedAddress(keyTile), valueAt = sharedAddress(valueTile);
    int place = offset + q.from, begin, stop;
    keyRange(a, place, place + q.count, keyLength, begin, stop);
    begin &= -TILE;
    loadTile<D, TILE>(a, rowsOf<bf16>(a.q, q.start + q.from, a.heads, head, a.headDim, q.count), pool);
    loadTile<D, TILE>(a, rowsOf<bf16>(a.k, keyStart + begin, a.kvHeads, kvHead, a.headDim, keyLength - begin), keyTile);
    copyCommit();
    loadTile<D, TILE>(a, rowsOf<bf16>(a.v, keyStart + begin, a.kvHeads, kvHead, a.headDim, keyLength - begin), valueTile);
    copyCommit();
    float out[D / 8][4], top[2], total[2];
    clearSums(out);
    top[0] = top[1] = floatOf(MINUS_INFINITE);
    total[0] = total[1] = 0.0f;
    float factor = a.softcap > 0.0f ? LOG2_E : a.scale * LOG2_E;
    Seen seen[2] = {seenKeys(a, place + row + g, keyLength), seenKeys(a, place + row + g + 8, keyLength)};
    for (int from = begin; from < stop; from += TILE)
    {
        int count = minimum(TILE, keyLength - from);
        bool more = from + TILE < stop;
        copyWait<1>();
        barrier();
        float s[8][4];
        multiplyTiles<D, 4>(queryAt, row, keyAt, s);
        barrier();
        if (more)
            loadTile<D, TILE>(a, rowsOf<bf16>(a.k, keyStart + from + TILE, a.kvHeads, kvHead, a.headDim, keyLength - from - TILE), keyTile);
        copyCommit();
        if (a.softcap > 0.0f)
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    s[n][e] = cappedFast(a, s[n][e] * a.scale);
        if (visible || count < TILE || isPartial(a, place, TILE, from, TILE))
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                {
                    int key = shownKey(visible, keyStart, from + n * 8 + t * 2 + e, keyLength);
                    s[n][e] = seen[0].has(key) ? s[n][e] : floatOf(MINUS_INFINITE);
                    s[n][2 + e] = seen[1].has(key) ? s[n][2 + e] : floatOf(MINUS_INFINITE);
                }
#pragma unroll
        for (int half = 0; half < 2; half++)
        {
            float most = top[half];
#pragma unroll
            for (int n = 0; n < 8; n++)
                most = maximum(most, maximum(s[n][half * 2], s[n][half * 2 + 1]) * factor);
            most = maximum(most, shuffleXor(most, 1));
            most = maximum(most, shuffleXor(most, 2));
            // Without a visible key yet: -inf - 0 instead of -inf - -inf.
            float level = most == floatOf(MINUS_INFINITE) ? 0.0f : most, shrink = exp2Approx(top[half] - level), sum = 0.0f;
            top[half] = most;
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int e = half * 2; e < half * 2 + 2; e++)
                {
                    s[n][e] = exp2Approx(fma(s[n][e], factor, -level));
                    sum += s[n][e];
                }
            sum += shuffleXor(sum, 1);
            sum += shuffleXor(sum, 2);
            total[half] = fma(total[half], shrink, sum);
#pragma unroll
            for (int n = 0; n < D / 8; n++)
            {
                out[n][half * 2] *= shrink;
                out[n][half * 2 + 1] *= shrink;
            }
        }
        if (a.dropout)
#pragma unroll
            for (int n = 0; n < 8; n++)
            {
                bool kept[4];
                dropQueryRows(a, q.start + q.from + row + g, head, from + n * 8, kept);
#pragma unroll
                for (int e = 0; e < 4; e++)
                    s[n][e] = kept[e] ? s[n][e] : 0.0f;
            }
        Four weights[4];
        packWeights<4>(s, weights);
        copyWait<1>();
        barrier();
        multiplyDepth<D, 4>(weights, valueAt, out);
        barrier();
        if (more)
            loadTile<D, TILE>(a, rowsOf<bf16>(a.v, keyStart + from + TILE, a.kvHeads, kvHead, a.headDim, keyLength - from - TILE), valueTile);
        copyCommit();
    }
#pragma unroll
    for (int half = 0; half < 2; half++)
    {
        int r = row + g + half * 8;
        bool none = total[half] == 0.0f;
        // What is kept is scaled here, behind the rounding of the weights.
        float share = none ? 0.0f : divideRounded(a.dropout ? a.random.keepScale : 1.0f, total[half]);
#pragma unroll
        for (int n = 0; n < D / 8; n++)
        {
            out[n][half * 2] *= share;
            out[n][half * 2 + 1] *= share;
        }
        if (t == 0 && r < q.count)
            a.lse[(int64)(q.start + q.from + r) * a.heads + head] = none ? floatOf(MINUS_INFINITE) : (top[half] + log2Approx(total[half])) * LN_2;
    }
    storeSums<D>(a, a.out, q.start + q.from, a.heads, head, row + g, q.count, out);
}

// Late tiles first: with a causal mask they have most to do.
template<int D> NL_INLINE void flashForward(const AttentionArgs& a, uint8* pool)
{
    Part q;
    if (locate(a, blocks() - 1 - block(), q))
        flashTile<D>(a, q, blockY(), q.start, q.length, 0, a.keyVisible, pool);
}
template<int D> NL_INLINE void flashCached(const AttentionArgs& a, uint8* pool)
{
    Part q;
    int s;
    if (locate(a, TILE, blocks() - 1 - block(), q, s))
        flashTile<D>(a, q, blockY(), (int64)a.slots[s] * a.length, a.past[s] + q.length, a.past[s], nullptr, pool);
}

// --- backward -----------------------------------------------------------------------------------------------------------------------

// The side that passes, in tiles of PASS rows.
template<int D> struct FlashBackward
{
    static constexpr int PASS = D == 128 ? 32 : 64;
    static constexpr int BYTES = 2 * (TILE + PASS) * D * 2;
};

// A score before its scale, and the gradient of its weight, to the weight, 0 where it is dropped, and the gradient of the unscaled score.
NL_INLINE void flashDifferentiate(const AttentionArgs& a, bool seen, float lse, float dot, bool kept, float& score, float& gradient)
{
    float s = score * a.scale, slope = a.scale;
    if (a.softcap > 0.0f)
    {
        s = cappedFast(a, s);
        float c = s * reciprocalApprox(a.softcap);
        slope *= 1.0f - c * c;
    }
    float p = seen ? exp2Approx(fma(s, LOG2_E, -lse)) : 0.0f;
    gradient = p * slope * ((kept ? gradient * a.random.keepScale : 0.0f) - dot);
    score = kept ? p : 0.0f;
}

// Log-sum-exp to base 2; +inf, for weights of 0, where no key was seen or no query is.
NL_INLINE float flashLse(const AttentionArgs& a, bool there, int64 at)
{
    float lse = there ? a.lse[at] : floatOf(INFINITE);
    return lse == floatOf(MINUS_INFINITE) ? floatOf(INFINITE) : lse * LOG2_E;
}

// dq of a tile of queries, over tiles of keys.
template<int D> NL_INLINE void flashQueryGradients(const AttentionArgs& a, uint8* pool)
{
    constexpr int PASS = FlashBackward<D>::PASS, N = PASS / 16;
    Part q;
    if (!locate(a, blocks() - 1 - block(), q))
        return;
    int g = lane() >> 2, t = lane() & 3, row = warp() * 16, head = blockY(), kvHead = head / (a.heads / a.kvHeads);
    uint8* doutTile = pool + TILE * D * 2;
    uint8* keyTile = doutTile + TILE * D * 2;
    uint8* valueTile = keyTile + PASS * D * 2;
    uint32 queryAt = sharedAddress(pool), doutAt = sharedAddress(doutTile), keyAt = sharedAddress(keyTile), valueAt = sharedAddress(valueTile);
    int begin, stop;
    keyRange(a, q.from, q.from + q.count, q.length, begin, stop);
    begin &= -PASS;
    loadTile<D, TILE>(a, rowsOf<bf16>(a.dout, q.start + q.from, a.heads, head, a.headDim, q.count), doutTile);
    loadTile<D, PASS>(a, rowsOf<bf16>(a.v, q.start + begin, a.kvHeads, kvHead, a.headDim, q.length - begin), valueTile);
    copyCommit();
    loadTile<D, TILE>(a, rowsOf<bf16>(a.q, q.start + q.from, a.heads, head, a.headDim, q.count), pool);
    loadTile<D, PASS>(a, rowsOf<bf16>(a.k, q.start + begin, a.kvHeads, kvHead, a.headDim, q.length - begin), keyTile);
    copyCommit();
    float dq[D / 8][4], lse[2], dot[2];
    Seen seen[2] = {seenKeys(a, q.from + row + g, q.length), seenKeys(a, q.from + row + g + 8, q.length)};
    clearSums(dq);
#pragma unroll
    for (int half = 0; half < 2; half++)
    {
        int r = row + g + half * 8;
        int64 at = (int64)(q.start + q.from + r) * a.heads + head;
        lse[half] = flashLse(a, r < q.count, at);
        dot[half] = r < q.count ? a.dot[at] : 0.0f;
    }
    for (int from = begin; from < stop; from += PASS)
    {
        int count = minimum(PASS, q.length - from);
        bool more = from + PASS < stop;
        float s[2 * N][4], gradients[2 * N][4];
        copyWait<1>();
        barrier();
        multiplyTiles<D, N>(doutAt, row, valueAt, gradients);
        copyWait<0>();
        barrier();
        if (more)
            loadTile<D, PASS>(a, rowsOf<bf16>(a.v, q.start + from + PASS, a.kvHeads, kvHead, a.headDim, q.length - from - PASS), valueTile);
        copyCommit();
        multiplyTiles<D, N>(queryAt, row, keyAt, s);
        bool partial = a.keyVisible || count < PASS;
#pragma unroll
        for (int n = 0; n < 2 * N; n++)
        {
            bool kept[4] = {true, true, true, true};
            if (a.dropout)
                dropQueryRows(a, q.start + q.from + row + g, head, from + n * 8, kept);
#pragma unroll
            for (int e = 0; e < 2; e++)
            {
                int key = from + n * 8 + t * 2 + e;
                if (partial)
                    key = shownKey(a.keyVisible, q.start, key, q.length);
                flashDifferentiate(a, seen[0].has(key), lse[0], dot[0], kept[e], s[n][e], gradients[n][e]);
                flashDifferentiate(a, seen[1].has(key), lse[1], dot[1], kept[2 + e], s[n][2 + e], gradients[n][2 + e]);
            }
        }
        Four weights[N];
        packWeights<N>(gradients, weights);
        multiplyDepth<D, N>(weights, keyAt, dq);
        barrier();
        if (more)
            loadTile<D, PASS>(a, rowsOf<bf16>(a.k, q.start + from + PASS, a.kvHeads, kvHead, a.headDim, q.length - from - PASS), keyTile);
        copyCommit();
    }
    storeSums<D>(a, a.dq, q.start + q.from, a.heads, head, row + g, q.count, dq);
}

// dk and dv of a tile of keys, over the heads of its group and the tiles of queries; a null one is not computed.
template<int D> NL_INLINE void flashKeyGradients(const AttentionArgs& a, uint8* pool)
{
    constexpr int PASS = FlashBackward<D>::PASS, N = PASS / 16;
    Part k;
    if (!locate(a, block(), k))
        return;
    int g = lane() >> 2, t = lane() & 3, row = warp() * 16, kvHead = blockY(), group = a.heads / a.kvHeads;
    uint8* valueTile = pool + TILE * D * 2;
    uint8* queryTile = valueTile + TILE * D * 2;
    uint8* doutTile = queryTile + PASS * D * 2;
    uint32 keyAt = sharedAddress(pool), valueAt = sharedAddress(valueTile), queryAt = sharedAddress(queryTile), doutAt = sharedAddress(doutTile);
    int begin, stop;
    queryRange(a, k.from, k.from + k.count, k.length, begin, stop);
    begin &= -PASS;
    int tiles = (stop - begin + PASS - 1) / PASS, steps = tiles * group;
    loadTile<D, TILE>(a, rowsOf<bf16>(a.v, k.start + k.from, a.kvHeads, kvHead, a.headDim, k.count), valueTile);
    loadTile<D, PASS>(a, rowsOf<bf16>(a.dout, k.start + begin, a.heads, kvHead * group, a.headDim, k.length - begin), doutTile);
    copyCommit();
    loadTile<D, TILE>(a, rowsOf<bf16>(a.k, k.start + k.from, a.kvHeads, kvHead, a.headDim, k.count), pool);
    loadTile<D, PASS>(a, rowsOf<bf16>(a.q, k.start + begin, a.heads, kvHead * group, a.headDim, k.length - begin), queryTile);
    copyCommit();
    float dk[D / 8][4], dv[D / 8][4];
    clearSums(dk);
    clearSums(dv);
    Seen seen[2];
#pragma unroll
    for (int half = 0; half < 2; half++)
    {
        int key = k.from + row + g + half * 8;
        seen[half] = shownKey(a.keyVisible, k.start, key, k.length) != NOWHERE ? seenQueries(a, key, k.length) : Seen{0, 0};
    }
    for (int step = 0; step < steps; step++)
    {
        int head = kvHead * group + step / tiles, from = begin + step % tiles * PASS, count = minimum(PASS, k.length - from);
        int nextHead = kvHead * group + (step + 1) / tiles, next = begin + (step + 1) % tiles * PASS;
        bool more = step + 1 < steps;
        float s[2 * N][4], gradients[2 * N][4];
        copyWait<1>();
        barrier();
        multiplyTiles<D, N>(valueAt, row, doutAt, gradients);
        copyWait<0>();
        barrier();
        multiplyTiles<D, N>(keyAt, row, queryAt, s);
#pragma unroll
        for (int n = 0; n < 2 * N; n++)
        {
            float lse[2], dot[2];
#pragma unroll
            for (int e = 0; e < 2; e++)
            {
                int c = n * 8 + t * 2 + e;
                int64 at = (int64)(k.start + from + c) * a.heads + head;
                lse[e] = flashLse(a, c < count, at);
                dot[e] = c < count && a.dk ? a.dot[at] : 0.0f;
            }
            bool kept[4] = {true, true, true, true};
            if (a.dropout)
                dropKeyRows(a, k.start + from + n * 8 + t * 2, head, k.from + row + (g & 4), kept);
#pragma unroll
            for (int e = 0; e < 4; e++)
            {
                flashDifferentiate(a, seen[e >> 1].has(from + n * 8 + t * 2 + (e & 1)), lse[e & 1], dot[e & 1], kept[e], s[n][e], gradients[n][e]);
            }
        }
        Four weights[N], slopes[N];
        packWeights<N>(s, weights);
        packWeights<N>(gradients, slopes);
        if (a.dv)
            multiplyDepth<D, N>(weights, doutAt, dv);
        barrier();
        if (more)
            loadTile<D, PASS>(a, rowsOf<bf16>(a.dout, k.start + next, a.heads, nextHead, a.headDim, k.length - next), doutTile);
        copyCommit();
        if (a.dk)
            multiplyDepth<D, N>(slopes, queryAt, dk);
        barrier();
        if (more)
            loadTile<D, PASS>(a, rowsOf<bf16>(a.q, k.start + next, a.heads, nextHead, a.headDim, k.length - next), queryTile);
        copyCommit();
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            dv[n][e] *= a.random.keepScale;
    if (a.dk)
        storeSums<D>(a, a.dk, k.start + k.from, a.kvHeads, kvHead, row + g, k.count, dk);
    if (a.dv)
        storeSums<D>(a, a.dv, k.start + k.from, a.kvHeads, kvHead, row + g, k.count, dv);
}
