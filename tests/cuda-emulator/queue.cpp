#include "queue.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <thread>

namespace emulator {

namespace {

uint64_t number(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == 0) return otherwise;
  char* end = nullptr;
  uint64_t value = std::strtoull(text, &end, 10);
  return *end == 0 ? value : otherwise;
}

bool has(const std::string& line, const char* what) { return line.find(what) != std::string::npos; }

// The number that a GPU's driver gives for what happened; the line says more.
CUresult codeOf(const std::string& line) {
  if (has(line, "aligned")) return CUDA_ERROR_MISALIGNED_ADDRESS;
  if (has(line, "use after free") || (has(line, "out of bounds") && has(line, "global"))) return CUDA_ERROR_ILLEGAL_ADDRESS;
  return CUDA_ERROR_LAUNCH_FAILED;
}

}  // namespace

Machine::Machine() : memory(number("NATIVELORA_EMULATOR_MEMORY", 2048) << 20) {
  order = static_cast<Order>(std::min<uint64_t>(2, number("NATIVELORA_EMULATOR_SCHEDULE", 1)));
  checked = number("NATIVELORA_EMULATOR_CHECKS", 1) != 0;
  uint64_t processors = std::max(1u, std::thread::hardware_concurrency());
  instructionLimit = number("NATIVELORA_EMULATOR_LIMIT", 0);
  workers = static_cast<uint32_t>(std::min<uint64_t>(256, std::max<uint64_t>(1, number("NATIVELORA_EMULATOR_WORKERS", processors))));
  legacy.id = 1;
  perThread.id = 2;
}

Machine& machine() {
  // Never destroyed: a host may still call while it exits.
  static Machine* one = new Machine();
  return *one;
}

Stream* Machine::resolve(CUstream handle) {
  auto value = reinterpret_cast<uintptr_t>(handle);
  if (value <= 1) return &legacy;
  if (value == 2) return &perThread;
  auto at = streams.find(handle);
  return at == streams.end() || at->second->destroyed ? nullptr : handle;
}

std::vector<Stream*> Machine::everyStream() {
  std::vector<Stream*> all{&legacy, &perThread};
  for (auto& s : streams) all.push_back(s.first);
  std::sort(all.begin(), all.end(), [](Stream* a, Stream* b) { return a->id < b->id; });
  return all;
}

void Machine::setFault(const std::string& line) {
  fault = line;
  refusal = line;
}

CUresult Machine::refuse(CUresult code, std::string line) {
  refusal = std::move(line);
  return code;
}

bool Machine::isPinned(const void* at, uint64_t bytes) const {
  auto address = reinterpret_cast<uint64_t>(at);
  auto after = pinned.upper_bound(address);
  if (after == pinned.begin()) return false;
  auto range = std::prev(after);
  return address - range->first <= range->second && bytes <= range->second - (address - range->first);
}

bool Machine::anyCapture(int upToMode) const {
  for (auto& s : streams)
    if (s.first->capture && !s.first->capture->invalid && s.first->capture->mode <= upToMode) return true;
  return false;
}

CUresult Machine::enqueue(Stream& stream, Work kind, std::string what, std::function<void()> run, std::vector<Ticket> after) {
  if (sticky != CUDA_SUCCESS) return sticky;
  if (stream.capture) {
    Capture& capture = *stream.capture;
    if (capture.invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (kind == Work::Graph || kind == Work::Allocate || kind == Work::Free) {
      capture.invalid = true;
      return refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, what + " is not supported while a stream is captured");
    }
    capture.nodes.push_back({kind, std::move(what), std::move(run), stream.captureTail});
    stream.captureTail = {capture.nodes.size() - 1};
    return CUDA_SUCCESS;
  }
  if (&stream == &legacy)
    for (auto& s : streams) {
      if (!s.first->blocking) continue;
      if (s.first->capture) {
        s.first->capture->invalid = true;
        return refuse(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, what + " on the default stream would wait for a stream under capture");
      }
      if (s.first->done < s.first->queued) after.push_back({s.first, s.first->queued});
    }
  if (&stream == &legacy && perThread.done < perThread.queued) after.push_back({&perThread, perThread.queued});
  if (&stream != &legacy && stream.blocking && legacy.done < legacy.queued) after.push_back({&legacy, legacy.queued});
  stream.queue.push_back({kind, std::move(what), std::move(run), std::move(after), ++lastQueued});
  stream.queued++;
  return order == Order::Eager ? wait(stream) : CUDA_SUCCESS;
}

void Machine::dropWork() {
  for (Stream* s : everyStream()) {
    s->queue.clear();
    s->done = s->queued;
  }
}

CUresult Machine::wait(Ticket ticket) {
  std::vector<Ticket> stack{ticket};
  while (sticky == CUDA_SUCCESS && !stack.empty()) {
    Ticket top = stack.back();
    if (top.stream->done >= top.number) {
      stack.pop_back();
      continue;
    }
    Queued& front = top.stream->queue.front();
    auto unmet = std::find_if(front.after.begin(), front.after.end(), [](const Ticket& t) { return t.stream->done < t.number; });
    if (unmet != front.after.end()) {
      stack.push_back(*unmet);
      continue;
    }
    Queued piece = std::move(front);
    top.stream->queue.pop_front();
    top.stream->done++;
    try {
      if (piece.run) piece.run();
    } catch (const Fault& f) {
      setFault(piece.kind == Work::Launch ? f.what() : piece.what + ": " + f.what());
      sticky = codeOf(fault);
    } catch (const std::bad_alloc&) {
      setFault(piece.what + ": the host is out of memory");
      sticky = CUDA_ERROR_LAUNCH_FAILED;
    }
  }
  if (sticky != CUDA_SUCCESS) dropWork();
  return sticky;
}

CUresult Machine::waitAll() {
  // What was queued last first, with what it waits for: so nothing finds the work of other streams done by luck.
  for (;;) {
    Stream* last = nullptr;
    for (Stream* s : everyStream())
      if (!s->queue.empty() && (last == nullptr || s->queue.back().order > last->queue.back().order)) last = s;
    if (last == nullptr || wait(*last) != CUDA_SUCCESS) break;
  }
  return sticky;
}

CUresult Machine::step(Stream& stream) {
  return stream.done < stream.queued ? wait(Ticket{&stream, stream.done + 1}) : sticky;
}

void Machine::runGraph(const std::vector<GraphNode>& nodes) const {
  std::vector<char> done(nodes.size(), 0);
  // Deferred: the last node first, so that only what the edges demand comes before it.
  for (size_t i = 0; i < nodes.size(); i++) {
    std::vector<size_t> stack{order == Order::Eager ? i : nodes.size() - 1 - i};
    while (!stack.empty()) {
      size_t node = stack.back();
      auto unmet = std::find_if(nodes[node].after.begin(), nodes[node].after.end(), [&](size_t n) { return !done[n]; });
      if (!done[node] && unmet != nodes[node].after.end()) {
        stack.push_back(*unmet);
        continue;
      }
      stack.pop_back();
      if (done[node]) continue;
      done[node] = 1;
      if (nodes[node].run) nodes[node].run();
    }
  }
}

}  // namespace emulator
