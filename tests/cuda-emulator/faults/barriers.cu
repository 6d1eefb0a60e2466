// Launch: 1 block of 64 threads, n = 64.
#include "faults.cuh"

// Half a warp goes to the barrier.
template <bool FAULT> INLINE void barrier_divergent_body(const Args& g) {
  __shared__ float s[64];
  s[thread()] = g.a[thread()];
  if (FAULT) {
    if (thread() % 32 < 16) {
      barrier();
      g.c[thread()] = s[63 - thread()];
    }
  } else {
    barrier();
    if (thread() % 32 < 16) g.c[thread()] = s[63 - thread()];
  }
}
PLANT(barrier_divergent)

// Threads past n have left when the others come to the barrier.
template <bool FAULT> INLINE void barrier_exited_body(const Args& g) {
  __shared__ float s[64];
  s[thread()] = 0.0f;
  if (FAULT && thread() >= g.n - 10) return;
  if (thread() < g.n - 10) s[thread()] = g.a[thread()];
  barrier();
  if (thread() < g.n - 10) g.c[thread()] = s[g.n - 11 - thread()];
}
PLANT(barrier_exited)

// One warp comes to the barrier once more than the other.
template <bool FAULT> INLINE void barrier_uneven_body(const Args& g) {
  __shared__ float s[64];
  float sum = 0;
  int rounds = FAULT ? 1 + thread() / 32 : 2;
  for (int i = 0; i < rounds; i++) {
    s[thread()] = g.a[thread()];
    barrier();
    sum += s[thread()];
    barrier();
  }
  g.c[thread()] = sum;
}
PLANT(barrier_uneven)
