// Integer instructions, comparisons: against the host's own arithmetic.
#include <algorithm>
#include <cmath>

#include "exec_tests.h"

namespace testing {

namespace {

int32_t saturate(int64_t v) { return int32_t(std::min<int64_t>(std::max<int64_t>(v, INT32_MIN), INT32_MAX)); }
uint32_t reverse(uint32_t v) {
  uint32_t r = 0;
  for (int k = 0; k < 32; k++) r |= (v >> k & 1) << (31 - k);
  return r;
}
uint32_t permute(uint32_t x, uint32_t y, const int (&from)[4]) {
  uint64_t both = uint64_t(y) << 32 | x;
  uint32_t r = 0;
  for (int k = 0; k < 4; k++) r |= uint32_t(both >> (8 * from[k]) & 0xff) << (8 * k);
  return r;
}

void words32() {
  auto a = words(64, 1), b = words(64, 2), c = words(64, 3);
  auto out = snippet<uint32_t>("integer", "integer32", 1, 64, std::vector<std::vector<uint32_t>>{a, b, c}, 64 * 64);
#define X a[i]
#define Y b[i]
#define Z c[i]
#define SX int32_t(a[i])
#define SY int32_t(b[i])
#define SZ int32_t(c[i])
#define IS(k, expected) EACH(out, 64, k, expected)
  IS(0, X + Y) IS(1, X - Y) IS(2, X * Y) IS(3, uint64_t(int64_t(SX) * SY) >> 32) IS(4, uint64_t(X) * Y >> 32) IS(5, X * Y + Z)
  IS(6, uint32_t(uint64_t(int64_t(SX) * SY) >> 32) + Z) IS(7, uint32_t(uint64_t(X) * Y >> 32) + Z)
  for (size_t i = 0; i < 64; i++) {  // division by zero is left to each device
    if (Y == 0) continue;
    CHECK_IS(out[i * 64 + 8], uint32_t(int64_t(SX) / SY));
    CHECK_IS(out[i * 64 + 9], X / Y);
    CHECK_IS(out[i * 64 + 10], uint32_t(int64_t(SX) % SY));
    CHECK_IS(out[i * 64 + 11], X % Y);
  }
  IS(12, std::min(SX, SY)) IS(13, std::max(SX, SY)) IS(14, std::min(X, Y)) IS(15, std::max(X, Y)) IS(16, SX < 0 ? 0 - X : X) IS(17, 0 - X)
  IS(18, saturate(int64_t(SX) + SY)) IS(19, saturate(int64_t(SX) - SY)) IS(20, X & Y) IS(21, X | Y) IS(22, X ^ Y) IS(23, ~X)
  IS(24, (Y & 63) > 31 ? 0 : X << (Y & 63)) IS(25, (Y & 63) > 31 ? 0 : X >> (Y & 63)) IS(26, SX >> std::min(Y & 63, 31u))
  IS(27, ((uint64_t(Y) << 32 | X) << (Z & 31)) >> 32) IS(28, (uint64_t(Y) << 32 | X) >> (Z & 31)) IS(29, ((uint64_t(Y) << 32 | X) << std::min(Z, 32u)) >> 32)
  IS(30, (uint64_t(Y) << 32 | X) >> std::min(Z, 32u))
  auto field = [](uint32_t v, uint32_t from, uint32_t count, bool sign) {
    uint64_t wide = sign ? uint64_t(int64_t(int32_t(v))) : v;
    uint64_t r = wide >> from & ((1ull << count) - 1);
    if (sign && count && (r >> (count - 1) & 1)) r |= ~0ull << count;
    return uint32_t(r);
  };
  IS(31, field(X, Y & 31, Z & 31, false)) IS(32, field(X, Y & 31, Z & 31, true))
  auto insert = [](uint32_t f, uint32_t into, uint32_t from, uint32_t count) {
    uint32_t mask = uint32_t((1ull << count) - 1) << from;
    return (into & ~mask) | (f << from & mask);
  };
  IS(33, insert(X, Z, Y & 31, Z & 31))
  for (size_t i = 0; i < 64; i++) {
    uint64_t both = uint64_t(Y) << 32 | X;
    uint32_t r = 0;
    for (int k = 0; k < 4; k++) {
      uint32_t s = Z >> (4 * k) & 15, byte = uint32_t(both >> (8 * (s & 7))) & 0xff;
      r |= (s & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << (8 * k);
    }
    CHECK_IS(out[i * 64 + 34], r);
  }
  IS(35, __builtin_popcount(X)) IS(36, X ? __builtin_clz(X) : 32) IS(37, reverse(X)) IS(38, X ? 31 - __builtin_clz(X) : -1)
  IS(39, (SX < 0 ? ~X : X) ? 31 - __builtin_clz(SX < 0 ? ~X : X) : -1) IS(40, (X & Y) | (~X & Z))
  auto dot = [](uint32_t x, uint32_t y, uint32_t z, bool sx, bool sy) {
    for (int k = 0; k < 32; k += 8) {
      int p = sx ? int8_t(x >> k) : int(x >> k & 0xff), q = sy ? int8_t(y >> k) : int(y >> k & 0xff);
      z += uint32_t(p * q);
    }
    return z;
  };
  IS(41, dot(X, Y, Z, true, true)) IS(42, dot(X, Y, Z, false, false)) IS(43, dot(X, Y, Z, true, false)) IS(44, X ? __builtin_clz(X) : -1)
  IS(45, SX < SY ? X : Y) IS(46, SZ >= 0 ? X : Y) IS(47, SX > SY ? 0xffffffffu : 0)
  for (size_t i = 0; i < 64; i++) {
    int s = int(Z & 3), h = s & 1;
    CHECK_IS(out[i * 64 + 48], permute(X, Y, {s, s + 1, s + 2, s + 3}));
    CHECK_IS(out[i * 64 + 49], permute(X, Y, {s, (s + 7) & 7, (s + 6) & 7, (s + 5) & 7}));
    CHECK_IS(out[i * 64 + 50], permute(X, Y, {s, s, s, s}));
    CHECK_IS(out[i * 64 + 51], permute(X, Y, {std::max(0, s), std::max(1, s), std::max(2, s), std::max(3, s)}));
    CHECK_IS(out[i * 64 + 52], permute(X, Y, {std::min(0, s), std::min(1, s), std::min(2, s), std::min(3, s)}));
    CHECK_IS(out[i * 64 + 53], permute(X, Y, {2 * h, 2 * h + 1, 2 * h, 2 * h + 1}));
  }
  IS(54, X == 0) IS(55, X + Y) IS(56, Z + (X + Y < X)) IS(57, X - Y) IS(58, Z - (X < Y))
#undef IS
#undef X
#undef Y
#undef Z
#undef SX
#undef SY
#undef SZ
}

void words64() {
  auto a = longs(64, 1), b = longs(64, 2), c = longs(64, 3);
  auto out = snippet<uint64_t>("integer", "integer64", 1, 64, std::vector<std::vector<uint64_t>>{a, b, c}, 64 * 40);
#define X a[i]
#define Y b[i]
#define Z c[i]
#define SX int64_t(a[i])
#define SY int64_t(b[i])
#define S (uint32_t(c[i]) & 127)
#define IS(k, expected) EACH(out, 40, k, expected)
  IS(0, X + Y) IS(1, X - Y) IS(2, X * Y) IS(3, uint64_t((__int128(SX) * SY) >> 64)) IS(4, uint64_t((static_cast<unsigned __int128>(X) * Y) >> 64))
  for (size_t i = 0; i < 64; i++) {
    if (Y == 0) continue;
    CHECK_IS(out[i * 40 + 5], uint64_t(__int128(SX) / SY));
    CHECK_IS(out[i * 40 + 6], X / Y);
    CHECK_IS(out[i * 40 + 7], uint64_t(__int128(SX) % SY));
    CHECK_IS(out[i * 40 + 8], X % Y);
  }
  IS(9, std::min(SX, SY)) IS(10, std::max(X, Y)) IS(11, SX < 0 ? 0 - X : X) IS(12, 0 - X) IS(13, X & Y) IS(14, X | Y) IS(15, X ^ Y) IS(16, ~X)
  IS(17, S > 63 ? 0 : X << S) IS(18, S > 63 ? 0 : X >> S) IS(19, SX >> std::min(S, 63u)) IS(20, uint64_t(int64_t(int32_t(X)) * int32_t(Y)) + Z)
  IS(21, uint64_t(uint32_t(X)) * uint32_t(Y)) IS(22, int64_t(int32_t(X)) * int32_t(Y)) IS(23, __builtin_popcountll(X)) IS(24, X ? __builtin_clzll(X) : 64)
  IS(25, uint64_t(reverse(uint32_t(X))) << 32 | reverse(uint32_t(X >> 32)))
  for (size_t i = 0; i < 64; i++) {
    uint32_t from = Y & 63, count = Z & 63;
    __int128 r = (__int128(SX) >> from) & ((__int128(1) << count) - 1);
    if (count && (r >> (count - 1) & 1)) r |= ~((__int128(1) << count) - 1);
    CHECK_IS(out[i * 40 + 26], uint64_t(r));
    uint32_t place = Z & 63, bits = Z >> 8 & 63;
    uint64_t mask = ((1ull << bits) - 1) << place;
    CHECK_IS(out[i * 40 + 37], (Y & ~mask) | (X << place & mask));
  }
  IS(27, X << 32 | X >> 32) IS(28, X << 48 | (X & 0xffff0000ull) << 16 | (X >> 16 & 0xffff0000ull) | X >> 48)
  IS(29, uint16_t(X + Y)) IS(30, uint16_t(X * Y)) IS(31, uint32_t(int16_t(X) * int16_t(Y))) IS(32, uint16_t(int16_t(X) >> 3)) IS(33, uint16_t(X << 3)) IS(34, uint16_t(~X))
  IS(35, uint16_t(std::min(int16_t(X), int16_t(Y)))) IS(36, uint16_t(0 - X)) IS(38, uint16_t(X) > uint16_t(Y) ? 7 : 9)
#undef IS
#undef X
#undef Y
#undef Z
#undef SX
#undef SY
#undef S
}

void compares() {
  auto x = floats(64, 1), y = floats(64, 2);
  for (size_t i = 40; i < 48; i++) y[i] = x[i];
  auto out = snippet<uint64_t>("compare", "compare_float", 1, 64, std::vector<std::vector<float>>{x, y}, 64);
  for (size_t i = 0; i < 64; i++) {
    float a = x[i], b = y[i];
    bool nan = std::isnan(a) || std::isnan(b), positive = a > 0;
    auto flushed = [](float v) { return std::fpclassify(v) == FP_SUBNORMAL ? 0.0f : v; };
    const bool expected[] = {a == b, !nan && a != b, a < b, a <= b, a > b, a >= b, nan || a == b, nan || a != b, nan || a < b, nan || a <= b, nan || a > b, nan || a >= b, !nan, nan,
                             flushed(a) == flushed(b)};
    for (int k = 0; k < 15; k++) CHECK_IS(bool(out[i] >> k & 1), expected[k]);
    const bool wide[] = {a == b, !nan && a != b, nan || a < b, nan || a >= b, nan};
    for (int k = 0; k < 5; k++) CHECK_IS(bool(out[i] >> (16 + k) & 1), wide[k]);
    // p and q together: q is of the comparison's contrary.
    bool less = a < b;
    CHECK_IS(out[i] >> 24 & 3, uint64_t((less && positive) + 2 * (!less && positive)));
    CHECK_IS(out[i] >> 26 & 3, uint64_t((less || positive) + 2 * (!less || positive)));
    CHECK_IS(out[i] >> 28 & 3, uint64_t((less != positive) + 2 * (!less != positive)));
    CHECK_IS(out[i] >> 30 & 3, uint64_t((less && !positive) + 2 * (!less && !positive)));
  }
  auto a = words(64, 1), b = words(64, 5);
  auto whole = snippet<uint64_t>("compare", "compare_integer", 1, 64, std::vector<std::vector<uint32_t>>{a, b}, 64);
  for (size_t i = 0; i < 64; i++) {
    uint32_t p = a[i], q = b[i];
    int32_t s = int32_t(p), t = int32_t(q);
    uint64_t v = uint64_t(p) << 32 | q, w = uint64_t(q) << 32 | p;
    const bool expected[] = {p == q, p != q, s < t, p <= q, p > q, s >= t, p < q, p <= q, p > q, p >= q, v == w, int64_t(v) < int64_t(w), v > w, int64_t(v) >= int64_t(w),
                             s < t && p < q, s < t || p < q, (s < t) != (p < q), !(s < t)};
    for (int k = 0; k < 18; k++) CHECK_IS(bool(whole[i] >> k & 1), expected[k]);
  }
}

}  // namespace

void integerTests() {
  words32();
  words64();
  compares();
}

}  // namespace testing
