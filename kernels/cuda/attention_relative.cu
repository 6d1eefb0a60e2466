// Disentangled attention (DeBERTa): the tiles of attention_tiles.cuh with position parts. A pair of tiles has 127 distances; a thread's
// 4 x 4 scores have 7 of them, so that relative rows are read from shared memory as rarely as keys. Shared memory 47 KiB.
//
// Gradients of relative keys and queries are sums over all pairs of all sequences. A block has one diagonal (tile of queries minus tile
// of keys), for which all pairs have the same 127 distances: their sums stay in registers, and go to memory by distance. A last kernel
// adds up the distances of each row, in order.
#include "attention_tiles.cuh"

static __shared__ __attribute__((aligned(16))) float shared[Sizes<true>::ALL];

constexpr int INDICES = 2 * TILE;

// N chunks of 32 columns, from those of this block on. Grid: diagonals x heads x (groups of slots · parts of the columns).
template<typename E, int N> NL_INLINE void relativeSums(const AttentionArgs& a, float* shared)
{
    constexpr int W = 2;
    int x = threadX(), y = threadY(), head = blockY(), group = blockZ() % a.groups, first = blockZ() / a.groups * (32 * N);
    int diagonal = block() - a.diagonals / 2, slots = a.rows / TILE + a.sequences;
    float* tiles = shared;
    float* weights = shared + Sizes<true>::TILES;
    float keySums[N][8][W], querySums[N][8][W];
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 8; e++)
#pragma unroll
            for (int w = 0; w < W; w++)
                keySums[n][e][w] = querySums[n][e][w] = 0.0f;
    for (int slot = group; slot < slots; slot += a.groups)
    {
        Part q;
        if (!locate(a, slot, q))
            continue;
        int from = q.from - diagonal * TILE;
        if (from < 0 || from >= q.length)
            continue;
        int count = minimum(TILE, q.length - from);
        float lse[4], dot[4], gradients[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
        {
            bool there = y * 4 + i < q.count;
            int64 at = (int64)(q.start + q.from + y * 4 + i) * a.heads + head;
            lse[i] = seenLse(a, there, at);
            dot[i] = there ? a.dot[at] : 0.0f;
        }
        scoreGradients<E, true>(a, q, head, from, lse, dot, tiles, gradients);
        storeWeights(weights, gradients);
#pragma unroll
        for (int n = 0; n < N; n++)
        {
            int column = first + n * 32;
            if (column >= a.headDim)
                continue;
            if (a.keySums)
            {
                barrier();
                loadColumns<32>(rowsOf<E>(a.q, q.start + q.from, a.heads, head, a.headDim, q.count), column, a.headDim, tiles);
                barrier();
                // Index e is the distance of row r and column r - e + 63.
                for (int r = maximum(0, y * 8 - (TILE - 1)); r < minimum(q.count, y * 8 + 8); r++)
                {
                    floats2 v = *(const floats2*)(tiles + r * 32 + x * W);
#pragma unroll
                    for (int e = 0; e < 8; e++)
                    {
                        int c = r - (y * 8 + e) + TILE - 1;
                        float g = (uint32)c < TILE ? weights[r * WEIGHT_PITCH + c] : 0.0f;
                        keySums[n][e][0] = fma(g, v[0], keySums[n][e][0]);
                        keySums[n][e][1] = fma(g, v[1], keySums[n][e][1]);
                    }
                }
            }
            if (a.querySums)
            {
                barrier();
                loadColumns<32>(rowsOf<E>(a.k, q.start + from, a.kvHeads, head, a.headDim, count), column, a.headDim, tiles);
                barrier();
                for (int c = maximum(0, TILE - 1 - (y * 8 + 7)); c < minimum(count, INDICES - 1 - y * 8); c++)
                {
                    floats2 v = *(const floats2*)(tiles + c * 32 + x * W);
#pragma unroll
                    for (int e = 0; e < 8; e++)
                    {
                        int r = c + y * 8 + e - (TILE - 1);
                        float g = (uint32)r < TILE ? weights[r * WEIGHT_PITCH + c] : 0.0f;
                        querySums[n][e][0] = fma(g, v[0], querySums[n][e][0]);
                        querySums[n][e][1] = fma(g, v[1], querySums[n][e][1]);
                    }
                }
            }
        }
    }
    int64 at = (((int64)group * a.heads + head) * a.diagonals + block()) * INDICES + y * 8;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 8; e++)
#pragma unroll
            for (int w = 0; w < W; w++)
            {
                int c = first + n * 32 + x * W + w;
                if (c >= a.headDim)
                    continue;
                if (a.keySums)
                    a.keySums[(at + e) * a.headDim + c] = keySums[n][e][w];
                if (a.querySums)
                    a.querySums[(at + e) * a.headDim + c] = querySums[n][e][w];
            }
}

NL_INLINE float relativeSum(const AttentionArgs& a, const float* sums, int row, int head, int column)
{
    const int32* byRow = a.rowOf + 2 * a.maxLength - 1;
    const int32* begin = byRow + 2 * a.maxLength - 1;
    float sum = 0.0f;
    for (int group = 0; group < a.groups; group++)
    {
        const float* from = sums + ((int64)group * a.heads + head) * a.diagonals * INDICES * a.headDim + column;
        for (int i = begin[row]; i < begin[row + 1]; i++)
        {
            // A distance is on two diagonals, but for the multiples of the tile.
            int distance = byRow[i], diagonal = (distance >> 6) + a.diagonals / 2, rest = distance & (TILE - 1);
            if ((uint32)diagonal < (uint32)a.diagonals)
                sum += from[((int64)diagonal * INDICES + rest + TILE - 1) * a.headDim];
            if (rest > 0 && (uint32)(diagonal + 1) < (uint32)a.diagonals)
                sum += from[((int64)(diagonal + 1) * INDICES + rest - 1) * a.headDim];
        }
    }
    return sum;
}

NL_KERNEL(256) attention_relative_reduce(AttentionArgs a)
{
    int width = a.heads * a.headDim;
    int64 count = (int64)a.relativeRows * width;
    for (int64 i = (int64)block() * threads() + thread(); i < count; i += (int64)blocks() * threads())
    {
        int row = (int)(i / width), c = (int)(i - (int64)row * width), head = c / a.headDim;
        if (a.dRelativeKeys)
            a.dRelativeKeys[i] = relativeSum(a, a.keySums, row, head, c - head * a.headDim);
        if (a.dRelativeQueries)
            a.dRelativeQueries[i] = relativeSum(a, a.querySums, row, head, c - head * a.headDim);
    }
}

NL_KERNEL(256) attention_relative_forward_64_f32(AttentionArgs a) { attend<float, 2, 2, true>(a, shared); }
NL_KERNEL(256) attention_relative_forward_64_bf16(AttentionArgs a) { attend<bf16, 2, 2, true>(a, shared); }
NL_KERNEL(256) attention_relative_query_grad_64_f32(AttentionArgs a) { queryGradients<float, 2, 2, true>(a, shared); }
NL_KERNEL(256) attention_relative_query_grad_64_bf16(AttentionArgs a) { queryGradients<bf16, 2, 2, true>(a, shared); }
NL_KERNEL(256) attention_relative_key_grad_64_f32(AttentionArgs a) { keyGradients<float, 2, 2, true>(a, shared); }
NL_KERNEL(256) attention_relative_key_grad_64_bf16(AttentionArgs a) { keyGradients<bf16, 2, 2, true>(a, shared); }
// Two chunks of columns a block: wider heads take more blocks.
NL_KERNEL(256) attention_relative_sums_f32(AttentionArgs a) { relativeSums<float, 2>(a, shared); }
NL_KERNEL(256) attention_relative_sums_bf16(AttentionArgs a) { relativeSums<bf16, 2>(a, shared); }
