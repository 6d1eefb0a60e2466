#include "memory.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <sys/mman.h>

namespace emulator {

namespace {

// What was never written reads as NaN in every float type. Above this size only the map of written bytes tells.
constexpr uint64_t PoisonedAtMost = 64ull << 20;
constexpr int Poison = 0xff;

uint8_t* map(uint64_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint8_t*>(at);
}

template <typename... T>
std::string format(const char* how, T... values) {
  char line[512];
  std::snprintf(line, sizeof line, how, values...);
  return line;
}

// Threads of a launch look up the same few allocations again and again.
struct LastHit {
  const void* memory = nullptr;
  uint64_t generation = 0;
  Allocation* allocation = nullptr;
};
thread_local LastHit lastHit;

// Never the same for two states of any memory, so that a cached hit cannot outlive what it points to.
std::atomic<uint64_t> generations{1};

}  // namespace

DeviceMemory::Block* DeviceMemory::holding(uint64_t address) const {
  auto after = std::upper_bound(live_.begin(), live_.end(), address, [](uint64_t a, const auto& block) { return a < block->base; });
  if (after == live_.begin()) return nullptr;
  Block* block = std::prev(after)->get();
  return address - block->base < block->bytes ? block : nullptr;
}

Allocation& DeviceMemory::find(uint64_t address, uint64_t bytes) {
  uint64_t generation = generation_.load(std::memory_order_acquire);
  if (lastHit.memory == this && lastHit.generation == generation) {
    Allocation& a = *lastHit.allocation;
    if (address >= a.base && address - a.base <= a.bytes && bytes <= a.bytes - (address - a.base)) return a;
  }
  Block* block = holding(address);
  if (block == nullptr || bytes > block->bytes - (address - block->base)) throw Fault(describe(address, bytes));
  if (!block->usable)
    throw Fault(format("0x%" PRIx64 " (%" PRIu64 " bytes) is used before its allocation in stream order has run", address, bytes));
  lastHit = {this, generation, block};
  return *block;
}

std::string DeviceMemory::describe(uint64_t address, uint64_t bytes) const {
  auto range = format("global address 0x%" PRIx64 " (%" PRIu64 " bytes)", address, bytes);
  if (address < 65536) return range + " is out of bounds: it is a null pointer plus " + std::to_string(address);
  if (Block* block = holding(address)) {
    uint64_t past = address - block->base + bytes - block->bytes;
    return range + format(" is out of bounds: it ends %" PRIu64 " bytes past allocation %" PRIu64 " of %" PRIu64 " bytes at 0x%" PRIx64, past,
                          block->number, block->bytes, block->base);
  }
  auto after = std::upper_bound(freed_.begin(), freed_.end(), address, [](uint64_t a, const Freed& f) { return a < f.base; });
  if (after != freed_.begin()) {
    const Freed& f = *std::prev(after);
    if (address - f.base < f.bytes)
      return range + format(" is use after free: allocation %" PRIu64 " of %" PRIu64 " bytes at 0x%" PRIx64, f.number, f.bytes, f.base);
  }
  const Block* nearest = nullptr;
  uint64_t distance = UINT64_MAX;
  for (const auto& block : live_) {
    uint64_t d = address < block->base ? block->base - address : address - (block->base + block->bytes);
    if (d < distance) distance = d, nearest = block.get();
  }
  if (nearest == nullptr) return range + " is out of bounds: nothing is allocated";
  return range + format(" is out of bounds: %" PRIu64 " bytes %s allocation %" PRIu64 " of %" PRIu64 " bytes at 0x%" PRIx64, distance,
                        address < nearest->base ? "before" : "behind the end of", nearest->number, nearest->bytes, nearest->base);
}

std::string DeviceMemory::whyNot(uint64_t address, uint64_t bytes) const {
  Block* block = holding(address);
  return block != nullptr && bytes <= block->bytes - (address - block->base) ? std::string() : describe(address, bytes);
}

uint64_t DeviceMemory::allocate(uint64_t bytes, bool usable) {
  if (bytes > limit_ || liveBytes_ > limit_ - bytes) return 0;
  auto block = std::make_unique<Block>();
  block->base = next_;
  block->bytes = bytes;
  block->number = ++count_;
  block->usable = usable;
  block->data = map(bytes);
  block->initialised = map(bytes);
  if (bytes <= PoisonedAtMost) std::memset(block->data, Poison, bytes);
  next_ = (next_ + bytes + Gap + Alignment - 1) / Alignment * Alignment;
  liveBytes_ += bytes;
  peakBytes_ = std::max(peakBytes_, liveBytes_);
  uint64_t base = block->base;
  live_.push_back(std::move(block));
  generation_ = ++generations;
  return base;
}

void DeviceMemory::makeUsable(uint64_t base) {
  if (Block* block = holding(base)) block->usable = true;
}

bool DeviceMemory::startsAllocation(uint64_t base) const {
  Block* block = holding(base);
  return block != nullptr && block->base == base;
}

void DeviceMemory::release(Block& block) {
  munmap(block.data, block.bytes);
  munmap(block.initialised, block.bytes);
}

void DeviceMemory::free(uint64_t base) {
  auto at = std::lower_bound(live_.begin(), live_.end(), base, [](const auto& block, uint64_t b) { return block->base < b; });
  if (at == live_.end() || (*at)->base != base) {
    auto was = std::find_if(freed_.begin(), freed_.end(), [&](const Freed& f) { return f.base == base; });
    throw Fault(format("0x%" PRIx64 " is freed, but %s", base, was != freed_.end() ? "it was freed before" : "no allocation starts there"));
  }
  Block& block = **at;
  Freed freed{block.base, block.bytes, block.number};
  freed_.insert(std::upper_bound(freed_.begin(), freed_.end(), freed.base, [](uint64_t b, const Freed& f) { return b < f.base; }), freed);
  liveBytes_ -= block.bytes;
  release(block);
  live_.erase(at);
  generation_ = ++generations;
}

void DeviceMemory::requireInitialised(const Allocation& allocation, uint64_t address, uint64_t bytes, const char* what) const {
  uint64_t offset = address - allocation.base;
  const void* zero = std::memchr(allocation.initialised + offset, 0, bytes);
  if (zero == nullptr) return;
  uint64_t first = static_cast<const uint8_t*>(zero) - (allocation.initialised + offset);
  throw Fault(format("%s reads global address 0x%" PRIx64 ", which was never written (uninitialised): byte %" PRIu64 " of the allocation of %" PRIu64
                     " bytes at 0x%" PRIx64, what, address + first, offset + first, allocation.bytes, allocation.base));
}

void DeviceMemory::copyIn(uint64_t to, const void* from, uint64_t bytes) {
  Allocation& a = find(to, bytes);
  std::memcpy(a.data + (to - a.base), from, bytes);
  std::memset(a.initialised + (to - a.base), 1, bytes);
}

void DeviceMemory::copyOut(void* to, uint64_t from, uint64_t bytes, bool checked) {
  Allocation& a = find(from, bytes);
  if (checked) requireInitialised(a, from, bytes, "a copy to the host");
  std::memcpy(to, a.data + (from - a.base), bytes);
}

void DeviceMemory::copyWithin(uint64_t to, uint64_t from, uint64_t bytes) {
  Allocation& source = find(from, bytes);
  Allocation& target = find(to, bytes);
  if (from < to + bytes && to < from + bytes)
    throw Fault(format("a copy on the device of %" PRIu64 " bytes from 0x%" PRIx64 " to 0x%" PRIx64 " overlaps itself", bytes, from, to));
  std::memcpy(target.data + (to - target.base), source.data + (from - source.base), bytes);
  std::memcpy(target.initialised + (to - target.base), source.initialised + (from - source.base), bytes);
}

void DeviceMemory::fill(uint64_t to, const void* pattern, uint32_t patternBytes, uint64_t count) {
  uint64_t bytes = count * patternBytes;
  Allocation& a = find(to, bytes);
  uint8_t* at = a.data + (to - a.base);
  for (uint64_t i = 0; i < count; i++) std::memcpy(at + i * patternBytes, pattern, patternBytes);
  std::memset(a.initialised + (to - a.base), 1, bytes);
}

void DeviceMemory::spoil(uint64_t address, uint64_t bytes) {
  Allocation& a = find(address, bytes);
  std::memset(a.data + (address - a.base), Poison, bytes);
  std::memset(a.initialised + (address - a.base), 0, bytes);
}

std::string DeviceMemory::leaks() const {
  std::string lines;
  for (const auto& block : live_)
    lines += format("allocation %" PRIu64 " of %" PRIu64 " bytes at 0x%" PRIx64 " was not freed\n", block->number, block->bytes, block->base);
  return lines;
}

void DeviceMemory::clear() {
  while (!live_.empty()) free(live_.back()->base);
}

void DeviceMemory::reset() {
  clear();
  freed_.clear();
  peakBytes_ = count_ = 0;
  next_ = First;
}

DeviceMemory::Snapshot DeviceMemory::take() const {
  Snapshot s;
  for (const auto& block : live_) {
    s.data.emplace_back(block->data, block->data + block->bytes);
    s.initialised.emplace_back(block->initialised, block->initialised + block->bytes);
  }
  return s;
}

void DeviceMemory::restore(const Snapshot& snapshot) {
  for (size_t i = 0; i < live_.size(); i++) {
    std::memcpy(live_[i]->data, snapshot.data[i].data(), live_[i]->bytes);
    std::memcpy(live_[i]->initialised, snapshot.initialised[i].data(), live_[i]->bytes);
  }
}

std::string DeviceMemory::differsFrom(const Snapshot& snapshot) const {
  for (size_t i = 0; i < live_.size(); i++) {
    const Block& block = *live_[i];
    if (std::memcmp(block.data, snapshot.data[i].data(), block.bytes) == 0 &&
        std::memcmp(block.initialised, snapshot.initialised[i].data(), block.bytes) == 0)
      continue;
    uint64_t at = 0;
    while (block.data[at] == snapshot.data[i][at] && block.initialised[at] == snapshot.initialised[i][at]) at++;
    return format("byte %" PRIu64 " of allocation %" PRIu64 " of %" PRIu64 " bytes at 0x%" PRIx64, at, block.number, block.bytes, block.base);
  }
  return {};
}

}  // namespace emulator
