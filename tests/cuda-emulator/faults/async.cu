// cp.async. Launch: 1 block of 64 threads, n = 512 values, 16-byte aligned.
#include "faults.cuh"

INLINE void copyAsync(float* to, const float* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(sharedAddress(to)), "l"(from) : "memory");
}
INLINE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> INLINE void waitAsync() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// Each thread reads back its own four values, which nothing waited for.
template <bool FAULT> INLINE void async_no_wait_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[256];
  copyAsync(s + thread() * 4, g.a + thread() * 4);
  commit();
  if (!FAULT) waitAsync<0>();
  barrier();
  for (int i = 0; i < 4; i++) g.c[thread() * 4 + i] = s[thread() * 4 + i];
}
PLANT(async_no_wait)

// Two groups are under way; the wait leaves the newer one, whose values are read.
template <bool FAULT> INLINE void async_wrong_count_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[512];
  copyAsync(s + thread() * 4, g.a + thread() * 4);
  commit();
  copyAsync(s + 256 + thread() * 4, g.a + 256 + thread() * 4);
  commit();
  waitAsync<FAULT ? 1 : 0>();
  barrier();
  for (int i = 0; i < 4; i++) g.c[thread() * 4 + i] = s[thread() * 4 + i] + s[256 + thread() * 4 + i];
}
PLANT(async_wrong_count)

// Waited for, but with no barrier before the values of other warps are read.
template <bool FAULT> INLINE void async_no_barrier_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[256];
  for (int i = 0; i < 4; i++) s[thread() * 4 + i] = 0.0f;
  barrier();
  copyAsync(s + thread() * 4, g.a + thread() * 4);
  commit();
  waitAsync<0>();
  if (!FAULT) barrier();
  for (int i = 0; i < 4; i++) g.c[thread() * 4 + i] = s[255 - thread() * 4 - i];
}
PLANT(async_no_barrier)

// The next tile is fetched into a buffer that other warps still read.
template <bool FAULT> INLINE void async_overwrite_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[256];
  copyAsync(s + thread() * 4, g.a + thread() * 4);
  commit();
  waitAsync<0>();
  barrier();
  float sum = s[255 - thread() * 4];
  if (!FAULT) barrier();
  copyAsync(s + thread() * 4, g.a + 256 + thread() * 4);
  commit();
  waitAsync<0>();
  barrier();
  g.c[thread()] = sum + s[255 - thread() * 4];
}
PLANT(async_overwrite)

// Sixteen bytes from an address that is a multiple of four only.
template <bool FAULT> INLINE void async_misaligned_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[256];
  copyAsync(s + thread() * 4, g.a + thread() * 4 + (FAULT ? 1 : 0));
  commit();
  waitAsync<0>();
  barrier();
  g.c[thread()] = s[thread() * 4];
}
PLANT(async_misaligned)

// Waits for all groups, but the copy belongs to none.
template <bool FAULT> INLINE void async_no_commit_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[256];
  copyAsync(s + thread() * 4, g.a + thread() * 4);
  if (!FAULT) commit();
  waitAsync<0>();
  barrier();
  g.c[thread()] = s[thread() * 4];
}
PLANT(async_no_commit)

// Values past the end are copied with size 0, which writes zeros and reads nothing; or they are not.
template <bool FAULT> INLINE void async_tail_body(const Args& g) {
  __shared__ float s[64];
  int64 at = g.n - 60 + thread();
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(sharedAddress(s + thread())), "l"(g.a + at), "r"(FAULT || at < g.n ? 4 : 0) : "memory");
  commit();
  waitAsync<0>();
  barrier();
  g.c[thread()] = s[63 - thread()];
}
PLANT(async_tail)

// Only half of the threads wait for their copies before the barrier.
template <bool FAULT> INLINE void async_some_wait_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[256];
  copyAsync(s + thread() * 4, g.a + thread() * 4);
  commit();
  if (!FAULT || thread() < 32) waitAsync<0>();
  barrier();
  g.c[thread()] = s[thread() * 4];
}
PLANT(async_some_wait)

// A plain store into a place that a copy is under way to.
template <bool FAULT> INLINE void async_store_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[256];
  copyAsync(s + thread() * 4, g.a + thread() * 4);
  commit();
  if (!FAULT) waitAsync<0>();
  s[thread() * 4] = 1.0f;
  waitAsync<0>();
  barrier();
  g.c[thread()] = s[255 - thread() * 4];
}
PLANT(async_store)
