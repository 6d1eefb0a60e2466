// Stages of cp.async: two ahead, the last of them short, with zeros behind.
#include "snippet.cuh"

NL_KERNEL(64) stages(Args g)
{
    __shared__ __attribute__((aligned(16))) float ring[3][256];
    int t = thread();
    const float* a = (const float*)g.a;
    uint32 base = (uint32)(uint64)(__attribute__((address_space(3))) float*)&ring[0][0] + t * 16;
    int64 all = (g.n + 255) / 256;
    auto fetch = [&](int64 k)
    {
        if (k < all)
        {
            int64 first = k * 256 + t * 4, left = g.n - first;
            int bytes = left >= 4 ? 16 : left > 0 ? (int)left * 4 : 0;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(base + (uint32)(k % 3) * 1024), "l"(left > 0 ? a + first : a), "r"(bytes) : "memory");
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    fetch(0);
    fetch(1);
    float sum = 0;
    for (int64 k = 0; k < all; k++)
    {
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        barrier();
        for (int i = 0; i < 4; i++)
            sum += ring[k % 3][(t + i * 64 + 7) % 256] * (float)(i + 1);
        fetch(k + 2);
    }
    ((float*)g.out)[t] = sum;
}
NL_KERNEL(32) small(Args g)
{
    __shared__ __attribute__((aligned(16))) uint32 slots[96];
    int t = thread();
    uint32 base = (uint32)(uint64)(__attribute__((address_space(3))) uint32*)slots;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(base + t * 4), "l"((const uint32*)g.a + 31 - t) : "memory");
    asm volatile("cp.async.ca.shared.global [%0+128], [%1], 8;" :: "r"(base + t * 8), "l"((const uint32*)g.b + t * 2) : "memory");
    asm volatile("cp.async.wait_all;" ::: "memory");
    barrier();
    ((uint32*)g.out)[t] = slots[t] + slots[32 + (t * 2 + 1) % 64];
}
