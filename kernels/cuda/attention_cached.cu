// Attention over a cache of keys and values, and what puts them there.
//
// cached_attention_tile, by 64 x 64 tiles for sequences that begin or go on with many tokens, is with the other kernels of its width.
// cached_attention: a block a query, head and part of the keys, 4 warps with 4 keys at a time each, a lane every 32nd column; for one or a few
// new tokens. It reads keys and values once a query and keeps nothing: 4.1 KiB of shared memory to put its warps together. Where one
// block a head would leave the GPU idle, the keys are split, and cached_attention_merge puts the parts together.
#include "attention.cuh"

NL_INLINE int sequenceOf(const int32* cuSeqlens, int sequences, int token)
{
    int low = 0, high = sequences - 1;
    while (low < high)
    {
        int middle = (low + high + 1) >> 1;
        if (cuSeqlens[middle] <= token)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

constexpr int WARPS = 4, LANE_COLUMNS = 8;

static __shared__ float shared[WARPS * (32 * LANE_COLUMNS + 2)];

// Parts: [query · heads · splits][headDim + 2]: sums, highest score, sum of the weights.
template<typename E> NL_INLINE void cached(const AttentionArgs& a)
{
    int token = block(), head = blockY(), s = sequenceOf(a.cuSeqlens, a.sequences, token);
    int end = a.past[s] + token - a.cuSeqlens[s] + 1, from = a.window > 0 ? maximum(0, end - a.window) : 0;
    int each = (end - from + a.splits - 1) / a.splits, begin = from + blockZ() * each, stop = minimum(end, begin + each);
    int64 pitch = (int64)a.kvHeads * a.headDim, cache = (int64)a.slots[s] * a.length * pitch + (int64)(head / (a.heads / a.kvHeads)) * a.headDim;
    const E* keys = (const E*)a.k + cache;
    const E* values = (const E*)a.v + cache;
    int64 row = (int64)token * a.heads + head;
    const E* query = (const E*)a.q + row * a.headDim;
    float q[LANE_COLUMNS], out[LANE_COLUMNS], top = floatOf(MINUS_INFINITE), total = 0.0f;
#pragma unroll
    for (int n = 0; n < LANE_COLUMNS; n++)
    {
        int c = n * 32 + lane();
        q[n] = c < a.headDim ? widen(query[c]) * a.scale : 0.0f;
        out[n] = 0.0f;
    }
    for (int key = begin + warp() * 4; key < stop; key += WARPS * 4)
    {
        float score[4], now = top;
#pragma unroll
        for (int j = 0; j < 4; j++)
        {
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < LANE_COLUMNS; n++)
            {
                int c = n * 32 + lane();
                if (n * 32 < a.headDim && c < a.headDim && key + j < stop)
                    sum = fma(q[n], widen(keys[(key + j) * pitch + c]), sum);
            }
            score[j] = key + j < stop ? capped(a, warpSum(sum)) : floatOf(MINUS_INFINITE);
            now = maximum(now, score[j]);
        }
        float shrink = exponential(top - now);
        top = now;
        total *= shrink;
#pragma unroll
        for (int j = 0; j < 4; j++)
        {
            score[j] = exponential(score[j] - now);
            total += score[j];
        }
#pragma unroll
        for (int n = 0; n < LANE_COLUMNS; n++)
        {
            int c = n * 32 + lane();
            out[n] *= shrink;
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (n * 32 < a.headDim && c < a.headDim && key + j < stop)
                    out[n] = fma(score[j], widen(values[(key + j) * pitch + c]), out[n]);
        }
    }
    float* tops = shared + WARPS * 32 * LANE_COLUMNS;
    float* totals = tops + WARPS;
#pragma unroll
    for (int n = 0; n < LANE_COLUMNS; n++)
        shared[warp() * (32 * LANE_COLUMNS) + n * 32 + lane()] = out[n];
    if (lane() == 0)
    {
        tops[warp()] = top;
        totals[warp()] = total;
    }
    barrier();
    float highest = floatOf(MINUS_INFINITE);
    for (int w = 0; w < WARPS; w++)
        highest = maximum(highest, tops[w]);
    // A part without keys: -inf - 0 instead of -inf - -inf.
    float level = highest == floatOf(MINUS_INFINITE) ? 0.0f : highest, all = 0.0f;
    for (int w = 0; w < WARPS; w++)
        all += totals[w] * exponential(tops[w] - level);
    float* part = a.splits > 1 ? a.parts + (row * a.splits + blockZ()) * (a.headDim + 2) : nullptr;
    for (int c = thread(); c < a.headDim; c += WARPS * 32)
    {
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++)
            sum = fma(shared[w * (32 * LANE_COLUMNS) + c], exponential(tops[w] - level), sum);
        if (part)
            part[c] = sum;
        else
            ((E*)a.out)[row * a.headDim + c] = narrow<E>(divideRounded(sum, all));
    }
    if (thread() == 0)
    {
        if (part)
        {
            part[a.headDim] = highest;
            part[a.headDim + 1] = all;
        }
        else
        {
            a.lse[row] = highest + log2Approx(all) * 0.693147180559945f;
        }
    }
}

// A warp a query and head.
template<typename E> NL_INLINE void merge(const AttentionArgs& a)
{
    int64 count = (int64)a.rows * a.heads, row = (int64)block() * (threads() >> 5) + warp();
    if (row >= count)
        return;
    const float* parts = a.parts + row * a.splits * (a.headDim + 2);
    float highest = floatOf(MINUS_INFINITE), all = 0.0f;
    for (int p = 0; p < a.splits; p++)
        highest = maximum(highest, parts[p * (a.headDim + 2) + a.headDim]);
    for (int p = 0; p < a.splits; p++)
        all += parts[p * (a.headDim + 2) + a.headDim + 1] * exponential(parts[p * (a.headDim + 2) + a.headDim] - highest);
    for (int c = lane(); c < a.headDim; c += 32)
    {
        float sum = 0.0f;
        for (int p = 0; p < a.splits; p++)
            sum = fma(parts[p * (a.headDim + 2) + c], exponential(parts[p * (a.headDim + 2) + a.headDim] - highest), sum);
        ((E*)a.out)[row * a.headDim + c] = narrow<E>(divideRounded(sum, all));
    }
    if (lane() == 0)
        a.lse[row] = highest + log2Approx(all) * 0.693147180559945f;
}

struct CacheAppendArgs
{
    const void* k;
    const void* v;
    void* keyCache;
    void* valueCache;
    const int32* cuSeqlens;
    const int32* slots;
    const int32* past;
    int32 sequences, width, length;
};

// A block a token, of keys or of values.
template<typename E> NL_INLINE void append(const CacheAppendArgs& a)
{
    int token = block(), s = sequenceOf(a.cuSeqlens, a.sequences, token);
    const E* from = (const E*)(blockY() ? a.v : a.k) + (int64)token * a.width;
    E* to = (E*)(blockY() ? a.valueCache : a.keyCache) + ((int64)a.slots[s] * a.length + a.past[s] + token - a.cuSeqlens[s]) * a.width;
    for (int c = thread(); c < a.width; c += threads())
        to[c] = from[c];
}

NL_KERNEL(128) cache_append_f32(CacheAppendArgs a) { append<float>(a); }
NL_KERNEL(128) cache_append_bf16(CacheAppendArgs a) { append<bf16>(a); }
NL_KERNEL(128) cached_attention_f32(AttentionArgs a) { cached<float>(a); }
NL_KERNEL(128) cached_attention_bf16(AttentionArgs a) { cached<bf16>(a); }
NL_KERNEL(256) cached_attention_merge_f32(AttentionArgs a) { merge<float>(a); }
NL_KERNEL(256) cached_attention_merge_bf16(AttentionArgs a) { merge<bf16>(a); }
