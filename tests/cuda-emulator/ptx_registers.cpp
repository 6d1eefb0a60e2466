#include "ptx_registers.h"

#include <algorithm>

#include "ptx_graph.h"

namespace emulator {

namespace {

struct Bits {
  std::vector<uint64_t> words;
  explicit Bits(size_t count = 0) : words((count + 63) / 64) {}
  bool has(uint32_t i) const { return words[i / 64] >> (i % 64) & 1; }
  void set(uint32_t i) { words[i / 64] |= 1ull << (i % 64); }
};

struct Range {
  uint32_t number, first = kAll, last = 0;
};

}  // namespace

std::vector<uint32_t> placeRegisters(const Function& f, const std::vector<Type>& types, const std::vector<RegisterUse>& uses, uint32_t base, uint32_t& end) {
  Graph g(f);
  size_t blocks = g.next.size(), count = types.size();
  std::vector<Range> ranges(count);
  for (uint32_t i = 0; i < count; i++) ranges[i].number = i;
  auto extend = [&](uint32_t number, uint32_t at) {
    ranges[number].first = std::min(ranges[number].first, at);
    ranges[number].last = std::max(ranges[number].last, at);
  };
  // What a block reads before it writes it, and what it writes for certain. Uses come in the order of the text, sources of an instruction
  // not always before its results.
  std::vector<Bits> reads(blocks, Bits(count)), writes(blocks, Bits(count)), in(blocks, Bits(count));
  for (size_t i = 0; i < uses.size();) {
    size_t stop = i;
    while (stop < uses.size() && uses[stop].instruction == uses[i].instruction) stop++;
    uint32_t b = g.blockAt[uses[i].instruction];
    for (size_t k = i; k < stop; k++) {
      extend(uses[k].number, uses[k].instruction);
      if (!uses[k].defines && !writes[b].has(uses[k].number)) reads[b].set(uses[k].number);
    }
    for (size_t k = i; k < stop; k++)
      if (uses[k].defines && !uses[k].guarded) writes[b].set(uses[k].number);
    i = stop;
  }
  std::vector<uint32_t> order = g.order([](uint32_t, uint32_t) { return false; });
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t k = order.size(); k-- > 0;) {
      uint32_t b = order[k];
      for (size_t w = 0; w < in[b].words.size(); w++) {
        uint64_t out = 0;
        for (uint32_t to : g.next[b]) out |= in[to].words[w];
        uint64_t now = reads[b].words[w] | (out & ~writes[b].words[w]);
        changed |= now != in[b].words[w];
        in[b].words[w] = now;
      }
    }
  }
  // A register that is needed where a block begins is so from the end of those before it on.
  for (uint32_t b = 0; b < blocks; b++)
    for (size_t w = 0; w < in[b].words.size(); w++)
      for (uint64_t rest = in[b].words[w]; rest; rest &= rest - 1) {
        uint32_t number = uint32_t(w * 64) + uint32_t(__builtin_ctzll(rest));
        extend(number, g.begin[b]);
        for (uint32_t from : g.before[b]) extend(number, g.begin[from + 1] - 1);
      }
  // In order of their beginnings, each takes a place of its width that is free again.
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  std::vector<uint32_t> offsets(count, 0);
  struct Place {
    uint32_t offset, freeAfter;
  };
  std::vector<Place> places[3];
  end = base;
  for (const Range& r : ranges) {
    if (r.first == kAll) break;
    uint32_t bits = bitsOf(types[r.number]), width = bits == 1 ? 0 : bits == 64 ? 2 : 1;
    auto& all = places[width];
    // The one that was free the shortest is the warmest.
    Place* best = nullptr;
    for (Place& p : all)
      if (p.freeAfter < r.first && (!best || p.freeAfter > best->freeAfter)) best = &p;
    if (!best) {
      all.push_back({end, 0});
      best = &all.back();
      end += width == 0 ? 64 : width == 1 ? 128 : 256;
    }
    best->freeAfter = r.last;
    offsets[r.number] = best->offset;
  }
  return offsets;
}

}  // namespace emulator
