// Comparisons and selections.
#include <cmath>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "exec_float.h"
#include "exec_warp.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

enum Compare : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kEqu, kNeu, kLtu, kLeu, kGtu, kGeu, kNum, kNan, kCompares };
constexpr const char* kNames[] = {"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
enum Combine : uint8_t { kPlain, kAnd, kOr, kXor };

template <int C, class T> bool holds(T a, T b) {
  switch (C) {
    case kEq: return a == b;
    case kNe: return std::is_floating_point_v<T> ? a < b || a > b : a != b;
    case kLt: return a < b;
    case kLe: return a <= b;
    case kGt: return a > b;
    case kGe: return a >= b;
    case kEqu: return !(a < b) && !(a > b);
    case kNeu: return !(a == b);
    case kLtu: return !(a >= b);
    case kLeu: return !(a > b);
    case kGtu: return !(a <= b);
    case kGeu: return !(a < b);
    case kNum: return a == a && b == b;
    default: return !(a == a && b == b);
  }
}

template <class T> struct Raw { using type = T; };
template <> struct Raw<int16_t> { using type = uint32_t; };
template <> struct Raw<uint16_t> { using type = uint32_t; };
struct HalfFloat;
template <> struct Raw<HalfFloat> { using type = uint32_t; };
struct BrainFloat;
template <> struct Raw<BrainFloat> { using type = uint32_t; };

// The lanes where it holds.
template <int C, class T, bool FTZ> uint32_t compare(Warp& w, const Instruction& in) {
  using R = typename Raw<T>::type;
  R *a = w.at<R>(in.a), *b = w.at<R>(in.b);
  alignas(64) uint32_t r[kLanes];
  EMULATOR_LANES
  for (uint32_t i = 0; i < kLanes; i++) {
    bool v;
    if constexpr (std::is_same_v<T, HalfFloat>) v = holds<C, float>(halfToFloat(uint16_t(a[i])), halfToFloat(uint16_t(b[i])));
    else if constexpr (std::is_same_v<T, BrainFloat>) v = holds<C, float>(bf16ToFloat(uint16_t(a[i])), bf16ToFloat(uint16_t(b[i])));
    else if constexpr (FTZ) v = holds<C, T>(flush(a[i]), flush(b[i]));
    else v = holds<C, T>(T(a[i]), T(b[i]));
    r[i] = v ? kAll : 0;
  }
  uint32_t m = 0;
#if defined(__AVX2__)
  for (uint32_t i = 0; i < kLanes; i += 8) m |= uint32_t(_mm256_movemask_ps(_mm256_load_ps(reinterpret_cast<const float*>(r + i)))) << i;
#else
  for (uint32_t i = 0; i < kLanes; i++) m |= (r[i] & 1) << i;
#endif
  return m;
}

using Comparer = uint32_t (*)(Warp&, const Instruction&);

template <int C, class T, bool FTZ> void setp(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t m = compare<C, T, FTZ>(w, in);
  uint32_t& d = w.word(in.d);
  d = (d & ~lanes) | (m & lanes);
}
uint32_t combine(uint32_t mode, uint32_t a, uint32_t b) { return mode == kAnd ? a & b : mode == kOr ? a | b : mode == kXor ? a ^ b : a; }
// With a second predicate, or one that is combined with.
template <int C, class T, bool FTZ> void setpMore(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t m = compare<C, T, FTZ>(w, in), with = in.mode ? w.word(in.c) ^ (in.flags & 2 ? kAll : 0) : 0;
  uint32_t first = combine(in.mode, m, with), second = combine(in.mode, ~m, with);
  uint32_t& d = w.word(in.d);
  d = (d & ~lanes) | (first & lanes);
  if (in.flags & 1) {
    uint32_t& q = w.word(in.extra);
    q = (q & ~lanes) | (second & lanes);
  }
}
// All ones, or 1.0.
template <int C, class T, bool FTZ> void set(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t m = combine(in.mode, compare<C, T, FTZ>(w, in), in.mode ? w.word(in.c) ^ (in.flags & 2 ? kAll : 0) : 0);
  uint32_t yes = in.flags & 4 ? toBits(1.0f) : kAll;
  each(w.at<uint32_t>(in.d), lanes, [=](uint32_t i) { return m >> i & 1 ? yes : 0; });
}

struct Handlers {
  Handler plain, more, set;
};
template <int C, class T, bool FTZ> constexpr Handlers handlers() { return {setp<C, T, FTZ>, setpMore<C, T, FTZ>, set<C, T, FTZ>}; }
template <class T, bool FTZ, int... C> Handlers byCompare(int c, std::integer_sequence<int, C...>) {
  static constexpr Handlers table[] = {handlers<C, T, FTZ>()...};
  return table[c];
}
template <class T, bool FTZ = false> Handlers of(int c) { return byCompare<T, FTZ>(c, std::make_integer_sequence<int, kCompares>()); }

Handlers find(Decoder& d, Type t, int c, bool ftz) {
  bool floating = isFloat(t), untyped = t == Type::B16 || t == Type::B32 || t == Type::B64;
  if (!floating && c > kGe) d.fail("this comparison is for floating-point types");
  if (untyped && c != kEq && c != kNe) d.fail("bits are equal or not, no more");
  if (ftz && t != Type::F32) d.fail(".ftz is for .f32");
  switch (t) {
    case Type::B16: case Type::U16: return of<uint16_t>(c);
    case Type::S16: return of<int16_t>(c);
    case Type::B32: case Type::U32: return of<uint32_t>(c);
    case Type::S32: return of<int32_t>(c);
    case Type::B64: case Type::U64: return of<uint64_t>(c);
    case Type::S64: return of<int64_t>(c);
    case Type::F16: return of<HalfFloat>(c);
    case Type::F32: return ftz ? of<float, true>(c) : of<float>(c);
    case Type::F64: return of<double>(c);
    default: d.fail("no such type");
  }
}

int takeCompare(Decoder& d, bool& unsignedOnly) {
  unsignedOnly = false;
  for (int c = 0; c < kCompares; c++)
    if (d.take(kNames[c])) return c;
  const char* other[] = {"lo", "ls", "hi", "hs"};
  const int same[] = {kLt, kLe, kGt, kGe};
  for (int i = 0; i < 4; i++)
    if (d.take(other[i])) {
      unsignedOnly = true;
      return same[i];
    }
  d.fail("its comparison is missing");
}
uint8_t takeCombine(Decoder& d) { return d.take("and") ? kAnd : d.take("or") ? kOr : d.take("xor") ? kXor : kPlain; }

void decodeSetp(Decoder& d) {
  bool u;
  int c = takeCompare(d, u);
  uint8_t mode = takeCombine(d);
  bool ftz = d.take("ftz");
  Type t = d.takeType();
  if (u && (isFloat(t) || isSigned(t))) d.fail("this comparison is for unsigned types");
  Handlers h = find(d, t, c, ftz);
  d.expect(mode ? 4 : 3);
  Operand first = d.operand(0);
  std::string_view second = first.second;
  first.second = {};
  d.in.d = d.destination(first, Type::Pred);
  d.in.a = d.source(1, t);
  d.in.b = d.source(2, t);
  d.in.mode = mode;
  if (!second.empty()) {
    Operand q;
    q.name = second;
    d.in.extra = d.destination(q, Type::Pred);
    d.in.flags |= 1;
  }
  if (mode) {
    uint32_t invert;
    d.in.c = d.predicate(d.operand(3), invert);
    if (invert) d.in.flags |= 2;
  }
  d.in.handler = mode || !second.empty() ? h.more : h.plain;
}
void decodeSet(Decoder& d) {
  bool u;
  int c = takeCompare(d, u);
  uint8_t mode = takeCombine(d);
  bool ftz = d.take("ftz");
  Type to = d.takeType(), t = d.takeType();
  if (to != Type::U32 && to != Type::S32 && to != Type::F32) d.fail("no such type");
  if (u && (isFloat(t) || isSigned(t))) d.fail("this comparison is for unsigned types");
  Handlers h = find(d, t, c, ftz);
  d.expect(mode ? 4 : 3);
  d.in.d = d.destination(0, to);
  d.in.a = d.source(1, t);
  d.in.b = d.source(2, t);
  d.in.mode = mode;
  d.in.flags = to == Type::F32 ? 4 : 0;
  if (mode) {
    uint32_t invert;
    d.in.c = d.predicate(d.operand(3), invert);
    if (invert) d.in.flags |= 2;
  }
  d.in.handler = h.set;
}

template <class T> void selp(Warp& w, const Instruction& in, uint32_t lanes) {
  T *a = w.at<T>(in.a), *b = w.at<T>(in.b);
  uint32_t p = w.word(in.c);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) { return p >> i & 1 ? a[i] : b[i]; });
}
void decodeSelp(Decoder& d) {
  Type t = d.takeType();
  d.expect(4);
  if (bitsOf(t) < 16) d.fail("no such type");
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  d.in.b = d.source(2, t);
  uint32_t invert;
  d.in.c = d.predicate(d.operand(3), invert);
  if (invert) std::swap(d.in.a, d.in.b);
  d.in.handler = bitsOf(t) == 64 ? selp<uint64_t> : selp<uint32_t>;
}
template <class T, class S> void slct(Warp& w, const Instruction& in, uint32_t lanes) {
  T *a = w.at<T>(in.a), *b = w.at<T>(in.b);
  S* c = w.at<S>(in.c);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) { return c[i] >= 0 ? a[i] : b[i]; });
}
void decodeSlct(Decoder& d) {
  if (d.take("ftz")) d.fail(".ftz is not known here");
  Type t = d.takeType(), s = d.takeType();
  d.expect(4);
  if (bitsOf(t) < 16 || (s != Type::S32 && s != Type::F32)) d.fail("no such type");
  bool wide = bitsOf(t) == 64, floating = s == Type::F32;
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  d.in.b = d.source(2, t);
  d.in.c = d.source(3, s);
  d.in.handler = wide ? (floating ? slct<uint64_t, float> : slct<uint64_t, int32_t>) : floating ? slct<uint32_t, float> : slct<uint32_t, int32_t>;
}

}  // namespace

std::vector<Opcode> compareOpcodes() { return {{"setp", decodeSetp}, {"set", decodeSet}, {"selp", decodeSelp}, {"slct", decodeSlct}}; }

}  // namespace emulator
