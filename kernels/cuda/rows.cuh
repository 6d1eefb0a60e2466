// Four elements at a time, and loops over rows: shared by the kernels that are bound by memory alone.
#pragma once
#include "nl.cuh"

constexpr int PACK = 4;

// Whether packs that begin at p may be moved in one piece: 16 bytes of fp32, 8 of 16-bit types. Null is no obstacle.
template<typename E> NL_INLINE bool aligned(const E* p) { return ((uint64)p & (PACK * sizeof(E) - 1)) == 0; }
template<typename E, typename... More> NL_INLINE bool aligned(const E* p, const More*... more) { return aligned(p) && aligned(more...); }

struct Pack
{
    float v[PACK];
    NL_INLINE float& operator[](int i) { return v[i]; }
    NL_INLINE float operator[](int i) const { return v[i]; }
};

// All four elements from aligned memory. In assembler, as the compiler would take these accesses apart to share code with those by element.
template<typename E> NL_INLINE const __attribute__((address_space(1))) void* global(const E* p) { return (const __attribute__((address_space(1))) void*)p; }
NL_INLINE Pack loadWhole(const float* p)
{
    Pack r;
    asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(r.v[0]), "=f"(r.v[1]), "=f"(r.v[2]), "=f"(r.v[3]) : "l"(global(p)) : "memory");
    return r;
}
template<typename E> NL_INLINE void loadWords(const E* p, uint32& low, uint32& high)
{
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(low), "=r"(high) : "l"(global(p)) : "memory");
}
NL_INLINE Pack loadWhole(const bf16* p)
{
    uint32 low, high;
    loadWords(p, low, high);
    return Pack{{floatOf(low << 16), floatOf(low & 0xffff0000u), floatOf(high << 16), floatOf(high & 0xffff0000u)}};
}
NL_INLINE Pack loadWhole(const fp16* p)
{
    uint32 low, high;
    loadWords(p, low, high);
    return Pack{{widen(fp16{(uint16)low}), widen(fp16{(uint16)(low >> 16)}), widen(fp16{(uint16)high}), widen(fp16{(uint16)(high >> 16)})}};
}
NL_INLINE void storeWhole(float* p, const Pack& v)
{
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" : : "l"(global(p)), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
}
NL_INLINE uint32 narrowPair(float low, float high) { return (uint32)narrow<bf16>(low).bits | (uint32)narrow<bf16>(high).bits << 16; }
NL_INLINE void storeWhole(bf16* p, const Pack& v)
{
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" : : "l"(global(p)), "r"(narrowPair(v[0], v[1])), "r"(narrowPair(v[2], v[3])) : "memory");
}

// Four elements, or the `left` that are there and zeros. `whole`: the row is aligned and has whole packs.
template<typename E> NL_INLINE Pack load(const E* p, int left, bool whole)
{
    if (whole && left >= PACK)
        return loadWhole(p);
    Pack r;
#pragma unroll
    for (int i = 0; i < PACK; i++)
        r[i] = i < left ? widen(p[i]) : 0.0f;
    return r;
}
template<typename E> NL_INLINE void store(E* p, const Pack& v, int left, bool whole)
{
    if (whole && left >= PACK)
    {
        storeWhole(p, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < PACK; i++)
        if (i < left)
            p[i] = narrow<E>(v[i]);
}

NL_INLINE int leftOf(int64 count, int64 at) { return count - at < PACK ? (int)(count - at) : PACK; }

// Bodies of the loops below. Forced inline: what they capture would be local memory else.
#define NL_EACH [=](int64 i, int left) __attribute__((always_inline))
#define NL_EACH_OF_ROW [=](int64 row, int c, int left) __attribute__((always_inline))

// work(index of the first element, elements that are left): over a flat buffer, a pack a thread.
template<typename F> NL_INLINE void overPacks(int64 count, const F& work)
{
    for (int64 i = ((int64)block() * threads() + thread()) * PACK; i < count; i += (int64)blocks() * threads() * PACK)
        work(i, leftOf(count, i));
}

// work(row, first column, columns that are left): `lanes` threads a row, a power of two up to the block, as many rows a block as that leaves.
template<typename F> NL_INLINE void overRows(int64 rows, int columns, int lanes, const F& work)
{
    int across = threads() / lanes, own = thread() & (lanes - 1);
    for (int64 row = (int64)block() * across + thread() / lanes; row < rows; row += (int64)blocks() * across)
        for (int c = own * PACK; c < columns; c += lanes * PACK)
            work(row, c, columns - c);
}
