// The shared memory of a block, with what its checks need.
//
// What counts as a race there: two threads touch the same byte, at least one writes, not both by atomics, and between the two lies
// - no barrier at which both have met (or by way of other warps), where they are of different warps,
// - neither such a barrier nor bar.warp.sync, where they are different lanes of one warp (shuffles and votes order no memory). Lanes that
//   store to one byte in one instruction must store the same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ptx_types.h"

namespace emulator {

enum class Access : uint8_t { Read, Write, Atomic };

// Who touched a word (or a byte, where words are touched in parts) last, as writer and as reader: 20 bits that number the block's
// instructions on shared memory, a flag, 11 bits that say who. 0: nobody.
struct SharedTrace {
  uint32_t writer;  // flag: by an atomic
  uint32_t reader;  // flag, of a word: its bytes have traces of their own
};
constexpr uint32_t kNobody = 0, kManyOfWarp = 0x400 + 1;  // + warp; threads are 1 to 1024
constexpr uint32_t kManyWarps = 0x7ff, kWho = 0x7ff, kFlag = 0x800, kStampShift = 12;
constexpr uint32_t kSameInstruction = 0xffffffffu;        // two lanes of one instruction wrote it

struct SharedMemory {
  std::vector<uint8_t> data;
  // Of each byte: bit 0, it was written; bit 1, a cp.async is under way to it.
  std::vector<uint8_t> state;
  uint32_t bytes = 0;
  bool traced = false;

  void begin(uint32_t size, uint32_t warpCount, bool checked);
  // Another instruction that may touch shared memory.
  void next() {
    if (++stamp_ == 1u << 20) wrap();
  }
  void barrier(uint32_t warps);     // the warps of a mask have met
  void warpBarrier(uint32_t warp);
  // Notes an access of a lane; who it races with, or kNobody, or kSameInstruction.
  uint32_t touch(uint32_t address, uint32_t size, uint32_t warp, uint32_t lane, Access access);

  // The same for reads or writes of words by all lanes of a mask, at once; false: nothing is noted, some must be looked at more closely.
  bool readWords(const uint32_t* addresses, uint32_t lanes, uint32_t warp);
  bool writeWords(const uint32_t* addresses, uint32_t lanes, uint32_t warp);

  // For global memory: numbers the barriers of the block; what warp u did below met[w][u] lies before what warp w does now.
  uint32_t barriers = 1;
  uint32_t met[32][32] = {};

 private:
  std::vector<SharedTrace> words_, bytes_;
  uint32_t warps_ = 0;
  bool apart_ = false;              // the last barrier was of some warps only
  uint32_t stamp_ = 1;
  uint32_t ordered_[32][32] = {};   // the same in stamps; of a warp with itself: its lanes
  uint32_t least_[32] = {};         // the least of a row
  uint32_t leastOthers_[32] = {};   // but for the warp itself
  void wrap();
  uint32_t touchSlowly(SharedTrace& t, uint32_t warp, uint32_t me, Access access);
  uint32_t touchParts(uint32_t address, uint32_t size, uint32_t warp, uint32_t me, Access access);
};

inline uint32_t SharedMemory::touch(uint32_t address, uint32_t size, uint32_t warp, uint32_t lane, Access access) {
  uint32_t me = warp * kLanes + lane + 1;
  if ((address | size) & 3) return touchParts(address, size, warp, me, access);
  uint32_t past = least_[warp] << kStampShift, now = stamp_ << kStampShift;
  for (SharedTrace *t = &words_[address / 4], *end = t + size / 4; t < end; t++) {
    // What is usual: everything before lies behind a barrier, or only reads do not.
    uint32_t reader = t->reader & kWho;
    if (!(t->reader & kFlag)) {
      if (access == Access::Read) {
        if (t->writer < past) {
          if (t->reader < past || reader == me) {
            t->reader = now | me;
            continue;
          }
          if (reader == kManyWarps) {
            t->reader = now | kManyWarps;
            continue;
          }
        }
      } else if (access == Access::Write && t->writer < past && (t->reader < past || reader == me)) {
        t->writer = now | me;
        continue;
      }
      if (uint32_t other = touchSlowly(*t, warp, me, access)) return other;
      continue;
    }
    if (uint32_t other = touchParts(uint32_t(t - &words_[0]) * 4, 4, warp, me, access)) return other;
  }
  return kNobody;
}

std::string describeToucher(uint32_t who);

}  // namespace emulator
