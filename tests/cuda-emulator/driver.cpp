// The driver's API: device, contexts, memory and copies.
#include "driver.h"

#include <cstring>

using namespace emulator;

namespace emulator {

bool initialised = false;
thread_local std::vector<CUcontext> contexts;

namespace {

auto& live = *new std::set<CUcontext>();  // never destroyed, like the machine
Context primary{true, 0};

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// A call that would wait for, or change, what a stream under capture does.
CUresult unlessCaptured(Machine& m, const char* what) {
  if (!m.anyCapture(0)) return CUDA_SUCCESS;
  for (auto& s : m.streams)
    if (s.first->capture && s.first->capture->mode == 0) s.first->capture->invalid = true;
  return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, std::string(what) + " is not allowed while a stream is captured");
}

CUresult checkRange(Machine& m, const char* what, CUdeviceptr at, size_t bytes) {
  std::string why = m.memory.whyNot(at, bytes);
  if (why.empty()) return CUDA_SUCCESS;
  m.setFault(std::string(what) + ": " + why);
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult checkHost(Machine& m, const char* what, const void* host) {
  if (host == nullptr) return m.refuse(CUDA_ERROR_INVALID_VALUE, std::string(what) + ": the host address is null");
  if (!m.memory.isDeviceAddress(reinterpret_cast<uint64_t>(host))) return CUDA_SUCCESS;
  m.setFault(std::string(what) + ": the host address " + hex(reinterpret_cast<uint64_t>(host)) + " is one of the device");
  return CUDA_ERROR_INVALID_VALUE;
}

void requirePinned(Machine& m, const void* host, size_t bytes) {
  if (!m.isPinned(host, bytes)) throw Fault("the pinned host buffer at " + hex(reinterpret_cast<uint64_t>(host)) + " was freed before the copy ran");
}

CUresult copyIn(Machine& m, Stream& stream, CUdeviceptr to, const void* from, size_t bytes, bool blocking) {
  const char* what = "copy to the device";
  if (bytes == 0) return CUDA_SUCCESS;
  if (CUresult r = checkHost(m, what, from)) return r;
  if (CUresult r = checkRange(m, what, to, bytes)) return r;
  auto count = [&m, bytes] {
    m.counters.copiesHostToDevice++;
    m.counters.bytesHostToDevice += bytes;
  };
  if (blocking || m.isPinned(from, bytes)) {
    CUresult r = m.enqueue(stream, Work::Copy, what, [=, &m] {
      if (!blocking) requirePinned(m, from, bytes);
      count();
      m.memory.copyIn(to, from, bytes);
    });
    return r != CUDA_SUCCESS || !blocking ? r : m.wait(stream);
  }
  if (stream.capture) return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a copy from pageable memory cannot be captured");
  // From pageable memory: staged before the call returns.
  auto bytesOf = static_cast<const uint8_t*>(from);
  auto staged = std::make_shared<std::vector<uint8_t>>(bytesOf, bytesOf + bytes);
  return m.enqueue(stream, Work::Copy, what, [=, &m] {
    count();
    m.memory.copyIn(to, staged->data(), bytes);
  });
}

CUresult copyOut(Machine& m, Stream& stream, void* to, CUdeviceptr from, size_t bytes, bool blocking) {
  const char* what = "copy to the host";
  if (bytes == 0) return CUDA_SUCCESS;
  if (CUresult r = checkHost(m, what, to)) return r;
  if (CUresult r = checkRange(m, what, from, bytes)) return r;
  // To pageable memory: done before the call returns.
  bool pinned = m.isPinned(to, bytes);
  if (stream.capture && !pinned) return m.refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a copy to pageable memory cannot be captured");
  CUresult r = m.enqueue(stream, Work::Copy, what, [=, &m] {
    if (pinned) requirePinned(m, to, bytes);
    m.counters.copiesDeviceToHost++;
    m.counters.bytesDeviceToHost += bytes;
    m.memory.copyOut(to, from, bytes, m.checked);
  });
  return r != CUDA_SUCCESS || (pinned && !blocking) ? r : m.wait(stream);
}

CUresult copyWithin(Machine& m, Stream& stream, CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  const char* what = "copy on the device";
  if (bytes == 0) return CUDA_SUCCESS;
  if (CUresult r = checkRange(m, what, to, bytes)) return r;
  if (CUresult r = checkRange(m, what, from, bytes)) return r;
  return m.enqueue(stream, Work::Copy, what, [=, &m] {
    m.counters.copiesDeviceToDevice++;
    m.counters.bytesDeviceToDevice += bytes;
    m.memory.copyWithin(to, from, bytes);
  });
}

template <typename T>
CUresult set(Machine& m, Stream& stream, CUdeviceptr to, T value, size_t count, bool blocking) {
  const char* what = "memset";
  if (count == 0) return CUDA_SUCCESS;
  if (to % sizeof(T) != 0) return m.refuse(CUDA_ERROR_INVALID_VALUE, "memset: " + hex(to) + " is not aligned to the value");
  if (CUresult r = checkRange(m, what, to, count * sizeof(T))) return r;
  CUresult r = m.enqueue(stream, Work::Set, what, [=, &m] {
    m.counters.memsets++;
    m.counters.bytesSet += count * sizeof(T);
    m.memory.fill(to, &value, sizeof(T), count);
  });
  return r != CUDA_SUCCESS || !blocking ? r : m.wait(stream);
}

}  // namespace

bool isLive(CUcontext context) { return live.count(context) != 0; }

}  // namespace emulator

// --- device -----------------------------------------------------------------------------------------------------------------------------

NL_API CUresult cuInit(unsigned flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  initialised = true;
  return CUDA_SUCCESS;
}

NL_API CUresult cuDriverGetVersion(int* version) {
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = 12040;
  return CUDA_SUCCESS;
}

NL_API CUresult cuDeviceGetCount(int* count) {
  return call([&](Machine&) -> CUresult {
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *count = 1;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return call([&](Machine&) -> CUresult {
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
    *device = 0;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  return call([&](Machine&) -> CUresult {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    if (name == nullptr || length <= 0) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(name, length, "%s", "NativeLora stand-in");
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  return call([&](Machine&) -> CUresult {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::memcpy(uuid->bytes, "NativeLoraEmulat", 16);
    return CUDA_SUCCESS;
  });
}
NL_API CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) { return cuDeviceGetUuid_v2(uuid, device); }

NL_API CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return call([&](Machine& m) -> CUresult {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *bytes = m.memory.limit();
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  static const std::map<int, int> values = {
      {1, ThreadsPerBlock}, {2, 1024}, {3, 1024}, {4, 64},  // threads a block, and in x, y, z
      {5, 0x7fffffff}, {6, 65535}, {7, 65535},              // blocks in x, y, z
      {8, SharedPerBlock}, {9, 65536}, {10, WarpSize}, {11, 0x7fffffff}, {12, 65536}, {13, 1410000}, {14, 512},
      {16, Multiprocessors}, {17, 0}, {18, 0}, {19, 1}, {20, 0}, {31, 1}, {32, 0}, {33, 0}, {34, 0}, {35, 0}, {36, 1215000}, {37, 5120},
      {38, 40 * 1024 * 1024}, {39, ThreadsPerMultiprocessor}, {40, 2}, {41, 1}, {50, 0},
      {75, 8}, {76, 0},  // compute capability
      {78, 1}, {81, SharedPerMultiprocessor}, {82, 65536}, {83, 0}, {95, 0}, {97, SharedPerBlockOptIn}, {106, BlocksPerMultiprocessor},
      {111, 1024}, {115, 1}};
  return call([&](Machine& m) -> CUresult {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    auto at = values.find(attribute);
    if (value == nullptr || at == values.end())
      return m.refuse(CUDA_ERROR_INVALID_VALUE, "device attribute " + std::to_string(attribute) + " is not known");
    *value = at->second;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  if (CUresult r = cuDeviceGetAttribute(major, 75, device)) return r;
  return cuDeviceGetAttribute(minor, 76, device);
}

// --- contexts ---------------------------------------------------------------------------------------------------------------------------

namespace {

// What dies with a context is remembered as leaked.
void endContext(Machine& m) {
  m.waitAll();
  m.leaksBefore += m.memory.leaks();
}

}  // namespace

NL_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return call([&](Machine&) -> CUresult {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (primary.references++ == 0) live.insert(&primary);
    *context = &primary;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> hold(m.lock);
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  if (primary.references == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--primary.references > 0) return CUDA_SUCCESS;
  endContext(m);
  live.erase(&primary);
  if (live.empty()) {
    // A real driver starts anew after the last release, whatever had failed.
    m.memory.clear();
    m.dropWork();
    m.sticky = CUDA_SUCCESS;
  }
  return CUDA_SUCCESS;
}

NL_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned) {
  return call([&](Machine&) -> CUresult { return device == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE; });
}
NL_API CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned flags) { return cuDevicePrimaryCtxSetFlags_v2(device, flags); }

NL_API CUresult cuCtxCreate_v2(CUcontext* context, unsigned, CUdevice device) {
  return call([&](Machine&) -> CUresult {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *context = new Context();
    live.insert(*context);
    contexts.push_back(*context);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuCtxDestroy_v2(CUcontext context) {
  Machine& m = machine();
  std::lock_guard<std::recursive_mutex> hold(m.lock);
  if (!isLive(context) || context->primary) return CUDA_ERROR_INVALID_CONTEXT;
  endContext(m);
  live.erase(context);
  delete context;
  if (!contexts.empty() && contexts.back() == context) contexts.pop_back();
  if (live.empty()) {
    m.memory.clear();
    m.dropWork();
    m.sticky = CUDA_SUCCESS;
  }
  return CUDA_SUCCESS;
}

NL_API CUresult cuCtxSetCurrent(CUcontext context) {
  return call([&](Machine&) -> CUresult {
    if (context != nullptr && !isLive(context)) return CUDA_ERROR_INVALID_CONTEXT;
    if (!contexts.empty()) contexts.pop_back();
    if (context != nullptr) contexts.push_back(context);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuCtxGetCurrent(CUcontext* context) {
  return call([&](Machine&) -> CUresult {
    if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *context = contexts.empty() ? nullptr : contexts.back();
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuCtxPushCurrent_v2(CUcontext context) {
  return call([&](Machine&) -> CUresult {
    if (!isLive(context)) return CUDA_ERROR_INVALID_CONTEXT;
    contexts.push_back(context);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  return call([&](Machine&) -> CUresult {
    if (contexts.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (context != nullptr) *context = contexts.back();
    contexts.pop_back();
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuCtxGetDevice(CUdevice* device) {
  return callInContext([&](Machine&) -> CUresult {
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *device = 0;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuCtxSynchronize() {
  return callInContext([](Machine& m) -> CUresult {
    if (CUresult r = unlessCaptured(m, "cuCtxSynchronize")) return r;
    m.counters.synchronizations++;
    return m.waitAll();
  });
}

// --- memory -----------------------------------------------------------------------------------------------------------------------------

NL_API CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  return callInContext([&](Machine& m) -> CUresult {
    if (free == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *total = m.memory.limit();
    *free = m.memory.limit() - m.memory.liveBytes();
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuMemAlloc_v2(CUdeviceptr* at, size_t bytes) {
  return callInContext([&](Machine& m) -> CUresult {
    if (at == nullptr || bytes == 0) return m.refuse(CUDA_ERROR_INVALID_VALUE, "an allocation of no bytes");
    if (CUresult r = unlessCaptured(m, "cuMemAlloc")) return r;
    *at = m.memory.allocate(bytes);
    if (*at == 0)
      return m.refuse(CUDA_ERROR_OUT_OF_MEMORY, "out of memory: " + std::to_string(bytes) + " bytes, " +
                                                    std::to_string(m.memory.limit() - m.memory.liveBytes()) + " are free");
    m.counters.allocations++;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuMemFree_v2(CUdeviceptr at) {
  return callInContext([&](Machine& m) -> CUresult {
    if (at == 0) return CUDA_SUCCESS;
    if (CUresult r = unlessCaptured(m, "cuMemFree")) return r;
    // As the driver does: nothing that was queued may still use it.
    if (CUresult r = m.waitAll()) return r;
    if (!m.memory.startsAllocation(at)) {
      try {
        m.memory.free(at);
      } catch (const Fault& f) {
        m.setFault(f.what());
      }
      return CUDA_ERROR_INVALID_VALUE;
    }
    m.memory.free(at);
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuMemAllocAsync(CUdeviceptr* at, size_t bytes, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (at == nullptr || bytes == 0) return m.refuse(CUDA_ERROR_INVALID_VALUE, "an allocation of no bytes");
    if (stream.capture) return m.enqueue(stream, Work::Allocate, "cuMemAllocAsync", nullptr);
    CUdeviceptr base = m.memory.allocate(bytes, false);
    if (base == 0) return m.refuse(CUDA_ERROR_OUT_OF_MEMORY, "out of memory: " + std::to_string(bytes) + " bytes");
    *at = base;
    m.counters.allocations++;
    return m.enqueue(stream, Work::Allocate, "allocate", [=, &m] { m.memory.makeUsable(base); });
  });
}

NL_API CUresult cuMemFreeAsync(CUdeviceptr at, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) -> CUresult {
    if (at == 0) return CUDA_SUCCESS;
    if (!m.memory.startsAllocation(at)) {
      m.setFault("cuMemFreeAsync: " + hex(at) + " is not the start of a live allocation");
      return CUDA_ERROR_INVALID_VALUE;
    }
    return m.enqueue(stream, Work::Free, "free", [=, &m] { m.memory.free(at); });
  });
}

NL_API CUresult cuMemHostAlloc(void** at, size_t bytes, unsigned) {
  return callInContext([&](Machine& m) -> CUresult {
    if (at == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    // Page-aligned as the driver's; poisoned like the device's memory.
    std::unique_ptr<uint8_t[]> buffer(new uint8_t[bytes + 4096]);
    auto start = (reinterpret_cast<uintptr_t>(buffer.get()) + 4095) / 4096 * 4096;
    *at = reinterpret_cast<void*>(start);
    std::memset(*at, 0xff, bytes);
    m.pinned[start] = bytes;
    m.hostBuffers[*at] = std::move(buffer);
    return CUDA_SUCCESS;
  });
}
NL_API CUresult cuMemAllocHost_v2(void** at, size_t bytes) { return cuMemHostAlloc(at, bytes, 0); }

NL_API CUresult cuMemFreeHost(void* at) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.hostBuffers.erase(at) == 0) return m.refuse(CUDA_ERROR_INVALID_VALUE, "no pinned buffer starts there");
    m.pinned.erase(reinterpret_cast<uint64_t>(at));
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuMemHostRegister_v2(void* at, size_t bytes, unsigned) {
  return callInContext([&](Machine& m) -> CUresult {
    if (at == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    auto start = reinterpret_cast<uint64_t>(at);
    for (auto& range : m.pinned)
      if (range.first < start + bytes && start < range.first + range.second) return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    m.pinned[start] = bytes;
    return CUDA_SUCCESS;
  });
}

NL_API CUresult cuMemHostUnregister(void* at) {
  return callInContext([&](Machine& m) -> CUresult {
    if (m.hostBuffers.count(at) != 0 || m.pinned.erase(reinterpret_cast<uint64_t>(at)) == 0) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    return CUDA_SUCCESS;
  });
}

// Blocking copies run on the legacy default stream: they wait for every stream but the non-blocking ones.
NL_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return callInContext([&](Machine& m) { return copyIn(m, m.legacy, to, from, bytes, true); });
}
NL_API CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return callInContext([&](Machine& m) { return copyOut(m, m.legacy, to, from, bytes, true); });
}
NL_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return callInContext([&](Machine& m) { return copyWithin(m, m.legacy, to, from, bytes); });
}
NL_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) { return copyIn(m, stream, to, from, bytes, false); });
}
NL_API CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) { return copyOut(m, stream, to, from, bytes, false); });
}
NL_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) { return copyWithin(m, stream, to, from, bytes); });
}
NL_API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  return callInContext([&](Machine& m) { return set(m, m.legacy, to, value, count, false); });
}
NL_API CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count) {
  return callInContext([&](Machine& m) { return set(m, m.legacy, to, value, count, false); });
}
NL_API CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
  return callInContext([&](Machine& m) { return set(m, m.legacy, to, value, count, false); });
}
NL_API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) { return set(m, stream, to, value, count, false); });
}
NL_API CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) { return set(m, stream, to, value, count, false); });
}
NL_API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream handle) {
  return callOn(handle, [&](Machine& m, Stream& stream) { return set(m, stream, to, value, count, false); });
}
