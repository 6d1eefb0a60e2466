// An instruction that there is not.
#include "faults.cuh"

KERNEL(unknown_instruction) {
  float v;
  asm volatile("frobnicate.f32 %0, %1;" : "=f"(v) : "f"(g.a[0]));
  g.c[0] = v;
}
