// The driver's API: memory, copies, modules, launches.
#include "testing.h"

#include <cstring>

namespace testing {

namespace {

void memory() {
  CUdeviceptr first = 0, second = 0;
  CHECK_IS(cuMemAlloc_v2(&first, 100), CUDA_SUCCESS);
  CHECK_IS(cuMemAlloc_v2(&second, 100), CUDA_SUCCESS);
  CHECK(first % 512 == 0 && second % 512 == 0 && second > first + 100 + 512);
  CHECK_IS(cuMemAlloc_v2(&first, 0), CUDA_ERROR_INVALID_VALUE);
  size_t left = 0, total = 0;
  CHECK_IS(cuMemGetInfo_v2(&left, &total), CUDA_SUCCESS);
  CHECK_IS(total - left, 200u);
  CUdeviceptr large = 0;
  CHECK_IS(cuMemAlloc_v2(&large, total), CUDA_ERROR_OUT_OF_MEMORY);
  CHECK_IS(cuMemAlloc_v2(&large, left), CUDA_SUCCESS);
  CHECK_IS(cuMemFree_v2(large), CUDA_SUCCESS);
  CHECK_IS(cuMemFree_v2(large), CUDA_ERROR_INVALID_VALUE);
  CHECK(contains(nlEmulatorFault(), "freed before"));
  CHECK_IS(cuMemFree_v2(second + 4), CUDA_ERROR_INVALID_VALUE);

  std::vector<uint8_t> bytes(100), back(100);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(i * 7);
  CHECK_IS(cuMemcpyHtoD_v2(first, bytes.data(), 100), CUDA_SUCCESS);
  CHECK_IS(cuMemcpyDtoD_v2(second, first, 100), CUDA_SUCCESS);
  CHECK_IS(cuMemcpyDtoH_v2(back.data(), second, 100), CUDA_SUCCESS);
  CHECK(bytes == back);
  // A range that is none is refused, and the device goes on.
  CHECK_IS(cuMemcpyHtoD_v2(first + 1, bytes.data(), 100), CUDA_ERROR_INVALID_VALUE);
  CHECK(contains(nlEmulatorFault(), "1 bytes past allocation 1 of 100 bytes"));
  CHECK_IS(cuMemcpyHtoD_v2(first - 4, bytes.data(), 4), CUDA_ERROR_INVALID_VALUE);
  CHECK(contains(nlEmulatorFault(), "4 bytes before allocation 1"));
  CHECK_IS(cuMemcpyHtoD_v2(first, reinterpret_cast<void*>(second), 4), CUDA_ERROR_INVALID_VALUE);
  CHECK_IS(cuMemsetD32_v2(first + 2, 0, 1), CUDA_ERROR_INVALID_VALUE);
  CHECK_IS(cuMemsetD32_v2(first + 4, 0x01020304, 2), CUDA_SUCCESS);
  CHECK_IS(cuMemsetD8_v2(first + 12, 9, 3), CUDA_SUCCESS);
  CHECK_IS(cuMemcpyDtoH_v2(back.data(), first, 16), CUDA_SUCCESS);
  const uint8_t expected[16] = {0, 7, 14, 21, 4, 3, 2, 1, 4, 3, 2, 1, 9, 9, 9, 105};
  CHECK(std::memcmp(back.data(), expected, 16) == 0);

  NlEmulatorCounters c;
  nlEmulatorCounters(&c);
  CHECK_IS(c.liveAllocations, 2u);
  CHECK_IS(c.liveBytes, 200u);
  CHECK_IS(c.peakBytes, static_cast<uint64_t>(total));
  CHECK_IS(c.bytesHostToDevice, 100u);
  CHECK_IS(c.bytesDeviceToDevice, 100u);
  CHECK_IS(c.copiesDeviceToHost, 2u);
  CHECK_IS(c.bytesSet, 11u);
  CHECK(contains(nlEmulatorLeaks(), "allocation 1 of 100 bytes"));
  cuMemFree_v2(first);
  cuMemFree_v2(second);
  CHECK(std::string(nlEmulatorLeaks()).empty());
}

void uninitialised() {
  {
    Buffer fresh(64), copy(64);
    float value = 0;
    CHECK_IS(cuMemcpyDtoD_v2(copy.at, fresh.at, 64), CUDA_SUCCESS);
    CHECK_IS(cuMemsetD32_v2(copy.at + 4, 5, 1), CUDA_SUCCESS);
    CHECK_IS(cuMemcpyDtoH_v2(&value, copy.at + 4, 4), CUDA_SUCCESS);
    CHECK_IS(cuMemcpyDtoH_v2(&value, copy.at + 8, 4), CUDA_ERROR_LAUNCH_FAILED);
    CHECK(contains(nlEmulatorFault(), "uninitialised"));
    // From now on every call fails.
    CHECK_IS(cuMemcpyDtoH_v2(&value, copy.at + 4, 4), CUDA_ERROR_LAUNCH_FAILED);
    CHECK_IS(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  }
  nlEmulatorReset();
  CHECK_IS(cuCtxSynchronize(), CUDA_SUCCESS);
  CHECK(std::string(nlEmulatorFault()).empty());
  nlEmulatorSetChecks(0);
  Buffer fresh(64);
  float value = 0;
  CHECK_IS(cuMemcpyDtoH_v2(&value, fresh.at, 4), CUDA_SUCCESS);
  CHECK(value != value);
  nlEmulatorSetChecks(1);
}

void modules() {
  CUmodule module = nullptr;
  std::string text = readText(faults + "/hosts.ptx");
  CHECK_IS(cuModuleLoadData(&module, text.c_str()), CUDA_SUCCESS);
  CUfunction copy = nullptr, small = nullptr;
  CHECK_IS(cuModuleGetFunction(&copy, module, "copy_values"), CUDA_SUCCESS);
  CHECK_IS(cuModuleGetFunction(&small, module, "small_block"), CUDA_SUCCESS);
  CHECK_IS(cuModuleGetFunction(&small, module, "copy_value"), CUDA_ERROR_NOT_FOUND);
  size_t offset = 1, bytes = 0;
  CHECK_IS(cuFuncGetParamInfo(copy, 0, &offset, &bytes), CUDA_SUCCESS);
  CHECK(offset == 0 && bytes == sizeof(Args));
  CHECK_IS(cuFuncGetParamInfo(copy, 1, &offset, &bytes), CUDA_ERROR_INVALID_VALUE);
  int value = 0;
  CHECK_IS(cuFuncGetAttribute(&value, 0, small), CUDA_SUCCESS);
  CHECK_IS(value, 64);
  CHECK_IS(cuFuncGetAttribute(&value, 8, copy), CUDA_SUCCESS);
  CHECK_IS(value, 48 * 1024);
  CHECK_IS(cuFuncSetAttribute(copy, 8, 163 * 1024 + 1), CUDA_ERROR_INVALID_VALUE);
  CHECK_IS(cuFuncSetAttribute(copy, 8, 100 * 1024), CUDA_SUCCESS);
  CHECK_IS(cuFuncGetAttribute(&value, 8, copy), CUDA_SUCCESS);
  CHECK_IS(value, 100 * 1024);
  CHECK_IS(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, copy, 256, 0), CUDA_SUCCESS);
  CHECK_IS(value, 8);
  CHECK_IS(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, copy, 256, 80 * 1024), CUDA_SUCCESS);
  CHECK_IS(value, 2);
  CHECK_IS(cuModuleUnload(module), CUDA_SUCCESS);
  CHECK_IS(launch(copy, 1, 32, 0, {}), CUDA_ERROR_INVALID_HANDLE);

  char log[200] = "";
  int options[] = {5, 6};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  text = readText(faults + "/unknown.ptx");
  CHECK_IS(cuModuleLoadDataEx(&module, text.c_str(), 2, options, values), CUDA_ERROR_INVALID_PTX);
  CHECK(contains(log, "frobnicate"));
}

void launches() {
  std::vector<float> values(1000);
  for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<float>(i);
  Buffer from(values), to(values.size() * 4);
  CUfunction copy = kernelOf("hosts", "copy_values");
  NlEmulatorCounters before, after;
  nlEmulatorCounters(&before);
  Args args{from.at, 0, to.at, 1000};
  CHECK_IS(launch(copy, 3, 64, 0, args), CUDA_SUCCESS);
  CHECK(to.read() == values);
  nlEmulatorCounters(&after);
  CHECK_IS(after.launches - before.launches, 1u);
  CHECK_IS(after.globalBytesRead - before.globalBytesRead, 4000u);
  CHECK_IS(after.globalBytesWritten - before.globalBytesWritten, 4000u);
  CHECK(after.warpInstructions > before.warpInstructions);
  // The buffer form, and sizes that cannot be.
  size_t bytes = sizeof args;
  void* extra[] = {reinterpret_cast<void*>(1), &args, reinterpret_cast<void*>(2), &bytes, nullptr};
  CHECK_IS(cuLaunchKernel(copy, 1, 1, 1, 64, 1, 1, 0, nullptr, nullptr, extra), CUDA_SUCCESS);
  CHECK_IS(cuCtxSynchronize(), CUDA_SUCCESS);
  CHECK_IS(launch(copy, 0, 64, 0, args), CUDA_ERROR_INVALID_VALUE);
  CHECK_IS(launch(copy, 1, 0, 0, args), CUDA_ERROR_INVALID_VALUE);
  CHECK_IS(launch(copy, 1, 1025, 0, args), CUDA_ERROR_INVALID_VALUE);
  CHECK_IS(launch(copy, 1, 512, 0, args), CUDA_ERROR_INVALID_VALUE);
  CHECK(contains(nlEmulatorRefusal(), ".maxntid is 256"));
  CHECK_IS(launch(copy, 1, 64, 48 * 1024 + 1, args), CUDA_ERROR_INVALID_VALUE);
  CHECK_IS(cuCtxSynchronize(), CUDA_SUCCESS);
}

// Both schedules of one launch, over several threads: counted once, and the result is that of one.
void bothSchedules() {
  std::vector<float> values(5000);
  for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<float>(i) * 0.25f;
  Buffer from(values), to(values.size() * 4);
  nlEmulatorSetSchedule(2);
  nlEmulatorSetWorkers(4);
  CHECK_IS(launch(kernelOf("hosts", "copy_values"), 7, 64, 0, {from.at, 0, to.at, 5000}), CUDA_SUCCESS);
  CHECK(to.read() == values);
  NlEmulatorCounters c;
  nlEmulatorCounters(&c);
  CHECK_IS(c.launches, 1u);
  CHECK_IS(c.globalBytesWritten, 20000u);
  nlEmulatorSetWorkers(2);
}

void device() {
  char name[64];
  CHECK_IS(cuDeviceGetName(name, sizeof name, 0), CUDA_SUCCESS);
  CHECK(std::string(name) == "NativeLora stand-in");
  int major = 0, processors = 0, shared = 0;
  cuDeviceGetAttribute(&major, 75, 0);
  cuDeviceGetAttribute(&processors, 16, 0);
  cuDeviceGetAttribute(&shared, 97, 0);
  CHECK(major == 8 && processors == 108 && shared == 163 * 1024);
  CHECK_IS(cuDeviceGetAttribute(&major, 9999, 0), CUDA_ERROR_INVALID_VALUE);
  const char* text = nullptr;
  cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text);
  CHECK(std::string(text) == "CUDA_ERROR_ILLEGAL_ADDRESS");
  void* function = nullptr;
  CHECK_IS(cuGetProcAddress_v2("cuMemAlloc", &function, 12000, 0, nullptr), CUDA_SUCCESS);
  CHECK(function == reinterpret_cast<void*>(&cuMemAlloc_v2));
  CHECK_IS(cuGetProcAddress_v2("cuLaunchKernel", &function, 12000, 0, nullptr), CUDA_SUCCESS);
  CHECK(function == reinterpret_cast<void*>(&cuLaunchKernel));
  CHECK_IS(cuGetProcAddress_v2("cuNothing", &function, 12000, 0, nullptr), CUDA_ERROR_NOT_FOUND);
}

}  // namespace

void driverTests(int schedule) {
  for (auto test : {device, memory, uninitialised, modules, launches, bothSchedules}) {
    ready(schedule);
    test();
    cuCtxSynchronize();
  }
}

}  // namespace testing
