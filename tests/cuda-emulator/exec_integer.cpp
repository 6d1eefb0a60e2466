// Integer arithmetic.
#include <type_traits>

#include "exec_warp.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

// A value of type T in a register: 16-bit values lie in the low half of a word, whose upper half is zero.
template <class T> using Slot = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
template <class T> inline Slot<T> pack(T v) { return Slot<T>(std::make_unsigned_t<T>(v)); }
template <class T> inline T unpack(Slot<T> v) { return T(v); }

struct Add { template <class T> static T f(T a, T b) { using U = std::make_unsigned_t<T>; return T(U(U(a) + U(b))); } };
struct Sub { template <class T> static T f(T a, T b) { using U = std::make_unsigned_t<T>; return T(U(U(a) - U(b))); } };
struct MulLo { template <class T> static T f(T a, T b) { using U = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>; return T(U(a) * U(b)); } };
struct MulHi {
  template <class T> static T f(T a, T b) {
    if constexpr (sizeof(T) == 8) {
      if constexpr (std::is_signed_v<T>) return T((__int128(a) * b) >> 64);
      else return T((static_cast<unsigned __int128>(a) * b) >> 64);
    } else if constexpr (std::is_signed_v<T>) {
      return T((int64_t(a) * b) >> (8 * sizeof(T)));
    } else {
      return T((uint64_t(a) * b) >> (8 * sizeof(T)));
    }
  }
};
struct Min { template <class T> static T f(T a, T b) { return a < b ? a : b; } };
struct Max { template <class T> static T f(T a, T b) { return a > b ? a : b; } };
// By zero: the hardware gives all ones, and the dividend for the remainder.
struct Div {
  template <class T> static T f(T a, T b) {
    if (b == 0) return T(-1);
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return Sub::f(T(0), a);
    return T(a / b);
  }
};
struct Rem {
  template <class T> static T f(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return 0;
    return T(a % b);
  }
};
struct SubSat { static int32_t f(int32_t a, int32_t b) { int64_t r = int64_t(a) - b; return int32_t(r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : r); } };
struct AddSat { static int32_t f(int32_t a, int32_t b) { int64_t r = int64_t(a) + b; return int32_t(r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : r); } };

template <class T, class Op> void two(Warp& w, const Instruction& in, uint32_t lanes) {
  auto *d = w.at<Slot<T>>(in.d), *a = w.at<Slot<T>>(in.a), *b = w.at<Slot<T>>(in.b);
  each(d, lanes, [=](uint32_t i) { return pack<T>(Op::f(unpack<T>(a[i]), unpack<T>(b[i]))); });
}
template <class T, class Op> void three(Warp& w, const Instruction& in, uint32_t lanes) {
  auto *d = w.at<Slot<T>>(in.d), *a = w.at<Slot<T>>(in.a), *b = w.at<Slot<T>>(in.b), *c = w.at<Slot<T>>(in.c);
  each(d, lanes, [=](uint32_t i) { return pack<T>(Add::f(Op::f(unpack<T>(a[i]), unpack<T>(b[i])), unpack<T>(c[i]))); });
}
// T times T into W, with or without a sum.
template <class T, class W> void wide(Warp& w, const Instruction& in, uint32_t lanes) {
  auto *a = w.at<Slot<T>>(in.a), *b = w.at<Slot<T>>(in.b);
  each(w.at<Slot<W>>(in.d), lanes, [=](uint32_t i) { return pack<W>(W(W(unpack<T>(a[i])) * W(unpack<T>(b[i])))); });
}
template <class T, class W> void wideAdd(Warp& w, const Instruction& in, uint32_t lanes) {
  auto *a = w.at<Slot<T>>(in.a), *b = w.at<Slot<T>>(in.b);
  auto* c = w.at<Slot<W>>(in.c);
  each(w.at<Slot<W>>(in.d), lanes, [=](uint32_t i) { return pack<W>(Add::f(W(W(unpack<T>(a[i])) * W(unpack<T>(b[i]))), unpack<W>(c[i]))); });
}
template <class T> void absolute(Warp& w, const Instruction& in, uint32_t lanes) {
  auto *d = w.at<Slot<T>>(in.d), *a = w.at<Slot<T>>(in.a);
  each(d, lanes, [=](uint32_t i) { T v = unpack<T>(a[i]); return pack<T>(v < 0 ? Sub::f(T(0), v) : v); });
}
template <class T> void negate(Warp& w, const Instruction& in, uint32_t lanes) {
  auto *d = w.at<Slot<T>>(in.d), *a = w.at<Slot<T>>(in.a);
  each(d, lanes, [=](uint32_t i) { return pack<T>(Sub::f(T(0), unpack<T>(a[i]))); });
}

template <template <class> class H> Handler pick(Type t) {
  switch (t) {
    case Type::U16: return H<uint16_t>::run;
    case Type::S16: return H<int16_t>::run;
    case Type::U32: return H<uint32_t>::run;
    case Type::S32: return H<int32_t>::run;
    case Type::U64: return H<uint64_t>::run;
    case Type::S64: return H<int64_t>::run;
    default: return nullptr;
  }
}
template <class Op> struct Two { template <class T> struct Of { static constexpr Handler run = two<T, Op>; }; };
template <class Op> struct Three { template <class T> struct Of { static constexpr Handler run = three<T, Op>; }; };
template <class T> struct AbsOf { static constexpr Handler run = absolute<T>; };
template <class T> struct NegOf { static constexpr Handler run = negate<T>; };

void set(Decoder& d, Handler h, Type t, size_t sources) {
  if (!h) d.fail(std::string("no type .") + nameOf(t));
  d.in.handler = h;
  d.expect(sources + 1);
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  if (sources > 1) d.in.b = d.source(2, t);
  if (sources > 2) d.in.c = d.source(3, t);
}

// With a carry: d, and a carry flag kept in a register of the warp.
template <int SIGN, class T> void carried(Warp& w, const Instruction& in, uint32_t lanes) {
  T *d = w.at<T>(in.d), *a = w.at<T>(in.a), *b = w.at<T>(in.b);
  uint32_t& flags = w.word(in.c);
  eachLane(lanes, [&](uint32_t i) {
    T carry = (in.flags & 1) ? (flags >> i & 1) : 0, r;
    bool out;
    if (SIGN > 0) {
      out = __builtin_add_overflow(a[i], b[i], &r);
      out |= __builtin_add_overflow(r, carry, &r);
    } else {
      out = __builtin_sub_overflow(a[i], b[i], &r);
      out |= __builtin_sub_overflow(r, carry, &r);
    }
    d[i] = r;
    if (in.flags & 2) flags = (flags & ~(1u << i)) | (uint32_t(out) << i);
  });
}

template <int SIGN> void decodeCarried(Decoder& d) {
  bool reads = d.base == "addc" || d.base == "subc";
  bool writes = d.take("cc");
  Type t = d.takeType();
  set(d, bitsOf(t) == 64 ? carried<SIGN, uint64_t> : carried<SIGN, uint32_t>, t, 2);
  if (t == Type::U16 || t == Type::S16 || isFloat(t)) d.fail("no such type");
  if (!d.function.carry) d.function.carry = d.names.allocate(Type::Pred);
  d.in.c = d.function.carry;
  d.in.flags = uint8_t((reads ? 1 : 0) | (writes ? 2 : 0));
}

void decodeAdd(Decoder& d) {
  if (d.peek() == "cc") return decodeCarried<1>(d);
  bool saturate = d.take("sat");
  Type t = d.peekType();
  if (isFloat(t) || t == Type::None) {
    if (saturate) d.back();
    return decodeFloatArithmetic(d);
  }
  d.takeType();
  if (saturate && t != Type::S32) d.fail(".sat is for .s32");
  set(d, saturate ? two<int32_t, AddSat> : pick<Two<Add>::Of>(t), t, 2);
}
void decodeSub(Decoder& d) {
  if (d.peek() == "cc") return decodeCarried<-1>(d);
  bool saturate = d.take("sat");
  Type t = d.peekType();
  if (isFloat(t) || t == Type::None) {
    if (saturate) d.back();
    return decodeFloatArithmetic(d);
  }
  d.takeType();
  if (saturate && t != Type::S32) d.fail(".sat is for .s32");
  set(d, saturate ? two<int32_t, SubSat> : pick<Two<Sub>::Of>(t), t, 2);
}

struct WideTypes {
  Type from, to;
  Handler multiply, add;
};
constexpr WideTypes kWide[] = {{Type::U16, Type::U32, wide<uint16_t, uint32_t>, wideAdd<uint16_t, uint32_t>},
                               {Type::S16, Type::S32, wide<int16_t, int32_t>, wideAdd<int16_t, int32_t>},
                               {Type::U32, Type::U64, wide<uint32_t, uint64_t>, wideAdd<uint32_t, uint64_t>},
                               {Type::S32, Type::S64, wide<int32_t, int64_t>, wideAdd<int32_t, int64_t>}};

void decodeWide(Decoder& d, bool sum) {
  Type t = d.takeType();
  for (const WideTypes& k : kWide) {
    if (k.from != t) continue;
    d.expect(sum ? 4 : 3);
    d.in.handler = sum ? k.add : k.multiply;
    d.in.d = d.destination(0, k.to);
    d.in.a = d.source(1, t);
    d.in.b = d.source(2, t);
    if (sum) d.in.c = d.source(3, k.to);
    return;
  }
  d.fail("no such type");
}

void decodeMul(Decoder& d) {
  if (d.take("wide")) return decodeWide(d, false);
  if (d.take("lo")) {
    Type t = d.takeType();
    set(d, pick<Two<MulLo>::Of>(t), t, 2);
  } else if (d.take("hi")) {
    Type t = d.takeType();
    set(d, pick<Two<MulHi>::Of>(t), t, 2);
  } else {
    decodeFloatArithmetic(d);
  }
}
void decodeMad(Decoder& d) {
  if (d.take("wide")) return decodeWide(d, true);
  if (d.take("lo")) {
    Type t = d.takeType();
    set(d, pick<Three<MulLo>::Of>(t), t, 3);
  } else if (d.take("hi")) {
    Type t = d.takeType();
    set(d, pick<Three<MulHi>::Of>(t), t, 3);
  } else {
    decodeFloatArithmetic(d);
  }
}
template <class Op> void decodeTwo(Decoder& d) {
  Type t = d.peekType();
  if (isFloat(t) || t == Type::None) return decodeFloatArithmetic(d);
  d.takeType();
  set(d, pick<Two<Op>::template Of>(t), t, 2);
}
void decodeRem(Decoder& d) {
  Type t = d.takeType();
  set(d, pick<Two<Rem>::Of>(t), t, 2);
}
void decodeAbs(Decoder& d) {
  Type t = d.peekType();
  if (isFloat(t) || t == Type::None) return decodeFloatArithmetic(d);
  d.takeType();
  if (!isSigned(t)) d.fail("no such type");
  set(d, pick<AbsOf>(t), t, 1);
}
void decodeNeg(Decoder& d) {
  Type t = d.peekType();
  if (isFloat(t) || t == Type::None) return decodeFloatArithmetic(d);
  d.takeType();
  if (!isSigned(t)) d.fail("no such type");
  set(d, pick<NegOf>(t), t, 1);
}

// Four products of bytes, added to a word.
template <bool SA, bool SB> void dp4a(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *a = w.at<uint32_t>(in.a), *b = w.at<uint32_t>(in.b), *c = w.at<uint32_t>(in.c);
  each(w.at<uint32_t>(in.d), lanes, [=](uint32_t i) {
    uint32_t sum = c[i];
    for (int k = 0; k < 4; k++) {
      uint32_t x = a[i] >> (8 * k) & 0xff, y = b[i] >> (8 * k) & 0xff;
      int32_t p = SA ? int8_t(x) : int32_t(x), q = SB ? int8_t(y) : int32_t(y);
      sum += uint32_t(p * q);
    }
    return sum;
  });
}
void decodeDp4a(Decoder& d) {
  Type a = d.takeType(), b = d.takeType();
  if ((a != Type::U32 && a != Type::S32) || (b != Type::U32 && b != Type::S32)) d.fail("no such type");
  bool sa = a == Type::S32, sb = b == Type::S32;
  d.expect(4);
  d.in.handler = sa ? (sb ? dp4a<true, true> : dp4a<true, false>) : (sb ? dp4a<false, true> : dp4a<false, false>);
  Type t = sa || sb ? Type::S32 : Type::U32;
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, a);
  d.in.b = d.source(2, b);
  d.in.c = d.source(3, t);
}

}  // namespace

std::vector<Opcode> integerOpcodes() {
  return {{"add", decodeAdd}, {"sub", decodeSub}, {"mul", decodeMul}, {"mad", decodeMad}, {"div", decodeTwo<Div>}, {"rem", decodeRem},
          {"min", decodeTwo<Min>}, {"max", decodeTwo<Max>}, {"abs", decodeAbs}, {"neg", decodeNeg}, {"dp4a", decodeDp4a},
          {"addc", decodeCarried<1>}, {"subc", decodeCarried<-1>}};
}

}  // namespace emulator
