// Embeddings and their gradients.
// Look-up: up to 256 threads a row, four columns a thread; traffic is one row of each table and of the output a token.
// Gradient: a block of 256 threads a token and 1024 columns. Of the tokens with one id the first one's block works, the others end at once; it goes
// over the ids, 1024 at a time, lists those that are its own (4 KiB of shared memory) and adds their rows in the order of the tokens.
// No atomics: the sum has one order.
#include "blocks.cuh"
#include "rows.cuh"

// The numbers are those of ElementType.
enum ElementType : int32 { F32, F16, BF16, Q8_0_TYPE = 10, Q4_0_TYPE, Q4_1_TYPE, Q5_0_TYPE, Q5_1_TYPE, Q4_K_TYPE, Q5_K_TYPE, Q6_K_TYPE };

struct EmbeddingTable
{
    const int32* ids; // null: no such table
    const void* table;
    int64 type;
};

struct EmbeddingArgs
{
    EmbeddingTable first, second, third;
    void* result;
    int64 rows;
    int32 columns, lanes;
    float scale;
};

// result[t] = scale · table[ids[t]] for a table of blocks.
struct EmbeddingBlocksArgs
{
    const int32* ids;
    const uint8* table;
    void* result;
    int64 rows;
    int32 columns, type;
    float scale;
};

// result[ids[t] · rowStride + c · columnStride] += scale · gradient[t, c]
struct EmbeddingGradArgs
{
    const int32* ids;
    const void* gradient;
    float* result;
    int64 rowStride, columnStride;
    int32 tokens, columns;
    float scale;
};

// result[t, j] = factor · a[j, ids[t]]
struct EmbeddingColumnsArgs
{
    const int32* ids;
    const float* a;
    float* result;
    int64 count, entries;
    int32 rank;
    float factor;
};

// to[i] = from[i], widened.
struct WidenArgs
{
    const void* from;
    float* to;
    int64 count;
    int64 type;
};

NL_INLINE Pack loadAs(int type, const void* from, int64 at, int left, bool columnsWhole)
{
    if (type == F32)
        return load((const float*)from + at, left, columnsWhole && aligned((const float*)from));
    if (type == F16)
        return load((const fp16*)from + at, left, columnsWhole && aligned((const fp16*)from));
    return load((const bf16*)from + at, left, columnsWhole && aligned((const bf16*)from));
}

NL_INLINE void addRow(const EmbeddingTable& t, Pack& sum, int64 row, int c, int left, int columns, bool whole)
{
    if (t.ids == nullptr)
        return;
    Pack v = loadAs((int)t.type, t.table, (int64)t.ids[row] * columns + c, left, whole);
#pragma unroll
    for (int j = 0; j < PACK; j++)
        sum[j] += v[j];
}

template<typename E> NL_INLINE void embedding(const EmbeddingArgs& a)
{
    E* result = (E*)a.result;
    int columns = a.columns;
    bool whole = columns % PACK == 0, wholeResult = whole && aligned(result);
    EmbeddingTable first = a.first, second = a.second, third = a.third;
    float scale = a.scale;
    overRows(a.rows, columns, a.lanes, NL_EACH_OF_ROW {
        Pack sum = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
        addRow(first, sum, row, c, left, columns, whole);
        addRow(second, sum, row, c, left, columns, whole);
        addRow(third, sum, row, c, left, columns, whole);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            sum[j] *= scale;
        store(result + row * columns + c, sum, left, wholeResult);
    });
}

// A warp expands a group of 32 values, a lane each.
template<typename Q, typename E> NL_INLINE void lookUpBlocks(const EmbeddingBlocksArgs& a)
{
    int64 groups = a.columns >> 5, step = (int64)blocks() * threads() >> 5;
    for (int64 g = ((int64)block() * threads() + thread()) >> 5; g < a.rows * groups; g += step)
    {
        int64 row = g / groups, at = a.ids[row] * groups + (g - row * groups);
        float v = Q::value(a.table + at / Q::groups * Q::bytes, (int)(at % Q::groups), lane());
        ((E*)a.result)[g * 32 + lane()] = narrow<E>(v * a.scale);
    }
}

template<typename E> NL_INLINE void embeddingBlocks(const EmbeddingBlocksArgs& a)
{
    switch (a.type)
    {
        case Q8_0_TYPE: lookUpBlocks<Q8_0, E>(a); break;
        case Q4_0_TYPE: lookUpBlocks<Q4_0, E>(a); break;
        case Q4_1_TYPE: lookUpBlocks<Q4_1, E>(a); break;
        case Q5_0_TYPE: lookUpBlocks<Q5_0, E>(a); break;
        case Q5_1_TYPE: lookUpBlocks<Q5_1, E>(a); break;
        case Q4_K_TYPE: lookUpBlocks<Q4_K, E>(a); break;
        case Q5_K_TYPE: lookUpBlocks<Q5_K, E>(a); break;
        default: lookUpBlocks<Q6_K, E>(a); break;
    }
}

constexpr int SPAN = 1024, COLUMNS = 4;

template<typename E> NL_INLINE void embeddingGrad(const EmbeddingGradArgs& a)
{
    __shared__ int32 found[SPAN];
    __shared__ int32 counts[8];
    __shared__ float slots[8];
    int own = block(), id = a.ids[own], columns = a.columns, first = blockY() * 256 * COLUMNS + thread();
    const E* dy = (const E*)a.gradient;
    float* result = a.result + id * a.rowStride;
    float sums[COLUMNS] = {};
    for (int base = 0; base < a.tokens; base += SPAN)
    {
        bool mine[PACK];
        int count = 0;
        float earlier = 0.0f;
#pragma unroll
        for (int j = 0; j < PACK; j++)
        {
            int t = base + thread() * PACK + j;
            mine[j] = t < a.tokens && a.ids[t] == id;
            count += mine[j] ? 1 : 0;
            earlier = mine[j] && t < own ? 1.0f : earlier;
        }
        if (base < own && blockMax<8>(earlier, slots) > 0.0f)
            return;
        if (base + SPAN <= own)
            continue;
        // Nobody else touches this row of the result.
        if (base <= own)
        {
#pragma unroll
            for (int k = 0; k < COLUMNS; k++)
                if (first + k * 256 < columns)
                    sums[k] = result[(first + k * 256) * a.columnStride];
        }
        int upTo = count;
#pragma unroll
        for (int d = 1; d < 32; d <<= 1)
        {
            int before = shuffle(upTo, maximum(lane() - d, 0));
            upTo += lane() >= d ? before : 0;
        }
        if (lane() == 31)
            counts[warp()] = upTo;
        barrier();
        int at = upTo - count, total = 0;
        for (int w = 0; w < 8; w++)
        {
            at += w < warp() ? counts[w] : 0;
            total += counts[w];
        }
#pragma unroll
        for (int j = 0; j < PACK; j++)
            if (mine[j])
                found[at++] = base + thread() * PACK + j;
        barrier();
#pragma unroll
        for (int k = 0; k < COLUMNS; k++)
        {
            int c = first + k * 256;
            if (c >= columns)
                break;
#pragma unroll 4
            for (int i = 0; i < total; i++)
                sums[k] = fma(a.scale, widen(dy[(int64)found[i] * columns + c]), sums[k]);
        }
        // The next turn writes the list behind its first barrier.
    }
#pragma unroll
    for (int k = 0; k < COLUMNS; k++)
        if (first + k * 256 < columns)
            result[(first + k * 256) * a.columnStride] = sums[k];
}

NL_KERNEL(256) embedding_f32(EmbeddingArgs a) { embedding<float>(a); }
NL_KERNEL(256) embedding_bf16(EmbeddingArgs a) { embedding<bf16>(a); }
NL_KERNEL(256) embedding_blocks_f32(EmbeddingBlocksArgs a) { embeddingBlocks<float>(a); }
NL_KERNEL(256) embedding_blocks_bf16(EmbeddingBlocksArgs a) { embeddingBlocks<bf16>(a); }
NL_KERNEL(256) embedding_grad_f32(EmbeddingGradArgs a) { embeddingGrad<float>(a); }
NL_KERNEL(256) embedding_grad_bf16(EmbeddingGradArgs a) { embeddingGrad<bf16>(a); }

NL_KERNEL(256) embedding_columns(EmbeddingColumnsArgs a)
{
    for (int64 i = (int64)block() * threads() + thread(); i < a.count; i += (int64)blocks() * threads())
        a.result[i] = a.factor * a.a[i % a.rank * a.entries + a.ids[i / a.rank]];
}

NL_KERNEL(256) widen_table(WidenArgs a)
{
    bool whole = aligned(a.to);
    overPacks(a.count, NL_EACH { store(a.to + i, loadAs((int)a.type, a.from, i, left, true), left, whole); });
}
