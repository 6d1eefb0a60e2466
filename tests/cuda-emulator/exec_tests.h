// What the executor's tests use: a kernel of snippets/ over arrays of the host's.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "memory.h"
#include "testing.h"

namespace testing {

// Runs a kernel of snippets/FILE.ptx over a, b and c, and gives what it wrote: `bytes` of out, which were 0 before.
std::vector<uint8_t> runSnippet(const std::string& file, const std::string& kernel, uint32_t grid, uint32_t block, const std::vector<std::vector<uint8_t>>& inputs,
                                size_t bytes, int64_t n, emulator::Schedule schedule, uint32_t dynamicShared = 0);

template <class T> std::vector<uint8_t> bytesOf(const std::vector<T>& values) {
  auto* first = reinterpret_cast<const uint8_t*>(values.data());
  return std::vector<uint8_t>(first, first + values.size() * sizeof(T));
}
template <class T> std::vector<T> valuesOf(const std::vector<uint8_t>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}
// Results of all threads, the same under both schedules.
template <class R, class T> std::vector<R> snippet(const std::string& file, const std::string& kernel, uint32_t grid, uint32_t block, const std::vector<std::vector<T>>& inputs,
                                                   size_t results, int64_t n = 0, uint32_t dynamicShared = 0) {
  std::vector<std::vector<uint8_t>> raw;
  for (const auto& i : inputs) raw.push_back(bytesOf(i));
  auto eager = runSnippet(file, kernel, grid, block, raw, results * sizeof(R), n, emulator::Schedule::Eager, dynamicShared);
  auto deferred = runSnippet(file, kernel, grid, block, raw, results * sizeof(R), n, emulator::Schedule::Deferred, dynamicShared);
  CHECK(eager == deferred);
  return valuesOf<R>(eager);
}

// Bits that are in the way: corners first, then any.
std::vector<uint32_t> words(size_t count, uint32_t seed);
std::vector<uint64_t> longs(size_t count, uint32_t seed);
std::vector<float> floats(size_t count, uint32_t seed);
std::vector<double> doubles(size_t count, uint32_t seed);

// Compares result k of each of 64 threads, `stride` results a thread, by bits; NaN must be NaN.
#define EACH(results, stride, k, expected)                                                                       \
  for (size_t i = 0; i < 64; i++) {                                                                              \
    auto got = (results)[i * (stride) + (k)];                                                                    \
    decltype(got) want = static_cast<decltype(got)>(expected);                                                   \
    testing::checks++;                                                                                           \
    bool same = std::memcmp(&got, &want, sizeof got) == 0 || (got != got && want != want);                       \
    if (!same && testing::failures++ < 40)                                                                       \
      std::printf("%s:%d: result %d of thread %zu is %s, not %s\n", __FILE__, __LINE__, int(k), i, std::to_string(got).c_str(), std::to_string(want).c_str()); \
  }

void parseTests();
void integerTests();
void floatTests();
void convertTests();
void flowTests();
void matrixTests();

}  // namespace testing
