// Floating-point arithmetic. What the hardware approximates (.approx, .full) is computed from the exact function and rounded to fp32.
#include "exec_float.h"

#include <algorithm>

#include "exec_warp.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

constexpr uint8_t kFtz = 1, kSat = 2, kNan = 4;

struct Add { template <class T> static T f(T a, T b) { return a + b; } };
struct Sub { template <class T> static T f(T a, T b) { return a - b; } };
struct Mul { template <class T> static T f(T a, T b) { return a * b; } };
struct Div { template <class T> static T f(T a, T b) { return a / b; } };
// Of a number and NaN, the number; -0 lies below +0.
struct Min {
  template <class T> static T f(T a, T b) {
    T r = a < b ? a : b;
    r = a == b ? (std::signbit(a) ? a : b) : r;
    return a != a ? b : b != b ? a : r;
  }
};
struct Max {
  template <class T> static T f(T a, T b) {
    T r = a > b ? a : b;
    r = a == b ? (std::signbit(a) ? b : a) : r;
    return a != a ? b : b != b ? a : r;
  }
};
template <class Op> struct OrNan { template <class T> static T f(T a, T b) { return a != a || b != b ? T(NAN) : Op::f(a, b); } };

template <class Op, bool FTZ> void two32(Warp& w, const Instruction& in, uint32_t lanes) {
  float *a = w.at<float>(in.a), *b = w.at<float>(in.b);
  each(w.at<float>(in.d), lanes, [=](uint32_t i) {
    float r = canonical(FTZ ? Op::f(flush(a[i]), flush(b[i])) : Op::f(a[i], b[i]));
    return FTZ ? flush(r) : r;
  });
}
template <class Op> void two64(Warp& w, const Instruction& in, uint32_t lanes) {
  double *a = w.at<double>(in.a), *b = w.at<double>(in.b);
  each(w.at<double>(in.d), lanes, [=](uint32_t i) { return canonical(Op::f(a[i], b[i])); });
}
template <bool FTZ> void fma32(Warp& w, const Instruction& in, uint32_t lanes) {
  float *a = w.at<float>(in.a), *b = w.at<float>(in.b), *c = w.at<float>(in.c);
  each(w.at<float>(in.d), lanes, [=](uint32_t i) {
    float r = canonical(FTZ ? std::fma(flush(a[i]), flush(b[i]), flush(c[i])) : std::fma(a[i], b[i], c[i]));
    return FTZ ? flush(r) : r;
  });
}
void fma64(Warp& w, const Instruction& in, uint32_t lanes) {
  double *a = w.at<double>(in.a), *b = w.at<double>(in.b), *c = w.at<double>(in.c);
  each(w.at<double>(in.d), lanes, [=](uint32_t i) { return canonical(std::fma(a[i], b[i], c[i])); });
}

// --- directed rounding and saturation -----------------------------------------------------------------------------------------------------

// The sum of `value`, rounded to nearest, and what it lacks, rounded to odd: a later rounding to fewer bits then is as if of the exact value.
double toOdd(double value, double lacks) {
  if (lacks == 0 || !std::isfinite(value)) return value;
  uint64_t bits = __builtin_bit_cast(uint64_t, value);
  if (bits & 1) return value;
  if (value == 0) return lacks > 0 ? 0x1p-1074 : -0x1p-1074;
  bits = (value > 0) == (lacks > 0) ? bits | 1 : bits - 1;
  return __builtin_bit_cast(double, bits);
}
double oddSum(double a, double b) {
  double s = a + b, bb = s - a;
  return toOdd(s, (a - (s - bb)) + (b - bb));
}

float roundTo32(double v, Round round) {
  float r = float(v);  // nearest
  if (round == Round::Nearest || v != v || double(r) == v) return r;
  bool up = round == Round::Up || (round == Round::Zero && v < 0);
  if (up) return double(r) < v ? std::nextafter(r, INFINITY) : r;
  return double(r) > v ? std::nextafter(r, -INFINITY) : r;
}

enum Kind : uint8_t { kAdd, kSub, kMul, kFma, kDiv, kRcp, kSqrt };

template <int KIND> void slow32(Warp& w, const Instruction& in, uint32_t lanes) {
  float *d = w.at<float>(in.d), *a = w.at<float>(in.a), *b = w.at<float>(in.b), *c = w.at<float>(in.c);
  Round round = Round(in.mode);
  eachLane(lanes, [&](uint32_t i) {
    float x = a[i], y = KIND == kRcp || KIND == kSqrt ? 0 : b[i], z = KIND == kFma ? c[i] : 0;
    if (in.flags & kFtz) x = flush(x), y = flush(y), z = flush(z);
    double v;
    if (KIND == kAdd) v = oddSum(x, y);
    if (KIND == kSub) v = oddSum(x, -double(y));
    if (KIND == kMul) v = double(x) * y;
    if (KIND == kFma) v = oddSum(double(x) * y, z);
    if (KIND == kDiv || KIND == kRcp) {
      double n = KIND == kRcp ? 1.0 : x, e = KIND == kRcp ? x : y;
      v = n / e;
      // The remainder's sign tells on which side the quotient lies.
      if (std::isfinite(v) && v != 0) {
        double rest = std::fma(-v, e, n);
        v = toOdd(v, rest == 0 ? 0 : (rest > 0) == (e > 0) ? 1 : -1);
      }
    }
    if (KIND == kSqrt) {
      v = std::sqrt(double(x));
      if (std::isfinite(v) && v != 0) v = toOdd(v, std::fma(-v, v, double(x)));
    }
    // A sum that is zero of two parts that are not has the sign of its rounding.
    if ((KIND == kAdd || KIND == kSub || KIND == kFma) && v == 0 && round == Round::Down) {
      double p = KIND == kFma ? double(x) * y : x, q = KIND == kFma ? z : KIND == kSub ? -y : y;
      if (std::signbit(p) != std::signbit(q)) v = -0.0;
    }
    float r = canonical(roundTo32(v, round));
    if (in.flags & kFtz) r = flush(r);
    if (in.flags & kSat) r = r != r ? 0 : r < 0 ? 0 : r > 1 ? 1 : r == 0 ? 0 : r;
    d[i] = r;
  });
}

// --- one operand ----------------------------------------------------------------------------------------------------------------------------

struct Rcp { template <class T> static T f(T a) { return T(1) / a; } };
struct Sqrt { template <class T> static T f(T a) { return std::sqrt(a); } };
struct Rsqrt { template <class T> static T f(T a) { return T(1.0 / std::sqrt(double(a))); } };
struct Ex2 { static float f(float a) { return ::exp2f(a); } };
struct Lg2 { static float f(float a) { return ::log2f(a); } };
struct Sin { static float f(float a) { return float(std::sin(double(a))); } };
struct Cos { static float f(float a) { return float(std::cos(double(a))); } };
struct Tanh { static float f(float a) { return float(std::tanh(double(a))); } };
template <class T, class Op, bool FTZ> void one(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) {
    if constexpr (FTZ) return T(flush(canonical(Op::f(flush(a[i])))));
    else return T(canonical(Op::f(a[i])));
  });
}
template <bool FTZ> void abs32(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t* a = w.at<uint32_t>(in.a);
  each(w.at<uint32_t>(in.d), lanes, [=](uint32_t i) { return toBits(FTZ ? flush(toFloat(a[i])) : toFloat(a[i])) & 0x7fffffffu; });
}
template <bool FTZ> void neg32(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t* a = w.at<uint32_t>(in.a);
  each(w.at<uint32_t>(in.d), lanes, [=](uint32_t i) { return toBits(FTZ ? flush(toFloat(a[i])) : toFloat(a[i])) ^ 0x80000000u; });
}
void abs64(Warp& w, const Instruction& in, uint32_t lanes) {
  uint64_t* a = w.at<uint64_t>(in.a);
  each(w.at<uint64_t>(in.d), lanes, [=](uint32_t i) { return a[i] & ~(1ull << 63); });
}
void neg64(Warp& w, const Instruction& in, uint32_t lanes) {
  uint64_t* a = w.at<uint64_t>(in.a);
  each(w.at<uint64_t>(in.d), lanes, [=](uint32_t i) { return a[i] ^ 1ull << 63; });
}
void copysign32(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *a = w.at<uint32_t>(in.a), *b = w.at<uint32_t>(in.b);
  each(w.at<uint32_t>(in.d), lanes, [=](uint32_t i) { return (a[i] & 0x80000000u) | (b[i] & 0x7fffffffu); });
}
void copysign64(Warp& w, const Instruction& in, uint32_t lanes) {
  uint64_t *a = w.at<uint64_t>(in.a), *b = w.at<uint64_t>(in.b);
  each(w.at<uint64_t>(in.d), lanes, [=](uint32_t i) { return (a[i] & 1ull << 63) | (b[i] & ~(1ull << 63)); });
}
// 0: finite, 1: infinite, 2: not a number, ... see testp.
template <class T> void testp(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  uint32_t m = 0;
  eachLane(lanes, [&](uint32_t i) {
    bool r = in.mode == 0   ? std::isfinite(a[i])
             : in.mode == 1 ? std::isinf(a[i])
             : in.mode == 2 ? !std::isnan(a[i])
             : in.mode == 3 ? std::isnan(a[i])
             : in.mode == 4 ? std::isnormal(a[i])
                            : std::fpclassify(a[i]) == FP_SUBNORMAL;
    m |= uint32_t(r) << i;
  });
  uint32_t& d = w.word(in.d);
  d = (d & ~lanes) | m;
}

// --- fp16 and bf16 ----------------------------------------------------------------------------------------------------------------------

template <bool B> double widen16(uint32_t bits) { return B ? bf16ToFloat(uint16_t(bits)) : halfToFloat(uint16_t(bits)); }
template <bool B> uint32_t narrow16(double v) {
  if (v != v) return 0x7fff;
  return B ? floatToBf16(float(v), Round::Nearest) : doubleToHalf(v, Round::Nearest);
}
// bf16 by way of fp32: the double is rounded to odd in fp32 first, so that it is rounded once.
uint32_t bf16OfDouble(double v) {
  if (v != v) return 0x7fff;
  float f = float(v);
  if (double(f) != v && std::isfinite(f)) {
    uint32_t bits = toBits(roundTo32(v, Round::Zero));
    f = toFloat(bits | 1);
  }
  return floatToBf16(f, Round::Nearest);
}
template <int KIND, bool B> uint32_t half(uint32_t x, uint32_t y, uint32_t z, uint8_t flags) {
  double a = widen16<B>(x), b = widen16<B>(y), c = widen16<B>(z), r = 0;
  switch (KIND) {
    case 0: r = oddSum(a, b); break;
    case 1: r = oddSum(a, -b); break;
    case 2: r = a * b; break;
    case 3: r = oddSum(a * b, c); break;
    case 4: r = (flags & kNan) && (a != a || b != b) ? NAN : Min::f(a, b); break;
    case 5: r = (flags & kNan) && (a != a || b != b) ? NAN : Max::f(a, b); break;
    case 6: return x & 0x7fff;
    case 7: return (x ^ 0x8000) & 0xffff;
  }
  if (flags & kSat) r = r != r ? 0 : r < 0 ? 0 : r > 1 ? 1 : r;
  if (flags & 8) r = r > 0 ? r : r != r ? r : 0;  // .relu
  return B ? bf16OfDouble(r) : narrow16<false>(r);
}
template <int KIND, bool B> void half1(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *d = w.at<uint32_t>(in.d), *a = w.at<uint32_t>(in.a), *b = w.at<uint32_t>(in.b), *c = w.at<uint32_t>(in.c);
  eachLane(lanes, [&](uint32_t i) { d[i] = half<KIND, B>(a[i], b[i], c[i], in.flags); });
}
template <int KIND, bool B> void half2(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *d = w.at<uint32_t>(in.d), *a = w.at<uint32_t>(in.a), *b = w.at<uint32_t>(in.b), *c = w.at<uint32_t>(in.c);
  eachLane(lanes, [&](uint32_t i) {
    d[i] = half<KIND, B>(a[i] & 0xffff, b[i] & 0xffff, c[i] & 0xffff, in.flags) | half<KIND, B>(a[i] >> 16, b[i] >> 16, c[i] >> 16, in.flags) << 16;
  });
}
template <int KIND> Handler halfHandler(Type t) {
  switch (t) {
    case Type::F16: return half1<KIND, false>;
    case Type::BF16: return half1<KIND, true>;
    case Type::F16x2: return half2<KIND, false>;
    case Type::BF16x2: return half2<KIND, true>;
    default: return nullptr;
  }
}

// --- decoding ---------------------------------------------------------------------------------------------------------------------------

bool takeRound(Decoder& d, Round& round) {
  if (d.take("rn")) round = Round::Nearest;
  else if (d.take("rz")) round = Round::Zero;
  else if (d.take("rm")) round = Round::Down;
  else if (d.take("rp")) round = Round::Up;
  else return false;
  return true;
}
// The registers of fp16 and bf16 are untyped.
Type registerOf(Type t) { return t == Type::BF16 ? Type::B16 : t == Type::BF16x2 || t == Type::F16x2 ? Type::B32 : t; }
void operands(Decoder& d, Type t, size_t sources) {
  d.expect(sources + 1);
  d.in.d = d.destination(0, registerOf(t));
  d.in.a = d.source(1, registerOf(t));
  if (sources > 1) d.in.b = d.source(2, registerOf(t));
  if (sources > 2) d.in.c = d.source(3, registerOf(t));
}

template <int KIND, class Op> Handler arithmetic(Decoder& d, Type t, Round round, bool ftz, bool sat) {
  d.in.mode = uint8_t(round);
  d.in.flags = uint8_t((ftz ? kFtz : 0) | (sat ? kSat : 0));
  if (t == Type::F32) return round != Round::Nearest || sat ? slow32<KIND> : ftz ? two32<Op, true> : two32<Op, false>;
  if (round != Round::Nearest) d.fail("this rounding is only known for .f32");
  if (t == Type::F64) {
    if (ftz || sat) d.fail("no such modifier for .f64");
    return two64<Op>;
  }
  return nullptr;
}

void decodeFma(Decoder& d) {
  Round round = Round::Nearest;
  bool mad = d.base == "mad", rounded = takeRound(d, round);
  if (!rounded && !mad) d.fail("a rounding is missing");
  bool ftz = d.take("ftz"), sat = d.take("sat"), relu = d.take("relu");
  Type t = d.takeType();
  operands(d, t, 3);
  d.in.mode = uint8_t(round);
  d.in.flags = uint8_t((ftz ? kFtz : 0) | (sat ? kSat : 0) | (relu ? 8 : 0));
  if (relu && t < Type::F16) d.fail("no .relu here");
  if (t == Type::F32 && !relu) d.in.handler = round != Round::Nearest || sat ? slow32<kFma> : ftz ? fma32<true> : fma32<false>;
  else if (round != Round::Nearest) d.fail("this rounding is only known for .f32");
  else if (t == Type::F64 && !ftz && !sat && !relu) d.in.handler = fma64;
  else if (!ftz) d.in.handler = halfHandler<3>(t);
  if (!d.in.handler) d.fail("no such type or modifier");
}

}  // namespace

void decodeFloatArithmetic(Decoder& d) {
  std::string_view base = d.base;
  if (base == "mad") return decodeFma(d);
  Round round = Round::Nearest;
  bool rounded = false, approximate = false;
  if (base == "div") {
    approximate = d.take("approx") || d.take("full");
    if (!approximate && !(rounded = takeRound(d, round))) d.fail("a rounding is missing");
  } else if (base == "add" || base == "sub" || base == "mul") {
    rounded = takeRound(d, round);
  }
  bool ftz = d.take("ftz"), sat = false, nan = false;
  if (base == "add" || base == "sub" || base == "mul") sat = d.take("sat");
  if (base == "min" || base == "max") nan = d.take("NaN");
  Type t = d.takeType();
  if (!isFloat(t) || t == Type::TF32) d.fail("no such type");
  bool small = t != Type::F32 && t != Type::F64;
  if (small && ftz) d.fail(".ftz is only known for .f32");
  if (approximate && t != Type::F32) d.fail("no such type");
  bool single = base == "abs" || base == "neg";
  operands(d, t, single ? 1 : 2);
  d.in.flags = uint8_t((ftz ? kFtz : 0) | (sat ? kSat : 0) | (nan ? kNan : 0));
  Handler h = nullptr;
  if (small) {
    bool b = t == Type::BF16 || t == Type::BF16x2;
    if (b && !single && base != "min" && base != "max") d.fail("sm_80 has no such instruction for bf16");
    if (round != Round::Nearest) d.fail("this rounding is only known for .f32");
    if (base == "add") h = halfHandler<0>(t);
    if (base == "sub") h = halfHandler<1>(t);
    if (base == "mul") h = halfHandler<2>(t);
    if (base == "min") h = halfHandler<4>(t);
    if (base == "max") h = halfHandler<5>(t);
    if (base == "abs") h = halfHandler<6>(t);
    if (base == "neg") h = halfHandler<7>(t);
    if (single) d.in.b = d.in.c = d.in.a;
    if (!d.in.c) d.in.c = d.in.a;
  } else if (base == "min" || base == "max") {
    if (t == Type::F64 && (ftz || nan)) d.fail("no such modifier for .f64");
    bool min = base == "min";
    if (nan && ftz) d.fail("both .ftz and .NaN are not known");
    if (nan) h = min ? two32<OrNan<Min>, false> : two32<OrNan<Max>, false>;
    else if (t == Type::F64) h = min ? two64<Min> : two64<Max>;
    else if (ftz) h = min ? two32<Min, true> : two32<Max, true>;
    else h = min ? two32<Min, false> : two32<Max, false>;
  } else if (single) {
    bool negate = base == "neg";
    if (t == Type::F64) h = negate ? neg64 : abs64;
    else if (ftz) h = negate ? neg32<true> : abs32<true>;
    else h = negate ? neg32<false> : abs32<false>;
  } else if (base == "add") {
    h = arithmetic<kAdd, Add>(d, t, round, ftz, sat);
  } else if (base == "sub") {
    h = arithmetic<kSub, Sub>(d, t, round, ftz, sat);
  } else if (base == "mul") {
    h = arithmetic<kMul, Mul>(d, t, round, ftz, sat);
  } else if (base == "div") {
    h = arithmetic<kDiv, Div>(d, t, round, ftz, sat);
  }
  if (!h) d.fail("no such type or modifier");
  (void)rounded;
  d.in.handler = h;
}

namespace {

template <class Op> Handler single(Type t, bool ftz) {
  return t == Type::F64 ? Handler(one<double, Op, false>) : ftz ? Handler(one<float, Op, true>) : Handler(one<float, Op, false>);
}
void decodeRoot(Decoder& d) {  // rcp, sqrt
  bool sqrt = d.base == "sqrt", approximate = d.take("approx");
  Round round = Round::Nearest;
  if (!approximate && !takeRound(d, round)) d.fail("a rounding is missing");
  bool ftz = d.take("ftz");
  Type t = d.takeType();
  if (t != Type::F32 && t != Type::F64) d.fail("no such type");
  if (t == Type::F64 && (ftz != approximate || (approximate && sqrt) || round != Round::Nearest)) d.fail("no such form for .f64");
  operands(d, t, 1);
  d.in.mode = uint8_t(round);
  d.in.flags = ftz ? kFtz : 0;
  if (round != Round::Nearest) {
    d.in.b = d.in.c = d.in.a;
    d.in.handler = sqrt ? slow32<kSqrt> : slow32<kRcp>;
  } else {
    d.in.handler = t == Type::F64 ? (sqrt ? Handler(one<double, Sqrt, false>) : Handler(one<double, Rcp, false>)) : sqrt ? single<Sqrt>(t, ftz) : single<Rcp>(t, ftz);
  }
}
template <class Op> void decodeApprox(Decoder& d) {
  d.need("approx");
  bool ftz = d.take("ftz");
  Type t = d.takeType();
  if (t != Type::F32) d.fail("no such type");
  operands(d, t, 1);
  d.in.handler = ftz ? Handler(one<float, Op, true>) : Handler(one<float, Op, false>);
}
void decodeRsqrt(Decoder& d) {
  d.need("approx");
  bool ftz = d.take("ftz");
  Type t = d.takeType();
  if (t != Type::F32 && t != Type::F64) d.fail("no such type");
  operands(d, t, 1);
  d.in.handler = single<Rsqrt>(t, ftz);
}
void decodeCopysign(Decoder& d) {
  Type t = d.takeType();
  if (t != Type::F32 && t != Type::F64) d.fail("no such type");
  operands(d, t, 2);
  d.in.handler = t == Type::F32 ? copysign32 : copysign64;
}
void decodeTestp(Decoder& d) {
  const char* names[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
  int mode = -1;
  for (int i = 0; i < 6 && mode < 0; i++)
    if (d.take(names[i])) mode = i;
  if (mode < 0) d.fail("its property is missing");
  Type t = d.takeType();
  if (t != Type::F32 && t != Type::F64) d.fail("no such type");
  d.expect(2);
  d.in.d = d.destination(0, Type::Pred);
  d.in.a = d.source(1, t);
  d.in.mode = uint8_t(mode);
  d.in.handler = t == Type::F32 ? testp<float> : testp<double>;
}

}  // namespace

std::vector<Opcode> floatOpcodes() {
  return {{"fma", decodeFma}, {"rcp", decodeRoot}, {"sqrt", decodeRoot}, {"rsqrt", decodeRsqrt}, {"ex2", decodeApprox<Ex2>}, {"lg2", decodeApprox<Lg2>},
          {"sin", decodeApprox<Sin>}, {"cos", decodeApprox<Cos>}, {"tanh", decodeApprox<Tanh>}, {"copysign", decodeCopysign}, {"testp", decodeTestp}};
}

}  // namespace emulator
