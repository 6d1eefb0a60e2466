// Tensor cores and asynchronous copies: the instructions of sm_80, and how tiles lie in shared memory so that ldmatrix finds no bank twice.
#pragma once
#include "nl.cuh"

NL_INLINE uint32 sharedAddress(const void* p)
{
    uint64 a;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(a) : "l"(p));
    return (uint32)a;
}

// 16 bytes to shared memory; zeros where `there` is false, and nothing is read then.
NL_INLINE void copyAsync(uint32 to, const void* from, bool there)
{
    int32 bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(to), "l"(from), "r"(bytes) : "memory");
}
NL_INLINE void copyCommit() { asm volatile("cp.async.commit_group;" : : : "memory"); }
template<int LEFT> NL_INLINE void copyWait() { asm volatile("cp.async.wait_group %0;" : : "n"(LEFT) : "memory"); }

struct Four { uint32 a, b, c, d; };
NL_INLINE Four loadMatrices(uint32 at)
{
    Four r;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r.a), "=r"(r.b), "=r"(r.c), "=r"(r.d) : "r"(at) : "memory");
    return r;
}
NL_INLINE Four loadMatricesTurned(uint32 at)
{
    Four r;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r.a), "=r"(r.b), "=r"(r.c), "=r"(r.d) : "r"(at) : "memory");
    return r;
}

// c[16, 8] += a[16, 16] b[16, 8], bf16 with fp32 sums.
NL_INLINE void multiply(float (&c)[4], const Four& a, uint32 b0, uint32 b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.a), "r"(a.b), "r"(a.c), "r"(a.d), "r"(b0), "r"(b1));
}

NL_INLINE uint32 pack(float low, float high) { return (uint32)narrow<bf16>(low).bits | (uint32)narrow<bf16>(high).bits << 16; }

// Tiles of 32 values a row (64 bytes, 4 chunks of 16): eight rows at one chunk fall on all banks.
NL_INLINE uint32 narrowTile(int row, int chunk) { return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4); }
// Tiles of 128 values a row (256 bytes, 16 chunks).
NL_INLINE uint32 wideTile(int row, int chunk) { return row * 256 + ((chunk ^ (row & 7)) << 4); }
