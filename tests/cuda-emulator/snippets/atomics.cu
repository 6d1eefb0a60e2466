#include "snippet.cuh"

#define A(k, code, v) { uint32 r; asm volatile(code " %0, [%1], %2;" : "=r"(r) : "l"(out + k), "r"(v) : "memory"); }
NL_KERNEL(64) atomics(Args g)
{
    __shared__ uint32 counts[8];
    __shared__ float total;
    int i = at();
    uint32 x = ((const uint32*)g.a)[i];
    uint32* out = (uint32*)g.out;
    if (thread() < 8)
        counts[thread()] = 0;
    if (thread() == 0)
        total = 0;
    barrier();
    uint32 where = (uint32)(uint64)(__attribute__((address_space(3))) uint32*)&counts[x & 7], sum = (uint32)(uint64)(__attribute__((address_space(3))) float*)&total;
    asm volatile("red.shared.add.u32 [%0], 1;" :: "r"(where) : "memory");
    asm volatile("red.shared.add.f32 [%0], 0f3F000000;" :: "r"(sum) : "memory");
    barrier();
    if (thread() < 8)
        A(16 + thread(), "atom.global.add.u32", counts[thread()])
    if (thread() == 0)
        asm volatile("red.global.add.f32 [%0], %1;" :: "l"(out + 24), "f"(total) : "memory");
    A(0, "atom.global.add.u32", x) A(1, "atom.global.min.s32", x) A(2, "atom.max.u32", x) A(3, "atom.global.and.b32", x) A(4, "atom.global.or.b32", x) A(5, "atom.global.xor.b32", x)
    A(6, "atom.global.inc.u32", 40) A(7, "atom.relaxed.gpu.global.max.s32", x)
    asm volatile("red.global.add.u64 [%0], %1;" :: "l"(out + 8), "l"((uint64)x << 20) : "memory");
    asm volatile("red.global.max.s64 [%0], %1;" :: "l"(out + 10), "l"((int64)(int)x << 20) : "memory");
    // A sum by compare and swap.
    uint32 old = 0, seen;
    for (;;)
    {
        asm volatile("atom.global.cas.b32 %0, [%1], %2, %3;" : "=r"(seen) : "l"(out + 12), "r"(old), "r"(old + (x & 15)) : "memory");
        if (seen == old)
            break;
        old = seen;
    }
    asm volatile("atom.global.exch.b32 %0, [%1], %2;" : "=r"(seen) : "l"(out + 32 + i), "r"(x) : "memory");
    out[32 + 4096 + i] = seen;
}
