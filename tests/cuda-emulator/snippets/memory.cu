// All spaces and sizes.
#include "snippet.cuh"

__device__ const uint32 squares[8] = {0, 1, 4, 9, 16, 25, 36, 49};
__device__ uint32 counter;
__device__ const uint32* chosen[2] = {squares + 1, squares + 3};
struct alignas(16) Four { float x, y, z, w; };
struct alignas(8) Two { uint16 x, y, z, w; };

NL_KERNEL(64) loads(Args g)
{
    int i = at();
    uint64* out = (uint64*)g.out + i * 24;
    const uint8* bytes = (const uint8*)g.a + i * 16;
    uint32 r;
    uint64 l;
    asm volatile("ld.global.s8 %0, [%1+3];" : "=r"(r) : "l"(bytes)); out[0] = r;
    asm volatile("ld.global.u8 %0, [%1+3];" : "=r"(r) : "l"(bytes)); out[1] = r;
    asm volatile("ld.global.nc.s16 %0, [%1+2];" : "=r"(r) : "l"(bytes)); out[2] = r;
    asm volatile("ld.u16 %0, [%1+2];" : "=r"(r) : "l"(bytes)); out[3] = r;
    asm volatile("ld.global.s8 %0, [%1];" : "=l"(l) : "l"(bytes)); out[4] = l;
    asm volatile("ld.global.s32 %0, [%1+4];" : "=l"(l) : "l"(bytes)); out[5] = l;
    uint16 h;
    asm volatile("ld.global.s8 %0, [%1+3];" : "=h"(h) : "l"(bytes)); out[6] = h;
    Four four = *(const Four*)bytes;
    out[7] = bitsOf(four.x) ^ bitsOf(four.w);
    Two two = *(const Two*)(bytes + 8);
    out[8] = (uint64)two.w << 32 | two.y;
    uint64 p, q;
    asm volatile("ld.global.v2.u64 {%0, %1}, [%2];" : "=l"(p), "=l"(q) : "l"(bytes)); out[9] = p ^ q;
    out[10] = squares[i & 7];
    out[11] = *chosen[i & 1];
    if (i == 5)
        counter = 42;
    out[12] = ((volatile const uint8*)bytes)[7];
    uint32 s0, s1, s2, s3;
    asm volatile("ld.global.v4.u8 {%0, %1, %2, %3}, [%4];" : "=r"(s0), "=r"(s1), "=r"(s2), "=r"(s3) : "l"(bytes)); out[13] = s0 | s1 << 8 | s2 << 16 | s3 << 24;
}
// An array that registers cannot hold, and pointers that are of either space.
NL_KERNEL(64) spaces(Args g)
{
    __shared__ uint32 slots[64];
    extern __shared__ uint8 dynamic[];
    int i = at();
    uint32 x = ((const uint32*)g.a)[i];
    uint32 own[24];
    for (int k = 0; k < 24; k++)
        own[k] = x * (k + 1);
    slots[thread()] = x;
    ((uint16*)dynamic)[thread()] = (uint16)x;
    dynamic[128 + thread()] = (uint8)(x >> 16);
    barrier();
    const uint32* any = x & 1 ? slots + (63 - thread()) : x & 2 ? own + (x >> 2) % 24 : (const uint32*)g.a + i;
    uint32 r = *any;
    own[x % 24] = 5;
    ((uint32*)g.out)[i * 4] = r;
    ((uint32*)g.out)[i * 4 + 1] = own[(x >> 5) % 24];
    ((uint32*)g.out)[i * 4 + 2] = ((uint16*)dynamic)[thread() ^ 1];
    ((uint32*)g.out)[i * 4 + 3] = dynamic[128 + (thread() + 9) % 64];
}
// Warps hand on values by barriers of their own; 0 and 1 take turns, 2 and 3 meet at another.
NL_KERNEL(128) named(Args g)
{
    __shared__ uint32 slots[128];
    int w = warp(), l = lane();
    uint32 x = ((const uint32*)g.a)[thread()];
    for (int k = 0; k < 4; k++)
    {
        slots[thread()] = x;
        asm volatile("bar.sync %0, 64;" :: "r"(1 + w / 2) : "memory");
        x += slots[(w ^ 1) * 32 + (l + k) % 32];
        asm volatile("barrier.sync %0, 64;" :: "r"(3 + w / 2) : "memory");
    }
    ((uint32*)g.out)[thread()] = x;
}
NL_KERNEL(64) sums(Args g)
{
    __shared__ float slots[8];
    float v = ((const float*)g.a)[at()];
    ((float*)g.out)[at()] = blockSum<2>(v, slots);
}
// Lanes of a warp exchange by shared memory, with the warp's barrier.
NL_KERNEL(64) within(Args g)
{
    __shared__ uint32 slots[64];
    int t = thread();
    slots[t] = ((const uint32*)g.a)[t];
    warpBarrier();
    uint32 r = slots[t ^ 7];
    warpBarrier();
    slots[t] = r * 3;
    warpBarrier();
    ((uint32*)g.out)[t] = slots[t ^ 9];
}
