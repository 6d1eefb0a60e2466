// Exchange between lanes, whole warps and parts of them.
#include "snippet.cuh"

#define SHFL(k, mode, by, c) { uint32 r, p; asm volatile("{ .reg .pred p; shfl.sync." mode ".b32 %0|p, %2, %3, %4, 0xffffffff; selp.u32 %1, 1, 0, p; }" : "=r"(r), "=r"(p) : "r"(x), "r"(by), "r"(c)); out[k] = r; out[k + 1] = p; }
NL_KERNEL(64) shuffles(Args g)
{
    int i = at();
    uint32 x = ((const uint32*)g.a)[i], y = ((const uint32*)g.b)[i];
    uint32* out = (uint32*)g.out + i * 32;
    SHFL(0, "bfly", 5, 31) SHFL(2, "up", 3, 0) SHFL(4, "down", 7, 31) SHFL(6, "idx", y, 31)
    // In segments of 8 lanes.
    SHFL(8, "bfly", 9, 0x181f) SHFL(10, "up", 3, 0x1800) SHFL(12, "down", 3, 0x181f) SHFL(14, "idx", y, 0x181f)
    // The halves of a warp on their own.
    uint32 mask = lane() < 16 ? 0xffffu : 0xffff0000u, r;
    asm volatile("shfl.sync.bfly.b32 %0, %1, 1, 31, %2;" : "=r"(r) : "r"(x), "r"(mask));
    out[16] = r;
    if (lane() < 16)
    {
        asm volatile("shfl.sync.down.b32 %0, %1, 1, 0x101f, 0xffff;" : "=r"(r) : "r"(lane() == 15 ? 77 : x));
        out[17] = lane() == 15 ? 0 : r;
    }
    else
        out[17] = 5;
    asm volatile("shfl.sync.bfly.b32 %0, %1, 16, 31, 0xffffffff;" : "=r"(r) : "r"(x));
    out[18] = r;
}
NL_KERNEL(64) votes(Args g)
{
    int i = at();
    uint32 x = ((const uint32*)g.a)[i];
    uint32* out = (uint32*)g.out + i * 16;
    uint32 r;
    asm volatile("{ .reg .pred p; setp.gt.s32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff; }" : "=r"(r) : "r"(x)); out[0] = r;
    asm volatile("{ .reg .pred p, q; setp.gt.s32 p, %1, 0; vote.sync.any.pred q, !p, 0xffffffff; selp.u32 %0, 1, 0, q; }" : "=r"(r) : "r"(x)); out[1] = r;
    asm volatile("{ .reg .pred p, q; setp.ne.s32 p, %1, 1; vote.sync.all.pred q, p, 0xffffffff; selp.u32 %0, 1, 0, q; }" : "=r"(r) : "r"(x)); out[2] = r;
    asm volatile("{ .reg .pred p, q; setp.gt.s32 p, %1, 0; vote.sync.uni.pred q, p, 0xffffffff; selp.u32 %0, 1, 0, q; }" : "=r"(r) : "r"(x)); out[3] = r;
    asm volatile("redux.sync.add.s32 %0, %1, 0xffffffff;" : "=r"(r) : "r"(x)); out[4] = r;
    asm volatile("redux.sync.min.s32 %0, %1, 0xffffffff;" : "=r"(r) : "r"(x)); out[5] = r;
    asm volatile("redux.sync.max.u32 %0, %1, 0xffffffff;" : "=r"(r) : "r"(x)); out[6] = r;
    asm volatile("redux.sync.xor.b32 %0, %1, 0xffffffff;" : "=r"(r) : "r"(x)); out[7] = r;
    out[8] = 0;
    if ((int)x > 0)
    {
        asm volatile("activemask.b32 %0;" : "=r"(r));
        out[8] = r;
    }
    asm volatile("mov.u32 %0, %%lanemask_lt;" : "=r"(r)); out[9] = r;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(r)); out[10] = r;
    asm volatile("mov.u32 %0, %%warpid;" : "=r"(r)); out[11] = r;
}
