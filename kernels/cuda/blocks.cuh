// GGUF's block formats: one value of 32 that lie together. Products and sums are fp32 and never fused, so that the bits are those of the CPU
// (Checkpoints/GgufBlocks.cs).
#pragma once
#include "nl.cuh"

NL_INLINE float timesRounded(float a, float b) { float r; asm("mul.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
NL_INLINE float plusRounded(float a, float b) { float r; asm("add.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }

// Blocks have even sizes, so their 16-bit factors are aligned.
NL_INLINE float half(const uint8* at) { return widen(*(const fp16*)at); }
// In blocks of 32, low nibbles are the first half of the block, high ones the second.
NL_INLINE int nibbleOf32(const uint8* q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }
NL_INLINE int sixteenOf32(const uint8* bits, int i) { return ((bits[i >> 3] >> (i & 7)) & 1) << 4; }
// In blocks of 256, two groups share 32 bytes: low nibbles, then high ones.
NL_INLINE int nibbleOf256(const uint8* q, int i, int upper) { return upper ? q[i] >> 4 : q[i] & 15; }

struct Pair { float scale, minimum; };
// Six bits each, packed into twelve bytes after the two factors; the minimum with its sign turned, to be added.
NL_INLINE Pair scaleAndMinimum(const uint8* b, int group)
{
    const uint8* packed = b + 4;
    int scale, minimum;
    if (group < 4)
    {
        scale = packed[group] & 63;
        minimum = packed[group + 4] & 63;
    }
    else
    {
        scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4);
        minimum = (packed[group + 4] >> 4) | (packed[group] >> 6 << 4);
    }
    return Pair{timesRounded(half(b), (float)scale), -timesRounded(half(b + 2), (float)minimum)};
}

struct Q8_0
{
    static constexpr int bytes = 34, groups = 1;
    NL_INLINE static float value(const uint8* b, int, int i) { return timesRounded((float)(int8)b[2 + i], half(b)); }
};
struct Q4_0
{
    static constexpr int bytes = 18, groups = 1;
    NL_INLINE static float value(const uint8* b, int, int i) { return timesRounded((float)(nibbleOf32(b + 2, i) - 8), half(b)); }
};
struct Q4_1
{
    static constexpr int bytes = 20, groups = 1;
    NL_INLINE static float value(const uint8* b, int, int i) { return plusRounded(timesRounded((float)nibbleOf32(b + 4, i), half(b)), half(b + 2)); }
};
struct Q5_0
{
    static constexpr int bytes = 22, groups = 1;
    NL_INLINE static float value(const uint8* b, int, int i)
    {
        return timesRounded((float)((nibbleOf32(b + 6, i) | sixteenOf32(b + 2, i)) - 16), half(b));
    }
};
struct Q5_1
{
    static constexpr int bytes = 24, groups = 1;
    NL_INLINE static float value(const uint8* b, int, int i)
    {
        return plusRounded(timesRounded((float)(nibbleOf32(b + 8, i) | sixteenOf32(b + 4, i)), half(b)), half(b + 2));
    }
};
struct Q4_K
{
    static constexpr int bytes = 144, groups = 8;
    NL_INLINE static float value(const uint8* b, int group, int i)
    {
        Pair s = scaleAndMinimum(b, group);
        return plusRounded(timesRounded((float)nibbleOf256(b + 16 + (group >> 1) * 32, i, group & 1), s.scale), s.minimum);
    }
};
struct Q5_K
{
    static constexpr int bytes = 176, groups = 8;
    NL_INLINE static float value(const uint8* b, int group, int i)
    {
        Pair s = scaleAndMinimum(b, group);
        int q = nibbleOf256(b + 48 + (group >> 1) * 32, i, group & 1) | ((b[16 + i] >> group) & 1) << 4;
        return plusRounded(timesRounded((float)q, s.scale), s.minimum);
    }
};
struct Q6_K
{
    static constexpr int bytes = 210, groups = 8;
    NL_INLINE static float value(const uint8* b, int group, int i)
    {
        int upper = group >> 2, part = group & 3;
        int high = (b[128 + 32 * upper + i] >> (2 * part)) & 3;
        int q = nibbleOf256(b + 64 * upper + 32 * (part & 1), i, part >> 1) | high << 4;
        int scale = (int8)b[192 + 8 * upper + 2 * part + (i >> 4)];
        return timesRounded((float)(q - 32), timesRounded(half(b + 208), (float)scale));
    }
};
