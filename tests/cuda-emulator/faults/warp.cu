// Exchange within a warp. Launch: 1 block of 32 threads, n = 32; a and b hold at least 512 values.
#include "faults.cuh"

// All lanes are named, half of them are there.
template <bool FAULT> INLINE void shuffle_inactive_body(const Args& g) {
  float v = g.a[thread()];
  if (!FAULT || thread() < 16) v += __nvvm_shfl_sync_bfly_f32(0xffffffffu, v, 16, 31);
  g.c[thread()] = v;
}
PLANT(shuffle_inactive)

// The mask names the lower half; a lane reads from the upper one.
template <bool FAULT> INLINE void shuffle_unnamed_body(const Args& g) {
  float v = g.a[thread()];
  if (thread() < 16) v += __nvvm_shfl_sync_idx_f32(0xffffu, v, FAULT ? 20 : 4, 31);
  g.c[thread()] = v;
}
PLANT(shuffle_unnamed)

// Lanes exchange through shared memory with nothing that orders them.
template <bool FAULT> INLINE void missing_warp_barrier_body(const Args& g) {
  __shared__ float s[32];
  s[thread()] = g.a[thread()];
  if (!FAULT) __nvvm_bar_warp_sync(0xffffffffu);
  g.c[thread()] = ((volatile float*)s)[31 - thread()];
}
PLANT(missing_warp_barrier)

INLINE void multiply(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A product by half a warp.
template <bool FAULT> INLINE void mma_inactive_body(const Args& g) {
  const uint32* bits = (const uint32*)g.a;
  uint32 a[4], b[2];
  for (int i = 0; i < 4; i++) a[i] = bits[thread() * 4 + i];
  for (int i = 0; i < 2; i++) b[i] = bits[128 + thread() * 2 + i];
  float d[4] = {};
  if (!FAULT || thread() < 16) multiply(d, a, b);
  for (int i = 0; i < 4; i++) g.c[thread() * 4 + i] = d[i];
}
PLANT(mma_inactive)

// Rows of a tile begin at multiples of 8 bytes.
template <bool FAULT> INLINE void ldmatrix_misaligned_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[512];
  for (int i = thread(); i < 512; i += 32) s[i] = g.a[i];
  barrier();
  uint32 r[4];
  uint32 at = sharedAddress(s) + (uint32)thread() * (FAULT ? 40u : 48u);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
  for (int i = 0; i < 4; i++) ((uint32*)g.c)[thread() * 4 + i] = r[i];
}
PLANT(ldmatrix_misaligned)

INLINE void loadMatrix(uint32 (&r)[4], uint32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// A row of the tile was never filled.
template <bool FAULT> INLINE void ldmatrix_uninitialised_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[128];
  for (int i = thread(); i < (FAULT ? 124 : 128); i += 32) s[i] = g.a[i];
  barrier();
  uint32 r[4];
  loadMatrix(r, sharedAddress(s) + (uint32)thread() * 16);
  for (int i = 0; i < 4; i++) ((uint32*)g.c)[thread() * 4 + i] = r[i];
}
PLANT(ldmatrix_uninitialised)

// Rows are read by other lanes than those that filled them, with nothing between.
template <bool FAULT> INLINE void ldmatrix_race_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[128];
  for (int i = thread(); i < 128; i += 32) s[i] = 0.0f;
  barrier();
  for (int i = thread(); i < 128; i += 32) s[i] = g.a[i];
  if (!FAULT) barrier();
  uint32 r[4];
  loadMatrix(r, sharedAddress(s) + (uint32)thread() * 16);
  for (int i = 0; i < 4; i++) ((uint32*)g.c)[thread() * 4 + i] = r[i];
}
PLANT(ldmatrix_race)

// The last row of the tile lies behind the block's shared memory.
template <bool FAULT> INLINE void ldmatrix_past_body(const Args& g) {
  __shared__ __attribute__((aligned(16))) float s[128];
  for (int i = thread(); i < 128; i += 32) s[i] = g.a[i];
  barrier();
  uint32 r[4];
  loadMatrix(r, sharedAddress(s) + (uint32)thread() * 16 + (FAULT ? (uint32)g.n - 16 : 0));
  for (int i = 0; i < 4; i++) ((uint32*)g.c)[thread() * 4 + i] = r[i];
}
PLANT(ldmatrix_past)

// Lanes that have left are named in a later exchange.
template <bool FAULT> INLINE void shuffle_exited_body(const Args& g) {
  if (FAULT && thread() >= 24) return;
  float v = g.a[thread()];
  for (int m = 16; m > 0; m >>= 1) v += __nvvm_shfl_sync_bfly_f32(0xffffffffu, v, m, 31);
  g.c[thread()] = v;
}
PLANT(shuffle_exited)
