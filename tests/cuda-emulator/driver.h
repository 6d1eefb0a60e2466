// What the parts of the driver's API share.
#pragma once

#include "queue.h"

#include <new>

namespace emulator {

struct Context {
  bool primary = false;
  int references = 0;
};

struct KernelParameter {
  uint32_t offset, bytes;
};

struct Kernel {
  const Function* function = nullptr;
  FunctionInfo info;
  std::vector<KernelParameter> parameters;
  uint32_t maxDynamicShared = 0;
};

struct LoadedModule {
  std::shared_ptr<Module> module;
  std::string text;
  std::map<std::string, std::unique_ptr<Kernel>> kernels;
};

constexpr uint32_t SharedPerBlock = 48 * 1024, SharedPerBlockOptIn = 163 * 1024, SharedPerMultiprocessor = 164 * 1024, ThreadsPerBlock = 1024,
                   ThreadsPerMultiprocessor = 2048, Multiprocessors = 108, BlocksPerMultiprocessor = 32, WarpSize = 32;

extern bool initialised;
extern thread_local std::vector<CUcontext> contexts;  // the current one is the last
bool isLive(CUcontext context);

// Every call: one at a time, after cuInit, and after a fault nothing but its code.
template <typename F>
CUresult call(F&& work) {
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> hold(m.lock);
  if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
  if (m.sticky != CUDA_SUCCESS) return m.sticky;
  try {
    return work(m);
  } catch (const Fault& f) {
    m.setFault(f.what());
    return m.sticky = CUDA_ERROR_LAUNCH_FAILED;
  } catch (const std::bad_alloc&) {
    return m.refuse(CUDA_ERROR_OUT_OF_MEMORY, "the host is out of memory");
  }
}

// A call that needs a current context.
template <typename F>
CUresult callInContext(F&& work) {
  return call([&](Machine& m) -> CUresult {
    if (contexts.empty() || !isLive(contexts.back())) return m.refuse(CUDA_ERROR_INVALID_CONTEXT, "no context is current on this thread");
    return work(m);
  });
}

// A call on a stream.
template <typename F>
CUresult callOn(CUstream handle, F&& work) {
  return callInContext([&](Machine& m) -> CUresult {
    Stream* stream = m.resolve(handle);
    if (stream == nullptr) return m.refuse(CUDA_ERROR_INVALID_HANDLE, "no such stream");
    return work(m, *stream);
  });
}

}  // namespace emulator
