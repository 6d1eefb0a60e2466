// Matrix fragments and asynchronous copies: against plain loops.
#include <cmath>

#include "exec_tests.h"

namespace testing {

namespace {

enum Kind { F16, BF16, TF32 };

// Small whole numbers and quarters: exact in all the types, and so are their sums.
float value(size_t i, uint32_t seed) { return float(int((i * 7 + seed * 13 + i / 5) % 17) - 8) * 0.25f; }
uint32_t encode(float v, Kind kind) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if (kind == TF32) return bits;
  if (kind == BF16) return bits >> 16;
  if (v == 0) return 0;
  int e = std::ilogb(v);
  return uint32_t((v < 0 ? 0x8000 : 0) | (e + 15) << 10 | (int(std::ldexp(std::fabs(v), 10 - e)) & 0x3ff));
}

// Fragments as the PTX ISA describes them for m16n8kK, each register on its own.
void fragments(const char* kernel, Kind kind, size_t depth) {
  std::vector<float> a(16 * depth), b(depth * 8), c(16 * 8);
  for (size_t i = 0; i < a.size(); i++) a[i] = value(i, 1);
  for (size_t i = 0; i < b.size(); i++) b[i] = value(i, 2);
  for (size_t i = 0; i < c.size(); i++) c[i] = value(i, 3) + 0.5f;
  size_t per = kind == TF32 ? 1 : 2, ra = 16 * depth / (32 * per), rb = 8 * depth / (32 * per);
  std::vector<uint32_t> fa(32 * ra), fb(32 * rb), fc(32 * 4);
  for (size_t lane = 0; lane < 32; lane++) {
    size_t group = lane >> 2, in = lane % 4;
    for (size_t r = 0; r < ra; r++)
      for (size_t i = 0; i < per; i++) {
        size_t row = r % 2 == 0 ? group : group + 8, k = in * per + i + (r < 2 ? 0 : per * 4);
        fa[lane * ra + r] |= encode(a[row * depth + k], kind) << (16 * i);
      }
    for (size_t r = 0; r < rb; r++)
      for (size_t i = 0; i < per; i++) fb[lane * rb + r] |= encode(b[(in * per + i + r * per * 4) * 8 + group], kind) << (16 * i);
    for (size_t i = 0; i < 4; i++) fc[lane * 4 + i] = encode(c[(i < 2 ? group : group + 8) * 8 + in * 2 + (i & 1)], TF32);
  }
  auto out = snippet<float>("matrix", kernel, 1, 32, std::vector<std::vector<uint32_t>>{fa, fb, fc}, 128);
  for (size_t lane = 0; lane < 32; lane++)
    for (size_t i = 0; i < 4; i++) {
      size_t row = i < 2 ? lane >> 2 : (lane >> 2) + 8, column = lane % 4 * 2 + (i & 1);
      double sum = c[row * 8 + column];
      for (size_t k = 0; k < depth; k++) sum += double(a[row * depth + k]) * b[k * 8 + column];
      CHECK_IS(out[lane * 4 + i], float(sum));
    }
}

void tile() {
  std::vector<uint16_t> a(256), b(128);
  for (size_t i = 0; i < 256; i++) a[i] = uint16_t(encode(value(i, 4), BF16));
  for (size_t i = 0; i < 128; i++) b[i] = uint16_t(encode(value(i, 5), BF16));
  auto out = snippet<float>("matrix", "tile", 1, 32, std::vector<std::vector<uint16_t>>{a, b}, 192);
  for (size_t row = 0; row < 16; row++)
    for (size_t column = 0; column < 8; column++) {
      float sum = 0;
      for (size_t k = 0; k < 16; k++) sum += value(row * 16 + k, 4) * value(k * 8 + column, 5);
      CHECK_IS(out[row * 8 + column], sum);
    }
  for (size_t lane = 0; lane < 32; lane++) {
    uint32_t one, turned;
    std::memcpy(&one, &out[128 + lane], 4);
    std::memcpy(&turned, &out[160 + lane], 4);
    size_t row = lane / 4, column = lane % 4 * 2;
    CHECK_IS(one, uint32_t(b[row * 8 + column] | b[row * 8 + column + 1] << 16));
    CHECK_IS(turned, uint32_t(b[column * 8 + row] | b[(column + 1) * 8 + row] << 16));
  }
}

void copies() {
  for (size_t n : {1, 5, 255, 256, 257, 1000, 1024}) {
    std::vector<float> a(n);
    for (size_t i = 0; i < n; i++) a[i] = value(i, 6);
    auto out = snippet<float>("async", "stages", 1, 64, std::vector<std::vector<float>>{a}, 64, int64_t(n));
    for (size_t t = 0; t < 64; t++) {
      float sum = 0;
      for (size_t first = 0; first < n; first += 256)
        for (size_t i = 0; i < 4; i++) {
          size_t at = first + (t + i * 64 + 7) % 256;
          if (at < n) sum += a[at] * float(i + 1);
        }
      CHECK_IS(out[t], sum);
    }
  }
  auto a = words(32, 1), b = words(64, 2);
  auto out = snippet<uint32_t>("async", "small", 1, 32, std::vector<std::vector<uint32_t>>{a, b}, 32);
  for (size_t t = 0; t < 32; t++) CHECK_IS(out[t], a[31 - t] + b[(t * 2 + 1) % 64]);
}

}  // namespace

void matrixTests() {
  fragments("mma_bf16_16", BF16, 16);
  fragments("mma_f16_16", F16, 16);
  fragments("mma_bf16_8", BF16, 8);
  fragments("mma_f16_8", F16, 8);
  fragments("mma_tf32_8", TF32, 8);
  fragments("mma_tf32_4", TF32, 4);
  tile();
  copies();
}

}  // namespace testing
