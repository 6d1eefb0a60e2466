// cuBLAS against sums written out, in every type and transposition; what it refuses.
#include "testing.h"

#include <cmath>
#include <cstring>

namespace testing {

namespace {

enum : int { F32 = 0, F16 = 2, BF16 = 14 };
constexpr int Compute = 68, Default = -1;

uint16_t brain(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float unbrain(uint16_t h) {
  uint32_t bits = static_cast<uint32_t>(h) << 16;
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

// Small multiples of 1/8 up to 4: exact in fp16 and bf16, and their sums of products in fp32.
std::vector<float> values(size_t count, uint32_t seed) {
  std::vector<float> all(count);
  for (float& v : all) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<int>(seed >> 26) - 32) / 8.0f;
  }
  return all;
}

// Exact for those values.
uint16_t half(float v) {
  if (v == 0) return 0;
  int exponent;
  float mantissa = std::frexp(std::fabs(v), &exponent);
  return static_cast<uint16_t>((v < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | static_cast<int>((mantissa * 2 - 1) * 1024));
}
float unhalf(uint16_t h) {
  int exponent = h >> 10 & 31, mantissa = h & 1023;
  float v = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24) : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  return h & 0x8000 ? -v : v;
}

std::vector<uint8_t> pack(const std::vector<float>& from, int type) {
  std::vector<uint8_t> bytes(from.size() * (type == F32 ? 4 : 2));
  for (size_t i = 0; i < from.size(); i++) {
    uint16_t h = type == F16 ? half(from[i]) : brain(from[i]);
    if (type == F32)
      std::memcpy(&bytes[i * 4], &from[i], 4);
    else
      std::memcpy(&bytes[i * 2], &h, 2);
  }
  return bytes;
}

std::vector<float> unpack(const std::vector<uint8_t>& bytes, int type) {
  std::vector<float> to(bytes.size() / (type == F32 ? 4 : 2));
  for (size_t i = 0; i < to.size(); i++) {
    uint16_t h;
    if (type == F32) {
      std::memcpy(&to[i], &bytes[i * 4], 4);
    } else {
      std::memcpy(&h, &bytes[i * 2], 2);
      to[i] = type == F16 ? unhalf(h) : unbrain(h);
    }
  }
  return to;
}

void upload(const Buffer& to, const std::vector<uint8_t>& bytes) { CHECK_IS(cuMemcpyHtoD_v2(to.at, bytes.data(), bytes.size()), CUDA_SUCCESS); }

cublasHandle_t handle() {
  static cublasHandle_t one = [] {
    cublasHandle_t h = nullptr;
    CHECK_IS(cublasCreate_v2(&h), 0);
    return h;
  }();
  cublasSetStream_v2(one, nullptr);
  cublasSetMathMode(one, 0);
  cublasSetPointerMode_v2(one, 0);
  return one;
}

struct Shape {
  int m, n, k, padA, padB, padC;
};

void product(int type, int typeC, bool turnA, bool turnB, const Shape& s, float alpha, float beta) {
  int lda = (turnA ? s.k : s.m) + s.padA, ldb = (turnB ? s.n : s.k) + s.padB, ldc = s.m + s.padC;
  std::vector<float> a = values(static_cast<size_t>(lda) * (turnA ? s.m : s.k), 1), b = values(static_cast<size_t>(ldb) * (turnB ? s.k : s.n), 2),
                     c = values(static_cast<size_t>(ldc) * s.n, 3);
  std::vector<uint8_t> bytesA = pack(a, type), bytesB = pack(b, type), bytesC = pack(c, typeC);
  Buffer onA(bytesA.size()), onB(bytesB.size()), onC(bytesC.size());
  upload(onA, bytesA);
  upload(onB, bytesB);
  upload(onC, bytesC);
  CHECK_IS(cublasGemmEx(handle(), turnA, turnB, s.m, s.n, s.k, &alpha, onA.at, type, lda, onB.at, type, ldb, &beta, onC.at, typeC, ldc, Compute, Default), 0);
  std::vector<uint8_t> back(bytesC.size());
  CHECK_IS(cuMemcpyDtoH_v2(back.data(), onC.at, back.size()), CUDA_SUCCESS);
  std::vector<float> expected = c;
  for (int j = 0; j < s.n; j++)
    for (int i = 0; i < s.m; i++) {
      double sum = 0;
      for (int p = 0; p < s.k; p++) sum += static_cast<double>(turnA ? a[p + i * lda] : a[i + p * lda]) * (turnB ? b[j + p * ldb] : b[p + j * ldb]);
      float v = static_cast<float>(alpha * sum) + (beta == 0 ? 0 : beta * c[i + j * ldc]);
      expected[i + j * ldc] = v;
    }
  std::vector<float> got = unpack(back, typeC);
  double ulp = typeC == F32 ? 0 : typeC == F16 ? 0x1p-11 : 0x1p-8;
  bool same = true;
  for (size_t i = 0; i < got.size(); i++) same &= std::fabs(got[i] - expected[i]) <= ulp * std::fabs(expected[i]);
  CHECK(same);
}

void products() {
  const int types[][2] = {{F32, F32}, {BF16, BF16}, {BF16, F32}, {F16, F16}, {F16, F32}};
  for (auto& t : types)
    for (int turns = 0; turns < 4; turns++) {
      product(t[0], t[1], turns & 1, turns & 2, {5, 3, 7, 0, 0, 0}, 1, 0);
      product(t[0], t[1], turns & 1, turns & 2, {13, 9, 70, 3, 1, 2}, 0.5f, 1);
      product(t[0], t[1], turns & 1, turns & 2, {1, 1, 1, 0, 0, 0}, 2, -1);
      product(t[0], t[1], turns & 1, turns & 2, {300, 4, 130, 1, 0, 5}, 1, 0);
    }
}

void refusals() {
  Buffer a(values(64, 1)), b(values(64, 2)), c(values(64, 3));
  float one = 1, zero = 0;
  auto call = [&](int m, int n, int k, int typeA, int lda, int typeB, int ldb, int typeC, int ldc, int compute) {
    return cublasGemmEx(handle(), 0, 0, m, n, k, &one, a.at, typeA, lda, b.at, typeB, ldb, &zero, c.at, typeC, ldc, compute, Default);
  };
  CHECK_IS(call(4, 4, 4, F32, 4, F32, 4, F32, 4, Compute), 0);
  CHECK_IS(call(4, 4, 4, F32, 3, F32, 4, F32, 4, Compute), 7);
  CHECK_IS(call(4, 4, 4, F32, 4, F32, 3, F32, 4, Compute), 7);
  CHECK_IS(call(4, 4, 4, F32, 4, F32, 4, F32, 3, Compute), 7);
  CHECK_IS(call(-1, 4, 4, F32, 4, F32, 4, F32, 4, Compute), 7);
  CHECK_IS(call(0, 4, 4, F32, 0, F32, 4, F32, 4, Compute), 7);
  CHECK_IS(call(0, 4, 4, F32, 1, F32, 4, F32, 1, Compute), 0);
  CHECK_IS(call(4, 4, 0, F32, 4, F32, 1, F32, 4, Compute), 0);
  CHECK_IS(call(4, 4, 4, F32, 4, BF16, 4, F32, 4, Compute), 15);
  CHECK_IS(call(4, 4, 4, F32, 4, F32, 4, BF16, 4, Compute), 15);
  CHECK_IS(call(4, 4, 4, BF16, 4, BF16, 4, F16, 4, Compute), 15);
  CHECK_IS(call(4, 4, 4, F32, 4, F32, 4, F32, 4, 77), 15);
  CHECK_IS(call(4, 4, 4, F32, 4, F32, 4, F32, 4, 64), 15);
  cublasHandle_t h = handle();
  cublasSetMathMode(h, 3);
  CHECK_IS(cublasGemmEx(h, 0, 0, 4, 4, 4, &one, a.at, F32, 4, b.at, F32, 4, &zero, c.at, F32, 4, 77, Default), 0);
  CHECK_IS(cublasSetWorkspace_v2(h, a.at + 4, 16), 7);
  CHECK_IS(cuCtxSynchronize(), CUDA_SUCCESS);
}

void scalarsOnTheDevice() {
  Buffer a(values(16, 1)), b(values(16, 2)), c(16 * 4), d(16 * 4), scalars(std::vector<float>{0.25f, 0.0f});
  float quarter = 0.25f, zero = 0;
  cublasHandle_t h = handle();
  CHECK_IS(cublasSgemm_v2(h, 0, 1, 4, 4, 4, &quarter, a.at, 4, b.at, 4, &zero, c.at, 4), 0);
  cublasSetPointerMode_v2(h, 1);
  auto at = [](CUdeviceptr p) { return reinterpret_cast<const float*>(p); };
  CHECK_IS(cublasSgemm_v2(h, 0, 1, 4, 4, 4, at(scalars.at), a.at, 4, b.at, 4, at(scalars.at + 4), d.at, 4), 0);
  CHECK(c.read() == d.read());
}

void batches() {
  std::vector<float> all = values(3 * 16, 1), others = values(3 * 16, 2);
  Buffer a(all), b(others), strided(3 * 64), pointed(3 * 64), single(3 * 64);
  float one = 1, zero = 0;
  cublasHandle_t h = handle();
  std::vector<CUdeviceptr> addresses;
  for (CUdeviceptr base : {a.at, b.at, pointed.at})
    for (int i = 0; i < 3; i++) addresses.push_back(base + i * 64);
  Buffer arrays(addresses.size() * 8);
  cuMemcpyHtoD_v2(arrays.at, addresses.data(), arrays.bytes);
  CHECK_IS(cublasGemmStridedBatchedEx(h, 0, 0, 4, 4, 4, &one, a.at, F32, 4, 16, b.at, F32, 4, 16, &zero, strided.at, F32, 4, 16, 3, Compute, Default), 0);
  CHECK_IS(cublasGemmBatchedEx(h, 0, 0, 4, 4, 4, &one, arrays.at, F32, 4, arrays.at + 24, F32, 4, &zero, arrays.at + 48, F32, 4, 3, Compute, Default), 0);
  for (int i = 0; i < 3; i++)
    CHECK_IS(cublasSgemm_v2(h, 0, 0, 4, 4, 4, &one, a.at + i * 64, 4, b.at + i * 64, 4, &zero, single.at + i * 64, 4), 0);
  CHECK(strided.read() == single.read());
  CHECK(pointed.read() == single.read());
  NlEmulatorCounters c;
  nlEmulatorCounters(&c);
  CHECK_IS(c.blasCalls, 5u);
  CHECK_IS(c.blasFlops, 9u * 128);
}

}  // namespace

void blasTests(int schedule) {
  for (auto test : {products, refusals, scalarsOnTheDevice, batches}) {
    ready(schedule);
    test();
    CHECK_IS(cuCtxSynchronize(), CUDA_SUCCESS);
    CHECK(std::string(nlEmulatorFault()).empty());
  }
}

}  // namespace testing
