// What stands beside products by cuBLAS: the end of a product (bias, addend, rounding), DoRA's factors, and the parts of grouped adapters.
// Elementwise kernels have one thread a value, grid-stride, and no shared memory. The squares of DoRA take 64 bytes, a block a row.
#include "nl.cuh"

// C = sum + bias + addend, each of them absent where its address is 0. The addend may be C. `rows` by `columns`, strides in elements.
struct ProductFinishArgs
{
    const float* sum;
    const float* bias;
    const void* addend;
    void* c;
    int64 sumStride, addendStride, cStride;
    int32 rows, columns;
    int32 addendBrain, unused;
};

template<typename E> NL_INLINE void finish(const ProductFinishArgs& a)
{
    int64 count = (int64)a.rows * a.columns;
    for (int64 i = (int64)block() * threads() + thread(); i < count; i += (int64)blocks() * threads())
    {
        int64 row = i / a.columns, column = i - row * a.columns;
        float v = a.sum ? a.sum[row * a.sumStride + column] : 0.0f;
        if (a.addend)
        {
            int64 at = row * a.addendStride + column;
            v += a.addendBrain ? widen(((const bf16*)a.addend)[at]) : ((const float*)a.addend)[at];
        }
        if (a.bias)
            v += a.bias[column];
        ((E*)a.c)[row * a.cStride + column] = narrow<E>(v);
    }
}

NL_KERNEL(256) product_finish_f32(ProductFinishArgs a) { finish<float>(a); }
NL_KERNEL(256) product_finish_bf16(ProductFinishArgs a) { finish<bf16>(a); }

// y = g ⊙ y + bias + addend, by column: DoRA on the rows of one adapter.
struct GroupedScaleArgs
{
    void* y;
    const float* scale;
    const float* bias;
    const void* addend;
    int64 rows;
    int64 columns;
};

template<typename E> NL_INLINE void groupedScale(const GroupedScaleArgs& a)
{
    int64 count = a.rows * a.columns;
    for (int64 i = (int64)block() * threads() + thread(); i < count; i += (int64)blocks() * threads())
    {
        int64 column = i % a.columns;
        float v = a.scale[column] * widen(((E*)a.y)[i]);
        if (a.bias)
            v += a.bias[column];
        if (a.addend)
            v += widen(((const E*)a.addend)[i]);
        ((E*)a.y)[i] = narrow<E>(v);
    }
}

NL_KERNEL(256) grouped_scale_f32(GroupedScaleArgs a) { groupedScale<float>(a); }
NL_KERNEL(256) grouped_scale_bf16(GroupedScaleArgs a) { groupedScale<bf16>(a); }

// P[t, j] = factor · A[j, ids[t]], A [rank, columns].
struct GroupedColumnsArgs
{
    const int32* ids;
    const float* a;
    float* p;
    int64 tokens;
    int32 rank, columns;
    float factor;
    int32 unused;
};

NL_KERNEL(256) grouped_columns_f32(GroupedColumnsArgs a)
{
    int64 count = a.tokens * a.rank;
    for (int64 i = (int64)block() * threads() + thread(); i < count; i += (int64)blocks() * threads())
    {
        int64 token = i / a.rank, j = i - token * a.rank;
        a.p[i] = a.factor * a.a[j * a.columns + a.ids[token]];
    }
}

// squares[o] = ‖W[o]‖² in fp64 of W in fp32, or of its columns where outputs are columns; added to what is there.
struct DoraSquaresArgs
{
    const float* weight;
    double* squares;
    int32 rows, columns; // as W is stored
    int32 adds, unused;
};

NL_KERNEL(256) dora_squares_rows_f32(DoraSquaresArgs a)
{
    __shared__ double slots[8];
    for (int row = block(); row < a.rows; row += blocks())
    {
        double sum = 0;
        for (int c = thread(); c < a.columns; c += threads())
        {
            double w = a.weight[(int64)row * a.columns + c];
            sum = fma(w, w, sum);
        }
        sum = blockSum<8>(sum, slots);
        if (thread() == 0)
            a.squares[row] = a.adds ? a.squares[row] + sum : sum;
    }
}

NL_KERNEL(256) dora_squares_columns_f32(DoraSquaresArgs a)
{
    int column = block() * threads() + thread();
    if (column >= a.columns)
        return;
    double sum = a.adds ? a.squares[column] : 0.0;
    for (int row = 0; row < a.rows; row++)
    {
        double w = a.weight[(int64)row * a.columns + column];
        sum = fma(w, w, sum);
    }
    a.squares[column] = sum;
}

// g[o] = m[o] / norm[o], norm² = ‖W[o]‖² + 2s·B[o]·(W Aᵀ)[o] + s²·B[o] (A Aᵀ) B[o]ᵀ, in fp64: what is left of a cancellation must be right.
struct DoraFactorArgs
{
    const double* squares;
    const float* b;
    const float* weightA;
    const float* gramA;
    const float* magnitude;
    float* scale;
    float* inverseNorm;
    double scaling;
    int32 rows, rank;
};

NL_INLINE double rootRounded(double a) { double r; asm("sqrt.rn.f64 %0, %1;" : "=d"(r) : "d"(a)); return r; }
NL_INLINE double divideRounded(double a, double b) { double r; asm("div.rn.f64 %0, %1, %2;" : "=d"(r) : "d"(a), "d"(b)); return r; }

NL_KERNEL(128) dora_factor_f32(DoraFactorArgs a)
{
    int row = block() * threads() + thread();
    if (row >= a.rows)
        return;
    const float* b = a.b + (int64)row * a.rank;
    const float* weightA = a.weightA + (int64)row * a.rank;
    double cross = 0, square = 0;
    for (int i = 0; i < a.rank; i++)
    {
        cross = fma((double)b[i], (double)weightA[i], cross);
        double inner = 0;
        for (int j = 0; j < a.rank; j++)
            inner = fma((double)a.gramA[i * a.rank + j], (double)b[j], inner);
        square = fma((double)b[i], inner, square);
    }
    double sum = a.squares[row] + 2 * a.scaling * cross + a.scaling * a.scaling * square;
    double norm = rootRounded(sum < 0 ? 0.0 : sum);
    a.inverseNorm[row] = (float)divideRounded(1.0, norm);
    a.scale[row] = (float)divideRounded((double)a.magnitude[row], norm);
}
