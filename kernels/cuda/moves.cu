// Rows and columns from one place to another: split and join, gather and scatter, mean pooling, DoRA's scaling of columns, zeros. Up to 256 threads
// a row, four columns a thread, no shared memory but mean_pool's (4.1 KiB); traffic is one read and one write of what is moved.
#include "rows.cuh"

struct ClearArgs
{
    void* result;
    int64 count;
};

// Columns of a wide tensor to or from a tensor of their own; without one: zeros into the wide one.
struct ColumnCopyArgs
{
    void* wide; // the first of the columns in its first row
    void* part;
    int64 rows;
    int32 stride, columns, lanes, toPart;
};

struct GatherArgs
{
    const void* input; // scatter: fp32
    const int32* index;
    void* result; // gather: fp32
    int64 rows;
    int32 columns, lanes;
};

struct MeanPoolArgs
{
    const void* input;
    const int32* cuSeqlens;
    const int32* visible; // null: all
    void* result;
    int32 columns;
};

// result = (scale - offset) · input + bias + addend, by column.
struct DoraArgs
{
    const void* input;
    const float* scale;
    const float* bias;  // may be null
    const void* addend; // may be null
    void* result;
    int64 rows;
    int32 columns, lanes;
    float offset;
};

template<typename E> NL_INLINE void clear(const ClearArgs& a)
{
    E* to = (E*)a.result;
    bool whole = aligned(to);
    overPacks(a.count, NL_EACH { store(to + i, Pack{{0.0f, 0.0f, 0.0f, 0.0f}}, left, whole); });
}

template<typename E> NL_INLINE void columnCopy(const ColumnCopyArgs& a)
{
    E* wides = (E*)a.wide;
    E* parts = (E*)a.part;
    int columns = a.columns, stride = a.stride;
    bool whole = columns % PACK == 0 && stride % PACK == 0 && aligned(wides, parts), toPart = a.toPart != 0;
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        E* wide = wides + row * stride + c;
        E* part = parts + row * columns + c;
        if (toPart)
            store(part, load(wide, left, whole), left, whole);
        else
            store(wide, parts != nullptr ? load(part, left, whole) : Pack{{0.0f, 0.0f, 0.0f, 0.0f}}, left, whole);
    });
}

template<typename E> NL_INLINE void gather(const GatherArgs& a)
{
    const E* x = (const E*)a.input;
    const int32* index = a.index;
    float* y = (float*)a.result;
    int columns = a.columns;
    bool whole = columns % PACK == 0 && aligned(x) && aligned(y);
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        store(y + row * columns + c, load(x + (int64)index[row] * columns + c, left, whole), left, whole);
    });
}

// result[index[r]] += input[r], over zeros. Of rows with one index the first one's threads add them all, in order.
template<typename E> NL_INLINE void scatter(const GatherArgs& a)
{
    const float* dy = (const float*)a.input;
    const int32* index = a.index;
    E* dx = (E*)a.result;
    int columns = a.columns;
    int64 rows = a.rows;
    bool whole = columns % PACK == 0 && aligned(dy) && aligned(dx);
    overRows(rows, columns, a.lanes, NL_EACH_OF_ROW {
        int to = index[row];
        for (int64 r = 0; r < row; r++)
            if (index[r] == to)
                return;
        Pack sum = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
        for (int64 r = row; r < rows; r++)
        {
            if (index[r] != to)
                continue;
            Pack d = load(dy + r * columns + c, left, whole);
#pragma unroll
            for (int j = 0; j < PACK; j++)
                sum[j] = widen(narrow<E>(sum[j] + d[j]));
        }
        store(dx + (int64)to * columns + c, sum, left, whole);
    });
}

// A block a sequence and 64 columns; each of its 8 warps takes every eighth token, summed in fp64.
template<typename E> NL_INLINE void meanPool(const MeanPoolArgs& a)
{
    __shared__ double shared[8][64];
    __shared__ int32 counts[8];
    int sequence = block(), from = a.cuSeqlens[sequence], to = a.cuSeqlens[sequence + 1], columns = a.columns, strip = blockY() * 64;
    const E* x = (const E*)a.input;
    double low = 0, high = 0;
    int count = 0, c = strip + lane();
    for (int t = from + warp(); t < to; t += 8)
    {
        if (a.visible != nullptr && a.visible[t] == 0)
            continue;
        count++;
        const E* row = x + (int64)t * columns;
        low += c < columns ? widen(row[c]) : 0.0f;
        high += c + 32 < columns ? widen(row[c + 32]) : 0.0f;
    }
    shared[warp()][lane()] = low;
    shared[warp()][lane() + 32] = high;
    if (lane() == 0)
        counts[warp()] = count;
    barrier();
    c = strip + thread();
    if (thread() >= 64 || c >= columns)
        return;
    double sum = 0;
    count = 0;
    for (int w = 0; w < 8; w++)
    {
        sum += shared[w][thread()];
        count += counts[w];
    }
    ((float*)a.result)[(int64)sequence * columns + c] = count == 0 ? 0.0f : (float)(sum / count);
}

// A block a sequence and a share of its tokens: the gradient over the visible tokens, 0 for the others.
template<typename E> NL_INLINE void meanPoolGrad(const MeanPoolArgs& a, int shares)
{
    __shared__ float slots[8];
    int sequence = block(), from = a.cuSeqlens[sequence], to = a.cuSeqlens[sequence + 1], columns = a.columns;
    const float* dy = (const float*)a.input + (int64)sequence * columns;
    E* dx = (E*)a.result;
    bool whole = columns % PACK == 0 && aligned(dy) && aligned(dx);
    float seen = 0.0f;
    for (int t = from + thread(); t < to; t += threads())
        seen += a.visible == nullptr || a.visible[t] != 0 ? 1.0f : 0.0f;
    float count = blockSum<8>(seen, slots);
    for (int t = from + blockY(); t < to; t += shares)
    {
        bool visible = a.visible == nullptr || a.visible[t] != 0;
        for (int c = thread() * PACK; c < columns; c += threads() * PACK)
        {
            Pack d = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
            if (visible)
            {
                d = load(dy + c, columns - c, whole);
#pragma unroll
                for (int j = 0; j < PACK; j++)
                    d[j] = divideRounded(d[j], count);
            }
            store(dx + (int64)t * columns + c, d, columns - c, whole);
        }
    }
}

template<typename E> NL_INLINE void dora(const DoraArgs& a)
{
    const E* x = (const E*)a.input;
    const E* addends = (const E*)a.addend;
    E* y = (E*)a.result;
    const float* scales = a.scale;
    const float* biases = a.bias;
    float offset = a.offset;
    int columns = a.columns;
    bool whole = columns % PACK == 0 && aligned(x, addends, y) && aligned(scales, biases);
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        int64 at = row * columns + c;
        Pack v = load(x + at, left, whole), scale = load(scales + c, left, whole), add = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
        if (addends != nullptr)
            add = load(addends + at, left, whole);
        if (biases != nullptr)
        {
            Pack bias = load(biases + c, left, whole);
#pragma unroll
            for (int j = 0; j < PACK; j++)
                add[j] += bias[j];
        }
#pragma unroll
        for (int j = 0; j < PACK; j++)
            v[j] = fma(scale[j] - offset, v[j], add[j]);
        store(y + at, v, left, whole);
    });
}

constexpr int SHARES = 16;

NL_KERNEL(256) clear_f32(ClearArgs a) { clear<float>(a); }
NL_KERNEL(256) clear_bf16(ClearArgs a) { clear<bf16>(a); }
NL_KERNEL(256) column_copy_f32(ColumnCopyArgs a) { columnCopy<float>(a); }
NL_KERNEL(256) column_copy_bf16(ColumnCopyArgs a) { columnCopy<bf16>(a); }
NL_KERNEL(256) gather_f32(GatherArgs a) { gather<float>(a); }
NL_KERNEL(256) gather_bf16(GatherArgs a) { gather<bf16>(a); }
NL_KERNEL(256) scatter_f32(GatherArgs a) { scatter<float>(a); }
NL_KERNEL(256) scatter_bf16(GatherArgs a) { scatter<bf16>(a); }
NL_KERNEL(256) mean_pool_f32(MeanPoolArgs a) { meanPool<float>(a); }
NL_KERNEL(256) mean_pool_bf16(MeanPoolArgs a) { meanPool<bf16>(a); }
NL_KERNEL(256) mean_pool_grad_f32(MeanPoolArgs a) { meanPoolGrad<float>(a, SHARES); }
NL_KERNEL(256) mean_pool_grad_bf16(MeanPoolArgs a) { meanPoolGrad<bf16>(a, SHARES); }
NL_KERNEL(256) dora_f32(DoraArgs a) { dora<float>(a); }
NL_KERNEL(256) dora_bf16(DoraArgs a) { dora<bf16>(a); }
