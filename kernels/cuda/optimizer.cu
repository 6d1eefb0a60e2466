// The optimizer over flat fp32 buffers, a block of 256 threads a tile of at most 16384 elements. AdamW moves 28 bytes an element (reads
// value, gradient and two moments, writes all but the gradient); with moments of a byte 14 bytes and 16 / 256. The norm reads 4 bytes an
// element. Shared memory: 64 bytes for sums, 4 KiB for the tables of codes. The same bits as on the CPU.
#include "nl.cuh"

// A product and a sum that are never contracted to fma, neither here nor by the driver.
NL_INLINE float times(float a, float b) { return __nvvm_mul_rn_f(a, b); }
NL_INLINE float plus(float a, float b) { return __nvvm_add_rn_f(a, b); }

struct SquaresArgs
{
    const float* gradients;
    double* partial; // one a tile
    int64 count;
    int32 tiles;
};

using four = float __attribute__((ext_vector_type(4)));
constexpr int TileElements = 16384;

NL_KERNEL(256) gradient_squares(SquaresArgs a)
{
    __shared__ double slots[8];
    for (int tile = block(); tile < a.tiles; tile += blocks())
    {
        int64 begin = (int64)tile * TileElements, end = minimum(a.count, begin + TileElements);
        double sum = 0.0;
        int64 i = begin + 4 * thread();
        for (; i + 4 <= end; i += 1024)
        {
            four v = *(const four*)(a.gradients + i);
            sum = fma((double)v.x, (double)v.x, sum);
            sum = fma((double)v.y, (double)v.y, sum);
            sum = fma((double)v.z, (double)v.z, sum);
            sum = fma((double)v.w, (double)v.w, sum);
        }
        for (; i < end; i++)
            sum = fma((double)a.gradients[i], (double)a.gradients[i], sum);
        sum = blockSum<8>(sum, slots);
        if (thread() == 0)
            a.partial[tile] = sum;
    }
}

struct NormArgs
{
    const double* partial;
    double* norm;
    float* scale; // min(1, limit / (norm + 1e-6)), 1 where the limit is 0, NaN where the norm is not finite
    int32 tiles;
    float limit;
};

NL_KERNEL(256) gradient_norm(NormArgs a)
{
    __shared__ double slots[8];
    double sum = 0.0;
    for (int i = thread(); i < a.tiles; i += 256)
        sum += a.partial[i];
    sum = blockSum<8>(sum, slots);
    if (thread() != 0)
        return;
    double norm;
    asm("sqrt.rn.f64 %0, %1;" : "=d"(norm) : "d"(sum));
    *a.norm = norm;
    float scale = a.limit > 0.0f ? divideRounded(a.limit, (float)norm + 1e-6f) : 1.0f;
    scale = scale >= 1.0f ? 1.0f : scale;
    *a.scale = norm - norm == 0.0 ? scale : floatOf(0x7fc00000u);
}

struct AdamWFactors
{
    const float* scale; // NaN: nothing is updated
    double rate;
    float step, weight1, beta2, weight2, root, epsilon;
};

struct AdamWUpdate
{
    float decay;
    float scale;

    NL_INLINE void operator()(const AdamWFactors& f, float& p, float g, float& m, float& v) const
    {
        g = times(g, scale);
        m = plus(m, times(f.weight1, plus(g, -m)));
        v = plus(times(v, f.beta2), times(times(f.weight2, g), g));
        p = times(p, decay);
        p = plus(p, -times(f.step, divideRounded(m, plus(divideRounded(rootRounded(v), f.root), f.epsilon))));
    }
};

NL_INLINE AdamWUpdate update(const AdamWFactors& f, double weightDecay)
{
    return AdamWUpdate{(float)__nvvm_add_rn_d(1.0, -__nvvm_mul_rn_d(f.rate, weightDecay)), *f.scale};
}

struct AdamWTile
{
    int64 start;
    double weightDecay;
    int32 count, unused;
};

struct AdamWArgs
{
    AdamWFactors factors;
    float* values;
    const float* gradients;
    float* first;
    float* second;
    const AdamWTile* tiles;
    int32 count;
};

NL_KERNEL(256) adamw(AdamWArgs a)
{
    for (int t = block(); t < a.count; t += blocks())
    {
        AdamWTile tile = a.tiles[t];
        AdamWUpdate one = update(a.factors, tile.weightDecay);
        if (one.scale != one.scale)
            return;
        int64 end = tile.start + tile.count;
        // The buffers are aligned; a tile may begin anywhere.
        int64 fours = minimum(end, (tile.start + 3) & ~3ll), rest = fours + ((end - fours) & ~3ll);
        for (int64 i = fours + 4 * thread(); i < rest; i += 1024)
        {
            four p = *(four*)(a.values + i), g = *(const four*)(a.gradients + i), m = *(four*)(a.first + i), v = *(four*)(a.second + i);
            for (int j = 0; j < 4; j++)
            {
                float value = p[j], moment1 = m[j], moment2 = v[j];
                one(a.factors, value, g[j], moment1, moment2);
                p[j] = value;
                m[j] = moment1;
                v[j] = moment2;
            }
            *(four*)(a.values + i) = p;
            *(four*)(a.first + i) = m;
            *(four*)(a.second + i) = v;
        }
        int64 edge = thread() < 4 ? tile.start + thread() : rest + thread() - 4;
        if (thread() < 4 ? edge < fours : thread() < 8 && edge < end)
            one(a.factors, a.values[edge], a.gradients[edge], a.first[edge], a.second[edge]);
    }
}

struct AdamW8Tile
{
    int64 start;    // in values and gradients
    int64 moments;  // bytes before the tensor's moments
    int64 scales;   // bytes of the scales before the codes; 0: the moments are fp32
    int64 offset;   // of the tile in the tensor, a multiple of 256
    double weightDecay;
    int32 count, unused;
};

struct AdamW8Args
{
    AdamWFactors factors;
    float* values;
    const float* gradients;
    uint8* first;
    uint8* second;
    const AdamW8Tile* tiles;
    const float* codes; // signed values, unsigned values, signed borders, unsigned borders: 256 of each
    int32 count;
};

// The larger, NaN above all.
NL_INLINE float larger(float a, float b) { return a != a || a > b ? a : b; }
NL_INLINE float warpLargest(float v) { for (int m = 16; m > 0; m >>= 1) v = larger(v, shuffleXor(v, m)); return v; }

// How many borders lie under x: the code of the nearest value, of two as near that of the smaller. The last border is infinite.
NL_INLINE uint8 encode(const float* borders, float x)
{
    x = x == x ? x : 0.0f;
    int32 code = 0;
    for (int step = 128; step > 0; step >>= 1)
        code += borders[code + step - 1] < x ? step : 0;
    return (uint8)code;
}

// A warp a block of 256 elements, 8 a lane, so that the largest is found without a barrier.
NL_KERNEL(256) adamw8bit(AdamW8Args a)
{
    __shared__ float codes[1024];
    for (int i = thread(); i < 1024; i += 256)
        codes[i] = a.codes[i];
    barrier();
    for (int t = block(); t < a.count; t += blocks())
    {
        AdamW8Tile tile = a.tiles[t];
        AdamWUpdate one = update(a.factors, tile.weightDecay);
        if (one.scale != one.scale)
            return;
        float* values = a.values + tile.start;
        const float* gradients = a.gradients + tile.start;
        uint8* first = a.first + tile.moments;
        uint8* second = a.second + tile.moments;
        if (tile.scales == 0)
        {
            for (int i = thread(); i < tile.count; i += 256)
                one(a.factors, values[i], gradients[i], ((float*)first)[tile.offset + i], ((float*)second)[tile.offset + i]);
            continue;
        }
        for (int b = 256 * warp(); b < tile.count; b += 2048)
        {
            int64 scale = (tile.offset + b) / 256, at = tile.scales + tile.offset + b;
            int32 left = minimum(256, tile.count - b);
            float scale1 = ((float*)first)[scale], scale2 = ((float*)second)[scale];
            float m[8], v[8], most1 = 0.0f, most2 = 0.0f;
#pragma unroll
            for (int j = 0; j < 8; j++)
            {
                int i = 32 * j + lane();
                m[j] = v[j] = 0.0f;
                if (i < left)
                {
                    m[j] = codes[first[at + i]] * scale1;
                    v[j] = codes[256 + second[at + i]] * scale2;
                    one(a.factors, values[b + i], gradients[b + i], m[j], v[j]);
                    most1 = larger(most1, absolute(m[j]));
                    most2 = larger(most2, absolute(v[j]));
                }
            }
            most1 = warpLargest(most1);
            most2 = warpLargest(most2);
#pragma unroll
            for (int j = 0; j < 8; j++)
            {
                int i = 32 * j + lane();
                if (i >= left)
                    continue;
                first[at + i] = most1 == 0.0f ? 0 : encode(codes + 512, divideRounded(m[j], most1));
                uint8 code = most2 == 0.0f ? 0 : encode(codes + 768, divideRounded(v[j], most2));
                // A second moment that is not 0 is never stored as 0: the next step would divide by almost nothing.
                second[at + i] = code == 0 && v[j] > 0.0f ? 1 : code;
            }
            warpBarrier();
            if (lane() == 0)
            {
                ((float*)first)[scale] = most1;
                ((float*)second)[scale] = most2;
            }
        }
    }
}
