// The types and numbers of the CUDA driver API that the stand-in offers, as the public headers have them (CUDA 12).
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {
struct Context;
struct LoadedModule;
struct Kernel;
struct Stream;
struct Event;
struct Graph;
struct GraphExec;
}  // namespace emulator

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = uint64_t;
using CUcontext = emulator::Context*;
using CUmodule = emulator::LoadedModule*;
using CUfunction = emulator::Kernel*;
using CUstream = emulator::Stream*;
using CUevent = emulator::Event*;
using CUgraph = emulator::Graph*;
using CUgraphExec = emulator::GraphExec*;
struct CUuuid {
  char bytes[16];
};
struct CUgraphExecUpdateResultInfo {
  int result;
  void* errorNode;
  void* errorFromNode;
};

enum : int {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_NOT_INITIALIZED = 3,
  CUDA_ERROR_INVALID_DEVICE = 101,
  CUDA_ERROR_INVALID_IMAGE = 200,
  CUDA_ERROR_INVALID_CONTEXT = 201,
  CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
  CUDA_ERROR_INVALID_PTX = 218,
  CUDA_ERROR_INVALID_HANDLE = 400,
  CUDA_ERROR_NOT_FOUND = 500,
  CUDA_ERROR_NOT_READY = 600,
  CUDA_ERROR_ILLEGAL_ADDRESS = 700,
  CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701,
  CUDA_ERROR_LAUNCH_TIMEOUT = 702,
  CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712,
  CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED = 713,
  CUDA_ERROR_MISALIGNED_ADDRESS = 716,
  CUDA_ERROR_LAUNCH_FAILED = 719,
  CUDA_ERROR_NOT_SUPPORTED = 801,
  CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
  CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
  CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
  CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904,
  CUDA_ERROR_STREAM_CAPTURE_ISOLATION = 905,
  CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906,
  CUDA_ERROR_CAPTURED_EVENT = 907,
  CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE = 910,
};

enum : unsigned {
  CU_STREAM_NON_BLOCKING = 1,
  CU_EVENT_BLOCKING_SYNC = 1,
  CU_EVENT_DISABLE_TIMING = 2,
};

// What the stand-in counts since it was loaded or reset. Everything is counted when it runs, not when it is queued.
struct NlEmulatorCounters {
  uint64_t launches, warpInstructions, globalBytesRead, globalBytesWritten;
  uint64_t copiesHostToDevice, bytesHostToDevice, copiesDeviceToHost, bytesDeviceToHost, copiesDeviceToDevice, bytesDeviceToDevice;
  uint64_t memsets, bytesSet;
  uint64_t blasCalls, blasFlops;
  uint64_t liveAllocations, liveBytes, peakBytes;
  uint64_t synchronizations, graphLaunches, allocations;
};

#define NL_API extern "C" __attribute__((visibility("default")))
