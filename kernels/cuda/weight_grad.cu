// Gradients of LoRA's factors, dB = dyᵀ P and dA = dPᵀ x: the depth is the tokens, one side is the rank. A block of 8 warps takes 128 columns of
// the wide side (bf16) and a run of tokens, 32 at a time: tiles 32 x 128 in three stages of cp.async, 24 KiB, and 32 x R of the narrow side,
// rounded to bf16, twice: 9 KiB at most. A warp has R x 16 sums of mma.m16n8k16. Runs of tokens leave partial sums, which a second kernel adds
// in order: no atomics, the same bits at every run. Traffic: the wide side is read once, the narrow one once a 128 columns.
#include "tiles.cuh"

struct SkinnyGradArgs
{
    const bf16* wide;     // [tokens, columns]
    const float* narrow;  // [tokens, rank]
    float* partial;       // [runs, rank, columns]
    int32 tokens, columns, rank, each; // tokens of a run: whole 32s
};

constexpr int tokensAtOnce = 32, stages = 3, tileBytes = tokensAtOnce * 256;

template<int R> NL_INLINE void skinnyGrad(const SkinnyGradArgs& a)
{
    // Bytes of a row of the narrow side: 16 beyond keep rows on different banks.
    constexpr int pitch = 2 * R + 16, values = tokensAtOnce * R / 256, narrowBytes = tokensAtOnce * pitch;
    alignas(128) __shared__ uint8 shared[stages * tileBytes + 2 * narrowBytes];
    uint32 base = sharedAddress(shared), narrowBase = base + stages * tileBytes;
    uint8* narrowTiles = shared + stages * tileBytes;
    int column0 = block() * 128, first = blockY() * a.each, end = minimum(a.tokens, first + a.each);
    int steps = (end - first + tokensAtOnce - 1) / tokensAtOnce, l = lane();

    auto load = [&](int step, int stage)
    {
#pragma unroll
        for (int i = 0; i < 2; i++)
        {
            int c = thread() + 256 * i, row = c >> 4, chunk = c & 15, token = first + step * tokensAtOnce + row, column = column0 + chunk * 8;
            bool there = token < end && column < a.columns;
            copyAsync(base + stage * tileBytes + wideTile(row, chunk), there ? a.wide + (int64)token * a.columns + column : a.wide, there);
        }
    };
    float held[values];
    auto take = [&](int step)
    {
#pragma unroll
        for (int i = 0; i < values; i++)
        {
            int c = thread() + 256 * i, token = first + step * tokensAtOnce + c / R, r = c % R;
            held[i] = token < end && r < a.rank ? a.narrow[(int64)token * a.rank + r] : 0.0f;
        }
    };
    auto put = [&](int step)
    {
#pragma unroll
        for (int i = 0; i < values; i++)
        {
            int c = thread() + 256 * i;
            *(bf16*)(narrowTiles + (step & 1) * narrowBytes + c / R * pitch + c % R * 2) = narrow<bf16>(held[i]);
        }
    };

    float sums[R / 16][2][4];
#pragma unroll
    for (int i = 0; i < R / 16; i++)
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sums[i][j][e] = 0;

#pragma unroll
    for (int s = 0; s < stages - 1; s++)
    {
        if (s < steps)
            load(s, s);
        copyCommit();
    }
    take(0);
    put(0);
    int stage = 0, next = stages - 1;
    for (int s = 0; s < steps; s++)
    {
        copyWait<stages - 2>();
        barrier();
        if (s + stages - 1 < steps)
            load(s + stages - 1, next);
        copyCommit();
        bool more = s + 1 < steps;
        if (more)
            take(s + 1);
        uint32 tile = base + stage * tileBytes, narrowTile = narrowBase + (s & 1) * narrowBytes;
#pragma unroll
        for (int k = 0; k < tokensAtOnce; k += 16)
        {
            Four x = loadMatricesTurned(tile + wideTile(k + (l & 15), warp() * 2 + (l >> 4)));
#pragma unroll
            for (int i = 0; i < R / 16; i++)
            {
                Four p = loadMatricesTurned(narrowTile + (k + (l & 7) + (l >> 4) * 8) * pitch + i * 32 + ((l >> 3) & 1) * 16);
                multiply(sums[i][0], p, x.a, x.b);
                multiply(sums[i][1], p, x.c, x.d);
            }
        }
        // The other half was read a step ago, before the barrier above.
        if (more)
            put(s + 1);
        stage = stage + 1 == stages ? 0 : stage + 1;
        next = next + 1 == stages ? 0 : next + 1;
    }
    copyWait<0>();

#pragma unroll
    for (int i = 0; i < R / 16; i++)
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int h = 0; h < 2; h++)
            {
                int r = i * 16 + (l >> 2) + h * 8, column = column0 + warp() * 16 + j * 8 + (l & 3) * 2;
                if (r >= a.rank || column >= a.columns)
                    continue;
                float* to = a.partial + ((int64)blockY() * a.rank + r) * a.columns + column;
                to[0] = sums[i][j][2 * h];
                to[1] = sums[i][j][2 * h + 1];
            }
}

NL_KERNEL(256) skinny_grad_16_bf16(SkinnyGradArgs a) { skinnyGrad<16>(a); }
NL_KERNEL(256) skinny_grad_32_bf16(SkinnyGradArgs a) { skinnyGrad<32>(a); }
NL_KERNEL(256) skinny_grad_64_bf16(SkinnyGradArgs a) { skinnyGrad<64>(a); }

struct SkinnySumArgs
{
    const float* partial; // [runs, rank, columns]
    float* gradient;      // [rank, columns], or turned
    int32 runs, columns, rank;
    int32 turned, adds, unused;
};

NL_KERNEL(256) skinny_sum_f32(SkinnySumArgs a)
{
    int64 count = (int64)a.rank * a.columns;
    for (int64 i = (int64)block() * threads() + thread(); i < count; i += (int64)blocks() * threads())
    {
        int64 r = i / a.columns, column = i - r * a.columns;
        float* to = a.gradient + (a.turned ? column * a.rank + r : i);
        float sum = 0;
        for (int run = 0; run < a.runs; run++)
            sum += a.partial[run * count + i];
        *to = a.adds ? *to + sum : sum;
    }
}
