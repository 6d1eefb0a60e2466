// Blocks of a grid, warps of a block.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>

#include "exec_barrier.h"
#include "exec_trace.h"
#include "exec_warp.h"

namespace emulator {

std::string hex(uint64_t value) {
  char text[32];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

void fault(const Warp& w, const Instruction& in, uint32_t lane, const std::string& what) {
  const Worker& k = *w.worker;
  const Dim3& n = k.launch->block;
  uint32_t t = w.index * kLanes + lane;
  auto triple = [](uint32_t x, uint32_t y, uint32_t z) { return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")"; };
  throw Fault(k.function->info.name + ", PTX line " + std::to_string(in.line) + ", block " + triple(k.blockIndex.x, k.blockIndex.y, k.blockIndex.z) +
              ", thread " + triple(t % n.x, t / n.x % n.y, t / n.x / n.y) + ": " + what);
}

namespace {

constexpr uint32_t kMostShared = 163 * 1024;

void checkLaunch(const Function& f, const Launch& l) {
  auto bad = [&](const std::string& what) { throw Fault(f.info.name + ": " + what); };
  uint64_t threads = uint64_t(l.block.x) * l.block.y * l.block.z;
  if (threads == 0 || l.grid.x == 0 || l.grid.y == 0 || l.grid.z == 0) bad("a launch of no blocks or no threads");
  if (l.block.x > 1024 || l.block.y > 1024 || l.block.z > 64 || threads > 1024) bad("a block of " + std::to_string(threads) + " threads: at most 1024 (64 in z)");
  if (l.grid.x > 0x7fffffffu || l.grid.y > 65535 || l.grid.z > 65535) bad("a grid larger than 2147483647 x 65535 x 65535");
  if (f.info.maxThreads && threads > f.info.maxThreads)
    bad("a block of " + std::to_string(threads) + " threads, .maxntid is " + std::to_string(f.info.maxThreads));
  if (f.maxBlock[0] && (l.block.x != f.maxBlock[0] || l.block.y != f.maxBlock[1] || l.block.z != f.maxBlock[2])) bad("a block that is not .reqntid");
  if (uint64_t(f.info.staticSharedBytes) + l.dynamicSharedBytes > kMostShared)
    bad(std::to_string(f.info.staticSharedBytes + uint64_t(l.dynamicSharedBytes)) + " bytes of shared memory: at most " + std::to_string(kMostShared));
  if (l.parameterBytes != f.info.parameterBytes)
    bad(std::to_string(l.parameterBytes) + " bytes of parameters, the kernel takes " + std::to_string(f.info.parameterBytes));
}

void fill(uint8_t* regs, uint32_t offset, uint32_t value) {
  if (!offset) return;
  uint32_t* r = reinterpret_cast<uint32_t*>(regs + offset);
  for (uint32_t i = 0; i < kLanes; i++) r[i] = value;
}

// What no block changes: constants, sizes, threads' places.
void prepare(Worker& k) {
  const Function& f = *k.function;
  const Launch& l = *k.launch;
  k.blockThreads = l.block.x * l.block.y * l.block.z;
  k.warpCount = (k.blockThreads + kLanes - 1) / kLanes;
  size_t bytes = (size_t(f.registerBytes) + 63) / 64 * 64;
  k.registers.reset(static_cast<uint8_t*>(::operator new[](bytes * k.warpCount, std::align_val_t(64))));
  memset(k.registers.get(), 0, bytes * k.warpCount);
  k.warps.resize(k.warpCount);
  k.cached.assign(f.sites, nullptr);
  const Specials& s = f.specials;
  for (uint32_t index = 0; index < k.warpCount; index++) {
    Warp& w = k.warps[index];
    w.worker = &k;
    w.index = index;
    w.regs = k.registers.get() + bytes * index;
    uint32_t left = k.blockThreads - index * kLanes;
    w.threads = left >= kLanes ? kAll : (1u << left) - 1;
    for (const Constant& c : f.constants) {
      if (c.wide)
        for (uint32_t i = 0; i < kLanes; i++) w.at<uint64_t>(c.offset)[i] = c.bits;
      else
        fill(w.regs, c.offset, uint32_t(c.bits));
    }
    const uint32_t ntid[3] = {l.block.x, l.block.y, l.block.z}, nctaid[3] = {l.grid.x, l.grid.y, l.grid.z};
    for (int a = 0; a < 3; a++) {
      fill(w.regs, s.ntid[a], ntid[a]);
      fill(w.regs, s.nctaid[a], nctaid[a]);
    }
    fill(w.regs, s.warpid, index);
    fill(w.regs, s.dynamicShared, l.dynamicSharedBytes);
    for (uint32_t i = 0; i < kLanes; i++) {
      uint32_t t = index * kLanes + i;
      const uint32_t tid[3] = {t % l.block.x, t / l.block.x % l.block.y, t / l.block.x / l.block.y};
      for (int a = 0; a < 3; a++)
        if (s.tid[a]) w.at<uint32_t>(s.tid[a])[i] = tid[a];
      if (s.laneid) w.at<uint32_t>(s.laneid)[i] = i;
      uint32_t equal = 1u << i, less = equal - 1;
      const uint32_t masks[5] = {equal, less, less | equal, ~(less | equal), ~less};
      for (int m = 0; m < 5; m++)
        if (s.lanemask[m]) w.at<uint32_t>(s.lanemask[m])[i] = masks[m];
    }
    if (f.info.localBytes) {
      w.local.resize(size_t(f.info.localBytes) * kLanes);
      w.localInitialised.resize(w.local.size());
    }
  }
}

void runBlock(Worker& k, uint64_t block) {
  const Launch& l = *k.launch;
  const Specials& s = k.function->specials;
  k.block = block;
  k.blockIndex = {uint32_t(block % l.grid.x), uint32_t(block / l.grid.x % l.grid.y), uint32_t(block / l.grid.x / l.grid.y)};
  const uint32_t ctaid[3] = {k.blockIndex.x, k.blockIndex.y, k.blockIndex.z};
  k.shared.begin(k.function->info.staticSharedBytes + l.dynamicSharedBytes, k.warpCount, l.checked);
  for (Warp& w : k.warps) {
    w.alive = w.active = w.threads;
    w.pc = 0;
    w.limit = kAll;
    w.state = Warp::Ready;
    w.executed = 0;
    w.others.clear();
    w.copies.clear();
    std::fill(std::begin(w.copyGroup), std::end(w.copyGroup), 0u);
    for (int a = 0; a < 3; a++) fill(w.regs, s.ctaid[a], ctaid[a]);
    std::fill(w.localInitialised.begin(), w.localInitialised.end(), 0);
  }
  BarrierSet barriers(k);
  for (uint32_t done = 0; done < k.warpCount;) {
    bool ran = false;
    for (uint32_t i = 0; i < k.warpCount; i++) {
      Warp& w = k.warps[l.schedule == Schedule::Eager ? i : k.warpCount - 1 - i];
      if (w.state != Warp::Ready) continue;
      ran = true;
      run(w);
      if (w.state == Warp::Done) done++;
      else barriers.arrive(w);
    }
    if (!ran) barriers.deadlock();
  }
  for (Warp& w : k.warps) k.counters.warpInstructions += w.executed;
}

}  // namespace

Counters execute(const Function& function, const Launch& launch, Memory& memory) {
  checkLaunch(function, launch);
  uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  uint32_t workers = uint32_t(std::min<uint64_t>(std::max(1u, launch.workers), blocks));
  GlobalTraces traces(launch.checked, workers > 1);
  std::vector<Worker> all(workers);
  for (Worker& k : all) {
    k.function = &function;
    k.launch = &launch;
    k.memory = &memory;
    k.traces = &traces;
    k.instructionLimit = launch.instructionLimit;
    prepare(k);
  }
  if (workers == 1) {
    for (uint64_t block = 0; block < blocks; block++) runBlock(all[0], block);
    return all[0].counters;
  }
  std::atomic<uint64_t> nextBlock{0};
  std::exception_ptr failure;
  std::mutex failing;
  auto work = [&](Worker& k) {
    try {
      for (uint64_t block; (block = nextBlock++) < blocks;) runBlock(k, block);
    } catch (...) {
      nextBlock = blocks;
      std::lock_guard<std::mutex> lock(failing);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 1; i < workers; i++) threads.emplace_back(work, std::ref(all[i]));
  work(all[0]);
  for (std::thread& t : threads) t.join();
  if (failure) std::rethrow_exception(failure);
  Counters sum;
  for (const Worker& k : all) {
    sum.warpInstructions += k.counters.warpInstructions;
    sum.globalBytesRead += k.counters.globalBytesRead;
    sum.globalBytesWritten += k.counters.globalBytesWritten;
  }
  return sum;
}

}  // namespace emulator
