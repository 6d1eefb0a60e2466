// Launch: 2 blocks of 64 threads, n = 100 values.
#include "faults.cuh"

template <bool FAULT> INLINE void read_past_body(const Args& g) {
  for (int64 i = index(); i < g.n; i += blocks() * threads()) g.c[i] = g.a[i] + g.a[FAULT ? i + 1 : i];
}
PLANT(read_past)

template <bool FAULT> INLINE void write_past_body(const Args& g) {
  for (int64 i = index(); FAULT ? i <= g.n : i < g.n; i += blocks() * threads()) g.c[i] = 1.0f;
}
PLANT(write_past)

template <bool FAULT> INLINE void read_before_body(const Args& g) {
  for (int64 i = index(); i < g.n; i += blocks() * threads()) g.c[i] = g.a[i - ((FAULT || i > 0) ? 1 : 0)];
}
PLANT(read_before)

// Rows of 10 read as if they had 11.
template <bool FAULT> INLINE void wrong_stride_body(const Args& g) {
  int64 i = index();
  if (i < g.n) g.c[i] = g.a[i / 10 * (FAULT ? 11 : 10) + i % 10];
}
PLANT(wrong_stride)

template <bool FAULT> INLINE void missing_tail_body(const Args& g) {
  int64 i = index();
  if (FAULT || i < g.n) g.c[i] = g.a[i];
}
PLANT(missing_tail)

// Four values at once from an address that is a multiple of four bytes.
template <bool FAULT> INLINE void misaligned_vector_body(const Args& g) {
  if (index() >= 20) return;
  float x, y, z, w;
  asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x), "=f"(y), "=f"(z), "=f"(w) : "l"(g.a + index() * 4 + (FAULT ? 1 : 0)));
  g.c[index()] = x + y + z + w;
}
PLANT(misaligned_vector)

template <bool FAULT> INLINE void misaligned_shared_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[68];
  s[thread()] = g.a[thread()];
  if (thread() < 4) s[64 + thread()] = 0.0f;
  barrier();
  float x, y;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x), "=f"(y) : "r"(sharedAddress(s + thread() / 2 * 2 + (FAULT ? 1 : 0))));
  if (index() < g.n) g.c[index()] = x + y;
}
PLANT(misaligned_shared)

template <bool FAULT> INLINE void shared_past_body(const Args& g) {
  __shared__ float s[64];
  s[thread()] = g.a[thread()];
  barrier();
  if (index() < g.n) g.c[index()] = s[(FAULT ? (int)g.n - 100 + 1 : 0) + thread()];
}
PLANT(shared_past)

// The address is that of no allocation: an optional operand that is not there.
template <bool FAULT> INLINE void null_operand_body(const Args& g) {
  int64 i = index();
  if (i < g.n) g.c[i] = g.a[i] + (FAULT || g.b ? g.b[i] : 0.0f);
}
PLANT(null_operand)

// An index of 32 bits that overflows.
template <bool FAULT> INLINE void index_overflow_body(const Args& g) {
  int row = (int)g.n * 1000000;  // 100 · 10^6
  uint32 wrapped = (uint32)row * 43u;
  int64 at = FAULT ? (int64)(int)wrapped : 0;
  if (index() < g.n) g.c[index()] = g.a[at + thread()];
}
PLANT(index_overflow)

// Dynamic shared memory: 4 bytes a thread. The host gives fewer.
KERNEL(dynamic_shared) {
  extern __shared__ float d[];
  d[thread()] = g.a[thread()];
  barrier();
  if (index() < g.n) g.c[index()] = d[threads() - 1 - thread()];
}

// An odd number of 16-bit values read two at a time: 2 blocks of 64 threads over n = 101 of them.
template <bool FAULT> INLINE void packed_tail_body(const Args& g) {
  int i = index();
  if (i > 50) return;
  const unsigned short* values = (const unsigned short*)g.a;
  uint32 pair = FAULT || i < 50 ? ((const uint32*)values)[i] : values[2 * i];
  ((uint32*)g.c)[i] = pair;
}
PLANT(packed_tail)

// Rows of 13 16-bit values: every second one begins at an odd multiple of two bytes.
template <bool FAULT> INLINE void odd_pitch_body(const Args& g) {
  int row = index();
  if (row > 6) return;
  const unsigned short* from = (const unsigned short*)g.a + row * 13;
  ((uint32*)g.c)[row] = FAULT ? *(const volatile uint32*)from : from[0] | (uint32)from[1] << 16;
}
PLANT(odd_pitch)

// One behind the end of a thread's own array.
template <bool FAULT> INLINE void local_past_body(const Args& g) {
  volatile float own[8];
  for (int i = 0; i < 8; i++) own[i] = g.a[i];
  if (index() < g.n) g.c[index()] = own[FAULT ? g.n - 92 : g.n - 93];
}
PLANT(local_past)
