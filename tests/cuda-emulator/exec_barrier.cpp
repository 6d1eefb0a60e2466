#include "exec_barrier.h"

namespace emulator {

void BarrierSet::arrive(Warp& warp) {
  uint32_t id = warp.barrier, expected = warp.barrierThreads ? warp.barrierThreads : worker_.blockThreads, here = 0;
  for (const Warp& w : worker_.warps) {
    if (w.state != Warp::AtBarrier || w.barrier != id) continue;
    // A count is of whole warps; without one, of the threads that exist.
    here += warp.barrierThreads ? kLanes : uint32_t(__builtin_popcount(w.alive));
    if (w.barrierThreads != warp.barrierThreads) {
      Instruction at;
      at.line = warp.barrierLine;
      fault(warp, at, 0, "barrier " + std::to_string(id) + " for " + std::to_string(expected) + " threads, others wait there for another count (line " +
                             std::to_string(w.barrierLine) + ")");
    }
  }
  if (here < expected) return;
  uint32_t met = 0;
  for (Warp& w : worker_.warps) {
    if (w.state != Warp::AtBarrier || w.barrier != id) continue;
    w.state = Warp::Ready;
    met |= 1u << w.index;
  }
  worker_.shared.barrier(met);
}

void BarrierSet::deadlock() {
  std::string where;
  const Warp* first = nullptr;
  for (const Warp& w : worker_.warps) {
    std::string at = w.state == Warp::AtBarrier ? "waits at barrier " + std::to_string(w.barrier) + " in line " + std::to_string(w.barrierLine) : "has ended";
    if (w.alive != w.threads && w.alive) at += " with threads " + hex(w.threads & ~w.alive) + " ended";
    if (w.state == Warp::AtBarrier && !first) first = &w;
    where += (where.empty() ? "warp " : "; warp ") + std::to_string(w.index) + " " + at;
  }
  Instruction at;
  at.line = first->barrierLine;
  fault(*first, at, uint32_t(__builtin_ctz(first->alive)), "a barrier that not all threads reach: " + where);
}

}  // namespace emulator
