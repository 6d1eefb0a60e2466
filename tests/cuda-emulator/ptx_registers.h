// Registers of the text are as many as there are values; here those that are never needed at once share a place, so that a warp's registers
// stay in the processor's caches.
#pragma once

#include <vector>

#include "ptx_types.h"

namespace emulator {

// One use or definition of a register, by its number in order of declaration.
struct RegisterUse {
  uint32_t instruction, number;
  bool defines, guarded;  // guarded: the old value may stay
};

// The offset of each register, 0 where it is not used, from `base` on; `end` is where they end.
std::vector<uint32_t> placeRegisters(const Function& function, const std::vector<Type>& types, const std::vector<RegisterUse>& uses, uint32_t base, uint32_t& end);

}  // namespace emulator
