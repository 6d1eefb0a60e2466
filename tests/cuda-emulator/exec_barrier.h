// The 16 named barriers of a block.
#pragma once

#include "exec_warp.h"

namespace emulator {

class BarrierSet {
 public:
  explicit BarrierSet(Worker& worker) : worker_(worker) {}
  // The warp waits at the barrier that its fields name; frees all that wait there where it is the last.
  void arrive(Warp& warp);
  // No warp can go on.
  [[noreturn]] void deadlock();

 private:
  Worker& worker_;
};

}  // namespace emulator
