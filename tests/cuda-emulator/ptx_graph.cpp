#include "ptx_graph.h"

namespace emulator {

bool isJump(Control c) { return c == Control::Branch || c == Control::UniformBranch || c == Control::IndexedBranch; }
bool ends(const Function& f, const Instruction& in) {
  return (isJump(in.control) || in.control == Control::Exit || in.control == Control::Trap) && in.guard == f.alwaysTrue && in.guardInvert == 0;
}
std::vector<uint32_t> targetsOf(const Function& f, const Instruction& in) {
  if (in.control != Control::IndexedBranch) return {in.target};
  return std::vector<uint32_t>(f.extra.begin() + in.target, f.extra.begin() + in.target + in.offset);
}

Graph::Graph(const Function& f) {
  size_t n = f.code.size();
  std::vector<bool> leads(n + 1, false);
  leads[0] = true;
  for (size_t i = 0; i < n; i++) {
    const Instruction& in = f.code[i];
    if (in.control == Control::Exit || in.control == Control::Trap) leads[i + 1] = true;
    if (!isJump(in.control)) continue;
    leads[i + 1] = true;
    for (uint32_t t : targetsOf(f, in)) {
      if (t >= n) faultAt(in.line, "a branch behind the last instruction");
      leads[t] = true;
    }
  }
  blockAt.resize(n);
  for (size_t i = 0; i < n; i++) {
    if (leads[i]) begin.push_back(uint32_t(i));
    blockAt[i] = uint32_t(begin.size() - 1);
  }
  begin.push_back(uint32_t(n));
  next.resize(begin.size() - 1);
  before.resize(next.size());
  for (uint32_t b = 0; b < next.size(); b++) {
    const Instruction& last = f.code[begin[b + 1] - 1];
    // What comes next in the text first.
    if (!ends(f, last)) next[b].push_back(b + 1);
    if (isJump(last.control))
      for (uint32_t t : targetsOf(f, last))
        if (std::find(next[b].begin(), next[b].end(), blockAt[t]) == next[b].end()) next[b].push_back(blockAt[t]);
    for (uint32_t to : next[b]) before[to].push_back(b);
  }
  findLoops();
}

void Graph::findLoops() {
  size_t n = next.size();
  depth.assign(n, 0);
  std::vector<uint32_t> rpo = order([](uint32_t, uint32_t) { return false; }), place(n, kAll), idom(n, kAll);
  for (uint32_t i = 0; i < rpo.size(); i++) place[rpo[i]] = i;
  idom[0] = 0;
  auto meet = [&](uint32_t a, uint32_t b) {
    while (a != b) {
      while (place[a] > place[b]) a = idom[a];
      while (place[b] > place[a]) b = idom[b];
    }
    return a;
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t b : rpo) {
      if (b == 0) continue;
      uint32_t dominator = kAll;
      for (uint32_t p : before[b])
        if (idom[p] != kAll) dominator = dominator == kAll ? p : meet(dominator, p);
      if (dominator != idom[b]) {
        idom[b] = dominator;
        changed = true;
      }
    }
  }
  // Natural loops: what reaches a jump back without passing the head.
  std::vector<std::vector<uint32_t>> tails(n);
  for (uint32_t b : rpo)
    for (uint32_t to : next[b]) {
      uint32_t d = b;
      while (d != to && d != 0) d = idom[d];
      if (d == to) tails[to].push_back(b);
    }
  for (uint32_t head = 0; head < n; head++) {
    if (tails[head].empty()) continue;
    std::vector<bool> in(n, false);
    in[head] = true;
    std::vector<uint32_t> work = tails[head];
    while (!work.empty()) {
      uint32_t b = work.back();
      work.pop_back();
      if (in[b] || place[b] == kAll) continue;
      in[b] = true;
      work.insert(work.end(), before[b].begin(), before[b].end());
    }
    for (uint32_t b = 0; b < n; b++) depth[b] += in[b];
  }
}

}  // namespace emulator
