// Kernels that the host uses wrongly.
#include "faults.cuh"

KERNEL(copy_values) {
  for (int64 i = index(); i < g.n; i += blocks() * threads()) g.c[i] = g.a[i];
}

extern "C" __global__ void __launch_bounds__(64) small_block(Args g) {
  if (index() < g.n) g.c[index()] = g.a[index()];
}
