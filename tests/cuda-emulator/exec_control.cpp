// Ends, barriers, fences.
#include "exec_warp.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

void decodeExit(Decoder& d) {
  d.take("uni");
  d.expect(0);
  d.in.control = Control::Exit;
}
void decodeTrap(Decoder& d) {
  d.expect(0);
  d.in.control = Control::Trap;
}

// Reads which barrier, and for how many threads.
void barrierOf(Warp& w, const Instruction& in, uint32_t lanes) {
  uint32_t lane = uint32_t(__builtin_ctz(lanes)), id = w.at<uint32_t>(in.a)[lane], threads = in.flags ? w.at<uint32_t>(in.b)[lane] : 0;
  eachLane(lanes, [&](uint32_t i) {
    if (w.at<uint32_t>(in.a)[i] != id || (in.flags && w.at<uint32_t>(in.b)[i] != threads)) fault(w, in, i, "lanes of a warp name different barriers");
  });
  if (id > 15) fault(w, in, lane, "barrier " + std::to_string(id) + ": there are 16");
  if (in.flags && (threads == 0 || threads % kLanes || threads > (w.worker->blockThreads + kLanes - 1) / kLanes * kLanes))
    fault(w, in, lane, "a barrier for " + std::to_string(threads) + " threads: whole warps of the block");
  w.barrier = id;
  w.barrierThreads = threads;
}
void decodeBar(Decoder& d);
void warpBarrier(Warp& w, const Instruction&, uint32_t) { w.worker->shared.warpBarrier(w.index); }
void decodeWarpBarrier(Decoder& d) {
  d.need("sync");
  d.expect(1);
  d.in.control = Control::WarpSync;
  d.in.members = d.source(0, Type::B32);
  d.in.handler = warpBarrier;
}
void decodeBar(Decoder& d) {
  if (d.base == "bar" && d.take("warp")) return decodeWarpBarrier(d);
  d.take("cta");
  d.need("sync");
  if (d.base == "barrier") d.take("aligned");
  if (d.operands() != 1 && d.operands() != 2) d.fail("a barrier, and a count of threads or none, expected");
  d.in.control = Control::Barrier;
  d.in.a = d.source(0, Type::U32);
  d.in.flags = d.operands() == 2;
  if (d.in.flags) d.in.b = d.source(1, Type::U32);
  d.in.handler = barrierOf;
}
// Memory is in order here always: a fence has nothing to do.
void decodeFence(Decoder& d) {
  d.expect(0);
  if (d.base == "fence") {
    if (!d.take("acq_rel") && !d.take("sc")) d.fail("its order is not known");
    if (!d.take("cta") && !d.take("gpu") && !d.take("sys")) d.fail("its scope is not known");
  } else if (!d.take("cta") && !d.take("gl") && !d.take("sys")) {
    d.fail("its scope is not known");
  }
}

}  // namespace

std::vector<Opcode> controlOpcodes() {
  return {{"ret", decodeExit}, {"exit", decodeExit}, {"trap", decodeTrap}, {"bar", decodeBar}, {"barrier", decodeBar}, {"fence", decodeFence}, {"membar", decodeFence}};
}

}  // namespace emulator
