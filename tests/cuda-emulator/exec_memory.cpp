// ld and st.
#include "exec_memory.h"

#include <utility>

#include "ptx_decode.h"

namespace emulator {

namespace {

const char* spaceName(Space s) {
  switch (s) {
    case Space::Global: return "global";
    case Space::Shared: return "shared";
    case Space::Local: return "local";
    case Space::Param: return "parameter";
    case Space::Const: return "constant";
    default: return "generic";
  }
}
const char* verb(Access a) { return a == Access::Read ? "a read" : a == Access::Write ? "a write" : "an atomic"; }

Allocation* variableAt(const Function& f, uint64_t address, uint64_t size) {
  for (const auto& v : *f.variables)
    if (v->space != Space::Shared && address >= v->address && address + size <= v->address + v->bytes) return &v->allocation;
  return nullptr;
}

bool allSet(const uint8_t* flags, uint64_t count) {
  uint64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    uint64_t v;
    memcpy(&v, flags + i, 8);
    if (v != 0x0101010101010101ull) return false;
  }
  for (; i < count; i++)
    if (flags[i] != 1) return false;
  return true;
}
// Of a byte's state in shared memory: whether any has a copy under way.
bool anyPending(const uint8_t* state, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    if (state[i] > 1) return true;
  return false;
}

Place sharedPlace(Warp& w, const Instruction& in, uint32_t lane, uint64_t address, uint32_t size, Access access) {
  SharedMemory& s = w.worker->shared;
  if (address > s.bytes || size > s.bytes - address)
    fault(w, in, lane, std::string(verb(access)) + " of " + std::to_string(size) + " bytes at " + hex(address) + " of shared memory, which has " + std::to_string(s.bytes) + " bytes");
  uint8_t* state = &s.state[address];
  if (!allSet(state, size)) {
    if (anyPending(state, size)) fault(w, in, lane, std::string(verb(access)) + " of shared memory at " + hex(address) + ", to which a cp.async is under way");
    if (s.traced && access != Access::Write)
      fault(w, in, lane, std::string(verb(access)) + " of shared memory at " + hex(address) + " that was never written (uninitialised, or a race with who writes it later)");
  }
  bool again = false;
  if (s.traced) {
    uint32_t other = s.touch(uint32_t(address), size, w.index, lane, access);
    again = other == kSameInstruction;
    if (other != kNobody && !again) fault(w, in, lane, std::string(verb(access)) + " of shared memory at " + hex(address) + " races with " + describeToucher(other));
  }
  return {&s.data[address], state, again};
}

Place localPlace(Warp& w, const Instruction& in, uint32_t lane, uint64_t address, uint32_t size, Access access) {
  uint64_t bytes = w.worker->function->info.localBytes;
  if (address > bytes || size > bytes - address)
    fault(w, in, lane, std::string(verb(access)) + " of " + std::to_string(size) + " bytes at " + hex(address) + " of local memory, which has " + std::to_string(bytes) + " bytes");
  uint64_t at = lane * bytes + address;
  if (access == Access::Read && w.worker->launch->checked && !allSet(&w.localInitialised[at], size))
    fault(w, in, lane, "a read of local memory at " + hex(address) + " that was never written (uninitialised)");
  return {&w.local[at], &w.localInitialised[at], false};
}

Place parameterPlace(Warp& w, const Instruction& in, uint32_t lane, uint64_t address, uint32_t size) {
  const Launch& l = *w.worker->launch;
  if (address > l.parameterBytes || size > l.parameterBytes - address)
    fault(w, in, lane, "a read of " + std::to_string(size) + " bytes at " + hex(address) + " of the parameters, which have " + std::to_string(l.parameterBytes) + " bytes");
  return {const_cast<uint8_t*>(l.parameters) + address, nullptr, false};
}

Place globalPlace(Warp& w, const Instruction& in, uint32_t lane, Space space, uint64_t address, uint32_t size, Access access) {
  bool constant = (address & kWindowMask) == kConstWindow;
  if (space == Space::Const && !constant) fault(w, in, lane, "address " + hex(address) + " is not of constant memory");
  if (access != Access::Read && constant) fault(w, in, lane, "constant memory is only read");
  Allocation& a = allocationOf(w, in, lane, address, size);
  uint64_t offset = address - a.base;
  if (!constant) {
    note(w, in, lane, a, offset, size, access);
    if (access == Access::Read) w.worker->counters.globalBytesRead += size;
    else w.worker->counters.globalBytesWritten += size;
  }
  return {a.data + offset, a.initialised ? a.initialised + offset : nullptr, false};
}

struct Locked {
  GlobalTraces& traces;
  explicit Locked(GlobalTraces& t) : traces(t) { traces.lock(); }
  ~Locked() { traces.unlock(); }
};

}  // namespace

Allocation& allocationOf(Warp& w, const Instruction& in, uint32_t lane, uint64_t address, uint64_t size) {
  Allocation*& cached = w.worker->cached[in.site];
  if (__builtin_expect(cached && address >= cached->base && address - cached->base <= cached->bytes && size <= cached->bytes - (address - cached->base), 1)) return *cached;
  if (address >= kConstWindow) {
    Allocation* a = variableAt(*w.worker->function, address, size);
    if (!a) fault(w, in, lane, std::to_string(size) + " bytes at " + hex(address) + " lie in no variable of the module");
    return *(cached = a);
  }
  try {
    cached = &w.worker->memory->find(address, size);
  } catch (const Fault& f) {
    fault(w, in, lane, std::to_string(size) + " bytes at " + hex(address) + " of global memory: " + f.what());
  }
  return *cached;
}

namespace {
Toucher toucherOf(const Warp& w) {
  const Worker& k = *w.worker;
  return {uint32_t(k.block + 1), w.index, k.warpCount, k.shared.barriers, k.shared.met[w.index]};
}
}  // namespace

void note(Warp& w, const Instruction& in, uint32_t lane, Allocation& a, uint64_t offset, uint64_t size, Access access) {
  Worker& k = *w.worker;
  if (!k.traces->on()) return;
  if (access != Access::Write && a.initialised && !allSet(a.initialised + offset, size)) {
    uint64_t i = 0;
    while (a.initialised[offset + i]) i++;
    fault(w, in, lane, std::string(verb(access)) + " of global memory at " + hex(a.base + offset + i) + " that was never written: uninitialised (byte " + std::to_string(offset + i) + " of " +
                           std::to_string(a.bytes) + ")");
  }
  Toucher by = toucherOf(w);
  if (const GlobalTrace* other = k.traces->touch(a, offset, size, by, access))
    fault(w, in, lane, std::string(verb(access)) + " of " + std::to_string(size) + " bytes of global memory at " + hex(a.base + offset) + " races: " + GlobalTraces::describe(*other, by, access));
}

Place place(Warp& w, const Instruction& in, uint32_t lane, Space space, uint64_t address, uint32_t size, Access access) {
  if (space == Space::Generic) {
    uint64_t window = address & kWindowMask;
    space = window == kSharedWindow ? Space::Shared : window == kLocalWindow ? Space::Local : Space::Global;
    if (space != Space::Global) address &= ~kWindowMask;
  }
  if (address & (size - 1)) fault(w, in, lane, std::string(verb(access)) + " of " + std::to_string(size) + " bytes at " + hex(address) + " of " + spaceName(space) + " memory is not aligned");
  switch (space) {
    case Space::Shared: return sharedPlace(w, in, lane, address, size, access);
    case Space::Local: return localPlace(w, in, lane, address, size, access);
    case Space::Param: return parameterPlace(w, in, lane, address, size);
    default: return globalPlace(w, in, lane, space, address, size, access);
  }
}

namespace {

template <uint32_t SIZE, Access ACCESS> bool sharedPlaces(Warp& w, const uint32_t* addresses, uint32_t lanes, Place* to) {
  SharedMemory& s = w.worker->shared;
  uint8_t *data = s.data.data(), *state = s.state.data();
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    uint32_t i = uint32_t(__builtin_ctz(rest)), address = addresses[i];
    if (ACCESS == Access::Read ? !allSet(state + address, SIZE) && (s.traced || anyPending(state + address, SIZE)) : anyPending(state + address, SIZE)) return false;
    to[i] = {data + address, state + address, false};
    // Of lanes side by side that read the same, two stand for all.
    if (!s.traced || (ACCESS == Access::Read && i > 1 && addresses[i - 1] == address && addresses[i - 2] == address && (lanes >> (i - 2) & 3) == 3)) continue;
    uint32_t other = s.touch(address, SIZE, w.index, i, ACCESS);
    to[i].again = other == kSameInstruction;
    if (other != kNobody && other != kSameInstruction) return false;
  }
  return true;
}

template <Access ACCESS> bool sharedPlaces(Warp& w, const uint32_t* addresses, uint32_t lanes, uint32_t size, Place* to) {
  switch (size) {
    case 1: return sharedPlaces<1, ACCESS>(w, addresses, lanes, to);
    case 2: return sharedPlaces<2, ACCESS>(w, addresses, lanes, to);
    case 4: return sharedPlaces<4, ACCESS>(w, addresses, lanes, to);
    case 8: return sharedPlaces<8, ACCESS>(w, addresses, lanes, to);
    default: return sharedPlaces<16, ACCESS>(w, addresses, lanes, to);
  }
}

}  // namespace

namespace {

// A signed byte in a 16-bit register is extended to 16 bits: SIGN is 16 then, else 32 or 64.
template <class E, class R, int SIGN> inline R extend(E v) {
  if (SIGN == 16) return R(uint16_t(int16_t(std::make_signed_t<E>(v))));
  return SIGN ? R(std::make_signed_t<R>(std::make_signed_t<E>(v))) : R(v);
}

// Which lane's value stays where several store to one place is not defined: a lane that does not find its own has lost it to another.
[[noreturn]] void lostStore(Warp& w, const Instruction& in, uint32_t lane, Space space, uint32_t size) {
  fault(w, in, lane, "a write of " + std::to_string(size) + " bytes of " + spaceName(space) + " memory races: another lane stores another value there by the same instruction");
}

// The lanes' addresses in shared memory. False where one is out of bounds or not aligned; lanes that are not in the mask get another's.
template <uint32_t SIZE, bool WIDE> bool sharedAddresses(Warp& w, const Instruction& in, uint32_t lanes, uint32_t* at) {
  const SharedMemory& s = w.worker->shared;
  if (s.bytes < SIZE) return false;
  uint32_t room = s.bytes - SIZE, wrong = 0;
  if (WIDE) {
    const uint64_t* a = w.at<uint64_t>(in.a);
    for (uint32_t i = 0; i < kLanes; i++) {
      uint64_t address = a[i] + uint64_t(in.offset);
      bool bad = (address > room) | ((address & (SIZE - 1)) != 0);
      at[i] = bad ? 0 : uint32_t(address);
      wrong |= uint32_t(bad) << i;
    }
  } else {
    const uint32_t* a = w.at<uint32_t>(in.a);
    for (uint32_t i = 0; i < kLanes; i++) {
      uint32_t address = a[i] + uint32_t(in.offset);
      bool bad = (address > room) | ((address & (SIZE - 1)) != 0);
      at[i] = bad ? 0 : address;
      wrong |= uint32_t(bad) << i;
    }
  }
  if (wrong & lanes) return false;
  if (lanes != kAll) {
    uint32_t any = at[__builtin_ctz(lanes)];
    for (uint32_t i = 0; i < kLanes; i++) at[i] = lanes >> i & 1 ? at[i] : any;
  }
  return true;
}

// The usual read of shared memory, all lanes at once. False, with nothing done, where one of them must be looked at more closely.
template <class E, class R, int SIGN, bool WIDE, uint32_t COUNT> bool loadShared(Warp& w, const Instruction& in, uint32_t lanes, const uint32_t* to) {
  SharedMemory& s = w.worker->shared;
  constexpr uint32_t size = uint32_t(sizeof(E)) * COUNT;
  alignas(64) uint32_t at[kLanes];
  if (!sharedAddresses<size, WIDE>(w, in, lanes, at)) return false;
  const uint8_t *data = s.data.data(), *state = s.state.data();
  constexpr uint64_t written = sizeof(E) == 8 ? 0x0101010101010101ull : (1ull << (8 * sizeof(E) % 64)) / 255;
  E wrongs = 0;
  for (uint32_t e = 0; e < COUNT; e++)
    for (uint32_t i = 0; i < kLanes; i++) {
      E v;
      memcpy(&v, state + at[i] + e * sizeof(E), sizeof(E));
      wrongs |= v ^ E(written);
    }
  if (wrongs) return false;
  if (s.traced) {
    if (size < 4) return false;
    alignas(64) uint32_t part[kLanes];
    for (uint32_t k = 0; k < size; k += 4) {
      for (uint32_t i = 0; i < kLanes; i++) part[i] = at[i] + k;
      if (!s.readWords(part, lanes, w.index)) return false;
    }
  }
  for (uint32_t e = 0; e < COUNT; e++)
    each(w.at<R>(to[e]), lanes, [=](uint32_t i) {
      E v;
      memcpy(&v, data + at[i] + e * sizeof(E), sizeof(E));
      return extend<E, R, SIGN>(v);
    });
  return true;
}

// The same for writes of whole words.
template <class E, class R, bool WIDE, uint32_t COUNT> bool storeShared(Warp& w, const Instruction& in, uint32_t lanes, const uint32_t* values) {
  SharedMemory& s = w.worker->shared;
  constexpr uint32_t size = uint32_t(sizeof(E)) * COUNT;
  alignas(64) uint32_t at[kLanes];
  if (!sharedAddresses<size, WIDE>(w, in, lanes, at)) return false;
  uint8_t *data = s.data.data(), *state = s.state.data();
  E pending = 0;
  for (uint32_t e = 0; e < COUNT; e++)
    for (uint32_t i = 0; i < kLanes; i++) {
      E v;
      memcpy(&v, state + at[i] + e * sizeof(E), sizeof(E));
      pending |= v;
    }
  if (pending & E(0xfefefefefefefefeull)) return false;
  if (s.traced) {
    alignas(64) uint32_t part[kLanes];
    for (uint32_t k = 0; k < size; k += 4) {
      for (uint32_t i = 0; i < kLanes; i++) part[i] = at[i] + k;
      if (!s.writeWords(part, lanes, w.index)) return false;
    }
  }
  eachLane(lanes, [&](uint32_t i) {
    for (uint32_t e = 0; e < COUNT; e++) {
      E v = E(w.at<R>(values[e])[i]);
      memcpy(data + at[i] + e * sizeof(E), &v, sizeof(E));
    }
    memset(state + at[i], 1, size);
  });
  if (!s.traced) return true;
  for (uint32_t e = 0; e < COUNT; e++) {
    const R* a = w.at<R>(values[e]);
    uint32_t lost = 0;
    for (uint32_t i = 0; i < kLanes; i++) {
      E v;
      memcpy(&v, data + at[i] + e * sizeof(E), sizeof(E));
      lost |= uint32_t(v != E(a[i])) << i;
    }
    if (lost & lanes) lostStore(w, in, uint32_t(__builtin_ctz(lost & lanes)), Space::Shared, size);
  }
  return true;
}

}  // namespace

void places(Warp& w, const Instruction& in, uint32_t lanes, Space space, bool wide, uint32_t size, Access access, Place* to) {
  Worker& k = *w.worker;
  alignas(64) uint64_t addresses[kLanes];
  if (wide) {
    const uint64_t* a = w.at<uint64_t>(in.a);
    for (uint32_t i = 0; i < kLanes; i++) addresses[i] = a[i] + uint64_t(in.offset);
  } else {
    const uint32_t* a = w.at<uint32_t>(in.a);
    for (uint32_t i = 0; i < kLanes; i++) addresses[i] = uint32_t(a[i] + uint32_t(in.offset));
  }
  if (space == Space::Shared || space == Space::Generic) k.shared.next();
  if (space == Space::Shared && access != Access::Atomic) {
    // All at once where nothing is wrong with any; else one by one, which says what is.
    alignas(64) uint32_t low[kLanes];
    uint64_t wrong = 0, room = k.shared.bytes;
    for (uint32_t i = 0; i < kLanes; i++) {
      low[i] = uint32_t(addresses[i]);
      bool bad = (addresses[i] & (size - 1)) != 0 || addresses[i] + size > room || addresses[i] > room;
      wrong |= uint64_t(bad) << i;
    }
    if (!(wrong & lanes) && (access == Access::Read ? sharedPlaces<Access::Read>(w, low, lanes, size, to) : sharedPlaces<Access::Write>(w, low, lanes, size, to))) return;
  }
  Locked locked(*k.traces);
  eachLane(lanes, [&](uint32_t i) { to[i] = place(w, in, i, space, addresses[i], size, access); });
}

namespace {

// The lanes' addresses as one stretch of global memory, in order, within one allocation: its first byte on the host, and how far lanes are
// apart, 0 where all have the same address. Null: they are not, or something is wrong with one of them.
template <bool WIDE> uint8_t* together(Warp& w, const Instruction& in, uint32_t lanes, Space space, uint32_t size, Access access, uint32_t& stride, uint8_t*& initialised) {
  if (lanes != kAll || !WIDE || (space != Space::Global && space != Space::Generic)) return nullptr;
  const uint64_t* a = w.at<uint64_t>(in.a);
  uint64_t apart = a[1] - a[0], wrong = 0;
  if (apart != size && (apart != 0 || access != Access::Read)) return nullptr;
  for (uint32_t i = 0; i < kLanes; i++) wrong |= a[i] ^ (a[0] + i * apart);
  uint64_t first = a[0] + uint64_t(in.offset), all = apart * (kLanes - 1) + size;
  if (wrong || first % size || first >= kSharedWindow) return nullptr;
  Worker& k = *w.worker;
  Allocation* one = k.cached[in.site];
  if (!one || first < one->base || first - one->base > one->bytes || all > one->bytes - (first - one->base)) {
    one = &allocationOf(w, in, 0, first, size);
    if (all > one->bytes - (first - one->base)) return nullptr;
  }
  uint64_t offset = first - one->base;
  initialised = one->initialised ? one->initialised + offset : nullptr;
  if (k.traces->on()) {
    // What is wrong is found again one by one, which names the lane.
    if (access == Access::Read && initialised && !allSet(initialised, all)) return nullptr;
    Locked locked(*k.traces);
    if (k.traces->touch(*one, offset, all, toucherOf(w), access)) return nullptr;
  }
  if (access == Access::Read) k.counters.globalBytesRead += all;
  else k.counters.globalBytesWritten += all;
  stride = uint32_t(apart);
  return one->data + offset;
}

// in.count elements of E bytes a lane; in.mode tells the space.
template <class E, class R, int SIGN, bool WIDE> void load(Warp& w, const Instruction& in, uint32_t lanes) {
  Space space = Space(in.mode);
  const uint32_t* to = &w.worker->function->extra[in.extra];
  uint32_t size = uint32_t(sizeof(E)) * in.count, stride;
  uint8_t* initialised;
  if (const uint8_t* p = together<WIDE>(w, in, lanes, space, size, Access::Read, stride, initialised)) {
    for (uint32_t e = 0; e < in.count; e++) {
      R* d = w.at<R>(to[e]);
      const uint8_t* q = p + e * sizeof(E);
      auto one = [&](uint32_t i, uint32_t apart) {
        E v;
        memcpy(&v, q + i * apart, sizeof(E));
        d[i] = extend<E, R, SIGN>(v);
      };
      if (stride == sizeof(E))
        for (uint32_t i = 0; i < kLanes; i++) one(i, sizeof(E));
      else
        for (uint32_t i = 0; i < kLanes; i++) one(i, stride);
    }
    return;
  }
  if (space == Space::Shared) {
    w.worker->shared.next();
    if (in.count == 1 && loadShared<E, R, SIGN, WIDE, 1>(w, in, lanes, to)) return;
    if constexpr (!SIGN && sizeof(E) >= 4) {
      if (in.count == 2 && loadShared<E, R, SIGN, WIDE, 2>(w, in, lanes, to)) return;
      if (sizeof(E) == 4 && in.count == 4 && loadShared<E, R, SIGN, WIDE, sizeof(E) == 4 ? 4 : 1>(w, in, lanes, to)) return;
    }
  }
  Place from[kLanes];
  places(w, in, lanes, space, WIDE, size, Access::Read, from);
  for (uint32_t e = 0; e < in.count; e++) {
    R* d = w.at<R>(to[e]);
    eachLane(lanes, [&](uint32_t i) {
      E v;
      memcpy(&v, from[i].data + e * sizeof(E), sizeof(E));
      d[i] = extend<E, R, SIGN>(v);
    });
  }
}

// A parameter at a fixed place: the same for all lanes.
template <class E, class R, int SIGN> void loadParameter(Warp& w, const Instruction& in, uint32_t lanes) {
  const Launch& l = *w.worker->launch;
  const uint32_t* to = &w.worker->function->extra[in.extra];
  for (uint32_t e = 0; e < in.count; e++) {
    E v;
    memcpy(&v, l.parameters + in.offset + e * sizeof(E), sizeof(E));
    R r = extend<E, R, SIGN>(v);
    each(w.at<R>(to[e]), lanes, [=](uint32_t) { return r; });
  }
}

template <class E, class R, bool WIDE> void store(Warp& w, const Instruction& in, uint32_t lanes) {
  Space space = Space(in.mode);
  const uint32_t* values = &w.worker->function->extra[in.extra];
  uint32_t size = uint32_t(sizeof(E)) * in.count, stride;
  uint8_t* initialised;
  if (uint8_t* p = together<WIDE>(w, in, lanes, space, size, Access::Write, stride, initialised)) {
    for (uint32_t e = 0; e < in.count; e++) {
      const R* a = w.at<R>(values[e]);
      uint8_t* q = p + e * sizeof(E);
      auto one = [&](uint32_t i, uint32_t apart) {
        E v = E(a[i]);
        memcpy(q + i * apart, &v, sizeof(E));
      };
      if (in.count == 1)
        for (uint32_t i = 0; i < kLanes; i++) one(i, sizeof(E));
      else
        for (uint32_t i = 0; i < kLanes; i++) one(i, size);
    }
    if (initialised) memset(initialised, 1, size * kLanes);
    return;
  }
  if constexpr (sizeof(E) >= 4) {
    if (space == Space::Shared) {
      w.worker->shared.next();
      if (in.count == 1 && storeShared<E, R, WIDE, 1>(w, in, lanes, values)) return;
      if (in.count == 2 && storeShared<E, R, WIDE, 2>(w, in, lanes, values)) return;
      if (sizeof(E) == 4 && in.count == 4 && storeShared<E, R, WIDE, sizeof(E) == 4 ? 4 : 1>(w, in, lanes, values)) return;
    }
  }
  Place to[kLanes];
  places(w, in, lanes, space, WIDE, size, Access::Write, to);
  eachLane(lanes, [&](uint32_t i) {
    for (uint32_t e = 0; e < in.count; e++) {
      E v = E(w.at<R>(values[e])[i]);
      memcpy(to[i].data + e * sizeof(E), &v, sizeof(E));
    }
    if (to[i].initialised) memset(to[i].initialised, 1, size);
  });
  if (!w.worker->launch->checked) return;
  eachLane(lanes, [&](uint32_t i) {
    for (uint32_t e = 0; e < in.count; e++) {
      E v = E(w.at<R>(values[e])[i]);
      if (memcmp(to[i].data + e * sizeof(E), &v, sizeof(E)) != 0) lostStore(w, in, i, space, size);
    }
  });
}

template <class E, class R, int SIGN> Handler loadOf(bool wide, bool parameter) {
  return parameter ? loadParameter<E, R, SIGN> : wide ? load<E, R, SIGN, true> : load<E, R, SIGN, false>;
}
template <class R> Handler loadOf(uint32_t bits, int sign, bool wide, bool parameter) {
  constexpr int whole = 8 * sizeof(R);
  switch (bits) {
    case 8: return sign == 16 ? loadOf<uint8_t, R, 16>(wide, parameter) : sign ? loadOf<uint8_t, R, whole>(wide, parameter) : loadOf<uint8_t, R, 0>(wide, parameter);
    case 16: return sign ? loadOf<uint16_t, R, whole>(wide, parameter) : loadOf<uint16_t, R, 0>(wide, parameter);
    default: return sign ? loadOf<uint32_t, R, whole>(wide, parameter) : loadOf<uint32_t, R, 0>(wide, parameter);
  }
}
template <class E> Handler storeOf(bool wideRegister, bool wide) {
  return wideRegister ? (wide ? store<E, uint64_t, true> : store<E, uint64_t, false>) : wide ? store<E, uint32_t, true> : store<E, uint32_t, false>;
}

Space takeSpace(Decoder& d) {
  if (d.take("global")) return Space::Global;
  if (d.take("shared")) return Space::Shared;
  if (d.take("local")) return Space::Local;
  if (d.take("param")) return Space::Param;
  if (d.take("const")) return Space::Const;
  return Space::Generic;
}

// What orders accesses or hints at caches makes no difference here: all of a warp's accesses are done in order.
void takeOrder(Decoder& d, bool load) {
  if (d.take("volatile") || d.take("weak")) return;
  if (d.take("relaxed") || d.take(load ? "acquire" : "release"))
    if (!d.take("cta") && !d.take("gpu") && !d.take("sys")) d.fail("a scope is missing");
}

// Type and number of what is loaded or stored.
std::pair<Type, uint32_t> takeElements(Decoder& d) {
  uint32_t count = d.take("v2") ? 2 : d.take("v4") ? 4 : 1;
  Type t = d.takeType();
  if (t == Type::Pred || t == Type::F16x2 || t == Type::BF16x2 || t == Type::TF32 || t == Type::BF16 || t == Type::F16) d.fail("no such type");
  if (bitsOf(t) / 8 * count > 16) d.fail("more than 16 bytes");
  return {t, count};
}

// The registers of as many elements; returns whether they are of 64 bits.
bool takeRegisters(Decoder& d, const Operand& of, Type t, uint32_t count, Space space, uint32_t (Decoder::*take)(const Operand&, Type, bool&)) {
  if ((of.kind == Operand::List) != (count > 1) || (count > 1 && of.list.size() != count)) d.fail("as many registers as elements expected");
  d.in.mode = uint8_t(space);
  d.in.count = uint8_t(count);
  d.in.extra = uint32_t(d.function.extra.size());
  bool wideRegister = false;
  for (uint32_t e = 0; e < count; e++) {
    bool wide;
    uint32_t r = (d.*take)(count > 1 ? of.list[e] : of, t, wide);
    if (e && wide != wideRegister) d.fail("registers of different widths");
    wideRegister = wide;
    d.function.extra.push_back(r);
  }
  return wideRegister;
}

void decodeLoad(Decoder& d) {
  takeOrder(d, true);
  Space space = takeSpace(d);
  for (const char* cache : {"ca", "cg", "cs", "lu", "cv"})
    if (d.take(cache)) break;
  bool readOnly = d.take("nc");
  if (readOnly && space != Space::Global) d.fail(".nc is for global memory");
  auto [t, count] = takeElements(d);
  d.expect(2);
  const Operand& to = d.operand(0);
  bool wideRegister = takeRegisters(d, to, t, count, space, &Decoder::destinationWide);
  bool wide;
  d.address(1, space, wide);
  const Operand& from = d.operand(1);
  bool fixed = space == Space::Param && !d.names.reg(from.name);
  if (fixed) {
    uint64_t size = bitsOf(t) / 8 * count;
    if (d.in.offset < 0 || uint64_t(d.in.offset) + size > d.function.info.parameterBytes) d.fail("a read outside of the parameters");
    if (uint64_t(d.in.offset) % size) d.fail("a read of parameters that is not aligned");
  }
  uint32_t bits = bitsOf(t), registerBits = bitsOf(d.registerType(count > 1 ? to.list[0] : to));
  int sign = isSigned(t) && bits < registerBits ? int(registerBits) : 0;
  d.in.handler = bits == 64      ? loadOf<uint64_t, uint64_t, 0>(wide, fixed)
                 : wideRegister  ? loadOf<uint64_t>(bits, sign, wide, fixed)
                                 : loadOf<uint32_t>(bits, sign, wide, fixed);
}

void decodeStore(Decoder& d) {
  takeOrder(d, false);
  Space space = takeSpace(d);
  if (space == Space::Param || space == Space::Const) d.fail("this space is only read");
  for (const char* cache : {"wb", "cg", "cs", "wt"})
    if (d.take(cache)) break;
  auto [t, count] = takeElements(d);
  d.expect(2);
  bool wideRegister = takeRegisters(d, d.operand(1), t, count, space, &Decoder::sourceWide);
  bool wide;
  d.address(0, space, wide);
  switch (bitsOf(t)) {
    case 8: d.in.handler = storeOf<uint8_t>(wideRegister, wide); break;
    case 16: d.in.handler = storeOf<uint16_t>(wideRegister, wide); break;
    case 32: d.in.handler = storeOf<uint32_t>(wideRegister, wide); break;
    default: d.in.handler = wide ? store<uint64_t, uint64_t, true> : store<uint64_t, uint64_t, false>; break;
  }
}

}  // namespace

std::vector<Opcode> memoryOpcodes() { return {{"ld", decodeLoad}, {"ldu", decodeLoad}, {"st", decodeStore}}; }

}  // namespace emulator
