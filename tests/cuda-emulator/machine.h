// What the parts of the stand-in for the CUDA driver know of one another. memory.cpp, driver.cpp and cublas.cpp are the driver; ptx_*.cpp and
// exec_*.cpp read PTX and execute it. Everything that a GPU would not forgive ends in a Fault.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace emulator {

// One line: what is wrong, and where (kernel, PTX line, block, thread, address).
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// --- device memory (memory.cpp) ---------------------------------------------------------------------------------------------------------

// One allocation. Device addresses are numbers of their own, never host pointers: between allocations lie gaps that belong to none.
struct Allocation {
  uint64_t base = 0;
  uint64_t bytes = 0;
  uint8_t* data = nullptr;         // the bytes
  uint8_t* initialised = nullptr;  // one byte a byte: 0 was never written
  // Who touched a byte last within the launch at hand, for races between blocks and threads; owned by the executor, null until it asks.
  void* traces = nullptr;
  bool alive = true;
};

class Memory {
 public:
  virtual ~Memory() = default;
  // The allocation that holds all of [address, address + bytes). Throws Fault: out of bounds (and of which allocation it is nearest to),
  // or freed already.
  virtual Allocation& find(uint64_t address, uint64_t bytes) = 0;
};

// --- PTX (ptx_*.cpp) --------------------------------------------------------------------------------------------------------------------

class Function;  // a parsed .entry

class Module {
 public:
  virtual ~Module() = default;
  virtual const Function* find(std::string_view kernel) const = 0;  // null: not there
  virtual std::vector<std::string> kernels() const = 0;
};

// Parses and checks a whole PTX text; an instruction, modifier or directive that is not known is a Fault that names the line. Bytes of
// .global/.const variables are allocated by the module itself and are found by the executor.
std::unique_ptr<Module> parse(std::string_view ptx);

struct FunctionInfo {
  std::string name;
  uint32_t parameterBytes = 0;   // of all parameters, laid out one behind the other with their alignments
  uint32_t staticSharedBytes = 0;
  uint32_t localBytes = 0;       // a thread
  uint32_t maxThreads = 0;       // .maxntid, 0: none
};
const FunctionInfo& describe(const Function& function);

// --- execution (exec_*.cpp) -------------------------------------------------------------------------------------------------------------

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

// In which order things that a GPU may do in any order are done. Eager: warps in turn from first to last, cp.async lands at once.
// Deferred: warps from last to first, cp.async lands as late as its wait allows.
enum class Schedule { Eager, Deferred };

struct Launch {
  Dim3 grid, block;
  uint32_t dynamicSharedBytes = 0;
  const uint8_t* parameters = nullptr;
  uint32_t parameterBytes = 0;
  Schedule schedule = Schedule::Eager;
  bool checked = true;  // races, uninitialised reads; bounds and alignment are always checked
  uint32_t workers = 1; // host threads, over blocks
  uint64_t instructionLimit = 2000000000; // of one warp: a guard against endless loops
};

struct Counters {
  uint64_t warpInstructions = 0;
  uint64_t globalBytesRead = 0, globalBytesWritten = 0;
};

// Executes a grid to its end. Throws Fault.
Counters execute(const Function& function, const Launch& launch, Memory& memory);

}  // namespace emulator
