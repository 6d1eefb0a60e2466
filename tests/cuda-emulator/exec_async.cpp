// cp.async: copies of a lane from global to shared memory that land at a wait. Eager, the bytes arrive at once, Deferred at the wait; in
// both nobody may touch them before, and the source must not change.
#include <algorithm>

#include "exec_memory.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

constexpr uint8_t kWideTarget = 1, kWideSource = 2;

uint64_t at(Warp& w, uint32_t reg, uint64_t offset, bool wide, uint32_t lane) {
  return wide ? w.at<uint64_t>(reg)[lane] + offset : uint32_t(w.at<uint32_t>(reg)[lane] + uint32_t(offset));
}

void copy(Warp& w, const Instruction& in, uint32_t lanes) {
  SharedMemory& s = w.worker->shared;
  const uint32_t* e = &w.worker->function->extra[in.extra];  // source's register, its offset (low, high), the size's register or 0
  uint64_t sourceOffset = e[1] | uint64_t(e[2]) << 32;
  s.next();
  w.worker->traces->lock();
  struct Unlock {
    GlobalTraces& traces;
    ~Unlock() { traces.unlock(); }
  } unlock{*w.worker->traces};
  eachLane(lanes, [&](uint32_t i) {
    PendingCopy c;
    c.lane = uint8_t(i);
    c.bytes = in.count;
    c.line = in.line;
    c.group = w.copyGroup[i];
    uint32_t want = e[3] ? w.at<uint32_t>(e[3])[i] : in.count;
    if (want > in.count) fault(w, in, i, "cp.async of " + std::to_string(in.count) + " bytes with a source of " + std::to_string(want));
    c.copied = uint8_t(want);
    uint64_t to = at(w, in.a, uint64_t(in.offset), in.flags & kWideTarget, i);
    Place p = place(w, in, i, Space::Shared, to, in.count, Access::Write);
    c.destination = to;
    c.source = at(w, e[0], sourceOffset, in.flags & kWideSource, i);
    memset(c.data, 0, sizeof c.data);
    c.from = nullptr;
    if (want) {
      if (c.source % in.count) fault(w, in, i, "cp.async of " + std::to_string(in.count) + " bytes from " + hex(c.source) + ": not aligned");
      Allocation& a = allocationOf(w, in, i, c.source, want);
      note(w, in, i, a, c.source - a.base, want, Access::Read);
      w.worker->counters.globalBytesRead += want;
      c.from = a.data + (c.source - a.base);
      memcpy(c.data, c.from, want);
    }
    if (w.worker->launch->schedule == Schedule::Eager) memcpy(p.data, c.data, in.count);
    if (p.again) fault(w, in, i, "two lanes copy to the same place");
    for (uint32_t k = 0; k < in.count; k++) s.state[to + k] += 2;
    w.copies.push_back(c);
  });
}

void land(Warp& w, const Instruction& in, const PendingCopy& c) {
  SharedMemory& s = w.worker->shared;
  Instruction where = in;
  where.line = c.line;
  if (c.copied && memcmp(c.from, c.data, c.copied) != 0)
    fault(w, where, c.lane, "the source of a cp.async at " + hex(c.source) + " changed before its wait in line " + std::to_string(in.line));
  memcpy(&s.data[c.destination], c.data, c.bytes);
  memset(&s.state[c.destination], 1, c.bytes);  // one copy at most is under way to a byte
  if (s.traced) s.touch(uint32_t(c.destination), c.bytes, w.index, c.lane, Access::Write);
}

// Lands the lanes' copies of groups below `until`.
template <class F> void landUntil(Warp& w, const Instruction& in, uint32_t lanes, F until) {
  size_t kept = 0;
  w.worker->shared.next();
  for (size_t i = 0; i < w.copies.size(); i++) {
    const PendingCopy& c = w.copies[i];
    if ((lanes >> c.lane & 1) && c.group < until(c.lane)) land(w, in, c);
    else w.copies[kept++] = c;
  }
  w.copies.resize(kept);
}

void commit(Warp& w, const Instruction&, uint32_t lanes) {
  eachLane(lanes, [&](uint32_t i) { w.copyGroup[i]++; });
}
void waitGroup(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t left = uint32_t(in.offset);
  landUntil(w, in, lanes, [&](uint32_t lane) { return w.copyGroup[lane] > left ? w.copyGroup[lane] - left : 0; });
}
void waitAll(Warp& w, const Instruction& in, uint32_t lanes) {
  landUntil(w, in, lanes, [](uint32_t) { return kAll; });
}

void decodeCopy(Decoder& d) {
  d.need("async");
  if (d.take("commit_group")) {
    d.expect(0);
    d.in.handler = commit;
    return;
  }
  if (d.take("wait_group")) {
    d.expect(1);
    d.in.offset = d.integer(0);
    if (d.in.offset < 0) d.fail("a count of groups expected");
    d.in.handler = waitGroup;
    return;
  }
  if (d.take("wait_all")) {
    d.expect(0);
    d.in.handler = waitAll;
    return;
  }
  bool whole = d.take("cg");
  if (!whole) d.need("ca");
  d.need("shared");
  d.need("global");
  if (d.operands() != 3 && d.operands() != 4) d.fail("3 or 4 operands expected");
  int64_t bytes = d.integer(2);
  if (whole ? bytes != 16 : bytes != 4 && bytes != 8 && bytes != 16) d.fail("4, 8 or 16 bytes, with .cg 16");
  bool wideSource, wideTarget;
  d.address(1, Space::Global, wideSource);
  uint32_t source = d.in.a;
  uint64_t offset = uint64_t(d.in.offset);
  d.address(0, Space::Shared, wideTarget);
  d.in.count = uint8_t(bytes);
  uint32_t size = d.operands() == 4 ? d.source(3, Type::U32) : 0;
  d.in.extra = d.extra({source, uint32_t(offset), uint32_t(offset >> 32), size});
  d.in.flags = uint8_t((wideTarget ? kWideTarget : 0) | (wideSource ? kWideSource : 0));
  d.in.handler = copy;
}

}  // namespace

std::vector<Opcode> asyncOpcodes() { return {{"cp", decodeCopy}}; }

}  // namespace emulator
