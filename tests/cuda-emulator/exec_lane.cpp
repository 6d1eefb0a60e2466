// Exchange between the lanes of a warp.
#include <type_traits>

#include "exec_warp.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

enum Shuffle : uint8_t { kUp, kDown, kBfly, kIdx };

void shfl(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *a = w.at<uint32_t>(in.a), *b = w.at<uint32_t>(in.b), *c = w.at<uint32_t>(in.c), *members = w.at<uint32_t>(in.members);
  uint32_t r[kLanes], within = 0;
  eachLane(lanes, [&](uint32_t i) {
    uint32_t by = b[i] & 31, clamp = c[i] & 31, segment = c[i] >> 8 & 31;
    uint32_t last = (i & segment) | (clamp & ~segment), first = i & segment;
    int32_t j;
    bool ok;
    switch (in.mode) {
      case kUp: j = int32_t(i) - int32_t(by); ok = j >= int32_t(last); break;
      case kDown: j = int32_t(i + by); ok = j <= int32_t(last); break;
      case kBfly: j = int32_t(i ^ by); ok = j <= int32_t(last); break;
      default: j = int32_t(first | (by & ~segment)); ok = j <= int32_t(last); break;
    }
    if (!ok) j = int32_t(i);
    within |= uint32_t(ok) << i;
    if (!(lanes >> j & 1) || !(members[i] >> j & 1))
      fault(w, in, i, "a shuffle from lane " + std::to_string(j) + ", which does not take part (lanes " + hex(lanes) + ", member mask " + hex(members[i]) + ")");
    r[i] = a[j];
  });
  each(w.at<uint32_t>(in.d), lanes, [&](uint32_t i) { return r[i]; });
  if (in.flags) {
    uint32_t& p = w.word(in.extra);
    p = (p & ~lanes) | within;
  }
}
// Of all 32 lanes within the whole warp, the usual case.
void shflBflyAll(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t *a = w.at<uint32_t>(in.a), *members = w.at<uint32_t>(in.members), by = uint32_t(in.offset);
  if (lanes != kAll || members[0] != kAll) return shfl(w, in, lanes);
  alignas(64) uint32_t r[kLanes];
  memcpy(r, a, sizeof r);
  uint32_t* d = w.at<uint32_t>(in.d);
  for (uint32_t i = 0; i < kLanes; i++) d[i] = r[i ^ by];
}

void decodeShfl(Decoder& d) {
  d.need("sync");
  d.in.mode = d.take("up") ? kUp : d.take("down") ? kDown : d.take("bfly") ? kBfly : kIdx;
  if (d.in.mode == kIdx) d.need("idx");
  d.need("b32");
  d.expect(5);
  Operand to = d.operand(0);
  if (!to.second.empty()) {
    Operand p;
    p.name = to.second;
    d.in.extra = d.destination(p, Type::Pred);
    d.in.flags = 1;
    to.second = {};
  }
  d.in.d = d.destination(to, Type::B32);
  d.in.a = d.source(1, Type::B32);
  d.in.b = d.source(2, Type::U32);
  d.in.c = d.source(3, Type::U32);
  d.in.members = d.source(4, Type::U32);
  d.in.control = Control::WarpSync;
  d.in.handler = shfl;
  const Operand &by = d.operand(2), &clamp = d.operand(3);
  if (d.in.mode == kBfly && !d.in.flags && by.kind == Operand::Integer && by.bits < 32 && clamp.kind == Operand::Integer && clamp.bits == 31) {
    d.in.offset = int64_t(by.bits);
    d.in.handler = shflBflyAll;
  }
}

// The lanes of the same member mask vote together.
template <class F> void groups(Warp& w, const Instruction& in, uint32_t lanes, F f) {
  uint32_t* members = w.at<uint32_t>(in.members);
  for (uint32_t rest = lanes; rest;) {
    uint32_t mask = members[__builtin_ctz(rest)], group = 0;
    eachLane(rest, [&](uint32_t i) { group |= members[i] == mask ? 1u << i : 0; });
    f(group);
    rest &= ~group;
  }
}
enum Vote : uint8_t { kAllVote, kAnyVote, kUniVote, kBallot };
void vote(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t p = w.word(in.a) ^ uint32_t(in.offset);
  groups(w, in, lanes, [&](uint32_t group) {
    uint32_t yes = p & group;
    if (in.mode == kBallot) {
      each(w.at<uint32_t>(in.d), group, [=](uint32_t) { return yes; });
      return;
    }
    bool r = in.mode == kAllVote ? yes == group : in.mode == kAnyVote ? yes != 0 : yes == 0 || yes == group;
    uint32_t& d = w.word(in.d);
    d = (d & ~group) | (r ? group : 0);
  });
}
void decodeVote(Decoder& d) {
  d.need("sync");
  d.in.mode = d.take("all") ? kAllVote : d.take("any") ? kAnyVote : d.take("uni") ? kUniVote : kBallot;
  if (d.in.mode == kBallot) {
    d.need("ballot");
    d.need("b32");
  } else {
    d.need("pred");
  }
  d.expect(3);
  d.in.d = d.destination(0, d.in.mode == kBallot ? Type::B32 : Type::Pred);
  uint32_t invert;
  d.in.a = d.predicate(d.operand(1), invert);
  d.in.offset = int64_t(invert);
  d.in.members = d.source(2, Type::U32);
  d.in.control = Control::WarpSync;
  d.in.handler = vote;
}

enum Reduce : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };
template <class T> void redux(Warp& w, const Instruction& in, uint32_t lanes) {
  T* a = w.at<T>(in.a);
  groups(w, in, lanes, [&](uint32_t group) {
    T r = a[__builtin_ctz(group)];
    eachLane(group & (group - 1), [&](uint32_t i) {
      T v = a[i];
      switch (in.mode) {
        case kAdd: r = T(uint32_t(r) + uint32_t(v)); break;
        case kMin: r = v < r ? v : r; break;
        case kMax: r = v > r ? v : r; break;
        case kAnd: r &= v; break;
        case kOr: r |= v; break;
        default: r ^= v; break;
      }
    });
    each(w.at<T>(in.d), group, [=](uint32_t) { return r; });
  });
}
void decodeRedux(Decoder& d) {
  d.need("sync");
  const char* names[] = {"add", "min", "max", "and", "or", "xor"};
  int mode = -1;
  for (int i = 0; i < 6 && mode < 0; i++)
    if (d.take(names[i])) mode = i;
  if (mode < 0) d.fail("its operation is not known");
  Type t = d.takeType();
  if (mode >= kAnd ? t != Type::B32 : t != Type::U32 && t != Type::S32) d.fail("no such type");
  d.expect(3);
  d.in.mode = uint8_t(mode);
  d.in.d = d.destination(0, t);
  d.in.a = d.source(1, t);
  d.in.members = d.source(2, Type::U32);
  d.in.control = Control::WarpSync;
  d.in.handler = t == Type::S32 ? redux<int32_t> : redux<uint32_t>;
}

}  // namespace

std::vector<Opcode> laneOpcodes() { return {{"shfl", decodeShfl}, {"vote", decodeVote}, {"redux", decodeRedux}}; }

}  // namespace emulator
