// Who touched which bytes of global memory within a launch.
//
// What counts as a race there: a byte is touched by two blocks, or by two warps of a block with no barrier between at which both have met; at
// least one writes, and not both by atomics. Lanes of one warp are taken to be in order, but what they store to one byte in one instruction
// must be the same. (A later block is never ordered behind an earlier one, whatever fences it has.)
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "exec_shared.h"
#include "machine.h"

namespace emulator {

// Of a word, or of a byte in a page that was touched in smaller parts than words.
struct GlobalTrace {
  uint32_t writerBlock, readerBlock;      // + 1; 0: none
  uint32_t writer, reader;                // barriers of the block so far << 7 | atomic << 6 | warp
};
constexpr uint32_t kManyBlocks = 0xffffffffu, kManyWarpsOfBlock = 0x3f;

struct Toucher {
  uint32_t block;       // + 1
  uint32_t warp;
  uint32_t warps;       // of the block
  uint32_t stamp;       // barriers of the block so far
  const uint32_t* met;  // what warp u of the block did below met[u] lies before this
};

class GlobalTraces {
 public:
  GlobalTraces(bool on, bool threads) : on_(on), threads_(threads) {}
  ~GlobalTraces();
  GlobalTraces(const GlobalTraces&) = delete;

  bool on() const { return on_; }
  // Held around touch().
  void lock() {
    if (!threads_) return;
    while (busy_.exchange(true, std::memory_order_acquire))
      while (busy_.load(std::memory_order_relaxed)) {}
  }
  void unlock() {
    if (threads_) busy_.store(false, std::memory_order_release);
  }
  // Notes an access to bytes [offset, offset + size) of an allocation. Null; where it is a race: the trace that it races with.
  const GlobalTrace* touch(Allocation& allocation, uint64_t offset, uint64_t size, const Toucher& by, Access access);
  static std::string describe(const GlobalTrace& trace, const Toucher& by, Access access);

 private:
  static constexpr uint64_t kPage = 4096;
  struct Page {
    bool bytes = false;
    std::vector<GlobalTrace> records;
  };
  struct Pages {
    Allocation* allocation;
    std::vector<std::unique_ptr<Page>> pages;
  };
  bool on_, threads_;
  std::atomic<bool> busy_{false};
  std::vector<std::unique_ptr<Pages>> all_;
  Page& pageOf(Allocation& allocation, uint64_t offset);
};

}  // namespace emulator
