// Rotary position embedding, half-split: of each head's first 2 · half columns, column i and i + half are a pair that is turned. Up to 256 threads a
// row, four pairs a thread, no shared memory; traffic is one read and one write of the heads, and the tables' rows. The output may be the input.
#include "rows.cuh"

struct RotaryArgs
{
    const void* input;
    const int32* positions;
    const float* cos; // [positions, half]
    const float* sin;
    void* result;
    int64 rows;
    int32 heads, headDim, half, lanes;
    float direction; // -1: turns back
};

template<typename E> NL_INLINE void rotary(const RotaryArgs& a)
{
    const E* input = (const E*)a.input;
    E* result = (E*)a.result;
    const float* cosines = a.cos;
    const float* sines = a.sin;
    const int32* positions = a.positions;
    int headDim = a.headDim, half = a.half, width = a.heads * headDim, packs = (half + PACK - 1) / PACK;
    float direction = a.direction;
    bool whole = half % PACK == 0 && headDim % PACK == 0 && aligned(input, (const E*)result) && aligned(cosines, sines);
    overRows(a.rows, a.heads * packs * PACK, a.lanes, [=](int64 row, int pack, int) __attribute__((always_inline)) {
        int head = pack / PACK / packs, c = (pack / PACK - head * packs) * PACK, left = half - c;
        int64 at = row * width + head * headDim + c, angle = (int64)positions[row] * half + c;
        Pack x = load(input + at, left, whole), y = load(input + at + half, left, whole);
        Pack cos = load(cosines + angle, left, whole), sin = load(sines + angle, left, whole);
#pragma unroll
        for (int j = 0; j < PACK; j++)
        {
            float s = sin[j] * direction, first = x[j] * cos[j] - y[j] * s;
            y[j] = y[j] * cos[j] + x[j] * s;
            x[j] = first;
        }
        store(result + at, x, left, whole);
        store(result + at + half, y, left, whole);
    });
    int rest = headDim - 2 * half;
    if (rest == 0 || input == result)
        return;
    for (int64 i = (int64)block() * threads() + thread(); i < a.rows * a.heads * rest; i += (int64)blocks() * threads())
    {
        int64 at = i / rest * headDim + 2 * half + i % rest;
        result[at] = input[at];
    }
}

NL_KERNEL(256) rotary_f32(RotaryArgs a) { rotary<float>(a); }
NL_KERNEL(256) rotary_bf16(RotaryArgs a) { rotary<bf16>(a); }
