// What the kernels use of CUDA, declared here: clang compiles them to PTX with no CUDA SDK (see kernels/cuda/README.md).
// No function of a maths library: erff and its like would become `.extern .func`, which no driver resolves.
#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
// One name for each kernel in the PTX, and one parameter: a struct that its C# mirror has byte for byte.
#define NL_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define NL_INLINE __device__ inline __attribute__((always_inline))

using int8 = signed char;
using uint8 = unsigned char;
using int16 = short;
using uint16 = unsigned short;
using int32 = int;
using uint32 = unsigned int;
using int64 = long long;
using uint64 = unsigned long long;

static_assert(sizeof(void*) == 8, "kernels are compiled for 64-bit addresses");

NL_INLINE int thread() { return __nvvm_read_ptx_sreg_tid_x(); }
NL_INLINE int threads() { return __nvvm_read_ptx_sreg_ntid_x(); }
NL_INLINE int block() { return __nvvm_read_ptx_sreg_ctaid_x(); }
NL_INLINE int blockY() { return __nvvm_read_ptx_sreg_ctaid_y(); }
NL_INLINE int blockZ() { return __nvvm_read_ptx_sreg_ctaid_z(); }
NL_INLINE int blocks() { return __nvvm_read_ptx_sreg_nctaid_x(); }
NL_INLINE int lane() { return __nvvm_read_ptx_sreg_tid_x() & 31; }
NL_INLINE int warp() { return __nvvm_read_ptx_sreg_tid_x() >> 5; }
NL_INLINE void barrier() { __syncthreads(); }
NL_INLINE void warpBarrier() { __nvvm_bar_warp_sync(0xffffffffu); }

// Lane exchange: all 32 lanes of the warp must come here.
NL_INLINE int shuffleXor(int v, int mask) { return __nvvm_shfl_sync_bfly_i32(0xffffffffu, v, mask, 31); }
NL_INLINE float shuffleXor(float v, int mask) { return __nvvm_shfl_sync_bfly_f32(0xffffffffu, v, mask, 31); }
NL_INLINE float shuffle(float v, int from) { return __nvvm_shfl_sync_idx_f32(0xffffffffu, v, from, 31); }
NL_INLINE int shuffle(int v, int from) { return __nvvm_shfl_sync_idx_i32(0xffffffffu, v, from, 31); }

NL_INLINE float minimum(float a, float b) { return __builtin_fminf(a, b); }
NL_INLINE float maximum(float a, float b) { return __builtin_fmaxf(a, b); }
NL_INLINE int minimum(int a, int b) { return a < b ? a : b; }
NL_INLINE int maximum(int a, int b) { return a > b ? a : b; }
NL_INLINE int64 minimum(int64 a, int64 b) { return a < b ? a : b; }
NL_INLINE float absolute(float a) { return __builtin_fabsf(a); }
NL_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
NL_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
NL_INLINE float rootRounded(float a) { float r; asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(a)); return r; }
NL_INLINE float divideRounded(float a, float b) { float r; asm("div.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
NL_INLINE float inverseRoot(float a) { return divideRounded(1.0f, rootRounded(a)); }
NL_INLINE float exp2Approx(float a) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a)); return r; }
NL_INLINE float log2Approx(float a) { float r; asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a)); return r; }

NL_INLINE uint32 bitsOf(float v) { return __builtin_bit_cast(uint32, v); }
NL_INLINE float floatOf(uint32 bits) { return __builtin_bit_cast(float, bits); }

// e^x to about 1 ulp in fp32 with no approximate instruction: 2^n · e^f, |f| <= ln 2 / 2, f by two-step reduction, then a polynomial of degree 6.
NL_INLINE float exponential(float x)
{
    // Below, the result is under the least normal number; above, it is infinite.
    float clamped = minimum(maximum(x, -87.3f), 88.8f);
    float n = __builtin_rintf(clamped * 1.44269504088896341f);
    float f = fma(n, -0.693359375f, clamped);
    f = fma(n, 2.12194440e-4f, f);
    float p = 1.9875691500e-4f;
    p = fma(p, f, 1.3981999507e-3f);
    p = fma(p, f, 8.3334519073e-3f);
    p = fma(p, f, 4.1665795894e-2f);
    p = fma(p, f, 1.6666665459e-1f);
    p = fma(p, f, 5.0000001201e-1f);
    p = fma(p, f * f, f) + 1.0f;
    // In two factors: n may be 128.
    int32 whole = (int32)n, half = whole >> 1;
    float y = p * floatOf((uint32)(half + 127) << 23) * floatOf((uint32)(whole - half + 127) << 23);
    y = x < -87.3f ? 0.0f : y;
    y = x > 88.72283f ? floatOf(0x7f800000u) : y;
    return x == x ? y : x;
}

// bf16 is held as its 16 bits. To it: round to nearest, ties to even; NaN stays NaN.
struct bf16 { uint16 bits; };
NL_INLINE float widen(float v) { return v; }
NL_INLINE float widen(bf16 v) { return floatOf((uint32)v.bits << 16); }
template<typename E> NL_INLINE E narrow(float v);
template<> NL_INLINE float narrow<float>(float v) { return v; }
template<> NL_INLINE bf16 narrow<bf16>(float v)
{
    uint32 bits = bitsOf(v);
    uint32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return bf16{(uint16)(v == v ? rounded : (bits >> 16) | 0x40u)};
}
// fp16, as the file may have weights: converted by the hardware's instructions.
struct fp16 { uint16 bits; };
NL_INLINE float widen(fp16 v) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v.bits)); return r; }
template<> NL_INLINE fp16 narrow<fp16>(float v) { fp16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(v)); return r; }

// Sums and maxima over a warp, the same value in every lane, in a fixed order.
NL_INLINE float warpSum(float v) { for (int m = 16; m > 0; m >>= 1) v += shuffleXor(v, m); return v; }
NL_INLINE float warpMax(float v) { for (int m = 16; m > 0; m >>= 1) v = maximum(v, shuffleXor(v, m)); return v; }
NL_INLINE double warpSum(double v)
{
    for (int m = 16; m > 0; m >>= 1)
    {
        uint64 bits = __builtin_bit_cast(uint64, v);
        uint32 low = (uint32)shuffleXor((int)(uint32)bits, m), high = (uint32)shuffleXor((int)(uint32)(bits >> 32), m);
        v += __builtin_bit_cast(double, (uint64)high << 32 | low);
    }
    return v;
}

// Over the block of WARPS warps; `slots` are WARPS values in shared memory, free again after the call. All threads must come here.
template<int WARPS, typename T> NL_INLINE T blockSum(T v, T* slots)
{
    v = warpSum(v);
    if (WARPS == 1)
        return v;
    if (lane() == 0)
        slots[warp()] = v;
    barrier();
    T sum = slots[0];
    for (int w = 1; w < WARPS; w++)
        sum += slots[w];
    barrier();
    return sum;
}
template<int WARPS> NL_INLINE float blockMax(float v, float* slots)
{
    v = warpMax(v);
    if (WARPS == 1)
        return v;
    if (lane() == 0)
        slots[warp()] = v;
    barrier();
    float most = slots[0];
    for (int w = 1; w < WARPS; w++)
        most = maximum(most, slots[w]);
    barrier();
    return most;
}

// Philox4x32-10, the same numbers as on the CPU (Devices/Cpu/Philox.cs says which word an element takes). `key` is the mixed seed.
struct Random { uint64 key; uint32 stream, step, threshold; float keepScale; };
NL_INLINE uint32 randomWord(const Random& r, uint64 element)
{
    uint64 block4 = element >> 2;
    uint32 c0 = (uint32)block4, c1 = (uint32)(block4 >> 32), c2 = r.stream, c3 = r.step;
    uint32 k0 = (uint32)r.key, k1 = (uint32)(r.key >> 32);
    for (int round = 0; round < 10; round++)
    {
        uint64 p0 = (uint64)0xD2511F53u * c0, p1 = (uint64)0xCD9E8D57u * c2;
        c0 = (uint32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32)p1;
        c2 = (uint32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint32 which = (uint32)element & 3;
    return which == 0 ? c0 : which == 1 ? c1 : which == 2 ? c2 : c3;
}
// 0 or 1 / (1 - p).
NL_INLINE float dropoutFactor(const Random& r, uint64 element) { return randomWord(r, element) >= r.threshold ? r.keepScale : 0.0f; }
