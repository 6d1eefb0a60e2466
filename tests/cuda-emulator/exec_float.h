// What floating-point handlers share.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulator {

inline float toFloat(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t toBits(float v) { return __builtin_bit_cast(uint32_t, v); }

// Of arithmetic: NaN is 0x7fffffff.
inline float canonical(float v) { return v == v ? v : toFloat(0x7fffffffu); }
inline double canonical(double v) { return v == v ? v : __builtin_bit_cast(double, 0x7fffffffffffffffull); }
// Subnormal numbers become zero of the same sign.
inline float flush(float v) {
  uint32_t bits = toBits(v);
  return toFloat((bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits);
}

float halfToFloat(uint16_t bits);
// fp16 and bf16 are exact in fp32; to them by rounding: n nearest even, z zero, m down, p up.
enum class Round : uint8_t { Nearest, Zero, Down, Up, NearestAway };
inline float bf16ToFloat(uint16_t bits) { return toFloat(uint32_t(bits) << 16); }
uint16_t doubleToHalf(double v, Round round);
uint16_t floatToBf16(float v, Round round);

}  // namespace emulator
