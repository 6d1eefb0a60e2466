// Passes over a decoded function.
#pragma once

#include "ptx_types.h"

namespace emulator {

// Orders the blocks so that a warp whose lanes part can run the lanes that are furthest behind: loops lie together, and what follows a
// branch's arms lies behind both. (exec_run.cpp runs the lowest instruction first; lanes meet again where they meet.)
// Numbers the accesses.
void layOut(Function& function);

}  // namespace emulator
