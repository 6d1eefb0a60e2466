// What the stand-in's own tests use: the API's prototypes, checks that count, a device made ready.
#pragma once

#include "cuda_api.h"

#include <cstdio>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

extern "C" {
CUresult cuInit(unsigned);
CUresult cuDriverGetVersion(int*);
CUresult cuDeviceGetName(char*, int, CUdevice);
CUresult cuDeviceGetAttribute(int*, int, CUdevice);
CUresult cuDevicePrimaryCtxRetain(CUcontext*, CUdevice);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice);
CUresult cuCtxSetCurrent(CUcontext);
CUresult cuCtxSynchronize();
CUresult cuMemGetInfo_v2(size_t*, size_t*);
CUresult cuMemAlloc_v2(CUdeviceptr*, size_t);
CUresult cuMemFree_v2(CUdeviceptr);
CUresult cuMemAllocAsync(CUdeviceptr*, size_t, CUstream);
CUresult cuMemFreeAsync(CUdeviceptr, CUstream);
CUresult cuMemAllocHost_v2(void**, size_t);
CUresult cuMemFreeHost(void*);
CUresult cuMemHostRegister_v2(void*, size_t, unsigned);
CUresult cuMemHostUnregister(void*);
CUresult cuMemcpyHtoD_v2(CUdeviceptr, const void*, size_t);
CUresult cuMemcpyDtoH_v2(void*, CUdeviceptr, size_t);
CUresult cuMemcpyDtoD_v2(CUdeviceptr, CUdeviceptr, size_t);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr, const void*, size_t, CUstream);
CUresult cuMemcpyDtoHAsync_v2(void*, CUdeviceptr, size_t, CUstream);
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, size_t, CUstream);
CUresult cuMemsetD8_v2(CUdeviceptr, unsigned char, size_t);
CUresult cuMemsetD32_v2(CUdeviceptr, unsigned, size_t);
CUresult cuMemsetD32Async(CUdeviceptr, unsigned, size_t, CUstream);
CUresult cuStreamCreate(CUstream*, unsigned);
CUresult cuStreamDestroy_v2(CUstream);
CUresult cuStreamSynchronize(CUstream);
CUresult cuStreamQuery(CUstream);
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned);
CUresult cuEventCreate(CUevent*, unsigned);
CUresult cuEventDestroy_v2(CUevent);
CUresult cuEventRecord(CUevent, CUstream);
CUresult cuEventSynchronize(CUevent);
CUresult cuEventQuery(CUevent);
CUresult cuEventElapsedTime(float*, CUevent, CUevent);
CUresult cuModuleLoadData(CUmodule*, const void*);
CUresult cuModuleLoadDataEx(CUmodule*, const void*, unsigned, int*, void**);
CUresult cuModuleUnload(CUmodule);
CUresult cuModuleGetFunction(CUfunction*, CUmodule, const char*);
CUresult cuFuncGetAttribute(int*, int, CUfunction);
CUresult cuFuncSetAttribute(CUfunction, int, int);
CUresult cuFuncGetParamInfo(CUfunction, size_t, size_t*, size_t*);
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int*, CUfunction, int, size_t);
CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void**, void**);
CUresult cuStreamBeginCapture_v2(CUstream, int);
CUresult cuStreamEndCapture(CUstream, CUgraph*);
CUresult cuStreamIsCapturing(CUstream, int*);
CUresult cuGraphInstantiateWithFlags(CUgraphExec*, CUgraph, unsigned long long);
CUresult cuGraphLaunch(CUgraphExec, CUstream);
CUresult cuGraphExecUpdate_v2(CUgraphExec, CUgraph, CUgraphExecUpdateResultInfo*);
CUresult cuGraphDestroy(CUgraph);
CUresult cuGraphExecDestroy(CUgraphExec);
CUresult cuGetErrorName(CUresult, const char**);
CUresult cuGetProcAddress_v2(const char*, void**, int, uint64_t, int*);
const char* nlEmulatorVersion();
const char* nlEmulatorFault();
const char* nlEmulatorRefusal();
const char* nlEmulatorLeaks();
void nlEmulatorReset();
void nlEmulatorCounters(NlEmulatorCounters*);
void nlEmulatorSetSchedule(int);
void nlEmulatorSetChecks(int);
void nlEmulatorSetWorkers(int);
void nlEmulatorSetMemory(uint64_t);
void nlEmulatorSetInstructionLimit(uint64_t);

using cublasHandle_t = struct CublasHandle*;
int cublasCreate_v2(cublasHandle_t*);
int cublasDestroy_v2(cublasHandle_t);
int cublasSetStream_v2(cublasHandle_t, CUstream);
int cublasSetWorkspace_v2(cublasHandle_t, CUdeviceptr, size_t);
int cublasSetMathMode(cublasHandle_t, int);
int cublasSetPointerMode_v2(cublasHandle_t, int);
int cublasGetVersion_v2(cublasHandle_t, int*);
int cublasSgemm_v2(cublasHandle_t, int, int, int, int, int, const float*, CUdeviceptr, int, CUdeviceptr, int, const float*, CUdeviceptr, int);
int cublasGemmEx(cublasHandle_t, int, int, int, int, int, const void*, CUdeviceptr, int, int, CUdeviceptr, int, int, const void*, CUdeviceptr, int, int,
                 int, int);
int cublasGemmStridedBatchedEx(cublasHandle_t, int, int, int, int, int, const void*, CUdeviceptr, int, int, long long, CUdeviceptr, int, int, long long,
                               const void*, CUdeviceptr, int, int, long long, int, int, int);
int cublasGemmBatchedEx(cublasHandle_t, int, int, int, int, int, const void*, CUdeviceptr, int, int, CUdeviceptr, int, int, const void*, CUdeviceptr, int,
                        int, int, int, int);
}

namespace testing {

extern int checks, failures;

#define CHECK(condition)                                                                  \
  do {                                                                                    \
    testing::checks++;                                                                    \
    if (!(condition)) {                                                                   \
      testing::failures++;                                                                \
      std::printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                 \
    }                                                                                     \
  } while (false)

#define CHECK_IS(value, expected)                                                                              \
  do {                                                                                                         \
    auto got = (value);                                                                                        \
    testing::checks++;                                                                                         \
    if (!(got == (expected))) {                                                                                \
      testing::failures++;                                                                                     \
      std::printf("%s:%d: %s is %s, not %s\n", __FILE__, __LINE__, #value, std::to_string(got).c_str(), #expected); \
    }                                                                                                          \
  } while (false)

// From nothing to a current context.
void ready(int schedule);
std::string readText(const std::string& path);
// The folder of faults/*.ptx.
extern std::string faults;

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// A buffer on the device.
struct Buffer {
  CUdeviceptr at = 0;
  size_t bytes = 0;
  explicit Buffer(size_t size);
  Buffer(const std::vector<float>& values);
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cuMemFree_v2(at); }
  std::vector<float> read() const;
};

// The parameter of every kernel in faults/.
struct Args {
  CUdeviceptr a = 0, b = 0, c = 0;
  int64_t n = 0;
};

CUfunction kernelOf(const std::string& file, const std::string& kernel);
CUresult launch(CUfunction kernel, unsigned grid, unsigned block, unsigned shared, const Args& args, CUstream stream = nullptr);

void driverTests(int schedule);
void queueTests();
void blasTests(int schedule);
// Runs each planted fault, and prints which check caught it.
void faultTests();

}  // namespace testing
