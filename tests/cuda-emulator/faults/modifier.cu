// An instruction with a modifier that it cannot have.
#include "faults.cuh"

KERNEL(unknown_modifier) {
  float v;
  asm volatile("add.sideways.f32 %0, %1, %1;" : "=f"(v) : "f"(g.a[0]));
  g.c[0] = v;
}
