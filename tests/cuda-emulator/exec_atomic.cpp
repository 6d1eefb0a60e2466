// atom and red.
#include <type_traits>

#include "exec_float.h"
#include "exec_memory.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

enum Operation : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor, kExch, kCas, kInc, kDec };
constexpr const char* kNames[] = {"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"};

template <class T> T apply(uint8_t operation, T old, T b, T c) {
  if constexpr (std::is_floating_point_v<T>) {
    (void)c;
    return operation == kAdd ? canonical(T(old + b)) : b;
  } else {
    switch (operation) {
      case kAdd: return T(std::make_unsigned_t<T>(old) + std::make_unsigned_t<T>(b));
      case kMin: return b < old ? b : old;
      case kMax: return b > old ? b : old;
      case kAnd: return old & b;
      case kOr: return old | b;
      case kXor: return old ^ b;
      case kExch: return b;
      case kCas: return old == b ? c : old;
      case kInc: return old >= b ? 0 : old + 1;
      default: return old == 0 || old > b ? b : old - 1;
    }
  }
}

constexpr uint8_t kResult = 1, kWideAddress = 2;

template <class T> void atomic(Warp& w, const Instruction& in, uint32_t lanes) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  Place to[kLanes];
  places(w, in, lanes, Space(in.count), in.flags & kWideAddress, sizeof(T), Access::Atomic, to);
  // One lane after the other; other blocks may run beside.
  eachLane(lanes, [&](uint32_t i) {
    Bits* at = reinterpret_cast<Bits*>(to[i].data);
    T b = w.at<T>(in.b)[i], c = w.at<T>(in.c)[i];
    Bits old = __atomic_load_n(at, __ATOMIC_RELAXED), next;
    do next = __builtin_bit_cast(Bits, apply<T>(in.mode, __builtin_bit_cast(T, old), b, c));
    while (!__atomic_compare_exchange_n(at, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    if (in.flags & kResult) w.at<Bits>(in.d)[i] = old;
  });
}

void decodeAtomic(Decoder& d) {
  bool result = d.base == "atom";
  bool order = d.take("relaxed") || d.take("acquire") || d.take("release") || d.take("acq_rel");
  (void)order;
  if (!d.take("cta") && !d.take("gpu")) d.take("sys");
  Space space = d.take("global") ? Space::Global : d.take("shared") ? Space::Shared : Space::Generic;
  int operation = -1;
  for (int i = 0; i < 10 && operation < 0; i++)
    if (d.take(kNames[i])) operation = i;
  if (operation < 0) d.fail("its operation is not known");
  Type t = d.takeType();
  bool bits = t == Type::B32 || t == Type::B64, whole = t == Type::U32 || t == Type::S32 || t == Type::U64 || t == Type::S64;
  bool real = t == Type::F32 || t == Type::F64, ok;
  switch (operation) {
    case kAdd: ok = real || t == Type::U32 || t == Type::S32 || t == Type::U64; break;
    case kMin: case kMax: ok = whole; break;
    case kInc: case kDec: ok = t == Type::U32; break;
    case kExch: case kCas: ok = bits && result; break;
    default: ok = bits; break;
  }
  if (!ok) d.fail("no such type");
  size_t first = result ? 1 : 0;
  d.expect(first + (operation == kCas ? 3 : 2));
  d.in.mode = uint8_t(operation);
  d.in.count = uint8_t(space);
  bool wide;
  d.address(first, space, wide);
  d.in.flags = uint8_t((result ? kResult : 0) | (wide ? kWideAddress : 0));
  if (result) d.in.d = d.destination(0, t);
  d.in.b = d.source(first + 1, t);
  d.in.c = operation == kCas ? d.source(first + 2, t) : d.in.b;
  switch (t) {
    case Type::B32: case Type::U32: d.in.handler = atomic<uint32_t>; break;
    case Type::S32: d.in.handler = atomic<int32_t>; break;
    case Type::B64: case Type::U64: d.in.handler = atomic<uint64_t>; break;
    case Type::S64: d.in.handler = atomic<int64_t>; break;
    case Type::F32: d.in.handler = atomic<float>; break;
    default: d.in.handler = atomic<double>; break;
  }
}

}  // namespace

std::vector<Opcode> atomicOpcodes() { return {{"atom", decodeAtomic}, {"red", decodeAtomic}}; }

}  // namespace emulator
