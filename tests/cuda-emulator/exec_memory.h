// Access of a warp's lanes to memory, with its checks.
#pragma once

#include "exec_trace.h"
#include "exec_warp.h"

namespace emulator {

// Where bytes at an address of a space lie on the host, once bounds, alignment and (for a read) initialisation are checked and the access
// is noted.
struct Place {
  uint8_t* data;
  uint8_t* initialised;  // null: not kept
  bool again;            // another lane has written them in this instruction
};
// The allocation of a global address, by way of the access's cache.
Allocation& allocationOf(Warp& warp, const Instruction& in, uint32_t lane, uint64_t address, uint64_t size);
// Notes an access to global memory; for a read, the bytes must have been written. Traces are locked.
void note(Warp& warp, const Instruction& in, uint32_t lane, Allocation& allocation, uint64_t offset, uint64_t size, Access access);
Place place(Warp& warp, const Instruction& in, uint32_t lane, Space space, uint64_t address, uint32_t size, Access access);

// The places of all lanes of a mask. `wide`: addresses are of 64 bits, of lane i in register in.a, with in.offset added.
void places(Warp& warp, const Instruction& in, uint32_t lanes, Space space, bool wide, uint32_t size, Access access, Place* to);

}  // namespace emulator
