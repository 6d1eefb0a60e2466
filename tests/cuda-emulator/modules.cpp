// The driver's API: modules, kernels and launches; capture and graphs; names of errors and of functions.
#include "driver.h"

#include <algorithm>
#include <cstring>
#include <dlfcn.h>

using namespace emulator;

namespace {

// Never destroyed, like the machine: threads of the host may still call while it exits.
auto& modules = *new std::map<LoadedModule*, std::unique_ptr<LoadedModule>>();
auto& kernels = *new std::set<Kernel*>();

// Sizes and alignments of a kernel's parameters, as the text declares them: where each pointer of kernelParams goes to.
std::vector<KernelParameter> parametersOf(const std::string& text, const std::string& kernel) {
  std::vector<KernelParameter> all;
  size_t at = text.find(".entry " + kernel + "(");
  if (at == std::string::npos) return all;
  size_t end = text.find(')', at);
  uint32_t offset = 0;
  for (size_t p = text.find(".param", at); p != std::string::npos && p < end; p = text.find(".param", p + 1)) {
    std::string line = text.substr(p, std::min(text.find_first_of(",)", p), end) - p);
    uint32_t align = 0, bytes = 1, count = 1;
    if (size_t a = line.find(".align "); a != std::string::npos) align = static_cast<uint32_t>(std::stoul(line.substr(a + 7)));
    for (const char* type : {".b8", ".u8", ".s8", ".b16", ".u16", ".s16", ".f16", ".b32", ".u32", ".s32", ".f32", ".b64", ".u64", ".s64", ".f64"})
      if (line.find(std::string(type) + " ") != std::string::npos) bytes = static_cast<uint32_t>(std::stoul(std::string(type).substr(2))) / 8;
    if (size_t a = line.find('['); a != std::string::npos) count = static_cast<uint32_t>(std::stoul(line.substr(a + 1)));
    align = std::max(align, bytes);
    offset = (offset + align - 1) / align * align;
    all.push_back({offset, bytes * count});
    offset += bytes * count;
  }
  return all;
}

void logError(unsigned count, int* options, void** values, const std::string& line) {
  char* buffer = nullptr;
  size_t bytes = 0;
  for (unsigned i = 0; i < count && options != nullptr && values != nullptr; i++) {
    if (options[i] == 5) buffer = static_cast<char*>(values[i]);
    if (options[i] == 6) bytes = reinterpret_cast<size_t>(values[i]);
  }
  if (buffer != nullptr && bytes > 0) std::snprintf(buffer, bytes, "%s", line.c_str());
}

CUresult load(CUmodule* module, const void* image, unsigned count, int* options, void** values) {
  return callInContext([&](Machine& m) -> CUresult {
    if (module == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto loaded = std::make_unique<LoadedModule>();
    loaded->text = static_cast<const char*>(image);
    if (loaded->text.find(".version") == std::string::npos)
      return m.refuse(CUDA_ERROR_INVALID_IMAGE, "the stand-in loads PTX only, and this text has no .version");
    try {
      loaded->module = parse(loaded->text);
    } catch (const Fault& f) {
      logError(count, options, values, f.what());
      m.setFault(f.what());
      return CUDA_ERROR_INVALID_PTX;
    }
    *module = loaded.get();
    modules[*module] = std::move(loaded);
    return CUDA_SUCCESS;
  });
}

uint32_t sharedLimit(const Kernel& k) { return k.maxDynamicShared > 0 ? k.maxDynamicShared : SharedPerBlock - std::min(SharedPerBlock, k.info.staticSharedBytes); }

std::string shape(unsigned x, unsigned y, unsigned z) { return std::to_string(x) + " x " + std::to_string(y) + " x " + std::to_string(z); }

// Launches with the parameters that it holds, under one schedule or both.
void run(Machine& m, const Kernel& kernel, Launch launch, const std::vector<uint8_t>& parameters) {
  if (m.dry) {
    m.counters.launches++;
    return;
  }
  launch.parameters = parameters.data();
  launch.parameterBytes = static_cast<uint32_t>(parameters.size());
  launch.checked = m.checked;
  launch.workers = m.workers;
  if (m.instructionLimit != 0) launch.instructionLimit = m.instructionLimit;
  launch.schedule = m.order == Order::Deferred ? Schedule::Deferred : Schedule::Eager;
  DeviceMemory::Snapshot before;
  if (m.order == Order::Both) before = m.memory.take();
  Counters c = execute(*kernel.function, launch, m.memory);
  m.counters.launches++;
  m.counters.warpInstructions += c.warpInstructions;
  m.counters.globalBytesRead += c.globalBytesRead;
  m.counters.globalBytesWritten += c.globalBytesWritten;
  if (m.order != Order::Both) return;
  DeviceMemory::Snapshot eager = m.memory.take();
  m.memory.restore(before);
  launch.schedule = Schedule::Deferred;
  execute(*kernel.function, launch, m.memory);
  std::string where = m.memory.differsFrom(eager);
  if (!where.empty()) throw Fault(kernel.info.name + ": the result depends on the order of warps and blocks: " + where);
}

CUresult launch(Machine& m, Stream& stream, const Kernel& kernel, Launch what, void** pointers, void** extra) {
  auto refuse = [&](CUresult code, const std::string& why) { return m.refuse(code, kernel.info.name + ": " + why); };
  const Dim3 &g = what.grid, &b = what.block;
  if (g.x == 0 || g.y == 0 || g.z == 0 || b.x == 0 || b.y == 0 || b.z == 0)
    return refuse(CUDA_ERROR_INVALID_VALUE, "a size is 0: grid " + shape(g.x, g.y, g.z) + ", block " + shape(b.x, b.y, b.z));
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) return refuse(CUDA_ERROR_INVALID_VALUE, "the grid " + shape(g.x, g.y, g.z) + " is too large");
  uint64_t threads = static_cast<uint64_t>(b.x) * b.y * b.z;
  if (b.x > 1024 || b.y > 1024 || b.z > 64 || threads > ThreadsPerBlock)
    return refuse(CUDA_ERROR_INVALID_VALUE, "the block " + shape(b.x, b.y, b.z) + " is too large");
  if (kernel.info.maxThreads != 0 && threads > kernel.info.maxThreads)
    return refuse(CUDA_ERROR_INVALID_VALUE, "a block of " + std::to_string(threads) + " threads, but .maxntid is " + std::to_string(kernel.info.maxThreads));
  if (what.dynamicSharedBytes > sharedLimit(kernel))
    return refuse(CUDA_ERROR_INVALID_VALUE, std::to_string(what.dynamicSharedBytes) + " bytes of dynamic shared memory are more than the " +
                                                std::to_string(sharedLimit(kernel)) + " that the kernel may have");
  std::vector<uint8_t> parameters(kernel.info.parameterBytes, 0);
  if (extra != nullptr) {
    if (pointers != nullptr) return refuse(CUDA_ERROR_INVALID_VALUE, "both kernelParams and extra are given");
    const void* buffer = nullptr;
    const size_t* bytes = nullptr;
    for (size_t i = 0; extra[i] != nullptr; i += 2) {
      if (reinterpret_cast<uintptr_t>(extra[i]) == 1) buffer = extra[i + 1];
      if (reinterpret_cast<uintptr_t>(extra[i]) == 2) bytes = static_cast<const size_t*>(extra[i + 1]);
    }
    if (buffer == nullptr || bytes == nullptr) return refuse(CUDA_ERROR_INVALID_VALUE, "extra has no buffer or no size");
    if (*bytes != parameters.size()) {
      m.setFault(kernel.info.name + ": " + std::to_string(*bytes) + " bytes of parameters are given, it has " + std::to_string(parameters.size()));
      return CUDA_ERROR_INVALID_VALUE;
    }
    std::memcpy(parameters.data(), buffer, parameters.size());
  } else if (!parameters.empty()) {
    if (pointers == nullptr) return refuse(CUDA_ERROR_INVALID_VALUE, "it has parameters, and none are given");
    for (size_t i = 0; i < kernel.parameters.size(); i++) {
      if (pointers[i] == nullptr) return refuse(CUDA_ERROR_INVALID_VALUE, "parameter " + std::to_string(i) + " is null");
      std::memcpy(parameters.data() + kernel.parameters[i].offset, pointers[i], kernel.parameters[i].bytes);
    }
  }
  const Kernel* k = &kernel;
  return m.enqueue(stream, Work::Launch, kernel.info.name, [=, &m] { run(m, *k, what, parameters); });
}

}  // namespace

// --- modules and kernels ----------------------------------------------------------------------------------------------------------------

NL_API CUresult cuModuleLoadData(CUmodule* module, const void* image) { return load(module, image, 0, nullptr, nullptr); }
NL_API CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned count, int* options, void** values) {
  return load(module, image, count, options, values);
}

NL_API CUresult cuModuleUnload(CUmodule module) {
  return callInContext([&](Machine& m) -> CUresult {
    auto at = modules.find(module);
    if (at == modules.end()) return CUDA_ERROR_INVALID_HANDLE;
    if (CUresult r = m.waitAll()) return r;
    for (auto& k : at->second->kernels) kernels.erase(k.second.get());
    modules.erase(at);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return callInContext([&](Machine& m) -> CUresult {
    if (function == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (modules.count(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
    auto& kernel = module->kernels[name];
    if (!kernel) {
      const Function* found = module->module->find(name);
      if (found == nullptr) {
        module->kernels.erase(name);
        return m.refuse(CUDA_ERROR_NOT_FOUND, std::string("the module has no kernel ") + name);
      }
      kernel = std::make_unique<Kernel>();
      kernel->function = found;
      kernel->info = describe(*found);
      kernel->parameters = parametersOf(module->text, name);
      uint32_t bytes = kernel->parameters.empty() ? 0 : kernel->parameters.back().offset + kernel->parameters.back().bytes;
      if (bytes != kernel->info.parameterBytes)
        throw Fault(std::string(name) + ": " + std::to_string(bytes) + " bytes of parameters by their declarations, " +
                    std::to_string(kernel->info.parameterBytes) + " by the parser");
      kernels.insert(kernel.get());
    }
    *function = kernel.get();
    return CUDA_SUCCESS;
  });
}

// Variables of a module belong to its executor; kernels here have none that a host asks for.
NL_API CUresult cuModuleGetGlobal_v2(CUdeviceptr*, size_t*, CUmodule module, const char* name) {
  return callInContext([&](Machine& m) -> CUresult {
    if (modules.count(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
    return m.refuse(CUDA_ERROR_NOT_FOUND, std::string("no address of the variable ") + (name == nullptr ? "" : name));
  });
}

NL_API CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction function) {
  return callInContext([&](Machine&) -> CUresult {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (kernels.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    switch (attribute) {
      case 0: *value = static_cast<int>(function->info.maxThreads == 0 ? ThreadsPerBlock : function->info.maxThreads); return CUDA_SUCCESS;
      case 1: *value = static_cast<int>(function->info.staticSharedBytes); return CUDA_SUCCESS;
      case 2: *value = 0; return CUDA_SUCCESS;
      case 3: *value = static_cast<int>(function->info.localBytes); return CUDA_SUCCESS;
      case 4: *value = 32; return CUDA_SUCCESS;  // registers: the stand-in allots none
      case 5: *value = 70; return CUDA_SUCCESS;
      case 6: *value = 80; return CUDA_SUCCESS;
      case 7: *value = 0; return CUDA_SUCCESS;
      case 8: *value = static_cast<int>(sharedLimit(*function)); return CUDA_SUCCESS;
      case 9: *value = -1; return CUDA_SUCCESS;
      default: return CUDA_ERROR_INVALID_VALUE;
    }
  });
}

NL_API CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
  return callInContext([&](Machine& m) -> CUresult {
    if (kernels.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute == 9) return value >= -1 && value <= 100 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    if (attribute != 8) return CUDA_ERROR_INVALID_VALUE;
    if (value < 0 || static_cast<uint32_t>(value) + function->info.staticSharedBytes > SharedPerBlockOptIn)
      return m.refuse(CUDA_ERROR_INVALID_VALUE, function->info.name + ": " + std::to_string(value) + " bytes of dynamic shared memory with " +
                                                    std::to_string(function->info.staticSharedBytes) + " static ones are more than " +
                                                    std::to_string(SharedPerBlockOptIn));
    function->maxDynamicShared = static_cast<uint32_t>(value);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t* offset, size_t* bytes) {
  return callInContext([&](Machine&) -> CUresult {
    if (kernels.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (offset == nullptr || index >= function->parameters.size()) return CUDA_ERROR_INVALID_VALUE;
    *offset = function->parameters[index].offset;
    if (bytes != nullptr) *bytes = function->parameters[index].bytes;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads, size_t dynamicShared) {
  return callInContext([&](Machine&) -> CUresult {
    if (blocks == nullptr || threads <= 0) return CUDA_ERROR_INVALID_VALUE;
    if (kernels.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    uint32_t warps = (static_cast<uint32_t>(threads) + WarpSize - 1) / WarpSize;
    uint64_t shared = function->info.staticSharedBytes + dynamicShared + 1024;  // 1 KiB of each block is the system's
    uint64_t most = std::min<uint64_t>(BlocksPerMultiprocessor, ThreadsPerMultiprocessor / (warps * WarpSize));
    bool fits = static_cast<uint32_t>(threads) <= (function->info.maxThreads == 0 ? ThreadsPerBlock : function->info.maxThreads) &&
                dynamicShared <= sharedLimit(*function);
    *blocks = fits ? static_cast<int>(std::min<uint64_t>(most, SharedPerMultiprocessor / shared)) : 0;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuLaunchKernel(CUfunction function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX, unsigned blockY, unsigned blockZ,
                               unsigned sharedBytes, CUstream handle, void** parameters, void** extra) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (kernels.count(function) == 0) return m.refuse(CUDA_ERROR_INVALID_HANDLE, "no such kernel");
    Launch what;
    what.grid = {gridX, gridY, gridZ};
    what.block = {blockX, blockY, blockZ};
    what.dynamicSharedBytes = sharedBytes;
    return launch(m, stream, *function, what, parameters, extra);
  });
}

// --- capture and graphs -----------------------------------------------------------------------------------------------------------------

NL_API CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (m.streams.count(handle) == 0) return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
    if (mode < 0 || mode > 2) return CUDA_ERROR_INVALID_VALUE;
    if (stream.capture) return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is captured already");
    stream.capture = std::make_shared<Capture>();
    stream.capture->origin = &stream;
    stream.capture->mode = mode;
    stream.capture->streams.insert(&stream);
    stream.captureTail.clear();
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *graph = nullptr;
    if (!stream.capture || stream.capture->origin != &stream) return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "no capture was begun on this stream");
    std::shared_ptr<Capture> capture = stream.capture;
    // What the origin's last nodes come after.
    std::vector<char> joined(capture->nodes.size(), 0);
    std::vector<size_t> stack = stream.captureTail;
    while (!stack.empty()) {
      size_t node = stack.back();
      stack.pop_back();
      if (joined[node]) continue;
      joined[node] = 1;
      for (size_t n : capture->nodes[node].after) stack.push_back(n);
    }
    bool unjoined = false;
    for (Stream* s : capture->streams) {
      for (size_t n : s->captureTail) unjoined |= !joined[n];
      s->capture = nullptr;
      s->captureTail.clear();
    }
    for (CUevent e : m.events)
      if (e->capture == capture) e->capture = nullptr, e->recorded = false;
    if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (unjoined) return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "work of a stream that joined the capture was not joined to its origin");
    *graph = new Graph{std::move(capture->nodes)};
    m.graphs.insert(*graph);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuStreamIsCapturing(CUstream handle, int* status) {
  return callOn(handle, [&](Machine&, Stream& stream) -> CUresult {
    if (status == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *status = !stream.capture ? 0 : stream.capture->invalid ? 2 : 1;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long) {
  return callInContext([&](Machine& m) -> CUresult {
    if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (m.graphs.count(graph) == 0) return CUDA_ERROR_INVALID_HANDLE;
    *exec = new GraphExec{std::make_shared<std::vector<GraphNode>>(graph->nodes)};
    m.execs.insert(*exec);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (m.execs.count(exec) == 0) return CUDA_ERROR_INVALID_HANDLE;
    auto nodes = exec->nodes;
    return m.enqueue(stream, Work::Graph, "graph", [=, &m] {
      m.counters.graphLaunches++;
      m.runGraph(*nodes);
    });
  });
}

NL_API CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo* info) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.execs.count(exec) == 0 || m.graphs.count(graph) == 0 || info == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *info = {};
    const auto &before = *exec->nodes, &now = graph->nodes;
    bool same = before.size() == now.size();
    for (size_t i = 0; same && i < now.size(); i++) same = before[i].kind == now[i].kind && before[i].after == now[i].after;
    if (!same) {
      info->result = 2;  // the topology changed
      return m.refuse(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "the graph has other nodes or edges than the executable one");
    }
    // Launches that are queued keep what they were launched with.
    exec->nodes = std::make_shared<std::vector<GraphNode>>(now);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuGraphGetNodes(CUgraph graph, void** nodes, size_t* count) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.graphs.count(graph) == 0 || count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (nodes != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    *count = graph->nodes.size();
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuGraphDestroy(CUgraph graph) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.graphs.erase(graph) == 0) return CUDA_ERROR_INVALID_VALUE;
    delete graph;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuGraphExecDestroy(CUgraphExec exec) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.execs.erase(exec) == 0) return CUDA_ERROR_INVALID_VALUE;
    delete exec;
    return CUDA_SUCCESS;
  });
}

// --- names ------------------------------------------------------------------------------------------------------------------------------

namespace {

struct ErrorName {
  CUresult code;
  const char *name, *text;
};
const ErrorName errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {CUDA_ERROR_LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {CUDA_ERROR_MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
    {CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE", "the graph update was not performed because it included changes which violated constraints"},
};

CUresult nameOf(CUresult error, const char** to, const char* ErrorName::*field) {
  for (auto& e : errors)
    if (e.code == error) {
      *to = e.*field;
      return CUDA_SUCCESS;
    }
  *to = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

NL_API CUresult cuGetErrorName(CUresult error, const char** name) { return nameOf(error, name, &ErrorName::name); }
NL_API CUresult cuGetErrorString(CUresult error, const char** text) { return nameOf(error, text, &ErrorName::text); }

// The newest form of a function is the one that its plain name stands for.
NL_API CUresult cuGetProcAddress_v2(const char* symbol, void** function, int, uint64_t, int* status) {
  if (symbol == nullptr || function == nullptr) return CUDA_ERROR_INVALID_VALUE;
  static void* self = [] {
    Dl_info where;
    return dladdr(reinterpret_cast<void*>(&cuGetErrorName), &where) ? dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
  }();
  *function = self == nullptr ? nullptr : dlsym(self, (std::string(symbol) + "_v2").c_str());
  if (*function == nullptr && self != nullptr) *function = dlsym(self, symbol);
  if (status != nullptr) *status = *function == nullptr ? 1 : 0;
  return *function == nullptr ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}
NL_API CUresult cuGetProcAddress(const char* symbol, void** function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, nullptr);
}
