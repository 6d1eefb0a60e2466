// Device memory of the stand-in: numbers for addresses, gaps between allocations, a map of the bytes that were ever written.
#pragma once

#include "machine.h"

#include <atomic>
#include <mutex>

namespace emulator {

class DeviceMemory final : public Memory {
 public:
  explicit DeviceMemory(uint64_t limit) : limit_(limit) {}
  ~DeviceMemory() override { clear(); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  Allocation& find(uint64_t address, uint64_t bytes) override;

  // 0: the limit does not allow it. `usable` false: allocated in stream order, and the stream has not come there yet.
  uint64_t allocate(uint64_t bytes, bool usable = true);
  void makeUsable(uint64_t base);
  // Throws Fault where no live allocation starts there.
  void free(uint64_t base);
  // Whether free(base) would do.
  bool startsAllocation(uint64_t base) const;
  bool isDeviceAddress(uint64_t address) const { return address >= First && address < Last; }
  // An empty line, or why the range is none of a live allocation; allocations that are not usable yet are taken.
  std::string whyNot(uint64_t address, uint64_t bytes) const;

  void copyIn(uint64_t to, const void* from, uint64_t bytes);
  void copyOut(void* to, uint64_t from, uint64_t bytes, bool checked);
  void copyWithin(uint64_t to, uint64_t from, uint64_t bytes);
  void fill(uint64_t to, const void* pattern, uint32_t patternBytes, uint64_t count);
  // Throws Fault for the first byte that was never written.
  void requireInitialised(const Allocation& allocation, uint64_t address, uint64_t bytes, const char* what) const;
  // Bytes of undefined content from now on.
  void spoil(uint64_t address, uint64_t bytes);

  uint64_t limit() const { return limit_; }
  void setLimit(uint64_t bytes) { limit_ = bytes; }
  uint64_t liveBytes() const { return liveBytes_; }
  uint64_t liveCount() const { return live_.size(); }
  uint64_t peakBytes() const { return peakBytes_; }
  // One line an allocation that was not freed.
  std::string leaks() const;
  // Frees everything.
  void clear();
  // Forgets what was freed, too; addresses start anew.
  void reset();

  // All that launches can change, to execute one twice.
  struct Snapshot {
    std::vector<std::vector<uint8_t>> data, initialised;
  };
  Snapshot take() const;
  void restore(const Snapshot& snapshot);
  // An empty line, or where the contents differ from the snapshot.
  std::string differsFrom(const Snapshot& snapshot) const;

  // Host addresses never lie here (x86-64 and arm64 map high or low), so that a mixed-up pointer crashes or is refused.
  static constexpr uint64_t First = 0x300000000000, Last = 0x400000000000, Alignment = 512, Gap = 64 * 1024;

 private:
  struct Block : Allocation {
    uint64_t number = 0;
    bool usable = true;
  };
  struct Freed {
    uint64_t base, bytes, number;
  };
  Block* holding(uint64_t address) const;
  std::string describe(uint64_t address, uint64_t bytes) const;
  static void release(Block& block);

  uint64_t limit_, liveBytes_ = 0, peakBytes_ = 0, next_ = First, count_ = 0;
  std::vector<std::unique_ptr<Block>> live_;  // by base
  std::vector<Freed> freed_;                  // by base
  std::atomic<uint64_t> generation_{1};
};

}  // namespace emulator
