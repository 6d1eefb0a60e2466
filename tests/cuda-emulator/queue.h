// Streams, events and graphs: work is queued, and runs when something waits for it.
#pragma once

#include "cuda_api.h"
#include "memory.h"

#include <deque>
#include <functional>
#include <map>
#include <set>

namespace emulator {

enum class Work { Launch, Blas, Copy, Set, Allocate, Free, Record, Wait, Graph };

// A node of a graph under capture or captured.
struct GraphNode {
  Work kind;
  std::string what;
  std::function<void()> run;
  std::vector<size_t> after;
};

struct Capture {
  std::vector<GraphNode> nodes;
  Stream* origin = nullptr;
  std::set<Stream*> streams;
  int mode = 0;
  bool invalid = false;
};

struct Ticket {
  Stream* stream = nullptr;
  uint64_t number = 0;  // of the queued piece, from 1
};

struct Queued {
  Work kind;
  std::string what;
  std::function<void()> run;
  std::vector<Ticket> after;
  uint64_t order;  // among all streams' work
};

struct Stream {
  uint64_t id = 0;
  bool blocking = true;  // waits for the legacy default stream, which waits for it
  bool destroyed = false;
  std::deque<Queued> queue;
  uint64_t queued = 0, done = 0;
  std::shared_ptr<Capture> capture;
  std::vector<size_t> captureTail;
};

struct Event {
  bool timed = true, recorded = false;
  Ticket ticket;
  double time = 0;
  std::shared_ptr<Capture> capture;  // recorded into it
  std::vector<size_t> captureTail;
};

struct Graph {
  std::vector<GraphNode> nodes;
};
struct GraphExec {
  std::shared_ptr<std::vector<GraphNode>> nodes;
};

// How work is ordered within and between launches: at once, as late as allowed, or each launch both ways and compared.
enum class Order { Eager = 0, Deferred = 1, Both = 2 };

// All of the stand-in; one lock over every call.
struct Machine {
  Machine();
  std::recursive_mutex lock;
  DeviceMemory memory;
  Order order = Order::Deferred;
  bool checked = true;
  bool dry = false;  // launches and products are counted, and not executed
  uint64_t blasBytes = 0;  // what products read and write if each operand moves once
  uint32_t workers = 1;
  uint64_t instructionLimit = 0;  // of one warp; 0: the executor's own
  NlEmulatorCounters counters{};
  CUresult sticky = CUDA_SUCCESS;
  std::string fault, refusal;

  Stream legacy, perThread;
  std::map<Stream*, std::unique_ptr<Stream>> streams;  // destroyed ones stay: events may point to them
  std::set<Event*> events;
  std::set<Graph*> graphs;
  std::set<GraphExec*> execs;
  uint64_t lastStream = 2, lastQueued = 0;
  std::map<uint64_t, uint64_t> pinned;  // host address -> bytes
  std::map<void*, std::unique_ptr<uint8_t[]>> hostBuffers;
  std::string leaksBefore;  // of contexts that are gone

  // Null: no such stream.
  Stream* resolve(CUstream handle);
  // Queues work; CUDA_SUCCESS or why not. A stream under capture gets a node instead.
  CUresult enqueue(Stream& stream, Work kind, std::string what, std::function<void()> run, std::vector<Ticket> after = {});
  // Runs all that the ticket needs. What fails is sticky.
  CUresult wait(Ticket ticket);
  CUresult wait(Stream& stream) { return wait(Ticket{&stream, stream.queued}); }
  CUresult waitAll();
  // Runs one piece, if any is left.
  CUresult step(Stream& stream);
  bool anyCapture(int upToMode) const;
  void setFault(const std::string& line);
  CUresult refuse(CUresult code, std::string line);
  bool isPinned(const void* at, uint64_t bytes) const;
  void runGraph(const std::vector<GraphNode>& nodes) const;
  std::vector<Stream*> everyStream();
  void dropWork();
};

__attribute__((visibility("default"))) Machine& machine();

}  // namespace emulator
