// Reads of what was never written. Launch: 1 block of 64 threads, n = 64.
#include "faults.cuh"

template <bool FAULT> INLINE void uninitialised_shared_body(const Args& g) {
  __shared__ float s[64];
  if (!FAULT || thread() < 63) s[thread()] = g.a[thread()];
  barrier();
  g.c[thread()] = s[63 - thread()];
}
PLANT(uninitialised_shared)

template <bool FAULT> INLINE void uninitialised_local_body(const Args& g) {
  volatile float own[8];
  int most = FAULT ? 7 : 8;
  for (int i = 0; i < most; i++) own[i] = g.a[thread()];
  g.c[thread()] = own[(g.n + 7 - 64 + thread() * 8) % 8];
}
PLANT(uninitialised_local)

// Adds to a result that nobody set to zero: the host's fault, or in the clean run it is set.
KERNEL(uninitialised_global) { g.c[thread()] += g.a[thread()]; }

// A reduction over a padded row reads the padding.
template <bool FAULT> INLINE void uninitialised_padding_body(const Args& g) {
  __shared__ float s[72];
  s[thread()] = g.a[thread()];
  if (!FAULT && thread() < 8) s[64 + thread()] = 0.0f;
  barrier();
  if (thread() == 0) {
    float sum = 0;
    for (int i = 0; i < 72; i++) sum += s[i];
    g.c[0] = sum;
  }
}
PLANT(uninitialised_padding)
