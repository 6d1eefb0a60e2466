// What the library is, and what this processor can run of it. Compiled for any x86-64.
#include <cstdint>

#if defined(_WIN32)
#define NL_EXPORT extern "C" __declspec(dllexport)
#else
#define NL_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Raised whenever a signature or a layout changes: the managed side refuses another number.
NL_EXPORT int32_t nativelora_cpu_version() { return 3; }

// Bit 0: AVX512-BF16 with the parts of AVX-512 that the kernels use.
NL_EXPORT int32_t nativelora_cpu_features() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bf16"))
    return 1;
#endif
  return 0;
}
