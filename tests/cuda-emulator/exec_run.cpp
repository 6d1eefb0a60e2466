// A warp's loop: fetch, guard, branch; lanes that part and meet again.
#include <algorithm>

#include "exec_warp.h"

namespace emulator {

namespace {

void computeLimit(Warp& w) {
  uint32_t limit = kAll;
  for (const Split& s : w.others)
    if (!s.blocked || s.pc >= w.pc) limit = std::min(limit, s.pc);
  w.limit = limit;
}

// The lanes that are furthest behind run next; those at the same instruction go together. Faults where all wait.
void choose(Warp& w) {
  if (w.active) w.others.push_back({w.pc, w.active, false});
  w.active = 0;
  uint32_t best = kAll;
  for (const Split& s : w.others)
    if (!s.blocked) best = std::min(best, s.pc);
  if (best == kAll) {
    if (w.others.empty()) return;
    const Split& first = w.others.front();
    const Instruction& in = w.worker->function->code[first.pc];
    std::string where;
    for (const Split& s : w.others) where += (where.empty() ? "" : ", ") + hex(s.lanes) + " at line " + std::to_string(w.worker->function->code[s.pc].line);
    fault(w, in, uint32_t(__builtin_ctz(first.lanes)), "lanes wait for lanes of their warp that never come (lanes " + where + ")");
  }
  w.pc = best;
  for (size_t i = 0; i < w.others.size();) {
    if (w.others[i].pc == best) {
      w.active |= w.others[i].lanes;
      w.others[i] = w.others.back();
      w.others.pop_back();
    } else {
      i++;
    }
  }
  computeLimit(w);
}

// The split that runs waits for other lanes.
void block(Warp& w) {
  w.others.push_back({w.pc, w.active, true});
  w.active = 0;
  choose(w);
}

void split(Warp& w, uint32_t target, uint32_t taken) {
  uint32_t rest = w.active & ~taken;
  uint32_t fall = w.pc + 1;
  w.others.push_back({target, taken, false});
  w.active = rest;
  w.pc = fall;
  choose(w);
}

void indexed(Warp& w, const Instruction& in, uint32_t exec) {
  const Function& f = *w.worker->function;
  const uint32_t* index = w.at<uint32_t>(in.a);
  uint32_t rest = w.active & ~exec;
  if (rest) w.others.push_back({w.pc + 1, rest, false});
  eachLane(exec, [&](uint32_t lane) {
    if (index[lane] >= uint64_t(in.offset)) fault(w, in, lane, "branch index " + std::to_string(index[lane]) + " of " + std::to_string(in.offset));
    w.others.push_back({f.extra[in.target + index[lane]], 1u << lane, false});
  });
  w.active = 0;
  choose(w);
}

// Whether the lanes that the member masks name are all here. Lanes that have exited count as here.
bool gathered(Warp& w, const Instruction& in, uint32_t exec) {
  const uint32_t* masks = w.at<uint32_t>(in.members);
  for (uint32_t rest = exec; rest;) {
    uint32_t lane = uint32_t(__builtin_ctz(rest)), mask = masks[lane], same = 0;
    if (!(mask >> lane & 1)) fault(w, in, lane, "the lane is not in its own member mask " + hex(mask));
    eachLane(rest, [&](uint32_t i) { same |= masks[i] == mask ? 1u << i : 0; });
    uint32_t missing = mask & w.alive & ~same;
    if (missing & ~w.active) return false;
    if (missing) fault(w, in, lane, "lanes " + hex(missing) + " of the member mask " + hex(mask) + " do not execute it or have another mask");
    rest &= ~same;
  }
  return true;
}

}  // namespace

void run(Warp& w) {
  Worker& worker = *w.worker;
  const Instruction* code = worker.function->code.data();
  uint64_t most = worker.instructionLimit;
  for (;;) {
    if (__builtin_expect(w.pc >= w.limit, 0)) choose(w);
    const Instruction& in = code[w.pc];
    uint32_t exec = w.active & (w.word(in.guard) ^ in.guardInvert);
    if (__builtin_expect(++w.executed > most, 0))
      fault(w, in, uint32_t(__builtin_ctz(w.active)), "more than " + std::to_string(most) + " instructions of one warp: an endless loop?");
    switch (in.control) {
      case Control::None:
        if (__builtin_expect(exec != 0, 1)) in.handler(w, in, exec);
        w.pc++;
        break;
      case Control::UniformBranch:
        if (exec != 0 && exec != w.active) fault(w, in, uint32_t(__builtin_ctz(exec)), "bra.uni is taken by lanes " + hex(exec) + " of " + hex(w.active) + " alone");
        [[fallthrough]];
      case Control::Branch:
        if (exec == w.active) {
          w.pc = in.target;
          if (!w.others.empty()) computeLimit(w);
        } else if (exec == 0) {
          w.pc++;
        } else {
          split(w, in.target, exec);
        }
        break;
      case Control::IndexedBranch:
        indexed(w, in, exec);
        break;
      case Control::Exit:
        w.alive &= ~exec;
        w.active &= ~exec;
        if (exec)
          for (Split& s : w.others) s.blocked = false;
        w.pc++;
        if (!w.active) {
          if (w.others.empty()) {
            w.state = Warp::Done;
            return;
          }
          choose(w);
        } else if (!w.others.empty()) {
          computeLimit(w);
        }
        break;
      case Control::Trap:
        if (exec) fault(w, in, uint32_t(__builtin_ctz(exec)), "trap");
        w.pc++;
        break;
      case Control::WarpSync:
        if (exec && !gathered(w, in, exec)) {
          block(w);
          break;
        }
        if (exec && in.handler) in.handler(w, in, exec);
        w.pc++;
        break;
      case Control::Aligned:
        if (w.alive & ~w.active) {
          block(w);
          break;
        }
        if (exec != kAll) fault(w, in, uint32_t(__builtin_ctz(~exec)), "all 32 lanes must execute it, lanes " + hex(exec) + " do");
        in.handler(w, in, exec);
        w.pc++;
        break;
      case Control::Barrier:
        if (w.alive & ~w.active) {
          block(w);
          break;
        }
        if (exec != w.active) {
          if (exec) fault(w, in, uint32_t(__builtin_ctz(exec)), "a barrier in divergent code: lanes " + hex(exec) + " of " + hex(w.active));
          w.pc++;
          break;
        }
        in.handler(w, in, exec);  // says which barrier
        w.barrierLine = in.line;
        w.state = Warp::AtBarrier;
        w.pc++;
        return;
    }
  }
}

}  // namespace emulator
