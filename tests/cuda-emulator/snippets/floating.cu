// Floating-point arithmetic in all roundings.
#include "snippet.cuh"

#define F1(k, code) { float r; asm volatile(code " %0, %1;" : "=f"(r) : "f"(x)); out[k] = r; }
#define F2(k, code) { float r; asm volatile(code " %0, %1, %2;" : "=f"(r) : "f"(x), "f"(y)); out[k] = r; }
#define F3(k, code) { float r; asm volatile(code " %0, %1, %2, %3;" : "=f"(r) : "f"(x), "f"(y), "f"(z)); out[k] = r; }
NL_KERNEL(64) float32(Args g)
{
    int i = at();
    float x = ((const float*)g.a)[i], y = ((const float*)g.b)[i], z = ((const float*)g.c)[i];
    float* out = (float*)g.out + i * 64;
    F2(0, "add.rn.f32") F2(1, "add.rz.f32") F2(2, "add.rm.f32") F2(3, "add.rp.f32")
    F2(4, "sub.rn.f32") F2(5, "sub.rz.f32") F2(6, "sub.rm.f32") F2(7, "sub.rp.f32")
    F2(8, "mul.rn.f32") F2(9, "mul.rz.f32") F2(10, "mul.rm.f32") F2(11, "mul.rp.f32")
    F3(12, "fma.rn.f32") F3(13, "fma.rz.f32") F3(14, "fma.rm.f32") F3(15, "fma.rp.f32")
    F2(16, "div.rn.f32") F2(17, "div.rz.f32") F2(18, "div.rm.f32") F2(19, "div.rp.f32")
    F1(20, "sqrt.rn.f32") F1(21, "sqrt.rz.f32") F1(22, "sqrt.rm.f32") F1(23, "sqrt.rp.f32")
    F1(24, "rcp.rn.f32") F1(25, "rcp.rz.f32") F1(26, "rcp.rm.f32") F1(27, "rcp.rp.f32")
    F2(28, "min.f32") F2(29, "max.f32") F1(30, "abs.f32") F1(31, "neg.f32") F2(32, "copysign.f32")
    F2(33, "add.ftz.f32") F2(34, "mul.ftz.f32") F3(35, "fma.rn.ftz.f32") F2(36, "add.sat.f32") F2(37, "mul.ftz.sat.f32") F2(38, "min.ftz.f32")
    F1(39, "ex2.approx.ftz.f32") F1(40, "lg2.approx.f32") F1(41, "sin.approx.f32") F1(42, "cos.approx.f32") F1(43, "tanh.approx.f32") F1(44, "rsqrt.approx.f32")
    F1(45, "rcp.approx.ftz.f32") F1(46, "sqrt.approx.f32") F2(47, "div.full.f32") F2(48, "div.approx.ftz.f32") F2(49, "min.NaN.f32") F2(50, "max.NaN.f32")
    { float r; asm volatile("{ .reg .pred p; testp.finite.f32 p, %1; selp.f32 %0, 0f3F800000, 0f00000000, p; }" : "=f"(r) : "f"(x)); out[51] = r; }
    { float r; asm volatile("{ .reg .pred p; testp.subnormal.f32 p, %1; selp.f32 %0, 0f3F800000, 0f00000000, p; }" : "=f"(r) : "f"(x)); out[52] = r; }
    { float r; asm volatile("set.le.f32.f32 %0, %1, %2;" : "=f"(r) : "f"(x), "f"(y)); out[53] = r; }
    { float r; asm volatile("mov.f32 %0, 0dBFF8000000000000;" : "=f"(r)); out[54] = r; }
}

#define D2(k, code) { double r; asm volatile(code " %0, %1, %2;" : "=d"(r) : "d"(x), "d"(y)); out[k] = r; }
#define D1(k, code) { double r; asm volatile(code " %0, %1;" : "=d"(r) : "d"(x)); out[k] = r; }
NL_KERNEL(64) float64(Args g)
{
    int i = at();
    double x = ((const double*)g.a)[i], y = ((const double*)g.b)[i], z = ((const double*)g.c)[i];
    double* out = (double*)g.out + i * 16;
    D2(0, "add.f64") D2(1, "sub.rn.f64") D2(2, "mul.f64") D2(3, "div.rn.f64") D1(4, "sqrt.rn.f64") D1(5, "rcp.rn.f64") D2(6, "min.f64") D2(7, "max.f64") D1(8, "abs.f64") D1(9, "neg.f64")
    { double r; asm volatile("fma.rn.f64 %0, %1, %2, %3;" : "=d"(r) : "d"(x), "d"(y), "d"(z)); out[10] = r; }
    D2(11, "copysign.f64")
}

#define H2(k, code) { uint16 r; asm volatile(code " %0, %1, %2;" : "=h"(r) : "h"(x), "h"(y)); out[k] = r; }
#define H3(k, code) { uint16 r; asm volatile(code " %0, %1, %2, %3;" : "=h"(r) : "h"(x), "h"(y), "h"(z)); out[k] = r; }
NL_KERNEL(64) float16(Args g)
{
    int i = at();
    uint16 x = ((const uint16*)g.a)[i], y = ((const uint16*)g.b)[i], z = ((const uint16*)g.c)[i];
    uint16* out = (uint16*)g.out + i * 16;
    H2(0, "add.f16") H2(1, "sub.f16") H2(2, "mul.f16") H3(3, "fma.rn.f16") H2(4, "min.f16") H2(5, "max.NaN.f16") H3(6, "fma.rn.bf16") H2(7, "max.bf16") H3(8, "fma.rn.relu.bf16")
    uint32 p = (uint32)y << 16 | x, q = (uint32)z << 16 | y, r;
    asm volatile("add.f16x2 %0, %1, %2;" : "=r"(r) : "r"(p), "r"(q));
    out[9] = (uint16)r;
    out[10] = (uint16)(r >> 16);
    asm volatile("fma.rn.bf16x2 %0, %1, %2, %1;" : "=r"(r) : "r"(p), "r"(q));
    out[11] = (uint16)r;
    out[12] = (uint16)(r >> 16);
}
