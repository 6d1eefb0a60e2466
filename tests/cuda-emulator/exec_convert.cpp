// cvt.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "exec_float.h"
#include "exec_warp.h"
#include "ptx_decode.h"

namespace emulator {

float halfToFloat(uint16_t h) {
  uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return toFloat(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) return toFloat(sign | toBits(float(mantissa) * 0x1p-24f));
  return toFloat(sign | (exponent + 112) << 23 | mantissa << 13);
}

namespace {
// To a whole number.
double whole(double v, Round round) {
  switch (round) {
    case Round::Nearest: return std::nearbyint(v);
    case Round::Zero: return std::trunc(v);
    case Round::Down: return std::floor(v);
    case Round::Up: return std::ceil(v);
    default: return std::round(v);
  }
}
}  // namespace

uint16_t doubleToHalf(double v, Round round) {
  if (v != v) return 0x7fff;
  uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  if (std::isinf(v)) return sign | 0x7c00;
  if (v == 0) return sign;
  int exponent = std::max(std::ilogb(v), -14);
  double r = std::ldexp(whole(std::ldexp(v, 10 - exponent), round), exponent - 10);
  double size = std::fabs(r);
  if (size > 65504) {
    bool infinite = round == Round::Nearest || round == Round::NearestAway || (round == Round::Up && !sign) || (round == Round::Down && sign);
    return uint16_t(sign | (infinite ? 0x7c00 : 0x7bff));
  }
  if (size < 0x1p-14) return uint16_t(sign | uint16_t(std::ldexp(size, 24)));
  int e = std::ilogb(size);
  return uint16_t(sign | (e + 15) << 10 | (uint16_t(std::ldexp(size, 10 - e)) & 0x3ff));
}

uint16_t floatToBf16(float v, Round round) {
  uint32_t bits = toBits(v);
  if (v != v) return 0x7fff;
  if (round == Round::Zero) return uint16_t(bits >> 16);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

namespace {

constexpr uint8_t kFtz = 1, kSat = 2, kWideSource = 4, kWideTarget = 8, kRelu = 16, kWhole = 32;

struct Half {};
struct Brain {};

template <class T> constexpr bool isReal = std::is_floating_point_v<T> || std::is_same_v<T, Half> || std::is_same_v<T, Brain>;

// Register's bits to value; fp16 and bf16 as float.
template <class S> auto read(uint64_t bits) {
  if constexpr (std::is_same_v<S, Half>) return halfToFloat(uint16_t(bits));
  else if constexpr (std::is_same_v<S, Brain>) return bf16ToFloat(uint16_t(bits));
  else if constexpr (std::is_same_v<S, float>) return toFloat(uint32_t(bits));
  else if constexpr (std::is_same_v<S, double>) return __builtin_bit_cast(double, bits);
  else return S(bits);
}

template <class D, class V> D toInteger(V v, Round round) {
  if (v != v) return 0;
  double r = whole(double(v), round);
  using L = std::numeric_limits<D>;
  if (r <= double(L::min())) return L::min();
  if (r >= double(L::max())) return L::max();
  return D(r);
}

template <class V> float toFloat32(V v, Round round) {
  float r = float(v);
  if (round == Round::Nearest || v != v) return r;
  // Exact: a long double has 64 bits of mantissa.
  long double exact = static_cast<long double>(v), got = static_cast<long double>(r);
  bool up = round == Round::Up || (round == Round::Zero && exact < 0);
  if (up) return got < exact ? std::nextafter(r, std::numeric_limits<float>::infinity()) : r;
  return got > exact ? std::nextafter(r, -std::numeric_limits<float>::infinity()) : r;
}
template <class V> double toFloat64(V v, Round round) {
  double r = double(v);
  if (round == Round::Nearest || v != v) return r;
  long double exact = static_cast<long double>(v), got = static_cast<long double>(r);
  bool up = round == Round::Up || (round == Round::Zero && exact < 0);
  if (up) return got < exact ? std::nextafter(r, std::numeric_limits<double>::infinity()) : r;
  return got > exact ? std::nextafter(r, -std::numeric_limits<double>::infinity()) : r;
}

template <class D, class S> uint64_t convert(uint64_t bits, Round round, uint8_t flags) {
  auto v = read<S>(bits);
  if constexpr (!isReal<D>) {
    if constexpr (isReal<S>) {
      if constexpr (std::is_same_v<S, float>)
        if (flags & kFtz) v = flush(v);
      return uint64_t(std::make_unsigned_t<D>(toInteger<D>(v, round)));
    } else {
      if (flags & kSat) {
        __int128 x = v;
        x = std::min<__int128>(std::max<__int128>(x, std::numeric_limits<D>::min()), std::numeric_limits<D>::max());
        return uint64_t(std::make_unsigned_t<D>(D(x)));
      }
      return uint64_t(std::make_unsigned_t<D>(D(v)));
    }
  } else {
    if constexpr (std::is_same_v<S, float>)
      if (flags & kFtz) v = flush(v);
    if constexpr (isReal<S>) {
      if (flags & kWhole) {
        v = static_cast<decltype(v)>(whole(double(v), round));
        round = Round::Nearest;
      }
      if (flags & kSat) v = v != v ? 0 : v <= 0 ? 0 : v > 1 ? 1 : v;
      if (flags & kRelu) v = v <= 0 ? 0 : v;
    } else if (flags & kSat) {
      if (v <= 0) v = 0;
      if (v > 1) v = 1;
    }
    if constexpr (std::is_same_v<D, Half>) {
      return doubleToHalf(double(v), round);
    } else if constexpr (std::is_same_v<D, Brain>) {
      return floatToBf16(float(v), round);
    } else if constexpr (std::is_same_v<D, float>) {
      float r = canonical(toFloat32(v, round));
      if (flags & kFtz) r = flush(r);
      return toBits(r);
    } else {
      return __builtin_bit_cast(uint64_t, canonical(toFloat64(v, round)));
    }
  }
}

template <class D, class S> void slow(Warp& w, const Instruction& in, uint32_t lanes) {
  Round round = Round(in.mode);
  eachLane(lanes, [&](uint32_t i) {
    uint64_t bits = in.flags & kWideSource ? w.at<uint64_t>(in.a)[i] : w.at<uint32_t>(in.a)[i];
    uint64_t r = convert<D, S>(bits, round, in.flags);
    // A wider register takes the value extended.
    if constexpr (std::is_integral_v<D> && std::is_signed_v<D>) {
      if (in.flags & kWideTarget) r = uint64_t(int64_t(D(r)));
      else if (in.offset == 32) r = uint32_t(int32_t(D(r)));
    }
    if (in.flags & kWideTarget) w.at<uint64_t>(in.d)[i] = r;
    else w.at<uint32_t>(in.d)[i] = uint32_t(r);
  });
}

// The usual forms, lane loops that the compiler makes vectors of.
template <class D, class S, bool WIDE_SOURCE> void integers(Warp& w, const Instruction& in, uint32_t lanes) {
  using A = std::conditional_t<WIDE_SOURCE, uint64_t, uint32_t>;
  using R = std::conditional_t<sizeof(D) == 8, uint64_t, uint32_t>;
  A* a = w.at<A>(in.a);
  if (in.offset == 32) {
    each(w.at<uint32_t>(in.d), lanes, [=](uint32_t i) { return uint32_t(int32_t(D(S(a[i])))); });
    return;
  }
  each(w.at<R>(in.d), lanes, [=](uint32_t i) { return R(std::make_unsigned_t<D>(D(S(a[i])))); });
}
template <class D, class S> void nearest(Warp& w, const Instruction& in, uint32_t lanes) {
  S* a = w.at<S>(in.a);
  each(w.at<D>(in.d), lanes, [=](uint32_t i) { return canonical(D(a[i])); });
}
// fp32 to int32, towards zero.
void truncate(Warp& w, const Instruction& in, uint32_t lanes) {
  float* a = w.at<float>(in.a);
  each(w.at<int32_t>(in.d), lanes, [=](uint32_t i) {
    float v = a[i];
    v = v < 2147483648.0f ? v : 2147483648.0f;
    v = v > -2147483648.0f ? v : -2147483648.0f;
    int32_t r = v >= 2147483648.0f ? INT32_MAX : int32_t(v < 2147483648.0f ? v : 0.0f);
    return a[i] == a[i] ? r : 0;
  });
}
void roundWhole(Warp& w, const Instruction& in, uint32_t lanes) {
  float* a = w.at<float>(in.a);
  each(w.at<float>(in.d), lanes, [=](uint32_t i) { return canonical(__builtin_rintf(a[i])); });
}

// cvt.rn.f16x2.f32 d, a, b: a goes to the upper half.
template <bool BRAIN> void two(Warp& w, const Instruction& in, uint32_t lanes) {
  float *a = w.at<float>(in.a), *b = w.at<float>(in.b);
  Round round = Round(in.mode);
  bool relu = in.flags & kRelu;
  auto one = [=](float v) -> uint32_t {
    if (relu && v <= 0) v = 0;
    return BRAIN ? floatToBf16(v, round) : doubleToHalf(v, round);
  };
  eachLane(lanes, [&](uint32_t i) { w.at<uint32_t>(in.d)[i] = one(a[i]) << 16 | one(b[i]); });
}
// To nearest, ties away from zero, 10 bits of mantissa.
void tf32(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t* a = w.at<uint32_t>(in.a);
  each(w.at<uint32_t>(in.d), lanes, [=](uint32_t i) {
    uint32_t v = a[i];
    if ((v & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
    return (v & 0x7f800000u) == 0x7f800000u ? v : (v + 0x1000u) & ~0x1fffu;
  });
}

template <class D, class S> Handler pick(Decoder& d) {
  uint8_t flags = d.in.flags;
  bool plain = !(flags & (kFtz | kSat | kRelu)), sameWidths = ((flags & kWideSource) != 0) == (sizeof(S) == 8) && !(flags & kWideTarget) == (sizeof(D) != 8);
  if constexpr (std::is_integral_v<D> && std::is_integral_v<S>) {
    if (plain && !(flags & kWideTarget) == (sizeof(D) != 8)) return flags & kWideSource ? integers<D, S, true> : integers<D, S, false>;
  }
  Round round = Round(d.in.mode);
  if constexpr (std::is_same_v<D, float> && (std::is_same_v<S, int32_t> || std::is_same_v<S, uint32_t> || std::is_same_v<S, double> || std::is_same_v<S, int64_t>)) {
    if (plain && sameWidths && round == Round::Nearest && !(flags & kWhole)) return nearest<float, S>;
  }
  if constexpr (std::is_same_v<D, double> && (std::is_same_v<S, int32_t> || std::is_same_v<S, uint32_t> || std::is_same_v<S, float> || std::is_same_v<S, int64_t>)) {
    if (plain && sameWidths && round == Round::Nearest && !(flags & kWhole)) return nearest<double, S>;
  }
  if constexpr (std::is_same_v<D, int32_t> && std::is_same_v<S, float>) {
    if (plain && sameWidths && round == Round::Zero) return truncate;
  }
  if constexpr (std::is_same_v<D, float> && std::is_same_v<S, float>) {
    if (plain && (flags & kWhole) && round == Round::Nearest) return roundWhole;
  }
  return slow<D, S>;
}
template <class D> Handler pickSource(Decoder& d, Type s) {
  switch (s) {
    case Type::U8: return pick<D, uint8_t>(d);
    case Type::S8: return pick<D, int8_t>(d);
    case Type::U16: return pick<D, uint16_t>(d);
    case Type::S16: return pick<D, int16_t>(d);
    case Type::U32: return pick<D, uint32_t>(d);
    case Type::S32: return pick<D, int32_t>(d);
    case Type::U64: return pick<D, uint64_t>(d);
    case Type::S64: return pick<D, int64_t>(d);
    case Type::F16: return slow<D, Half>;
    case Type::F32: return pick<D, float>(d);
    case Type::F64: return pick<D, double>(d);
    default: return nullptr;
  }
}
Handler pickTarget(Decoder& d, Type t, Type s) {
  switch (t) {
    case Type::U8: return pickSource<uint8_t>(d, s);
    case Type::S8: return pickSource<int8_t>(d, s);
    case Type::U16: return pickSource<uint16_t>(d, s);
    case Type::S16: return pickSource<int16_t>(d, s);
    case Type::U32: return pickSource<uint32_t>(d, s);
    case Type::S32: return pickSource<int32_t>(d, s);
    case Type::U64: return pickSource<uint64_t>(d, s);
    case Type::S64: return pickSource<int64_t>(d, s);
    case Type::F16: return pickSource<Half>(d, s);
    case Type::F32: return pickSource<float>(d, s);
    case Type::F64: return pickSource<double>(d, s);
    default: return nullptr;
  }
}

struct RoundName {
  const char* name;
  Round round;
};
constexpr RoundName kRounds[] = {{"rn", Round::Nearest}, {"rz", Round::Zero}, {"rm", Round::Down}, {"rp", Round::Up}, {"rna", Round::NearestAway}};
constexpr RoundName kWholes[] = {{"rni", Round::Nearest}, {"rzi", Round::Zero}, {"rmi", Round::Down}, {"rpi", Round::Up}};

void decodeCvt(Decoder& d) {
  bool rounded = false, wholes = false;
  Round round = Round::Nearest;
  for (const RoundName& r : kRounds)
    if (!rounded && d.take(r.name)) rounded = true, round = r.round;
  for (const RoundName& r : kWholes)
    if (!rounded && !wholes && d.take(r.name)) wholes = true, round = r.round;
  bool relu = d.take("relu"), ftz = d.take("ftz"), sat = d.take("sat");
  Type t = d.takeType(), s = d.takeType();
  d.in.mode = uint8_t(round);
  d.in.flags = uint8_t((ftz ? kFtz : 0) | (sat ? kSat : 0) | (relu ? kRelu : 0));
  if (t == Type::TF32) {
    if (round != Round::NearestAway || ftz || sat || relu || s != Type::F32) d.fail("no such form");
    d.expect(2);
    d.in.d = d.destination(0, Type::B32);
    d.in.a = d.source(1, Type::F32);
    d.in.handler = tf32;
    return;
  }
  bool nearOrZero = rounded && (round == Round::Nearest || round == Round::Zero);
  if (t == Type::F16x2 || t == Type::BF16x2) {
    if (!nearOrZero || ftz || sat || s != Type::F32) d.fail("no such form");
    d.expect(3);
    d.in.d = d.destination(0, Type::B32);
    d.in.a = d.source(1, Type::F32);
    d.in.b = d.source(2, Type::F32);
    d.in.handler = t == Type::BF16x2 ? two<true> : two<false>;
    return;
  }
  if (round == Round::NearestAway) d.fail(".rna is for .tf32");
  d.expect(2);
  if (t == Type::BF16) {
    if (!nearOrZero || ftz || sat || s != Type::F32) d.fail("no such form");
    d.in.d = d.destination(0, Type::B16);
    d.in.a = d.source(1, Type::F32);
    d.in.handler = slow<Brain, float>;
    return;
  }
  if (s == Type::BF16) d.fail("sm_80 does not convert from bf16");
  if (relu && !(t == Type::F16 && s == Type::F32)) d.fail(".relu is not known here");
  bool real = isFloat(t), fromReal = isFloat(s);
  // Which conversions round, and so must say how.
  if (!real && fromReal && !wholes) d.fail("a rounding to an integer is missing");
  if (!real && !fromReal && (rounded || wholes)) d.fail("no rounding between integers");
  if (real && !fromReal && (!rounded || wholes)) d.fail("a rounding is missing");
  if (!real && rounded) d.fail("a rounding to an integer is missing");
  if (real && fromReal) {
    if (bitsOf(t) < bitsOf(s) && (!rounded || wholes)) d.fail("a rounding is missing");
    if (bitsOf(t) > bitsOf(s) && (rounded || wholes)) d.fail("nothing is rounded here");
    if (t == s && rounded) d.fail("nothing is rounded here");
    if (wholes) d.in.flags |= kWhole;
  }
  if (ftz && t != Type::F32 && s != Type::F32) d.fail(".ftz is for .f32");
  bool wideTarget, wideSource;
  // fp16 lies in untyped registers.
  d.in.d = d.destinationWide(d.operand(0), t == Type::F16 ? Type::B16 : t, wideTarget);
  d.in.a = d.sourceWide(d.operand(1), s == Type::F16 ? Type::B16 : s, wideSource);
  if (wideTarget) d.in.flags |= kWideTarget;
  if (wideSource) d.in.flags |= kWideSource;
  if (isSigned(t) && bitsOf(t) < 32 && bitsOf(d.registerType(d.operand(0))) == 32) d.in.offset = 32;
  // A signed byte in a 16-bit register is extended to 16 bits.
  if (t == Type::S8 && bitsOf(d.registerType(d.operand(0))) == 16) {
    if (fromReal || sat) d.fail("this form is not known");
    d.in.handler = pickSource<int16_t>(d, s == Type::S8 || bitsOf(s) > 8 ? Type::S8 : s);
    return;
  }
  d.in.handler = pickTarget(d, t, s);
  if (!d.in.handler) d.fail("no such types");
}

}  // namespace

std::vector<Opcode> convertOpcodes() { return {{"cvt", decodeCvt}}; }

}  // namespace emulator
