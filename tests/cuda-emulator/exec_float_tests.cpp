// Floating-point arithmetic and conversions: against the host's, in the processor's own rounding modes.
#include <cfenv>
#include <cmath>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "exec_tests.h"

namespace testing {

namespace {

constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

// Evaluates under a rounding mode; volatile keeps the compiler from doing it before.
template <class F> auto under(int mode, F f) {
  std::fesetround(mode);
  auto r = f();
  std::fesetround(FE_TONEAREST);
  return r;
}
template <class T> T opaque(T v) {
  volatile T w = v;
  return w;
}
uint32_t bits(float v) {
  uint32_t r;
  std::memcpy(&r, &v, 4);
  return r;
}
uint64_t bits(double v) {
  uint64_t r;
  std::memcpy(&r, &v, 8);
  return r;
}
float flushed(float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.0f, v) : v; }
float least(float a, float b) { return std::isnan(a) ? b : std::isnan(b) ? a : a == b ? (std::signbit(a) ? a : b) : a < b ? a : b; }
float most(float a, float b) { return std::isnan(a) ? b : std::isnan(b) ? a : a == b ? (std::signbit(a) ? b : a) : a > b ? a : b; }
float clamped(float v) { return std::isnan(v) || v <= 0 ? 0.0f : v > 1 ? 1.0f : v; }

void arithmetic32() {
  auto a = floats(64, 1), b = floats(64, 4), c = floats(64, 9);
  auto out = snippet<float>("floating", "float32", 1, 64, std::vector<std::vector<float>>{a, b, c}, 64 * 64);
#define X opaque(a[i])
#define Y opaque(b[i])
#define Z opaque(c[i])
#define IS(k, expected) EACH(out, 64, k, expected)
  for (int m = 0; m < 4; m++) {
    int mode = kModes[m];
    IS(m, under(mode, [&] { return opaque(X + Y); }))
    IS(4 + m, under(mode, [&] { return opaque(X - Y); }))
    IS(8 + m, under(mode, [&] { return opaque(X * Y); }))
    IS(12 + m, under(mode, [&] { return opaque(std::fma(X, Y, Z)); }))
    IS(16 + m, under(mode, [&] { return opaque(X / Y); }))
    IS(20 + m, under(mode, [&] { return opaque(std::sqrt(X)); }))
    IS(24 + m, under(mode, [&] { return opaque(1.0f / X); }))
  }
  IS(28, least(X, Y)) IS(29, most(X, Y)) IS(30, std::fabs(X)) IS(31, -X) IS(32, std::copysign(Y, X))
  IS(33, flushed(flushed(X) + flushed(Y))) IS(34, flushed(flushed(X) * flushed(Y))) IS(35, flushed(std::fma(flushed(X), flushed(Y), flushed(Z))))
  IS(36, clamped(X + Y)) IS(37, clamped(flushed(flushed(X) * flushed(Y)))) IS(38, least(flushed(X), flushed(Y)))
  // Approximations are the exact functions' values, within an ulp or two.
  auto near = [&](int k, auto f) {
    for (size_t i = 0; i < 64; i++) {
      double want = f(double(a[i]), double(b[i]));
      float got = out[i * 64 + size_t(k)];
      if (std::isnan(want)) CHECK(std::isnan(got));
      else if (std::fabs(want) > 3.4028235e38) CHECK(std::isinf(got) || std::fabs(got) > 3.4e38f);
      else CHECK(std::fabs(got - want) <= std::fabs(want) * 2.5e-7 + 2e-38);
    }
  };
  near(39, [](double x, double) { return std::exp2(x); });
  near(40, [](double x, double) { return std::log2(x); });
  near(41, [](double x, double) { return std::sin(x); });
  near(42, [](double x, double) { return std::cos(x); });
  near(43, [](double x, double) { return std::tanh(x); });
  near(44, [](double x, double) { return 1 / std::sqrt(x); });
  near(46, [](double x, double) { return std::sqrt(x); });
  IS(45, flushed(1.0f / flushed(X))) IS(47, X / Y) IS(48, flushed(flushed(X) / flushed(Y)))
  IS(49, std::isnan(X) || std::isnan(Y) ? NAN : least(X, Y)) IS(50, std::isnan(X) || std::isnan(Y) ? NAN : most(X, Y))
  IS(51, std::isfinite(X) ? 1 : 0) IS(52, std::fpclassify(X) == FP_SUBNORMAL ? 1 : 0) IS(53, X <= Y ? 1 : 0) IS(54, -1.5f)
  // NaN has one form.
  for (size_t i = 0; i < 64; i++)
    if (std::isnan(out[i * 64])) CHECK_IS(bits(out[i * 64]), 0x7fffffffu);
#undef IS
#undef X
#undef Y
#undef Z
}

void arithmetic64() {
  auto a = doubles(64, 1), b = doubles(64, 4), c = doubles(64, 9);
  auto out = snippet<double>("floating", "float64", 1, 64, std::vector<std::vector<double>>{a, b, c}, 64 * 16);
#define X a[i]
#define Y b[i]
#define IS(k, expected) EACH(out, 16, k, expected)
  IS(0, X + Y) IS(1, X - Y) IS(2, X * Y) IS(3, X / Y) IS(4, std::sqrt(X)) IS(5, 1 / X) IS(8, std::fabs(X)) IS(9, -X) IS(10, std::fma(X, Y, c[i])) IS(11, std::copysign(Y, X))
  IS(6, std::isnan(X) ? Y : std::isnan(Y) ? X : X == Y ? (std::signbit(X) ? X : Y) : std::fmin(X, Y))
  IS(7, std::isnan(X) ? Y : std::isnan(Y) ? X : X == Y ? (std::signbit(X) ? Y : X) : std::fmax(X, Y))
#undef IS
#undef X
#undef Y
}

// Slow and plain: the nearest of all values of a 16-bit type. `brain`: bf16.
double small(uint16_t h, bool brain) {
  int exponentBits = brain ? 8 : 5, mantissaBits = 15 - exponentBits, bias = (1 << (exponentBits - 1)) - 1;
  int exponent = h >> mantissaBits & ((1 << exponentBits) - 1), mantissa = h & ((1 << mantissaBits) - 1);
  double sign = h & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponentBits) - 1) return mantissa ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1 + std::ldexp(mantissa, -mantissaBits), exponent - bias) : std::ldexp(mantissa, 1 - bias - mantissaBits));
}
// mode as kModes; `lacks` is what v lacks of the exact value, which only tells at a tie.
uint16_t toSmall(long double v, bool brain, int mode, long double lacks = 0) {
  if (std::isnan(v)) return 0x7fff;
  uint16_t sign = std::signbit(v) ? 0x8000 : 0, infinity = brain ? 0x7f80 : 0x7c00;
  long double size = std::fabs(v);
  if (std::isinf(size)) return sign | infinity;
  // The largest that is not above: by halving.
  uint16_t low = 0, high = uint16_t(infinity - 1);
  while (low < high) {
    uint16_t middle = uint16_t((low + high + 1) / 2);
    if (small(middle, brain) <= size) low = middle;
    else high = uint16_t(middle - 1);
  }
  long double below = small(low, brain), above = low + 1 == infinity ? below + (below - small(uint16_t(low - 1), brain)) : static_cast<long double>(small(uint16_t(low + 1), brain));
  bool up = false;
  if (size > below) {
    if (sign) lacks = -lacks;
    if (mode == FE_TONEAREST) up = size - below > above - size || (size - below == above - size && (lacks > 0 || (lacks == 0 && (low & 1))));
    if (mode == FE_UPWARD) up = !sign;
    if (mode == FE_DOWNWARD) up = sign != 0;
  }
  return uint16_t(sign | (low + (up ? 1 : 0)));
}

void arithmetic16() {
  std::vector<uint16_t> a(64), b(64), c(64);
  auto wa = words(64, 11), wb = words(64, 12), wc = words(64, 13);
  const uint16_t corners[] = {0, 0x8000, 0x3c00, 0x7c00, 0xfc00, 0x7e00, 1, 0x3ff, 0x3f80, 0x7bff};
  for (size_t i = 0; i < 64; i++) {
    a[i] = i < 20 ? corners[i % 10] : uint16_t(wa[i] * 2654435761u >> 9);
    b[i] = i < 20 ? corners[(i * 3 + i / 10) % 10] : uint16_t(i % 4 == 0 ? a[i] ^ 3 : wb[i] * 2654435761u >> 11);
    c[i] = uint16_t(wc[i] * 2654435761u >> 12);
  }
  auto out = snippet<uint16_t>("floating", "float16", 1, 64, std::vector<std::vector<uint16_t>>{a, b, c}, 64 * 16);
  for (size_t i = 0; i < 64; i++) {
    auto half = [](uint16_t h) { return static_cast<long double>(small(h, false)); };
    auto brain = [](uint16_t h) { return static_cast<long double>(small(h, true)); };
    auto check = [&](int k, long double p, bool isBrain, long double q = -0.0L) {
      long double sum = p + q, part = sum - p, lacks = (p - (sum - part)) + (q - part);
      uint16_t result = out[i * 16 + size_t(k)], want = toSmall(sum, isBrain, FE_TONEAREST, lacks);
      CHECK_IS(result, want);
    };
    check(0, half(a[i]) + half(b[i]), false);
    check(1, half(a[i]) - half(b[i]), false);
    check(2, half(a[i]) * half(b[i]), false);
    check(3, half(a[i]) * half(b[i]), false, half(c[i]));
    check(9, half(a[i]) + half(b[i]), false);
    check(10, half(b[i]) + half(c[i]), false);
    check(6, brain(a[i]) * brain(b[i]), true, brain(c[i]));
    long double relu = brain(a[i]) * brain(b[i]) + brain(c[i]);
    if (relu < 0) check(8, 0, true);
    else check(8, brain(a[i]) * brain(b[i]), true, brain(c[i]));
    check(11, brain(a[i]) * brain(b[i]), true, brain(a[i]));
    check(12, brain(b[i]) * brain(c[i]), true, brain(b[i]));
    float x = float(half(a[i])), y = float(half(b[i]));
    check(4, least(x, y), false);
    check(5, std::isnan(x) || std::isnan(y) ? NAN : most(x, y), false);
    check(7, most(float(brain(a[i])), float(brain(b[i]))), true);
  }
}

template <class T> T toWhole(double v, int mode) {
  if (std::isnan(v)) return 0;
  double r = under(mode, [&] { return std::nearbyint(opaque(v)); });
  if (r >= std::ldexp(1.0, int(sizeof(T) * 8) - (std::is_signed_v<T> ? 1 : 0))) return std::numeric_limits<T>::max();
  if (r <= double(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  return T(r);
}

void convertsFloat() {
  auto x = floats(64, 3);
  for (size_t i = 40; i < 64; i++) x[i] = float(int(i) - 50) * 0.5f + (i % 4 == 3 ? 0.25f : 0.0f);
  x[33] = 65519.0f, x[34] = 65520.0f, x[35] = 3e9f, x[36] = -3e9f, x[37] = 1e19f, x[38] = 6.1e-5f, x[39] = 1e-7f;
  auto out = snippet<uint64_t>("convert", "convert_float", 1, 64, std::vector<std::vector<float>>{x}, 64 * 40);
#define IS(k, expected) EACH(out, 40, k, expected)
  const int n = FE_TONEAREST, z = FE_TOWARDZERO, d = FE_DOWNWARD, u = FE_UPWARD;
  IS(0, uint32_t(toWhole<int32_t>(x[i], n))) IS(1, uint32_t(toWhole<int32_t>(x[i], z))) IS(2, uint32_t(toWhole<int32_t>(x[i], d))) IS(3, uint32_t(toWhole<int32_t>(x[i], u)))
  IS(4, toWhole<uint32_t>(x[i], n)) IS(5, toWhole<uint32_t>(x[i], z)) IS(6, uint64_t(toWhole<int64_t>(x[i], z))) IS(7, toWhole<uint64_t>(x[i], u))
  for (int m = 0; m < 4; m++) IS(8 + m, std::isnan(x[i]) ? 0x7fffffffu : bits(under(kModes[m], [&] { return std::nearbyint(opaque(x[i])); })))
  IS(12, bits(clamped(x[i]))) IS(13, std::isnan(x[i]) ? 0x7fffffffu : bits(flushed(x[i]))) IS(14, std::isnan(x[i]) ? 0x7fffffffffffffffull : bits(double(x[i])))
  for (int m = 0; m < 4; m++) IS(15 + m, toSmall(x[i], false, kModes[m]))
  IS(19, toSmall(x[i], true, n)) IS(20, toSmall(x[i], true, z)) IS(21, toSmall(x[i] <= 0 ? 0 : x[i], true, n))
  IS(22, std::isnan(x[i]) ? 0x7fffffffu : std::isinf(x[i]) ? bits(x[i]) : (bits(x[i]) + 0x1000) & ~0x1fffu)
  IS(23, uint32_t(toSmall(x[i], true, n)) << 16 | toSmall(-x[i], true, n)) IS(24, uint32_t(toSmall(x[i], false, z)) << 16 | toSmall(-x[i], false, z))
  IS(25, uint16_t(toWhole<int16_t>(x[i], n))) IS(26, toWhole<uint16_t>(x[i], z)) IS(27, uint32_t(int32_t(toWhole<int8_t>(x[i], n))))
#if defined(__F16C__)
  // The processor's own.
  for (size_t i = 0; i < 64; i++) {
    if (std::isnan(x[i])) continue;
    CHECK_IS(out[i * 40 + 15], uint64_t(uint16_t(_cvtss_sh(x[i], _MM_FROUND_TO_NEAREST_INT))));
    CHECK_IS(out[i * 40 + 17], uint64_t(uint16_t(_cvtss_sh(x[i], _MM_FROUND_TO_NEG_INF))));
  }
#endif
}

void convertsDouble() {
  auto x = doubles(64, 6);
  x[40] = 1 + 0x1p-24, x[41] = 1 + 0x1.8p-24, x[42] = -1e-46, x[43] = 1e300, x[44] = 9.3e18, x[45] = 2.5, x[46] = -2147483649.5, x[47] = 65519.99999999999;
  auto out = snippet<uint64_t>("convert", "convert_double", 1, 64, std::vector<std::vector<double>>{x}, 64 * 16);
#undef IS
#define IS(k, expected) EACH(out, 16, k, expected)
  for (int m = 0; m < 4; m++) IS(m, std::isnan(x[i]) ? 0x7fffffffu : bits(under(kModes[m], [&] { return opaque(float(opaque(x[i]))); })))
  IS(4, uint64_t(toWhole<int64_t>(x[i], FE_TONEAREST))) IS(5, uint32_t(toWhole<int32_t>(x[i], FE_TOWARDZERO))) IS(6, toWhole<uint64_t>(x[i], FE_DOWNWARD))
  IS(7, std::isnan(x[i]) ? 0x7fffffffffffffffull : bits(std::ceil(x[i]))) IS(8, toSmall(x[i], false, FE_TONEAREST))
}

void convertsInteger() {
  auto x = longs(64, 4);
  x[30] = 16777217, x[31] = 0x7fffffbf, x[32] = 9007199254740993ull, x[33] = uint64_t(-16777219ll);
  auto out = snippet<uint64_t>("convert", "convert_integer", 1, 64, std::vector<std::vector<uint64_t>>{x}, 64 * 40);
#undef IS
#define IS(k, expected) EACH(out, 40, k, expected)
  for (int m = 0; m < 4; m++) IS(m, bits(under(kModes[m], [&] { return opaque(float(opaque(int32_t(x[i])))); })))
  IS(4, bits(float(uint32_t(x[i])))) IS(5, bits(float(int64_t(x[i])))) IS(6, bits(under(FE_TOWARDZERO, [&] { return opaque(float(opaque(x[i]))); })))
  IS(7, bits(under(FE_DOWNWARD, [&] { return opaque(float(opaque(int64_t(x[i])))); }))) IS(8, bits(under(FE_UPWARD, [&] { return opaque(float(opaque(x[i]))); })))
  IS(9, bits(double(int64_t(x[i])))) IS(10, bits(under(FE_TOWARDZERO, [&] { return opaque(double(opaque(int64_t(x[i])))); })))
  IS(11, bits(under(FE_UPWARD, [&] { return opaque(double(opaque(x[i]))); }))) IS(12, bits(double(uint32_t(x[i]))))
  IS(13, uint32_t(int32_t(int8_t(x[i])))) IS(14, uint8_t(x[i])) IS(15, int64_t(int32_t(x[i]))) IS(16, uint32_t(x[i])) IS(17, uint32_t(x[i])) IS(18, int64_t(int8_t(x[i])))
  IS(19, int64_t(int16_t(x[i]))) IS(20, uint16_t(x[i])) IS(21, uint32_t(int32_t(int16_t(x[i])))) IS(22, uint16_t(int16_t(int8_t(x[i]))))
  auto within = [](int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; };
  IS(23, uint32_t(within(int32_t(x[i]), -128, 127))) IS(24, within(int32_t(x[i]), 0, 255)) IS(25, uint16_t(within(int32_t(x[i]), -32768, 32767)))
  IS(26, within(int64_t(x[i]), 0, 0xffffffffll))
  IS(27, std::isnan(small(uint16_t(x[i]), false)) ? 0x7fffffffu : bits(float(small(uint16_t(x[i]), false)))) IS(28, uint32_t(toWhole<int32_t>(small(uint16_t(x[i]), false), FE_TOWARDZERO)))
  IS(29, toSmall(int32_t(x[i]), false, FE_TONEAREST)) IS(30, toSmall(std::floor(small(uint16_t(x[i]), false)), false, FE_TONEAREST))
  IS(31, std::isnan(small(uint16_t(x[i]), false)) ? 0x7fffffffffffffffull : bits(small(uint16_t(x[i]), false))) IS(32, bits(float(uint16_t(x[i])))) IS(33, bits(float(int8_t(x[i]))))
#undef IS
}

}  // namespace

void floatTests() {
  arithmetic32();
  arithmetic64();
  arithmetic16();
}
void convertTests() {
  convertsFloat();
  convertsDouble();
  convertsInteger();
}

}  // namespace testing
