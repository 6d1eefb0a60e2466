// Bits: logic, shifts, fields, permutations.
#include "exec_warp.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

uint32_t* words(Warp& w, uint32_t r) { return w.at<uint32_t>(r); }

struct And { template <class T> static T f(T a, T b) { return a & b; } };
struct Or { template <class T> static T f(T a, T b) { return a | b; } };
struct Xor { template <class T> static T f(T a, T b) { return a ^ b; } };

template <class T, class Op> void two(Warp& w, const Instruction& in, uint32_t lanes) {
  T *a = w.at<T>(in.a), *b = w.at<T>(in.b);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) { return Op::f(a[i], b[i]); });
}
template <class Op> void twoPredicates(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t r = Op::f(w.word(in.a), w.word(in.b));
  uint32_t& d = w.word(in.d);
  d = (d & ~lanes) | (r & lanes);
}
void notPredicate(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t r = ~w.word(in.a);
  uint32_t& d = w.word(in.d);
  d = (d & ~lanes) | (r & lanes);
}
template <class T, int BITS> void invert(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) { return T(BITS == 16 ? ~a[i] & 0xffff : ~a[i]); });
}
template <class T> void isZero(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) { return T(a[i] == 0); });
}

template <class Op> void decodeTwo(Decoder& d) {
  Type t = d.takeType();
  d.expect(3);
  switch (t) {
    case Type::Pred: d.in.handler = twoPredicates<Op>; break;
    case Type::B16: case Type::B32: d.in.handler = two<uint32_t, Op>; break;
    case Type::B64: d.in.handler = two<uint64_t, Op>; break;
    default: d.fail("no such type");
  }
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  d.in.b = d.source(2, t);
}
void decodeNot(Decoder& d) {
  Type t = d.takeType();
  d.expect(2);
  switch (t) {
    case Type::Pred: d.in.handler = notPredicate; break;
    case Type::B16: d.in.handler = invert<uint32_t, 16>; break;
    case Type::B32: d.in.handler = invert<uint32_t, 32>; break;
    case Type::B64: d.in.handler = invert<uint64_t, 64>; break;
    default: d.fail("no such type");
  }
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
}
void decodeCnot(Decoder& d) {
  Type t = d.takeType();
  d.expect(2);
  if (t != Type::B16 && t != Type::B32 && t != Type::B64) d.fail("no such type");
  d.in.handler = t == Type::B64 ? isZero<uint64_t> : isZero<uint32_t>;
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
}

// Shifts are clamped at the width.
template <class T, int BITS> void shl(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  uint32_t* b = words(w, in.b);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) { return T(b[i] >= BITS ? 0 : BITS == 16 ? (a[i] << b[i]) & 0xffff : a[i] << b[i]); });
}
template <class T, int BITS> void shr(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  uint32_t* b = words(w, in.b);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) { return T(b[i] >= BITS ? 0 : a[i] >> b[i]); });
}
template <class T, class S, int BITS> void sar(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  uint32_t* b = words(w, in.b);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) {
    T by = b[i] >= BITS ? BITS - 1 : b[i];
    return T(BITS == 16 ? T(S(int16_t(a[i])) >> by) & 0xffff : T(S(a[i]) >> by));
  });
}
void decodeShift(Decoder& d) {
  bool left = d.base == "shl";
  Type t = d.takeType();
  d.expect(3);
  bool sign = isSigned(t);
  if (isFloat(t) || bitsOf(t) < 16 || (left && t != Type::B16 && t != Type::B32 && t != Type::B64)) d.fail("no such type");
  switch (bitsOf(t)) {
    case 16: d.in.handler = left ? shl<uint32_t, 16> : sign ? sar<uint32_t, int32_t, 16> : shr<uint32_t, 16>; break;
    case 32: d.in.handler = left ? shl<uint32_t, 32> : sign ? sar<uint32_t, int32_t, 32> : shr<uint32_t, 32>; break;
    default: d.in.handler = left ? shl<uint64_t, 64> : sign ? sar<uint64_t, int64_t, 64> : shr<uint64_t, 64>; break;
  }
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  d.in.b = d.source(2, Type::U32);
}

template <bool LEFT, bool WRAP> void funnel(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *a = words(w, in.a), *b = words(w, in.b), *c = words(w, in.c);
  each(words(w, in.d), lanes, [=](uint32_t i) {
    uint32_t n = WRAP ? c[i] & 31 : c[i] > 32 ? 32 : c[i];
    uint64_t both = uint64_t(b[i]) << 32 | a[i];
    return uint32_t(LEFT ? (both << n) >> 32 : both >> n);
  });
}
void decodeFunnel(Decoder& d) {
  bool left = d.take("l");
  if (!left) d.need("r");
  bool wrap = d.take("wrap");
  if (!wrap) d.need("clamp");
  d.need("b32");
  d.expect(4);
  d.in.handler = left ? (wrap ? funnel<true, true> : funnel<true, false>) : (wrap ? funnel<false, true> : funnel<false, false>);
  d.in.d = d.destination(0, Type::B32);
  d.in.a = d.source(1, Type::B32);
  d.in.b = d.source(2, Type::B32);
  d.in.c = d.source(3, Type::U32);
}

// A field of `c` bits from bit `b` on.
template <class T, class S, int BITS> void bfe(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  uint32_t *b = words(w, in.b), *c = words(w, in.c);
  constexpr bool sign = static_cast<S>(-1) < 0;
  each(w.at<T>(in.d), lanes, [=](uint32_t i) {
    uint32_t from = b[i] & 0xff, count = c[i] & 0xff;
    if (count == 0) return T(0);
    uint32_t last = from + count - 1;
    T signBit = sign ? T(a[i] >> (last < BITS ? last : BITS - 1) & 1) : 0;
    T field = from >= BITS ? 0 : a[i] >> from;
    uint32_t have = from >= BITS ? 0 : BITS - from;
    uint32_t keep = count < have ? count : have;
    T mask = keep >= BITS ? ~T(0) : (T(1) << keep) - 1;
    return T((field & mask) | (signBit ? ~mask : T(0)));
  });
}
void decodeBfe(Decoder& d) {
  Type t = d.takeType();
  d.expect(4);
  switch (t) {
    case Type::U32: d.in.handler = bfe<uint32_t, uint32_t, 32>; break;
    case Type::S32: d.in.handler = bfe<uint32_t, int32_t, 32>; break;
    case Type::U64: d.in.handler = bfe<uint64_t, uint64_t, 64>; break;
    case Type::S64: d.in.handler = bfe<uint64_t, int64_t, 64>; break;
    default: d.fail("no such type");
  }
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  d.in.b = d.source(2, Type::U32);
  d.in.c = d.source(3, Type::U32);
}
template <class T, int BITS> void bfi(Warp& w, const Instruction& in, uint32_t lanes) {
  T *a = w.at<T>(in.a), *b = w.at<T>(in.b);
  uint32_t *c = words(w, in.c), *e = words(w, uint32_t(in.offset));
  each(w.at<T>(in.d), lanes, [=](uint32_t i) {
    uint32_t from = c[i] & 0xff, count = e[i] & 0xff;
    if (count == 0 || from >= BITS) return b[i];
    T mask = count >= BITS ? ~T(0) : (T(1) << count) - 1;
    mask <<= from;
    return T((b[i] & ~mask) | ((a[i] << from) & mask));
  });
}
void decodeBfi(Decoder& d) {
  Type t = d.takeType();
  d.expect(5);
  if (t != Type::B32 && t != Type::B64) d.fail("no such type");
  d.in.handler = t == Type::B32 ? bfi<uint32_t, 32> : bfi<uint64_t, 64>;
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  d.in.b = d.source(2, t);
  d.in.c = d.source(3, Type::U32);
  d.in.offset = d.source(4, Type::U32);
}

void prmt(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *a = words(w, in.a), *b = words(w, in.b), *c = words(w, in.c);
  each(words(w, in.d), lanes, [=](uint32_t i) {
    uint64_t both = uint64_t(b[i]) << 32 | a[i];
    uint32_t r = 0;
    for (int k = 0; k < 4; k++) {
      uint32_t s = c[i] >> (4 * k);
      uint32_t byte = uint32_t(both >> (8 * (s & 7))) & 0xff;
      if (s & 8) byte = byte & 0x80 ? 0xff : 0;
      r |= byte << (8 * k);
    }
    return r;
  });
}
template <int MODE> void prmtMode(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *a = words(w, in.a), *b = words(w, in.b), *c = words(w, in.c);
  each(words(w, in.d), lanes, [=](uint32_t i) {
    uint64_t both = uint64_t(b[i]) << 32 | a[i];
    uint32_t s = c[i] & 3, r = 0;
    for (uint32_t k = 0; k < 4; k++) {
      uint32_t at = 0;
      if (MODE == 0) at = s + k;                              // f4e
      if (MODE == 1) at = (s - k) & 7;                        // b4e
      if (MODE == 2) at = s;                                  // rc8
      if (MODE == 3) at = k > s ? k : s;                      // ecl
      if (MODE == 4) at = k < s ? k : s;                      // ecr
      if (MODE == 5) at = (s & 1) * 2 + (k & 1);              // rc16
      r |= (uint32_t(both >> (8 * at)) & 0xff) << (8 * k);
    }
    return r;
  });
}
void decodePrmt(Decoder& d) {
  d.need("b32");
  d.expect(4);
  d.in.handler = d.take("f4e") ? prmtMode<0> : d.take("b4e") ? prmtMode<1> : d.take("rc8") ? prmtMode<2> : d.take("ecl") ? prmtMode<3>
                 : d.take("ecr") ? prmtMode<4> : d.take("rc16") ? prmtMode<5> : prmt;
  d.in.d = d.destination(0, Type::B32);
  d.in.a = d.source(1, Type::B32);
  d.in.b = d.source(2, Type::B32);
  d.in.c = d.source(3, Type::B32);
}

struct Popc { template <class T> static uint32_t f(T v) { return uint32_t(__builtin_popcountll(v)); } };
struct Clz { template <class T> static uint32_t f(T v) { return v == 0 ? 8 * sizeof(T) : sizeof(T) == 8 ? uint32_t(__builtin_clzll(v)) : uint32_t(__builtin_clz(uint32_t(v))); } };
template <class T, class Op> void count(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  each(words(w, in.d), lanes, [=](uint32_t i) { return Op::f(a[i]); });
}
template <class Op> void decodeCount(Decoder& d) {
  Type t = d.takeType();
  d.expect(2);
  if (t != Type::B32 && t != Type::B64) d.fail("no such type");
  d.in.handler = t == Type::B32 ? count<uint32_t, Op> : count<uint64_t, Op>;
  d.in.d = d.destination(0, Type::U32);
  d.in.a = d.source(1, t);
}
template <class T> void reverse(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) {
    T r = 0;
    for (uint32_t k = 0; k < 8 * sizeof(T); k++) r |= (a[i] >> k & 1) << (8 * sizeof(T) - 1 - k);
    return r;
  });
}
void decodeBrev(Decoder& d) {
  Type t = d.takeType();
  d.expect(2);
  if (t != Type::B32 && t != Type::B64) d.fail("no such type");
  d.in.handler = t == Type::B32 ? reverse<uint32_t> : reverse<uint64_t>;
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
}
// The place of the first bit that counts, or from above how far (.shiftamt); all ones where there is none.
template <class T, bool SIGN, bool SHIFT> void bfind(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  each(words(w, in.d), lanes, [=](uint32_t i) {
    T v = a[i];
    if (SIGN && (v >> (8 * sizeof(T) - 1))) v = ~v;
    if (v == 0) return kAll;
    uint32_t at = 8 * sizeof(T) - 1 - Clz::f(v);
    return SHIFT ? uint32_t(8 * sizeof(T) - 1 - at) : at;
  });
}
void decodeBfind(Decoder& d) {
  bool shift = d.take("shiftamt");
  Type t = d.takeType();
  d.expect(2);
  switch (t) {
    case Type::U32: d.in.handler = shift ? bfind<uint32_t, false, true> : bfind<uint32_t, false, false>; break;
    case Type::S32: d.in.handler = shift ? bfind<uint32_t, true, true> : bfind<uint32_t, true, false>; break;
    case Type::U64: d.in.handler = shift ? bfind<uint64_t, false, true> : bfind<uint64_t, false, false>; break;
    case Type::S64: d.in.handler = shift ? bfind<uint64_t, true, true> : bfind<uint64_t, true, false>; break;
    default: d.fail("no such type");
  }
  d.in.d = d.destination(0, Type::U32);
  d.in.a = d.source(1, t);
}

void lop3(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *a = words(w, in.a), *b = words(w, in.b), *c = words(w, in.c);
  uint32_t table = uint32_t(in.offset), terms[8];
  for (int k = 0; k < 8; k++) terms[k] = table >> k & 1 ? kAll : 0;
  each(words(w, in.d), lanes, [=](uint32_t i) {
    uint32_t x = a[i], y = b[i], z = c[i];
    return (terms[0] & ~x & ~y & ~z) | (terms[1] & ~x & ~y & z) | (terms[2] & ~x & y & ~z) | (terms[3] & ~x & y & z) | (terms[4] & x & ~y & ~z) |
           (terms[5] & x & ~y & z) | (terms[6] & x & y & ~z) | (terms[7] & x & y & z);
  });
}
void decodeLop3(Decoder& d) {
  d.need("b32");
  d.expect(5);
  d.in.handler = lop3;
  d.in.d = d.destination(0, Type::B32);
  d.in.a = d.source(1, Type::B32);
  d.in.b = d.source(2, Type::B32);
  d.in.c = d.source(3, Type::B32);
  d.in.offset = d.integer(4);
  if (d.in.offset < 0 || d.in.offset > 255) d.fail("its table is of 8 bits");
}

}  // namespace

std::vector<Opcode> logicOpcodes() {
  return {{"and", decodeTwo<And>}, {"or", decodeTwo<Or>}, {"xor", decodeTwo<Xor>}, {"not", decodeNot}, {"cnot", decodeCnot}, {"shl", decodeShift},
          {"shr", decodeShift}, {"shf", decodeFunnel}, {"bfe", decodeBfe}, {"bfi", decodeBfi}, {"prmt", decodePrmt}, {"popc", decodeCount<Popc>},
          {"clz", decodeCount<Clz>}, {"brev", decodeBrev}, {"bfind", decodeBfind}, {"lop3", decodeLop3}};
}

}  // namespace emulator
