// mov, with its packing and unpacking; cvta; what orders or ends.
#include "exec_warp.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

template <class T> void move(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  each(w.at<T>(in.d), lanes, [=](uint32_t i) { return a[i]; });
}
void movePredicate(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t v = w.word(in.a);
  uint32_t& d = w.word(in.d);
  d = (d & ~lanes) | (v & lanes);
}
void activemask(Warp& w, const Instruction& in, uint32_t lanes) {
  each(w.at<uint32_t>(in.d), lanes, [=](uint32_t) { return lanes; });
}

// {a, b, ..} of `BITS` each into one register, and back. Sources are read before anything is written.
template <class T, int BITS> void packInto(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t* e = &w.worker->function->extra[in.extra];
  eachLane(lanes, [&](uint32_t i) {
    T v = 0;
    for (uint32_t k = 0; k < in.count; k++) v |= T(w.at<uint32_t>(e[k])[i]) << (BITS * k);
    w.at<T>(in.d)[i] = v;
  });
}
template <class T, int BITS> void unpackFrom(Warp& w, const Instruction& in, uint32_t lanes) {
  const uint32_t* e = &w.worker->function->extra[in.extra];
  T* a = w.at<T>(in.a);
  eachLane(lanes, [&](uint32_t i) {
    T v = a[i];
    for (uint32_t k = 0; k < in.count; k++)
      if (e[k]) w.at<uint32_t>(e[k])[i] = uint32_t(BITS == 32 ? v >> (BITS * k) : v >> (BITS * k) & ((T(1) << BITS) - 1));
  });
}

void decodeMov(Decoder& d) {
  Type t = d.takeType();
  d.expect(2);
  const Operand &to = d.operand(0), &from = d.operand(1);
  if (bitsOf(t) == 8 || t == Type::F16x2 || t == Type::TF32) d.fail("no such type");
  if (to.kind == Operand::List || from.kind == Operand::List) {
    const Operand& list = to.kind == Operand::List ? to : from;
    if (t != Type::B32 && t != Type::B64) d.fail("packing is for .b32 and .b64");
    uint32_t bits = bitsOf(t) / uint32_t(list.list.size());
    if ((list.list.size() != 2 && list.list.size() != 4) || (bits != 16 && bits != 32)) d.fail("elements that do not fit");
    Type element = bits == 16 ? Type::B16 : Type::B32;
    d.in.count = uint8_t(list.list.size());
    d.in.extra = uint32_t(d.function.extra.size());
    for (const Operand& o : list.list) {
      bool none = &list == &to && o.kind == Operand::Name && o.name == "_";
      uint32_t r = none ? 0 : &list == &to ? d.destination(o, element) : d.source(o, element);
      d.function.extra.push_back(r);
    }
    bool wide = t == Type::B64;
    if (&list == &to) {
      d.in.a = d.source(1, t);
      d.in.handler = wide ? (bits == 16 ? unpackFrom<uint64_t, 16> : unpackFrom<uint64_t, 32>) : unpackFrom<uint32_t, 16>;
    } else {
      d.in.d = d.destination(0, t);
      d.in.handler = wide ? (bits == 16 ? packInto<uint64_t, 16> : packInto<uint64_t, 32>) : packInto<uint32_t, 16>;
    }
    return;
  }
  d.in.d = d.destination(0, t);
  if (t == Type::Pred) {
    uint32_t invert;
    d.in.a = d.predicate(from, invert);
    if (invert) d.fail("no negation here");
    d.in.handler = movePredicate;
    return;
  }
  d.in.a = d.source(1, t);
  d.in.handler = bitsOf(t) == 64 ? move<uint64_t> : move<uint32_t>;
}
void decodeActivemask(Decoder& d) {
  d.need("b32");
  d.expect(1);
  d.in.d = d.destination(0, Type::B32);
  d.in.handler = activemask;
}

// Addresses of the other spaces lie in windows of the generic one.
template <bool BACK> void window(Warp& w, const Instruction& in, uint32_t lanes) {
  uint64_t *a = w.at<uint64_t>(in.a), base = uint64_t(in.offset);
  each(w.at<uint64_t>(in.d), lanes, [=](uint32_t i) { return BACK ? a[i] - base : a[i] + base; });
}
void decodeCvta(Decoder& d) {
  bool back = d.take("to");
  uint64_t base = 0;
  // Addresses of constants are in their window already.
  if (d.take("shared")) base = kSharedWindow;
  else if (d.take("local")) base = kLocalWindow;
  else if (!d.take("global") && !d.take("const")) d.fail("its space is not known");
  Type t = d.takeType();
  if (t != Type::U64) d.fail("no such type");
  d.expect(2);
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  d.in.offset = int64_t(base);
  d.in.handler = base == 0 ? Handler(move<uint64_t>) : back ? Handler(window<true>) : Handler(window<false>);
}
uint64_t windowOf(std::string_view space) { return space == "shared" ? kSharedWindow : space == "local" ? kLocalWindow : 0; }
void isSpace(Warp& w, const Instruction& in, uint32_t lanes) {
  uint64_t* a = w.at<uint64_t>(in.a);
  uint32_t m = 0;
  eachLane(lanes, [&](uint32_t i) {
    uint64_t window = a[i] & kWindowMask;
    bool yes = in.offset ? window == uint64_t(in.offset) : window != kSharedWindow && window != kLocalWindow && window != kConstWindow;
    m |= uint32_t(yes) << i;
  });
  uint32_t& d = w.word(in.d);
  d = (d & ~lanes) | m;
}
void decodeIsspacep(Decoder& d) {
  std::string_view space = d.next();
  if (space != "shared" && space != "local" && space != "global" && space != "const") d.fail("its space is not known");
  d.expect(2);
  d.in.d = d.destination(0, Type::Pred);
  d.in.a = d.source(1, Type::U64);
  d.in.offset = int64_t(space == "const" ? kConstWindow : windowOf(space));
  d.in.handler = isSpace;
}

}  // namespace

std::vector<Opcode> moveOpcodes() { return {{"mov", decodeMov}, {"activemask", decodeActivemask}, {"cvta", decodeCvta}, {"isspacep", decodeIsspacep}}; }

}  // namespace emulator
