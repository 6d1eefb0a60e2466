// Fragments: D = A B + C for one tile, operands as registers hold them, and by ldmatrix.
#include "snippet.cuh"

template<int N> struct Words { uint32 w[N]; };
struct Sums { float f[4]; };
#define MMA4(shape, types) asm volatile("mma.sync.aligned." shape ".row.col.f32." types ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};" : "=f"(d.f[0]), "=f"(d.f[1]), "=f"(d.f[2]), "=f"(d.f[3]) : "r"(a.w[0]), "r"(a.w[1]), "r"(a.w[2]), "r"(a.w[3]), "r"(b.w[0]), "r"(b.w[1]), "f"(c.f[0]), "f"(c.f[1]), "f"(c.f[2]), "f"(c.f[3]))
#define MMA2(shape, types) asm volatile("mma.sync.aligned." shape ".row.col.f32." types ".f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};" : "=f"(d.f[0]), "=f"(d.f[1]), "=f"(d.f[2]), "=f"(d.f[3]) : "r"(a.w[0]), "r"(a.w[1]), "r"(b.w[0]), "f"(c.f[0]), "f"(c.f[1]), "f"(c.f[2]), "f"(c.f[3]))
#define KERNEL(name, ra, rb, mma) NL_KERNEL(32) name(Args g) { int l = lane(); Words<ra> a = ((const Words<ra>*)g.a)[l]; Words<rb> b = ((const Words<rb>*)g.b)[l]; Sums c = ((const Sums*)g.c)[l], d; mma; ((Sums*)g.out)[l] = d; }
KERNEL(mma_bf16_16, 4, 2, MMA4("m16n8k16", "bf16.bf16"))
KERNEL(mma_f16_16, 4, 2, MMA4("m16n8k16", "f16.f16"))
KERNEL(mma_bf16_8, 2, 1, MMA2("m16n8k8", "bf16.bf16"))
KERNEL(mma_f16_8, 2, 1, MMA2("m16n8k8", "f16.f16"))
KERNEL(mma_tf32_8, 4, 2, MMA4("m16n8k8", "tf32.tf32"))
KERNEL(mma_tf32_4, 2, 1, MMA2("m16n8k4", "tf32.tf32"))

// C (16 x 8) = A (16 x 16, rows) · B (16 x 8, rows) from shared memory: A by x4, B by x2.trans.
NL_KERNEL(32) tile(Args g)
{
    __shared__ __attribute__((aligned(16))) uint16 a[16 * 24];
    __shared__ __attribute__((aligned(16))) uint16 b[16 * 8];
    int l = lane();
    for (int i = l; i < 256; i += 32)
        a[i / 16 * 24 + i % 16] = ((const uint16*)g.a)[i];
    for (int i = l; i < 128; i += 32)
        b[i] = ((const uint16*)g.b)[i];
    barrier();
    uint32 from = (uint32)(uint64)(__attribute__((address_space(3))) uint16*)a + (l % 16 * 24 + l / 16 * 8) * 2;
    uint32 other = (uint32)(uint64)(__attribute__((address_space(3))) uint16*)b + l % 16 * 16;
    Words<4> x;
    Words<2> y;
    float d[4] = {};
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(x.w[0]), "=r"(x.w[1]), "=r"(x.w[2]), "=r"(x.w[3]) : "r"(from));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(y.w[0]), "=r"(y.w[1]) : "r"(other));
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(x.w[0]), "r"(x.w[1]), "r"(x.w[2]), "r"(x.w[3]), "r"(y.w[0]), "r"(y.w[1]));
    float* out = (float*)g.out;
    for (int i = 0; i < 4; i++)
        out[(l / 4 + i / 2 * 8) * 8 + l % 4 * 2 + i % 2] = d[i];
    // One matrix alone, as it lies and transposed.
    uint32 one, turned;
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(one) : "r"(other));
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(turned) : "r"(other));
    ((uint32*)g.out)[128 + l] = one;
    ((uint32*)g.out)[160 + l] = turned;
}
