// C = alpha · x Wᵀ (+ C) for up to 4 rows of x and W in blocks: a token at a time, where making W's values anew would cost more than the product.
// A warp an output: 32 values of its row at a time, a lane each, multiplied with every row of x in fp32. W is read once, as it is stored; x comes
// from the L1. No shared memory.
#include "blocks.cuh"

struct BlockDotArgs
{
    const void* x;     // [rows, k]
    const uint8* w;    // [n, k] in blocks
    void* c;           // [rows, n] by stride
    int64 cStride;
    int32 rows, n, k;
    int32 cBrain, adds;
    float alpha;
};

constexpr int mostRows = 4;

template<typename Q, typename E> NL_INLINE void blockDot(const BlockDotArgs& a)
{
    int o = block() * 8 + warp();
    if (o >= a.n)
        return;
    const uint8* row = a.w + (int64)o * (a.k / (32 * Q::groups)) * Q::bytes;
    const E* x = (const E*)a.x;
    float sums[mostRows] = {};
    for (int g = 0; g < a.k / 32; g++)
    {
        float w = Q::value(row + (int64)(g / Q::groups) * Q::bytes, g % Q::groups, lane());
#pragma unroll
        for (int r = 0; r < mostRows; r++)
            if (r < a.rows)
                sums[r] = fma(w, widen(x[(int64)r * a.k + g * 32 + lane()]), sums[r]);
    }
#pragma unroll
    for (int r = 0; r < mostRows; r++)
    {
        float sum = a.alpha * warpSum(sums[r]);
        if (r >= a.rows || lane() != 0)
            continue;
        int64 at = r * a.cStride + o;
        if (a.cBrain)
        {
            bf16* c = (bf16*)a.c + at;
            *c = narrow<bf16>(a.adds ? widen(*c) + sum : sum);
        }
        else
        {
            float* c = (float*)a.c + at;
            *c = a.adds ? *c + sum : sum;
        }
    }
}

#define NL_BLOCK_DOT(name, Q) \
    NL_KERNEL(256) block_dot_##name##_f32(BlockDotArgs a) { blockDot<Q, float>(a); } \
    NL_KERNEL(256) block_dot_##name##_bf16(BlockDotArgs a) { blockDot<Q, bf16>(a); }

NL_BLOCK_DOT(q8_0, Q8_0)
NL_BLOCK_DOT(q4_0, Q4_0)
NL_BLOCK_DOT(q4_1, Q4_1)
NL_BLOCK_DOT(q5_0, Q5_0)
NL_BLOCK_DOT(q5_1, Q5_1)
NL_BLOCK_DOT(q4_k, Q4_K)
NL_BLOCK_DOT(q5_k, Q5_K)
NL_BLOCK_DOT(q6_k, Q6_K)
