// setp in all comparisons and combinations.
#include "snippet.cuh"

#define P(k, code) { uint32 r; asm volatile("{ .reg .pred p; " code " p, %1, %2; selp.u32 %0, 1, 0, p; }" : "=r"(r) : "f"(x), "f"(y)); m |= (uint64)r << k; }
#define PD(k, code) { uint32 r; asm volatile("{ .reg .pred p; " code " p, %1, %2; selp.u32 %0, 1, 0, p; }" : "=r"(r) : "d"((double)x), "d"((double)y)); m |= (uint64)r << k; }
#define PC(k, code, q) { uint32 r; asm volatile("{ .reg .pred p, q, c; setp.gt.f32 c, %1, 0f00000000; " code " p|q, %1, %2, " q "; selp.u32 %0, 1, 0, p; @q add.u32 %0, %0, 2; }" : "=r"(r) : "f"(x), "f"(y)); m |= (uint64)r << k; }
NL_KERNEL(64) compare_float(Args g)
{
    int i = at();
    float x = ((const float*)g.a)[i], y = ((const float*)g.b)[i];
    uint64 m = 0;
    P(0, "setp.eq.f32") P(1, "setp.ne.f32") P(2, "setp.lt.f32") P(3, "setp.le.f32") P(4, "setp.gt.f32") P(5, "setp.ge.f32") P(6, "setp.equ.f32") P(7, "setp.neu.f32") P(8, "setp.ltu.f32")
    P(9, "setp.leu.f32") P(10, "setp.gtu.f32") P(11, "setp.geu.f32") P(12, "setp.num.f32") P(13, "setp.nan.f32") P(14, "setp.eq.ftz.f32")
    PD(16, "setp.eq.f64") PD(17, "setp.ne.f64") PD(18, "setp.ltu.f64") PD(19, "setp.geu.f64") PD(20, "setp.nan.f64")
    PC(24, "setp.lt.and.f32", "c") PC(26, "setp.lt.or.f32", "c") PC(28, "setp.lt.xor.f32", "c") PC(30, "setp.lt.and.f32", "!c")
    ((uint64*)g.out)[i] = m;
}
#define PI(k, code) { uint32 r; asm volatile("{ .reg .pred p; " code " p, %1, %2; selp.u32 %0, 1, 0, p; }" : "=r"(r) : "r"(x), "r"(y)); m |= (uint64)r << k; }
#define PL(k, code) { uint32 r; asm volatile("{ .reg .pred p; " code " p, %1, %2; selp.u32 %0, 1, 0, p; }" : "=r"(r) : "l"(v), "l"(w)); m |= (uint64)r << k; }
#define PP(k, code) { uint32 r; asm volatile("{ .reg .pred p, q, r; setp.lt.s32 p, %1, %2; setp.lt.u32 q, %1, %2; " code " r, p, q; selp.u32 %0, 1, 0, r; }" : "=r"(r) : "r"(x), "r"(y)); m |= (uint64)r << k; }
NL_KERNEL(64) compare_integer(Args g)
{
    int i = at();
    uint32 x = ((const uint32*)g.a)[i], y = ((const uint32*)g.b)[i];
    uint64 v = (uint64)x << 32 | y, w = (uint64)y << 32 | x, m = 0;
    PI(0, "setp.eq.s32") PI(1, "setp.ne.b32") PI(2, "setp.lt.s32") PI(3, "setp.le.u32") PI(4, "setp.gt.u32") PI(5, "setp.ge.s32") PI(6, "setp.lo.u32") PI(7, "setp.ls.u32") PI(8, "setp.hi.u32") PI(9, "setp.hs.u32")
    PL(10, "setp.eq.b64") PL(11, "setp.lt.s64") PL(12, "setp.gt.u64") PL(13, "setp.ge.s64")
    PP(14, "and.pred") PP(15, "or.pred") PP(16, "xor.pred")
    { uint32 r; asm volatile("{ .reg .pred p; setp.lt.s32 p, %1, %2; not.pred p, p; selp.u32 %0, 1, 0, p; }" : "=r"(r) : "r"(x), "r"(y)); m |= (uint64)r << 17; }
    ((uint64*)g.out)[i] = m;
}
