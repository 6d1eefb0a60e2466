// What only the stand-in has: its settings, counters and faults. The CUDA engine knows it by these.
#include "queue.h"

using namespace emulator;

NL_API const char* nlEmulatorVersion() { return "NativeLora stand-in 1"; }

NL_API const char* nlEmulatorFault() {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  static thread_local std::string line;
  line = machine().fault;
  return line.c_str();
}

NL_API const char* nlEmulatorRefusal() {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  static thread_local std::string line;
  line = machine().refusal;
  return line.c_str();
}

NL_API const char* nlEmulatorLeaks() {
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> hold(m.lock);
  static thread_local std::string lines;
  lines = m.leaksBefore + m.memory.leaks();
  if (!m.hostBuffers.empty()) lines += std::to_string(m.hostBuffers.size()) + " pinned host buffers were not freed\n";
  uint64_t open = 0;
  for (auto& s : m.streams) open += !s.second->destroyed;
  if (open != 0) lines += std::to_string(open) + " streams were not destroyed\n";
  if (!m.events.empty()) lines += std::to_string(m.events.size()) + " events were not destroyed\n";
  if (!m.graphs.empty()) lines += std::to_string(m.graphs.size()) + " graphs were not destroyed\n";
  if (!m.execs.empty()) lines += std::to_string(m.execs.size()) + " executable graphs were not destroyed\n";
  return lines.c_str();
}

// Faults, counters and queued work are forgotten, device memory is freed; contexts and modules stay.
NL_API void nlEmulatorReset() {
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> hold(m.lock);
  m.dropWork();
  m.memory.reset();
  m.streams.clear();
  for (CUevent e : m.events) delete e;
  m.events.clear();
  for (CUgraph g : m.graphs) delete g;
  m.graphs.clear();
  for (CUgraphExec g : m.execs) delete g;
  m.execs.clear();
  m.hostBuffers.clear();
  m.pinned.clear();
  m.counters = {};
  m.blasBytes = 0;
  m.fault.clear();
  m.refusal.clear();
  m.leaksBefore.clear();
  m.sticky = CUDA_SUCCESS;
}

NL_API void nlEmulatorCounters(NlEmulatorCounters* to) {
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> hold(m.lock);
  *to = m.counters;
  to->liveAllocations = m.memory.liveCount();
  to->liveBytes = m.memory.liveBytes();
  to->peakBytes = m.memory.peakBytes();
}

NL_API void nlEmulatorSetSchedule(int schedule) {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  if (schedule >= 0 && schedule <= 2) machine().order = static_cast<Order>(schedule);
}
NL_API void nlEmulatorSetChecks(int on) {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  machine().checked = on != 0;
}
// Of all products so far, each operand once.
NL_API uint64_t nlEmulatorBlasBytes() {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  return machine().blasBytes;
}
// Launches and products are counted, and not executed.
NL_API void nlEmulatorSetDry(int on) {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  machine().dry = on != 0;
}
NL_API void nlEmulatorSetWorkers(int workers) {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  if (workers > 0) machine().workers = static_cast<uint32_t>(workers);
}
NL_API void nlEmulatorSetMemory(uint64_t bytes) {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  machine().memory.setLimit(bytes);
}
// Of one warp in a launch; 0: the executor's own limit.
NL_API void nlEmulatorSetInstructionLimit(uint64_t instructions) {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  machine().instructionLimit = instructions;
}
