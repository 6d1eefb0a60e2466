// Losses. `cross_entropy*`: a block a row, 256 threads, `wide` 1024 for long rows; 12 bytes a warp of shared memory. A row is read
// twice, the second time from L2, and its gradient is written over it: 4 + 4 (fp32) or 4 + 2 (bf16) bytes a logit of DRAM traffic.
// `loss_labels`: one block of 1024 threads, 4 KiB of shared memory, lists the rows with a label in order. `loss_gather`, `loss_scatter`:
// a block a row of the chunk, each value moved once. `loss_sum`, `squared_error`: one block, fp64, always in the same order.
#include "nl.cuh"

using four = float __attribute__((ext_vector_type(4)));
constexpr int32 Ignored = -100;

// e^x - 1 over e^x + 1 of 2x, or a polynomial near zero: as on the CPU.
NL_INLINE float tangent(float x)
{
    float m = absolute(x), s = m * m;
    float p = fma(-5.70498872745e-3f, s, 2.06390887954e-2f);
    p = fma(p, s, -5.37397155531e-2f);
    p = fma(p, s, 1.33314422036e-1f);
    p = fma(p, s, -3.33332819422e-1f);
    float near = fma(p * s, m, m);
    float far = 1.0f - divideRounded(2.0f, exponential(m + m) + 1.0f);
    float y = m < 0.625f ? near : far;
    return x < 0.0f ? -y : y;
}

// Natural logarithm of a finite normal number over 0, in fp64: 2 artanh((m - 1) / (m + 1)) + e ln 2 with m in [0.7, 1.42).
NL_INLINE double logarithm(double x)
{
    int64 bits = __builtin_bit_cast(int64, x);
    if (!(x > 0.0) || bits >= 0x7ff0000000000000ll)
        return x > 0.0 ? x : __builtin_bit_cast(double, 0x7ff8000000000000ll);
    int32 e = (int32)((bits >> 52) & 0x7ff) - 1023;
    double m = __builtin_bit_cast(double, (bits & 0xfffffffffffffll) | 0x3ff0000000000000ll);
    if (m > 1.4142135623730951)
    {
        m *= 0.5;
        e++;
    }
    double s = (m - 1.0) / (m + 1.0), q = s * s;
    double p = 1.0 / 21.0;
    for (int k = 19; k >= 1; k -= 2)
        p = fma(p, q, 1.0 / k);
    return fma((double)e, 0.6931471805599453, 2.0 * s * p);
}

struct CrossEntropyArgs
{
    float* logits;      // rows x columns
    const int32* labels;
    void* gradient;     // null: the loss alone; with bf16 it lies in the first half of each row of logits
    float* losses;      // null: the gradient alone
    const int32* count; // null, or how many of `labels` and `losses` there are: rows beyond get a gradient of 0
    int32 first, rows, columns;
    float inverseCount, softcap;
};

struct Peak { float most, sum; };
// One more value in a sum of e^(value - most), with one exponential whichever is the larger.
NL_INLINE void join(Peak& p, float x)
{
    float e = exponential(-absolute(x - p.most));
    p.sum = x > p.most ? fma(p.sum, e, 1.0f) : p.sum + e;
    p.most = x > p.most ? x : p.most;
}

NL_INLINE float slope(const CrossEntropyArgs& a, float x, bool isLabel, float most, float factor, float right)
{
    float d = isLabel ? right : exponential(x - most) * factor;
    if (a.softcap <= 0.0f)
        return d;
    float t = divideRounded(x, a.softcap);
    return d * fma(-t, t, 1.0f);
}

template<int WARPS, typename G> NL_INLINE void crossEntropy(const CrossEntropyArgs& a)
{
    __shared__ double sums[WARPS];
    __shared__ float peaks[WARPS];
    constexpr int Threads = 32 * WARPS, Each = 4;
    for (int r = block(); r < a.rows; r += blocks())
    {
        float* x = a.logits + (int64)r * a.columns;
        G* g = a.gradient == nullptr ? nullptr : sizeof(G) == sizeof(float) ? (G*)a.gradient + (int64)r * a.columns : (G*)x;
        int32 at = a.first + r;
        bool there = a.count == nullptr || at < *a.count;
        int32 label = there ? a.labels[at] : Ignored;
        if (label == Ignored)
        {
            if (g != nullptr)
                for (int c = thread(); c < a.columns; c += Threads)
                    g[c] = narrow<G>(0.0f);
            if (a.losses != nullptr && there && thread() == 0)
                a.losses[at] = 0.0f;
            continue;
        }
        if (a.softcap > 0.0f)
        {
            for (int c = thread(); c < a.columns; c += Threads)
                x[c] = a.softcap * tangent(divideRounded(x[c], a.softcap));
            barrier();
        }
        // Starts at the lowest finite number: -inf - -inf would be NaN.
        Peak p{-3.402823466e38f, 0.0f};
        bool fours = ((uint64)x & 15) == 0;
        int whole = fours ? a.columns & ~3 : 0;
        for (int c = 4 * thread(); c < whole; c += 4 * Threads)
        {
            four v = *(const four*)(x + c);
#pragma unroll
            for (int i = 0; i < 4; i++)
                join(p, v[i]);
        }
        for (int c = whole + thread(); c < a.columns; c += Threads)
            join(p, x[c]);
        float chosen = x[label];
        float most = blockMax<WARPS>(p.most, peaks);
        double sum = blockSum<WARPS>((double)(p.sum * exponential(p.most - most)), sums);
        if (a.losses != nullptr && thread() == 0)
            a.losses[at] = (float)(logarithm(sum) + ((double)most - (double)chosen));
        if (g == nullptr)
            continue;
        float factor = (float)((double)a.inverseCount / sum);
        // p - 1 from the other side loses nothing where p is near 1.
        float right = (float)((double)exponential(chosen - most) / sum - 1.0) * a.inverseCount;
        for (int tile = 0; tile < a.columns; tile += Each * Threads)
        {
            float d[Each];
#pragma unroll
            for (int i = 0; i < Each; i++)
            {
                int c = tile + i * Threads + thread();
                d[i] = c < a.columns ? slope(a, x[c], c == label, most, factor, right) : 0.0f;
            }
            // A bf16 gradient overwrites logits of lower columns: of this tile or of one before, all read by now.
            if (sizeof(G) != sizeof(float))
                barrier();
#pragma unroll
            for (int i = 0; i < Each; i++)
            {
                int c = tile + i * Threads + thread();
                if (c < a.columns)
                    g[c] = narrow<G>(d[i]);
            }
        }
    }
}

NL_KERNEL(256) cross_entropy_f32(CrossEntropyArgs a) { crossEntropy<8, float>(a); }
NL_KERNEL(256) cross_entropy_bf16(CrossEntropyArgs a) { crossEntropy<8, bf16>(a); }
NL_KERNEL(1024) cross_entropy_wide_f32(CrossEntropyArgs a) { crossEntropy<32, float>(a); }
NL_KERNEL(1024) cross_entropy_wide_bf16(CrossEntropyArgs a) { crossEntropy<32, bf16>(a); }

struct LossSumArgs
{
    const float* losses;
    const int32* count; // null: `rows`
    float* result;
    int32 rows;
    float inverseCount;
};

NL_KERNEL(256) loss_sum(LossSumArgs a)
{
    __shared__ double slots[8];
    int32 rows = a.count == nullptr ? a.rows : minimum(a.rows, *a.count);
    double sum = 0.0;
    for (int r = thread(); r < rows; r += 256)
        sum += (double)a.losses[r];
    sum = blockSum<8>(sum, slots);
    if (thread() == 0)
        *a.result = (float)(sum * (double)a.inverseCount);
}

struct SquaredErrorArgs
{
    const float* values;
    const float* targets;
    float* gradient; // null: the loss alone; may be `values`
    float* result;   // null: the gradient alone
    int32 rows;
    float inverseCount;
};

NL_KERNEL(256) squared_error(SquaredErrorArgs a)
{
    __shared__ double slots[8];
    double sum = 0.0;
    for (int r = thread(); r < a.rows; r += 256)
    {
        float difference = a.values[r] - a.targets[r];
        sum = fma((double)difference, (double)difference, sum);
        if (a.gradient != nullptr)
            a.gradient[r] = 2.0f * difference * a.inverseCount;
    }
    sum = blockSum<8>(sum, slots);
    if (a.result != nullptr && thread() == 0)
        *a.result = (float)(sum * (double)a.inverseCount);
}

struct LossLabelsArgs
{
    const int32* labels;
    int32* index; // rows with a label, ascending
    int32* kept;  // their labels
    int32* count;
    int32 rows;
};

// Each thread counts a run of rows, the counts are summed before each, and each lists its own.
NL_KERNEL(1024) loss_labels(LossLabelsArgs a)
{
    __shared__ int32 before[1024];
    int32 t = thread(), each = (a.rows + 1023) / 1024;
    int32 begin = minimum(t * each, a.rows), end = minimum(begin + each, a.rows), mine = 0;
    for (int r = begin; r < end; r++)
        mine += a.labels[r] != Ignored ? 1 : 0;
    before[t] = mine;
    barrier();
    for (int step = 1; step < 1024; step <<= 1)
    {
        int32 other = t >= step ? before[t - step] : 0;
        barrier();
        before[t] += other;
        barrier();
    }
    int32 to = before[t] - mine;
    for (int r = begin; r < end; r++)
    {
        int32 label = a.labels[r];
        if (label == Ignored)
            continue;
        a.index[to] = r;
        a.kept[to++] = label;
    }
    if (t == 1023)
        *a.count = before[t];
}

struct LossRowsArgs
{
    const void* from;
    void* to;
    const int32* index;  // of a chunk's rows, or the labels of all rows
    const int32* count;
    int32 first, rows, columns;
};

template<typename E> NL_INLINE void clearRow(E* to, int32 columns)
{
    for (int c = thread(); c < columns; c += 256)
        to[c] = narrow<E>(0.0f);
}

// Rows with a label, of the chunk that begins with the first-th of them; the rest of the chunk is 0.
template<typename E> NL_INLINE void gather(const LossRowsArgs& a)
{
    int32 count = *a.count;
    for (int r = block(); r < a.rows; r += blocks())
    {
        E* to = (E*)a.to + (int64)r * a.columns;
        if (a.first + r >= count)
        {
            clearRow(to, a.columns);
            continue;
        }
        const E* from = (const E*)a.from + (int64)a.index[a.first + r] * a.columns;
        int32 done = 0;
        if ((((uint64)from | (uint64)to) & 15) == 0)
        {
            int32 vectors = a.columns / (int32)(16 / sizeof(E));
            for (int v = thread(); v < vectors; v += 256)
                ((four*)to)[v] = ((const four*)from)[v];
            done = vectors * (int32)(16 / sizeof(E));
        }
        for (int c = done + thread(); c < a.columns; c += 256)
            to[c] = from[c];
    }
}

NL_KERNEL(256) loss_gather_f32(LossRowsArgs a) { gather<float>(a); }
NL_KERNEL(256) loss_gather_bf16(LossRowsArgs a) { gather<bf16>(a); }

template<typename E> NL_INLINE void scatter(const LossRowsArgs& a)
{
    int32 count = *a.count;
    for (int r = block(); r < a.rows && a.first + r < count; r += blocks())
    {
        const float* from = (const float*)a.from + (int64)r * a.columns;
        E* to = (E*)a.to + (int64)a.index[a.first + r] * a.columns;
        for (int c = thread(); c < a.columns; c += 256)
            to[c] = narrow<E>(from[c]);
    }
}

NL_KERNEL(256) loss_scatter_f32(LossRowsArgs a) { scatter<float>(a); }
NL_KERNEL(256) loss_scatter_bf16(LossRowsArgs a) { scatter<bf16>(a); }

// Rows without a label have no gradient.
template<typename E> NL_INLINE void clearIgnored(const LossRowsArgs& a)
{
    for (int r = block(); r < a.rows; r += blocks())
        if (a.index[r] == Ignored)
            clearRow((E*)a.to + (int64)r * a.columns, a.columns);
}

NL_KERNEL(256) loss_clear_ignored_f32(LossRowsArgs a) { clearIgnored<float>(a); }
NL_KERNEL(256) loss_clear_ignored_bf16(LossRowsArgs a) { clearIgnored<bf16>(a); }

