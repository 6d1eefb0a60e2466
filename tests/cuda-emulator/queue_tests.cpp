// Order of work: streams, events, capture and graphs, with work as late as it may be.
#include "testing.h"

namespace testing {

namespace {

constexpr int Count = 64;

std::vector<float> ramp(float start) {
  std::vector<float> values(Count);
  for (int i = 0; i < Count; i++) values[i] = start + static_cast<float>(i);
  return values;
}

CUstream stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
  CUstream s = nullptr;
  CHECK_IS(cuStreamCreate(&s, flags), CUDA_SUCCESS);
  return s;
}

void copyOn(CUstream s, const Buffer& to, const Buffer& from) {
  CHECK_IS(launch(kernelOf("hosts", "copy_values"), 1, 64, 0, {from.at, 0, to.at, Count}, s), CUDA_SUCCESS);
}

// An event orders two streams; without it, the later stream's work may come first.
void events() {
  Buffer first(ramp(0)), second(ramp(100)), third(ramp(200));
  CUstream one = stream(), two = stream();
  CUevent event = nullptr;
  CHECK_IS(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
  copyOn(one, second, first);
  CHECK_IS(cuEventRecord(event, one), CUDA_SUCCESS);
  CHECK_IS(cuEventQuery(event), CUDA_ERROR_NOT_READY);
  CHECK_IS(cuStreamWaitEvent(two, event, 0), CUDA_SUCCESS);
  copyOn(two, third, second);
  CHECK_IS(cuStreamSynchronize(two), CUDA_SUCCESS);
  CHECK_IS(cuEventQuery(event), CUDA_SUCCESS);
  CHECK(third.read() == ramp(0));

  Buffer fourth(ramp(300)), fifth(ramp(400));
  copyOn(one, fourth, first);
  copyOn(two, fifth, fourth);
  CHECK_IS(cuCtxSynchronize(), CUDA_SUCCESS);
  CHECK(fifth.read() == ramp(300));
  cuEventDestroy_v2(event);
  cuStreamDestroy_v2(one);
  cuStreamDestroy_v2(two);
}

// The legacy default stream waits for blocking streams, and not for the others.
void legacyStream() {
  Buffer first(ramp(0)), second(ramp(100)), third(ramp(200));
  CUstream blocking = stream(0), free = stream();
  copyOn(blocking, second, first);
  copyOn(free, third, first);
  CHECK(second.read() == ramp(0));
  CHECK(third.read() == ramp(200));
  CHECK_IS(cuStreamSynchronize(free), CUDA_SUCCESS);
  CHECK(third.read() == ramp(0));
  cuStreamDestroy_v2(blocking);
  cuStreamDestroy_v2(free);
  CHECK_IS(cuStreamSynchronize(free), CUDA_ERROR_INVALID_HANDLE);
}

void polling() {
  Buffer first(ramp(0)), second(ramp(100));
  CUstream s = stream();
  for (int i = 0; i < 3; i++) copyOn(s, second, first);
  int polls = 0;
  while (cuStreamQuery(s) == CUDA_ERROR_NOT_READY) polls++;
  CHECK_IS(polls, 3);
  CUevent start = nullptr, end = nullptr;
  cuEventCreate(&start, 0);
  cuEventCreate(&end, 0);
  float time = -1;
  CHECK_IS(cuEventElapsedTime(&time, start, end), CUDA_ERROR_INVALID_HANDLE);
  cuEventRecord(start, s);
  copyOn(s, second, first);
  cuEventRecord(end, s);
  CHECK_IS(cuEventElapsedTime(&time, start, end), CUDA_ERROR_NOT_READY);
  CHECK_IS(cuEventSynchronize(end), CUDA_SUCCESS);
  CHECK_IS(cuEventElapsedTime(&time, start, end), CUDA_SUCCESS);
  CHECK(time > 0);
  cuEventDestroy_v2(start);
  cuEventDestroy_v2(end);
  cuStreamDestroy_v2(s);
}

// Memory that is allocated and freed in a stream's order.
void asyncMemory() {
  CUstream one = stream(), two = stream();
  CUdeviceptr at = 0;
  CHECK_IS(cuMemAllocAsync(&at, Count * 4, one), CUDA_SUCCESS);
  CHECK_IS(cuMemsetD32Async(at, 0, Count, one), CUDA_SUCCESS);
  CHECK_IS(cuMemFreeAsync(at, one), CUDA_SUCCESS);
  CHECK_IS(cuStreamSynchronize(one), CUDA_SUCCESS);
  CHECK(std::string(nlEmulatorLeaks()).find("allocation") == std::string::npos);
  CHECK_IS(cuMemAllocAsync(&at, Count * 4, one), CUDA_SUCCESS);
  CHECK_IS(cuMemsetD32Async(at, 0, Count, two), CUDA_SUCCESS);
  CHECK(cuStreamSynchronize(two) != CUDA_SUCCESS);
  CHECK(contains(nlEmulatorFault(), "before its allocation"));
}

void graphs() {
  Buffer first(ramp(0)), second(ramp(100)), third(ramp(200));
  CUstream one = stream(), two = stream();
  CUevent fork = nullptr, join = nullptr;
  cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING);
  cuEventCreate(&join, CU_EVENT_DISABLE_TIMING);
  auto capture = [&](bool joined) {
    CHECK_IS(cuStreamBeginCapture_v2(one, 0), CUDA_SUCCESS);
    int capturing = 0;
    CHECK_IS(cuStreamIsCapturing(one, &capturing), CUDA_SUCCESS);
    CHECK_IS(capturing, 1);
    copyOn(one, second, first);
    CHECK_IS(cuEventRecord(fork, one), CUDA_SUCCESS);
    CHECK_IS(cuStreamWaitEvent(two, fork, 0), CUDA_SUCCESS);
    copyOn(two, third, second);
    CHECK_IS(cuEventRecord(join, two), CUDA_SUCCESS);
    if (joined) CHECK_IS(cuStreamWaitEvent(one, join, 0), CUDA_SUCCESS);
    CUgraph graph = nullptr;
    CUresult r = cuStreamEndCapture(one, &graph);
    CHECK_IS(r, joined ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    return graph;
  };
  CHECK(capture(false) == nullptr);
  CUgraph graph = capture(true);
  CHECK(third.read() == ramp(200));
  CUgraphExec exec = nullptr;
  CHECK_IS(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  CHECK_IS(cuGraphLaunch(exec, one), CUDA_SUCCESS);
  CHECK(third.read() == ramp(200));
  CHECK_IS(cuStreamSynchronize(one), CUDA_SUCCESS);
  CHECK(third.read() == ramp(0));
  // The same nodes with other parameters; then other nodes.
  CHECK_IS(cuStreamBeginCapture_v2(one, 2), CUDA_SUCCESS);
  copyOn(one, second, first);
  copyOn(one, second, third);
  CUgraph updated = nullptr;
  CHECK_IS(cuStreamEndCapture(one, &updated), CUDA_SUCCESS);
  CUgraphExecUpdateResultInfo info;
  CHECK_IS(cuGraphExecUpdate_v2(exec, updated, &info), CUDA_SUCCESS);
  CHECK_IS(cuStreamBeginCapture_v2(one, 2), CUDA_SUCCESS);
  copyOn(one, second, first);
  CUgraph shorter = nullptr;
  CHECK_IS(cuStreamEndCapture(one, &shorter), CUDA_SUCCESS);
  CHECK_IS(cuGraphExecUpdate_v2(exec, shorter, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  // What would wait for the captured stream invalidates the capture.
  CHECK_IS(cuStreamBeginCapture_v2(one, 0), CUDA_SUCCESS);
  CUdeviceptr at = 0;
  CHECK_IS(cuMemAlloc_v2(&at, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CUgraph none = nullptr;
  CHECK_IS(cuStreamEndCapture(one, &none), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  NlEmulatorCounters c;
  nlEmulatorCounters(&c);
  CHECK_IS(c.graphLaunches, 1u);
  CHECK_IS(c.launches, 2u);
  for (CUgraph g : {graph, updated, shorter}) CHECK_IS(cuGraphDestroy(g), CUDA_SUCCESS);
  CHECK_IS(cuGraphExecDestroy(exec), CUDA_SUCCESS);
  for (CUevent e : {fork, join}) cuEventDestroy_v2(e);
  for (CUstream s : {one, two}) cuStreamDestroy_v2(s);
}

// Pageable host memory is staged by the call, pinned memory is read when the copy runs.
void hostBuffers() {
  CUstream s = stream();
  Buffer to(Count * 4);
  std::vector<float> values = ramp(0);
  CHECK_IS(cuMemcpyHtoDAsync_v2(to.at, values.data(), Count * 4, s), CUDA_SUCCESS);
  values = ramp(100);
  CHECK_IS(cuMemcpyDtoHAsync_v2(values.data(), to.at, Count * 4, s), CUDA_SUCCESS);
  CHECK(values == ramp(0));
  CHECK_IS(cuMemHostRegister_v2(values.data(), Count * 4, 0), CUDA_SUCCESS);
  CHECK_IS(cuMemHostRegister_v2(values.data() + 3, 4, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  CHECK_IS(cuMemcpyHtoDAsync_v2(to.at, values.data(), Count * 4, s), CUDA_SUCCESS);
  for (float& v : values) v += 7;
  CHECK_IS(cuStreamSynchronize(s), CUDA_SUCCESS);
  CHECK(to.read() == ramp(7));
  CHECK_IS(cuMemHostUnregister(values.data()), CUDA_SUCCESS);
  CHECK_IS(cuMemHostUnregister(values.data()), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  cuStreamDestroy_v2(s);
}

}  // namespace

void queueTests() {
  for (auto test : {events, legacyStream, polling, asyncMemory, graphs, hostBuffers}) {
    ready(1);
    test();
    cuCtxSynchronize();
  }
}

}  // namespace testing
