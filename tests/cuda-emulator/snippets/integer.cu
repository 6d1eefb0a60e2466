// Integer instructions, each by name.
#include "snippet.cuh"

#define U1(k, code) { uint32 r; asm volatile(code " %0, %1;" : "=r"(r) : "r"(x)); out[k] = r; }
#define U2(k, code) { uint32 r; asm volatile(code " %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y)); out[k] = r; }
#define U3(k, code) { uint32 r; asm volatile(code " %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(y), "r"(z)); out[k] = r; }
NL_KERNEL(64) integer32(Args g)
{
    int i = at();
    uint32 x = ((const uint32*)g.a)[i], y = ((const uint32*)g.b)[i], z = ((const uint32*)g.c)[i];
    uint32* out = (uint32*)g.out + i * 64;
    U2(0, "add.s32") U2(1, "sub.u32") U2(2, "mul.lo.s32") U2(3, "mul.hi.s32") U2(4, "mul.hi.u32") U3(5, "mad.lo.u32") U3(6, "mad.hi.s32") U3(7, "mad.hi.u32")
    U2(8, "div.s32") U2(9, "div.u32") U2(10, "rem.s32") U2(11, "rem.u32") U2(12, "min.s32") U2(13, "max.s32") U2(14, "min.u32") U2(15, "max.u32")
    U1(16, "abs.s32") U1(17, "neg.s32") U2(18, "add.sat.s32") U2(19, "sub.sat.s32") U2(20, "and.b32") U2(21, "or.b32") U2(22, "xor.b32") U1(23, "not.b32")
    { uint32 r, s = y & 63; asm volatile("shl.b32 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(s)); out[24] = r; }
    { uint32 r, s = y & 63; asm volatile("shr.u32 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(s)); out[25] = r; }
    { uint32 r, s = y & 63; asm volatile("shr.s32 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(s)); out[26] = r; }
    U3(27, "shf.l.wrap.b32") U3(28, "shf.r.wrap.b32") U3(29, "shf.l.clamp.b32") U3(30, "shf.r.clamp.b32")
    { uint32 r, p = y & 31, q = z & 31; asm volatile("bfe.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(p), "r"(q)); out[31] = r; }
    { uint32 r, p = y & 31, q = z & 31; asm volatile("bfe.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(p), "r"(q)); out[32] = r; }
    { uint32 r, p = y & 31, q = z & 31; asm volatile("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(x), "r"(z), "r"(p), "r"(q)); out[33] = r; }
    U3(34, "prmt.b32") U1(35, "popc.b32") U1(36, "clz.b32") U1(37, "brev.b32") U1(38, "bfind.u32") U1(39, "bfind.s32")
    { uint32 r; asm volatile("lop3.b32 %0, %1, %2, %3, 0xCA;" : "=r"(r) : "r"(x), "r"(y), "r"(z)); out[40] = r; }
    U3(41, "dp4a.s32.s32") U3(42, "dp4a.u32.u32") U3(43, "dp4a.s32.u32") U1(44, "bfind.shiftamt.u32")
    { uint32 r; asm volatile("{ .reg .pred p; setp.lt.s32 p, %1, %2; selp.b32 %0, %1, %2, p; }" : "=r"(r) : "r"(x), "r"(y)); out[45] = r; }
    { uint32 r; asm volatile("slct.u32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(y), "r"(z)); out[46] = r; }
    { uint32 r; asm volatile("set.gt.u32.s32 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y)); out[47] = r; }
    U3(48, "prmt.b32.f4e") U3(49, "prmt.b32.b4e") U3(50, "prmt.b32.rc8") U3(51, "prmt.b32.ecl") U3(52, "prmt.b32.ecr") U3(53, "prmt.b32.rc16") U1(54, "cnot.b32")
    { uint32 lo, hi; asm volatile("add.cc.u32 %0, %2, %3; addc.u32 %1, %4, 0;" : "=r"(lo), "=r"(hi) : "r"(x), "r"(y), "r"(z)); out[55] = lo; out[56] = hi; }
    { uint32 lo, hi; asm volatile("sub.cc.u32 %0, %2, %3; subc.u32 %1, %4, 0;" : "=r"(lo), "=r"(hi) : "r"(x), "r"(y), "r"(z)); out[57] = lo; out[58] = hi; }
}

#define L2(k, code) { uint64 r; asm volatile(code " %0, %1, %2;" : "=l"(r) : "l"(x), "l"(y)); out[k] = r; }
#define L1(k, code) { uint64 r; asm volatile(code " %0, %1;" : "=l"(r) : "l"(x)); out[k] = r; }
NL_KERNEL(64) integer64(Args g)
{
    int i = at();
    uint64 x = ((const uint64*)g.a)[i], y = ((const uint64*)g.b)[i], z = ((const uint64*)g.c)[i];
    uint64* out = (uint64*)g.out + i * 40;
    uint32 s = (uint32)z & 127;
    L2(0, "add.s64") L2(1, "sub.s64") L2(2, "mul.lo.s64") L2(3, "mul.hi.s64") L2(4, "mul.hi.u64") L2(5, "div.s64") L2(6, "div.u64") L2(7, "rem.s64")
    L2(8, "rem.u64") L2(9, "min.s64") L2(10, "max.u64") L1(11, "abs.s64") L1(12, "neg.s64") L2(13, "and.b64") L2(14, "or.b64") L2(15, "xor.b64") L1(16, "not.b64")
    { uint64 r; asm volatile("shl.b64 %0, %1, %2;" : "=l"(r) : "l"(x), "r"(s)); out[17] = r; }
    { uint64 r; asm volatile("shr.u64 %0, %1, %2;" : "=l"(r) : "l"(x), "r"(s)); out[18] = r; }
    { uint64 r; asm volatile("shr.s64 %0, %1, %2;" : "=l"(r) : "l"(x), "r"(s)); out[19] = r; }
    { uint64 r; asm volatile("mad.wide.s32 %0, %1, %2, %3;" : "=l"(r) : "r"((uint32)x), "r"((uint32)y), "l"(z)); out[20] = r; }
    { uint64 r; asm volatile("mul.wide.u32 %0, %1, %2;" : "=l"(r) : "r"((uint32)x), "r"((uint32)y)); out[21] = r; }
    { uint64 r; asm volatile("mul.wide.s32 %0, %1, %2;" : "=l"(r) : "r"((uint32)x), "r"((uint32)y)); out[22] = r; }
    { uint32 r; asm volatile("popc.b64 %0, %1;" : "=r"(r) : "l"(x)); out[23] = r; }
    { uint32 r; asm volatile("clz.b64 %0, %1;" : "=r"(r) : "l"(x)); out[24] = r; }
    L1(25, "brev.b64")
    { uint64 r; asm volatile("bfe.s64 %0, %1, %2, %3;" : "=l"(r) : "l"(x), "r"((uint32)y & 63), "r"((uint32)z & 63)); out[26] = r; }
    { uint32 lo, hi; asm volatile("mov.b64 {%0, %1}, %2;" : "=r"(lo), "=r"(hi) : "l"(x)); uint64 r; asm volatile("mov.b64 %0, {%1, %2};" : "=l"(r) : "r"(hi), "r"(lo)); out[27] = r; }
    { uint16 p, q, r, t; asm volatile("mov.b64 {%0, %1, %2, %3}, %4;" : "=h"(p), "=h"(q), "=h"(r), "=h"(t) : "l"(x)); uint64 v; asm volatile("mov.b64 %0, {%1, %2, %3, %4};" : "=l"(v) : "h"(t), "h"(r), "h"(q), "h"(p)); out[28] = v; }
    { uint16 p = (uint16)x, q = (uint16)y, r; asm volatile("add.s16 %0, %1, %2;" : "=h"(r) : "h"(p), "h"(q)); out[29] = r; }
    { uint16 p = (uint16)x, q = (uint16)y, r; asm volatile("mul.lo.s16 %0, %1, %2;" : "=h"(r) : "h"(p), "h"(q)); out[30] = r; }
    { uint16 p = (uint16)x, q = (uint16)y; uint32 r; asm volatile("mul.wide.s16 %0, %1, %2;" : "=r"(r) : "h"(p), "h"(q)); out[31] = r; }
    { uint16 p = (uint16)x, r; asm volatile("shr.s16 %0, %1, 3;" : "=h"(r) : "h"(p)); out[32] = r; }
    { uint16 p = (uint16)x, r; asm volatile("shl.b16 %0, %1, 3;" : "=h"(r) : "h"(p)); out[33] = r; }
    { uint16 p = (uint16)x, r; asm volatile("not.b16 %0, %1;" : "=h"(r) : "h"(p)); out[34] = r; }
    { uint16 p = (uint16)x, q = (uint16)y, r; asm volatile("min.s16 %0, %1, %2;" : "=h"(r) : "h"(p), "h"(q)); out[35] = r; }
    { uint16 p = (uint16)x, r; asm volatile("neg.s16 %0, %1;" : "=h"(r) : "h"(p)); out[36] = r; }
    { uint64 r; asm volatile("bfi.b64 %0, %1, %2, %3, %4;" : "=l"(r) : "l"(x), "l"(y), "r"((uint32)z & 63), "r"((uint32)(z >> 8) & 63)); out[37] = r; }
    { uint16 p = (uint16)x, q = (uint16)y, r; asm volatile("{ .reg .pred p; setp.hi.u16 p, %1, %2; selp.b16 %0, 7, 9, p; }" : "=h"(r) : "h"(p), "h"(q)); out[38] = r; }
}
