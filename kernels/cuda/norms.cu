// LayerNorm and RMSNorm, forward and the gradient of their input. A row is one warp's (8 rows a block) or, as norm_wide, a block's of 256
// threads; mean and variance in two passes, as on the CPU. A row is read from memory once, its further passes hit the L1 cache. At most 32 bytes
// of shared memory; traffic is one read of each input and one write. The output may be x, or in the backward dy, x or the addend: a thread
// reads and writes the same columns in every pass.
#include "rows.cuh"

struct NormArgs
{
    const void* input;
    const float* weight; // null: ones
    const float* bias;   // null: zeros
    void* result;        // null: the statistics alone
    float* means;        // null, or of each row
    float* scales;       // null, or 1 / sqrt(variance + epsilon) of each row
    int64 rows;
    int32 columns, centred; // centred: LayerNorm
    float epsilon, offset;  // offset: added to the weight
};

struct NormGradArgs
{
    const void* gradient;
    const void* input;
    const float* weight; // null: ones
    const void* addend;  // may be null
    void* result;
    int64 rows;
    int32 columns, centred;
    float epsilon, offset;
};

// The threads that share a row.
template<int WARPS> struct Team
{
    float* slots;
    NL_INLINE int size() const { return WARPS * 32; }
    NL_INLINE int rank() const { return WARPS == 1 ? lane() : thread(); }
    NL_INLINE int64 first() const { return WARPS == 1 ? (int64)block() * 8 + warp() : block(); }
    NL_INLINE int64 step() const { return WARPS == 1 ? (int64)blocks() * 8 : blocks(); }
    NL_INLINE float sum(float v) const { return blockSum<WARPS>(v, slots); }
};

struct Statistics { float mean, scale; };

template<typename E, typename T> NL_INLINE Statistics statistics(const T& team, const E* x, int columns, bool centred, float epsilon, bool whole)
{
    float mean = 0.0f, sum = 0.0f;
    if (centred)
    {
        for (int c = team.rank() * PACK; c < columns; c += team.size() * PACK)
        {
            Pack v = load(x + c, columns - c, whole);
            sum += (v[0] + v[1]) + (v[2] + v[3]);
        }
        mean = divideRounded(team.sum(sum), (float)columns);
    }
    sum = 0.0f;
    for (int c = team.rank() * PACK; c < columns; c += team.size() * PACK)
    {
        Pack v = load(x + c, columns - c, whole);
#pragma unroll
        for (int j = 0; j < PACK; j++)
        {
            float d = c + j < columns ? v[j] - mean : 0.0f;
            sum = fma(d, d, sum);
        }
    }
    return Statistics{mean, inverseRoot(divideRounded(team.sum(sum), (float)columns) + epsilon)};
}

NL_INLINE Pack weightOf(const float* weight, int c, int left, float offset, bool whole)
{
    Pack w = Pack{{1.0f, 1.0f, 1.0f, 1.0f}};
    if (weight == nullptr)
        return w;
    w = load(weight + c, left, whole);
#pragma unroll
    for (int j = 0; j < PACK; j++)
        w[j] += offset;
    return w;
}

template<typename E, int WARPS> NL_INLINE void norm(const NormArgs& a, float* slots)
{
    Team<WARPS> team{slots};
    int columns = a.columns;
    bool whole = columns % PACK == 0 && aligned((const E*)a.input, (const E*)a.result) && aligned(a.weight, a.bias);
    for (int64 row = team.first(); row < a.rows; row += team.step())
    {
        const E* x = (const E*)a.input + row * columns;
        Statistics s = statistics(team, x, columns, a.centred != 0, a.epsilon, whole);
        if (team.rank() == 0 && a.means != nullptr)
            a.means[row] = s.mean;
        if (team.rank() == 0 && a.scales != nullptr)
            a.scales[row] = s.scale;
        if (a.result == nullptr)
            continue;
        E* y = (E*)a.result + row * columns;
        for (int c = team.rank() * PACK; c < columns; c += team.size() * PACK)
        {
            int left = columns - c;
            Pack v = load(x + c, left, whole), w = weightOf(a.weight, c, left, a.offset, whole), b = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
            if (a.bias != nullptr)
                b = load(a.bias + c, left, whole);
#pragma unroll
            for (int j = 0; j < PACK; j++)
                v[j] = fma((v[j] - s.mean) * s.scale, w[j], b[j]);
            store(y + c, v, left, whole);
        }
    }
}

template<typename E, int WARPS> NL_INLINE void normGrad(const NormGradArgs& a, float* slots)
{
    Team<WARPS> team{slots};
    int columns = a.columns;
    bool whole = columns % PACK == 0 && aligned((const E*)a.gradient, (const E*)a.input, (const E*)a.addend, (const E*)a.result) && aligned(a.weight);
    for (int64 row = team.first(); row < a.rows; row += team.step())
    {
        const E* dy = (const E*)a.gradient + row * columns;
        const E* x = (const E*)a.input + row * columns;
        E* dx = (E*)a.result + row * columns;
        Statistics s = statistics(team, x, columns, a.centred != 0, a.epsilon, whole);
        float sum = 0.0f, dot = 0.0f;
        for (int c = team.rank() * PACK; c < columns; c += team.size() * PACK)
        {
            int left = columns - c;
            Pack g = load(dy + c, left, whole), v = load(x + c, left, whole), w = weightOf(a.weight, c, left, a.offset, whole);
#pragma unroll
            for (int j = 0; j < PACK; j++)
            {
                g[j] *= w[j]; // 0 where there is no column
                sum += g[j];
                dot = fma(g[j], (v[j] - s.mean) * s.scale, dot);
            }
        }
        float meanSum = a.centred != 0 ? divideRounded(team.sum(sum), (float)columns) : 0.0f;
        float meanDot = divideRounded(team.sum(dot), (float)columns);
        for (int c = team.rank() * PACK; c < columns; c += team.size() * PACK)
        {
            int left = columns - c;
            Pack g = load(dy + c, left, whole), v = load(x + c, left, whole), w = weightOf(a.weight, c, left, a.offset, whole);
            Pack add = Pack{{0.0f, 0.0f, 0.0f, 0.0f}};
            if (a.addend != nullptr)
                add = load((const E*)a.addend + row * columns + c, left, whole);
#pragma unroll
            for (int j = 0; j < PACK; j++)
            {
                float normal = (v[j] - s.mean) * s.scale;
                v[j] = fma(s.scale, g[j] * w[j] - meanSum - normal * meanDot, add[j]);
            }
            store(dx + c, v, left, whole);
        }
    }
}

NL_KERNEL(256) norm_f32(NormArgs a) { norm<float, 1>(a, nullptr); }
NL_KERNEL(256) norm_bf16(NormArgs a) { norm<bf16, 1>(a, nullptr); }
NL_KERNEL(256) norm_wide_f32(NormArgs a)
{
    __shared__ float slots[8];
    norm<float, 8>(a, slots);
}
NL_KERNEL(256) norm_wide_bf16(NormArgs a)
{
    __shared__ float slots[8];
    norm<bf16, 8>(a, slots);
}
NL_KERNEL(256) norm_grad_f32(NormGradArgs a) { normGrad<float, 1>(a, nullptr); }
NL_KERNEL(256) norm_grad_bf16(NormGradArgs a) { normGrad<bf16, 1>(a, nullptr); }
NL_KERNEL(256) norm_grad_wide_f32(NormGradArgs a)
{
    __shared__ float slots[8];
    normGrad<float, 8>(a, slots);
}
NL_KERNEL(256) norm_grad_wide_bf16(NormGradArgs a)
{
    __shared__ float slots[8];
    normGrad<bf16, 8>(a, slots);
}
