// Sums over rows: gradients of biases, of DoRA's magnitudes, and of the weights of norms. A block of 8 warps sums 128 rows of a strip of 64
// columns: each warp every eighth row, then the 8 sums in order (4 KiB of shared memory at most). More rows give partial sums, one row a block,
// which the same kernel sums again: the order is a function of the sizes alone. Traffic is one read of each input.
#include "nl.cuh"

constexpr int WARPS = 8, ROWS = 128, STRIP = 64;

// result[c] (+)= factor[c] · Σ first[r, c] · second[r, c]; more than one chunk of rows: result[chunk, c], without factor.
struct ColumnSumArgs
{
    const void* first;
    const void* second;  // null: ones
    const float* factor; // null: ones
    float* result;
    int64 rows;
    int32 columns, chunks, accumulate;
};

// Partial sums of a norm's gradients: weights[chunk, c] = Σ dy · (x - mean) · scale, biases[chunk, c] = Σ dy.
struct NormColumnsArgs
{
    const void* gradient;
    const void* input;
    const float* means; // null: 0
    const float* scales;
    float* weights;
    float* biases; // may be null
    int64 rows;
    int32 columns;
};

// add(row, c, sums) for the rows of this block, then finish(c, sums).
template<int SUMS, typename Add, typename Finish> NL_INLINE void overColumns(int64 rows, int columns, const Add& add, const Finish& finish)
{
    __shared__ float shared[SUMS][WARPS][STRIP];
    int64 from = (int64)blockY() * ROWS, to = minimum(rows, from + ROWS);
    int strip = block() * STRIP;
    for (int half = 0; half < STRIP; half += 32)
    {
        int c = strip + half + lane();
        float sums[SUMS] = {};
        if (c < columns)
        {
#pragma unroll 4
            for (int64 row = from + warp(); row < to; row += WARPS)
                add(row, c, sums);
        }
#pragma unroll
        for (int s = 0; s < SUMS; s++)
            shared[s][warp()][half + lane()] = sums[s];
    }
    barrier();
    int c = strip + thread();
    if (thread() >= STRIP || c >= columns)
        return;
    float sums[SUMS] = {};
    for (int w = 0; w < WARPS; w++)
#pragma unroll
        for (int s = 0; s < SUMS; s++)
            sums[s] += shared[s][w][thread()];
    finish(c, sums);
}

template<typename E> NL_INLINE void columnSum(const ColumnSumArgs& a)
{
    const E* first = (const E*)a.first;
    const E* second = (const E*)a.second;
    const float* factor = a.factor;
    int64 columns = a.columns;
    bool last = a.chunks == 1, accumulate = a.accumulate != 0;
    float* result = a.result + blockY() * columns;
    auto add = [=](int64 row, int c, float (&sums)[1]) __attribute__((always_inline)) {
        float v = widen(first[row * columns + c]);
        sums[0] = second == nullptr ? sums[0] + v : fma(v, widen(second[row * columns + c]), sums[0]);
    };
    auto finish = [=](int c, float (&sums)[1]) __attribute__((always_inline)) {
        float sum = sums[0];
        if (last && factor != nullptr)
            sum *= factor[c];
        if (last && accumulate)
            sum += result[c];
        result[c] = sum;
    };
    overColumns<1>(a.rows, a.columns, add, finish);
}

template<typename E> NL_INLINE void normColumns(const NormColumnsArgs& a)
{
    const E* dy = (const E*)a.gradient;
    const E* x = (const E*)a.input;
    const float* means = a.means;
    const float* scales = a.scales;
    int64 columns = a.columns, out = blockY() * columns;
    float* weights = a.weights;
    float* biases = a.biases;
    auto add = [=](int64 row, int c, float (&sums)[2]) __attribute__((always_inline)) {
        float d = widen(dy[row * columns + c]), mean = means == nullptr ? 0.0f : means[row];
        sums[0] = fma(d, (widen(x[row * columns + c]) - mean) * scales[row], sums[0]);
        sums[1] += d;
    };
    auto finish = [=](int c, float (&sums)[2]) __attribute__((always_inline)) {
        weights[out + c] = sums[0];
        if (biases != nullptr)
            biases[out + c] = sums[1];
    };
    overColumns<2>(a.rows, a.columns, add, finish);
}

NL_KERNEL(256) column_sum_f32(ColumnSumArgs a) { columnSum<float>(a); }
NL_KERNEL(256) column_sum_bf16(ColumnSumArgs a) { columnSum<bf16>(a); }
NL_KERNEL(256) norm_columns_f32(NormColumnsArgs a) { normColumns<float>(a); }
NL_KERNEL(256) norm_columns_bf16(NormColumnsArgs a) { normColumns<bf16>(a); }
