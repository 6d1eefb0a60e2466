// cvt in all roundings.
#include "snippet.cuh"

#define C(k, code, from, to, type) { type r; asm volatile(code " %0, %1;" : to(r) : from); out[k] = (uint64)r; }
#define CF(k, code, from) { float r; asm volatile(code " %0, %1;" : "=f"(r) : from); out[k] = bitsOf(r); }
#define CD(k, code, from) { double r; asm volatile(code " %0, %1;" : "=d"(r) : from); out[k] = __builtin_bit_cast(uint64, r); }
NL_KERNEL(64) convert_float(Args g)
{
    int i = at();
    float x = ((const float*)g.a)[i];
    uint64* out = (uint64*)g.out + i * 40;
    C(0, "cvt.rni.s32.f32", "f"(x), "=r", uint32) C(1, "cvt.rzi.s32.f32", "f"(x), "=r", uint32) C(2, "cvt.rmi.s32.f32", "f"(x), "=r", uint32) C(3, "cvt.rpi.s32.f32", "f"(x), "=r", uint32)
    C(4, "cvt.rni.u32.f32", "f"(x), "=r", uint32) C(5, "cvt.rzi.u32.f32", "f"(x), "=r", uint32) C(6, "cvt.rzi.s64.f32", "f"(x), "=l", uint64) C(7, "cvt.rpi.u64.f32", "f"(x), "=l", uint64)
    CF(8, "cvt.rni.f32.f32", "f"(x)) CF(9, "cvt.rzi.f32.f32", "f"(x)) CF(10, "cvt.rmi.f32.f32", "f"(x)) CF(11, "cvt.rpi.f32.f32", "f"(x)) CF(12, "cvt.sat.f32.f32", "f"(x)) CF(13, "cvt.ftz.f32.f32", "f"(x))
    CD(14, "cvt.f64.f32", "f"(x))
    C(15, "cvt.rn.f16.f32", "f"(x), "=h", uint16) C(16, "cvt.rz.f16.f32", "f"(x), "=h", uint16) C(17, "cvt.rm.f16.f32", "f"(x), "=h", uint16) C(18, "cvt.rp.f16.f32", "f"(x), "=h", uint16)
    C(19, "cvt.rn.bf16.f32", "f"(x), "=h", uint16) C(20, "cvt.rz.bf16.f32", "f"(x), "=h", uint16) C(21, "cvt.rn.relu.bf16.f32", "f"(x), "=h", uint16) C(22, "cvt.rna.tf32.f32", "f"(x), "=r", uint32)
    { uint32 r; float y = -x; asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(x), "f"(y)); out[23] = r; }
    { uint32 r; float y = -x; asm volatile("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(x), "f"(y)); out[24] = r; }
    C(25, "cvt.rni.s16.f32", "f"(x), "=h", uint16) C(26, "cvt.rzi.u16.f32", "f"(x), "=h", uint16)
    { uint32 r; asm volatile("{ .reg .b16 t; cvt.rni.s8.f32 %0, %1; }" : "=r"(r) : "f"(x)); out[27] = r; }
}
NL_KERNEL(64) convert_double(Args g)
{
    int i = at();
    double x = ((const double*)g.a)[i];
    uint64* out = (uint64*)g.out + i * 16;
    CF(0, "cvt.rn.f32.f64", "d"(x)) CF(1, "cvt.rz.f32.f64", "d"(x)) CF(2, "cvt.rm.f32.f64", "d"(x)) CF(3, "cvt.rp.f32.f64", "d"(x))
    C(4, "cvt.rni.s64.f64", "d"(x), "=l", uint64) C(5, "cvt.rzi.s32.f64", "d"(x), "=r", uint32) C(6, "cvt.rmi.u64.f64", "d"(x), "=l", uint64) CD(7, "cvt.rpi.f64.f64", "d"(x))
    C(8, "cvt.rn.f16.f64", "d"(x), "=h", uint16)
}
NL_KERNEL(64) convert_integer(Args g)
{
    int i = at();
    uint64 x = ((const uint64*)g.a)[i];
    uint32 w = (uint32)x;
    uint16 h = (uint16)x;
    uint64* out = (uint64*)g.out + i * 40;
    CF(0, "cvt.rn.f32.s32", "r"(w)) CF(1, "cvt.rz.f32.s32", "r"(w)) CF(2, "cvt.rm.f32.s32", "r"(w)) CF(3, "cvt.rp.f32.s32", "r"(w)) CF(4, "cvt.rn.f32.u32", "r"(w))
    CF(5, "cvt.rn.f32.s64", "l"(x)) CF(6, "cvt.rz.f32.u64", "l"(x)) CF(7, "cvt.rm.f32.s64", "l"(x)) CF(8, "cvt.rp.f32.u64", "l"(x))
    CD(9, "cvt.rn.f64.s64", "l"(x)) CD(10, "cvt.rz.f64.s64", "l"(x)) CD(11, "cvt.rp.f64.u64", "l"(x)) CD(12, "cvt.rn.f64.u32", "r"(w))
    C(13, "cvt.s32.s8", "r"(w), "=r", uint32) C(14, "cvt.u32.u8", "r"(w), "=r", uint32) C(15, "cvt.s64.s32", "r"(w), "=l", uint64) C(16, "cvt.u64.u32", "r"(w), "=l", uint64)
    C(17, "cvt.u32.u64", "l"(x), "=r", uint32) C(18, "cvt.s64.s8", "l"(x), "=l", uint64) C(19, "cvt.s64.s16", "l"(x), "=l", uint64) C(20, "cvt.u16.u32", "r"(w), "=h", uint16)
    C(21, "cvt.s32.s16", "h"(h), "=r", uint32) C(22, "cvt.s16.s8", "h"(h), "=h", uint16) C(23, "cvt.sat.s8.s32", "r"(w), "=r", uint32) C(24, "cvt.sat.u8.s32", "r"(w), "=r", uint32)
    C(25, "cvt.sat.s16.s32", "r"(w), "=h", uint16) C(26, "cvt.sat.u32.s64", "l"(x), "=r", uint32)
    CF(27, "cvt.f32.f16", "h"(h)) C(28, "cvt.rzi.s32.f16", "h"(h), "=r", uint32) C(29, "cvt.rn.f16.s32", "r"(w), "=h", uint16) C(30, "cvt.rmi.f16.f16", "h"(h), "=h", uint16)
    CD(31, "cvt.f64.f16", "h"(h)) CF(32, "cvt.rn.f32.u16", "h"(h)) CF(33, "cvt.rn.f32.s8", "r"(w))
}
