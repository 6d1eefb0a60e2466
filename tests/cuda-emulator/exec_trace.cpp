#include "exec_trace.h"

#include <algorithm>

namespace emulator {

namespace {

// Whether what a warp of this block did lies before.
bool before(const Toucher& by, uint32_t who) {
  uint32_t warp = who & 0x3f, stamp = who >> 7;
  if (warp == by.warp) return true;
  if (warp != kManyWarpsOfBlock) return stamp < by.met[warp];
  for (uint32_t u = 0; u < by.warps; u++)
    if (u != by.warp && stamp >= by.met[u]) return false;
  return true;
}

bool writeRaces(const GlobalTrace& t, const Toucher& by, Access access) {
  return t.writerBlock && !(t.writerBlock == by.block && before(by, t.writer)) && !(access == Access::Atomic && (t.writer & 0x40));
}
bool readRaces(const GlobalTrace& t, const Toucher& by) { return t.readerBlock && !(t.readerBlock == by.block && before(by, t.reader)); }

inline bool touchOne(GlobalTrace& t, const Toucher& by, uint32_t me, Access access) {
  if (t.writerBlock && writeRaces(t, by, access)) return false;
  if (access == Access::Read) {
    if (t.readerBlock == 0) {
      t.readerBlock = by.block;
      t.reader = me;
    } else if (t.readerBlock != by.block) {
      t.readerBlock = kManyBlocks;
    } else {
      t.reader = before(by, t.reader) ? me : by.stamp << 7 | kManyWarpsOfBlock;
    }
    return true;
  }
  if (t.readerBlock && readRaces(t, by)) return false;
  t.writerBlock = by.block;
  t.writer = me;
  return true;
}

}  // namespace

GlobalTraces::~GlobalTraces() {
  for (auto& p : all_) p->allocation->traces = nullptr;
}

GlobalTraces::Page& GlobalTraces::pageOf(Allocation& allocation, uint64_t offset) {
  if (!allocation.traces) {
    all_.push_back(std::make_unique<Pages>());
    all_.back()->allocation = &allocation;
    all_.back()->pages.resize((allocation.bytes + kPage - 1) / kPage);
    allocation.traces = all_.back().get();
  }
  auto& page = static_cast<Pages*>(allocation.traces)->pages[offset / kPage];
  if (!page) {
    page = std::make_unique<Page>();
    page->records.assign(kPage / 4, GlobalTrace{});
  }
  return *page;
}

const GlobalTrace* GlobalTraces::touch(Allocation& allocation, uint64_t offset, uint64_t size, const Toucher& by, Access access) {
  uint32_t me = by.stamp << 7 | (access == Access::Atomic ? 0x40 : 0) | by.warp;
  while (size) {
    Page& page = pageOf(allocation, offset);
    uint64_t from = offset % kPage, part = std::min(size, kPage - from);
    if (!page.bytes && ((from | part) & 3)) {
      std::vector<GlobalTrace> finer(kPage);
      for (uint64_t i = 0; i < kPage; i++) finer[i] = page.records[i / 4];
      page.records.swap(finer);
      page.bytes = true;
    }
    GlobalTrace* t = page.records.data() + (page.bytes ? from : from / 4);
    for (GlobalTrace* end = t + (page.bytes ? part : part / 4); t < end; t++)
      if (!touchOne(*t, by, me, access)) return t;
    offset += part;
    size -= part;
  }
  return nullptr;
}

std::string GlobalTraces::describe(const GlobalTrace& t, const Toucher& by, Access access) {
  if (writeRaces(t, by, access)) return "written by block " + std::to_string(t.writerBlock - 1) + ", warp " + std::to_string(t.writer & 0x3f);
  if (t.readerBlock == kManyBlocks) return "read by several blocks";
  uint32_t warp = t.reader & 0x3f;
  return "read by block " + std::to_string(t.readerBlock - 1) + (warp == kManyWarpsOfBlock ? ", several warps" : ", warp " + std::to_string(warp));
}

}  // namespace emulator
