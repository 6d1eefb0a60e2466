// What the planted faults use of CUDA. On its own, so that changes to the kernels' header leave their PTX as it is.
// Each kernel NAME has one fault; NAME_clean is the same code without it.
#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#define INLINE __device__ inline __attribute__((always_inline))

using int64 = long long;
using uint32 = unsigned int;
using uint64 = unsigned long long;

// The one parameter of every kernel here.
struct Args {
  const float* a;
  const float* b;
  float* c;
  int64 n;
};

#define KERNEL(name) extern "C" __global__ void __launch_bounds__(256) name(Args g)
// A pair from a template over whether the fault is in.
#define PLANT(name) \
  KERNEL(name) { name##_body<true>(g); } \
  KERNEL(name##_clean) { name##_body<false>(g); }

INLINE int thread() { return __nvvm_read_ptx_sreg_tid_x(); }
INLINE int threads() { return __nvvm_read_ptx_sreg_ntid_x(); }
INLINE int block() { return __nvvm_read_ptx_sreg_ctaid_x(); }
INLINE int blocks() { return __nvvm_read_ptx_sreg_nctaid_x(); }
INLINE int index() { return block() * threads() + thread(); }
INLINE void barrier() { __syncthreads(); }
INLINE uint32 sharedAddress(const void* at) { return (uint32)(uint64)(__attribute__((address_space(3))) const void*)at; }
