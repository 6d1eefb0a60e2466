// The state of a running grid: a worker runs blocks, a block has warps, a warp has 32 lanes in lock step.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "exec_shared.h"
#include "ptx_types.h"

namespace emulator {

struct Worker;
class GlobalTraces;

// Lanes of a warp that are at the same instruction.
struct Split {
  uint32_t pc = 0;
  uint32_t lanes = 0;
  bool blocked = false;  // waits for other lanes of the warp
};

// A cp.async of a lane that has not landed.
struct PendingCopy {
  uint64_t destination = 0, source = 0;  // offset in shared memory; global address
  const uint8_t* from = nullptr;         // the source on the host
  uint32_t group = 0;                    // of the lane's groups, which are committed in turn
  uint32_t line = 0;
  uint8_t bytes = 0, copied = 0;         // what is not copied is 0
  uint8_t lane = 0;
  uint8_t data[16];                      // as the source was
};

struct Warp {
  enum State : uint8_t { Ready, AtBarrier, Done };

  Worker* worker = nullptr;
  uint8_t* regs = nullptr;
  uint32_t index = 0;
  uint32_t threads = kAll;  // lanes that exist
  uint32_t alive = kAll;    // have not exited
  uint32_t active = kAll;   // the split that runs
  uint32_t pc = 0;
  uint32_t limit = kAll;    // the lowest instruction at which other lanes of the warp wait
  State state = Ready;
  uint32_t barrier = 0;     // at which it waits
  uint32_t barrierThreads = 0;  // that it waits for; 0: all of the block
  uint32_t barrierLine = 0;
  std::vector<Split> others;
  uint64_t executed = 0;
  // Local memory, lane behind lane, and which bytes of it were written.
  std::vector<uint8_t> local, localInitialised;
  // cp.async under way, and how many groups each lane has committed.
  std::vector<PendingCopy> copies;
  uint32_t copyGroup[kLanes] = {};

  template <class T> T* at(uint32_t offset) { return reinterpret_cast<T*>(regs + offset); }
  uint32_t& word(uint32_t offset) { return *reinterpret_cast<uint32_t*>(regs + offset); }
};

// What one host thread needs to run blocks, one after the other.
struct Worker {
  const Function* function = nullptr;
  const Launch* launch = nullptr;
  Memory* memory = nullptr;
  GlobalTraces* traces = nullptr;
  std::vector<Warp> warps;
  SharedMemory shared;
  uint64_t block = 0;       // linear index
  Dim3 blockIndex;
  uint32_t warpCount = 0, blockThreads = 0;
  uint64_t instructionLimit = 0;
  Counters counters;
  // The allocation that an access found last, by its site.
  std::vector<Allocation*> cached;
  struct Free { void operator()(uint8_t* p) const { ::operator delete[](p, std::align_val_t(64)); } };
  std::unique_ptr<uint8_t[], Free> registers;
};

// A Fault that names kernel, PTX line, block and thread.
[[noreturn]] void fault(const Warp& warp, const Instruction& in, uint32_t lane, const std::string& what);
std::string hex(uint64_t value);

// exec_run.cpp: until a barrier or the end.
void run(Warp& warp);

// Before a loop over lanes whose iterations touch only their own lane.
#if defined(__clang__)
#define EMULATOR_LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define EMULATOR_LANES _Pragma("GCC ivdep")
#endif

// Runs f(i) into d[i] for the lanes of a mask. Cheap f: for all lanes, kept where the mask says so. d may be one of f's sources.
template <class T, class F> inline __attribute__((always_inline)) void each(T* d, uint32_t lanes, F f) {
  if (__builtin_expect(lanes == kAll, 1)) {
    EMULATOR_LANES
    for (uint32_t i = 0; i < kLanes; i++) d[i] = f(i);
  } else {
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
      uint32_t i = uint32_t(__builtin_ctz(rest));
      d[i] = f(i);
    }
  }
}
template <class F> inline __attribute__((always_inline)) void eachLane(uint32_t lanes, F f) {
  for (uint32_t rest = lanes; rest; rest &= rest - 1) f(uint32_t(__builtin_ctz(rest)));
}

}  // namespace emulator
