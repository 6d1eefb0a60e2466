// Launch: 2 blocks of 64 threads, n = 128 values.
#include "faults.cuh"

// Values cross warps through shared memory with no barrier after the write.
template <bool FAULT> INLINE void race_after_write_body(const Args& g) {
  __shared__ float s[64];
  s[thread()] = 0.0f;
  barrier();
  s[63 - thread()] = g.a[index()];
  if (!FAULT) barrier();
  g.c[index()] = s[thread()];
}
PLANT(race_after_write)

// A tile is overwritten while other warps may still read it.
template <bool FAULT> INLINE void race_before_overwrite_body(const Args& g) {
  __shared__ float s[64];
  float sum = 0;
  for (int round = 0; round < 3; round++) {
    s[thread()] = g.a[index()] + (float)round;
    barrier();
    sum += s[63 - thread()];
    if (!FAULT) barrier();
  }
  g.c[index()] = sum;
}
PLANT(race_before_overwrite)

// Both blocks write the same values' places.
template <bool FAULT> INLINE void race_blocks_write_body(const Args& g) { g.c[FAULT ? thread() : index()] = g.a[index()]; }
PLANT(race_blocks_write)

// A block reads what the other block writes in the same launch.
template <bool FAULT> INLINE void race_blocks_read_body(const Args& g) {
  g.c[index()] = g.a[index()];
  barrier();
  int other = (block() + 1) % blocks() * threads() + thread();
  if (thread() < 8) g.c[FAULT ? other : index()] += 1.0f;
}
PLANT(race_blocks_read)

// A sum over blocks by plain adds: no atomic, no place of its own for each block.
template <bool FAULT> INLINE void missing_atomic_body(const Args& g) {
  if (thread() == 0) g.c[FAULT ? 0 : block()] += g.a[block()];
}
PLANT(missing_atomic)

// Within a block, two warps write one place of global memory.
template <bool FAULT> INLINE void race_warps_global_body(const Args& g) {
  g.c[block() * threads() + (FAULT ? thread() % 32 : thread())] = g.a[index()];
}
PLANT(race_warps_global)

// A row is normalised in place by values of the row that another warp has changed already.
template <bool FAULT> INLINE void race_in_place_body(const Args& g) {
  float other = g.c[block() * threads() + (FAULT ? (thread() + 32) % 64 : thread())];
  g.c[index()] = other * 0.5f;
}
PLANT(race_in_place)

// Only the order of atomic additions decides who comes where. No race, but another result with each schedule.
template <bool FAULT> INLINE void order_dependent_body(const Args& g) {
  uint32 place;
  asm volatile("atom.global.add.u32 %0, [%1], 1;" : "=r"(place) : "l"(g.c) : "memory");
  if (!FAULT) place = (uint32)index();
  g.c[1 + place] = (float)index();
}
PLANT(order_dependent)

// Two buffers in turn, and the reader takes the one that is being filled.
template <bool FAULT> INLINE void race_wrong_buffer_body(const Args& g) {
  __shared__ float s[2][64];
  s[0][thread()] = s[1][thread()] = g.a[index()];
  barrier();
  float sum = 0;
  for (int round = 0; round < 4; round++) {
    s[(round + 1) % 2][thread()] = g.a[index()] + (float)round;
    sum += s[(FAULT ? round + 1 : round) % 2][63 - thread()];
    barrier();
  }
  g.c[index()] = sum;
}
PLANT(race_wrong_buffer)

// The second of two arrays in one piece of shared memory begins before the first one's end.
template <bool FAULT> INLINE void race_overlap_body(const Args& g) {
  __shared__ float s[128];
  float* second = s + (FAULT ? 60 : 64);
  s[thread()] = g.a[index()];
  second[thread()] = 1.0f;
  barrier();
  g.c[index()] = s[thread()] + second[63 - thread()];
}
PLANT(race_overlap)

// Four values stored for each two: two warps write the same vector.
template <bool FAULT> INLINE void race_vector_overlap_body(const Args& g) {
  if (thread() % 32 != 0) return;
  int at = (block() * 2 + thread() / 32) * (FAULT ? 2 : 4);
  asm volatile("st.global.v4.f32 [%0], {%1, %1, %1, %1};" ::"l"(g.c + at / 4 * 4), "f"(g.a[at]) : "memory");
}
PLANT(race_vector_overlap)

// A block hands values from warp to warp through global memory.
template <bool FAULT> INLINE void race_through_global_body(const Args& g) {
  float* row = g.c + block() * threads();
  row[63 - thread()] = g.a[index()];
  if (!FAULT) barrier();
  float v = row[thread()];
  barrier();
  row[thread()] = v + 1.0f;
}
PLANT(race_through_global)

// The read is right, but another warp may have overwritten the value already.
template <bool FAULT> INLINE void race_write_after_read_body(const Args& g) {
  float* row = g.c + block() * threads();
  float v = row[63 - thread()];
  if (!FAULT) barrier();
  row[thread()] = v + 1.0f;
}
PLANT(race_write_after_read)

// Two lanes of one store have the same place and other values.
template <bool FAULT> INLINE void race_lanes_shared_body(const Args& g) {
  __shared__ float s[64];
  s[thread()] = 0.0f;
  barrier();
  s[FAULT ? thread() / 2 * 2 : thread()] = g.a[index()];
  barrier();
  g.c[index()] = s[thread()];
}
PLANT(race_lanes_shared)

template <bool FAULT> INLINE void race_lanes_global_body(const Args& g) { g.c[FAULT ? index() / 2 : index()] = g.a[index()]; }
PLANT(race_lanes_global)

// A block reads by a plain load what others count up atomically.
template <bool FAULT> INLINE void race_with_atomic_body(const Args& g) {
  uint32 before;
  if (thread() == 0) asm volatile("atom.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(g.c) : "memory");
  barrier();
  if (thread() == 1) g.c[1 + block()] = FAULT ? g.c[0] : 1.0f;
}
PLANT(race_with_atomic)
