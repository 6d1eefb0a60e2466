// Runs each planted fault under both orders of work and its twin without the fault; prints which check caught it.
#include "testing.h"

#include <cstring>
#include <optional>

namespace testing {

namespace {

// What was said of the fault; none: it went through.
using Caught = std::optional<std::string>;

Caught said(CUresult r) {
  if (r == CUDA_SUCCESS) return std::nullopt;
  std::string fault = nlEmulatorFault();
  if (fault.empty()) fault = nlEmulatorRefusal();
  return fault.empty() ? "error " + std::to_string(r) : fault;
}

// A launch of a kernel in faults/ over buffers a, b and c.
struct Plan {
  unsigned grid, block, shared;
  int64_t n;
  int a, b, c;           // floats; 0: null
  bool clear = false;    // c is set to 0 first
  size_t aBytes = 0;     // of a, where it is not whole floats
};

Caught run(const char* file, const std::string& kernel, const Plan& p) {
  CUfunction function = kernelOf(file, kernel);
  if (function == nullptr) return said(CUDA_ERROR_NOT_FOUND);
  auto ramp = [](int count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (int i = 0; i < count; i++) values[static_cast<size_t>(i)] = static_cast<float>(i % 13) * 0.5f;
    return values;
  };
  Buffer a(p.aBytes != 0 ? p.aBytes : static_cast<size_t>(p.a) * 4), c(static_cast<size_t>(p.c) * 4);
  cuMemcpyHtoD_v2(a.at, ramp(p.a).data(), a.bytes);
  std::optional<Buffer> b;
  if (p.b > 0) b.emplace(ramp(p.b));
  if (p.clear) cuMemsetD8_v2(c.at, 0, c.bytes);
  CUresult r = launch(function, p.grid, p.block, p.shared, {a.at, b ? b->at : 0, c.at, p.n});
  if (r == CUDA_SUCCESS) r = cuCtxSynchronize();
  return said(r);
}

struct Case {
  std::string name;
  std::function<Caught()> faulty, clean;  // no clean twin: null
  std::vector<std::string> words;         // the fault's line has one of them
  bool needsDeferred = false;             // what is done at once is done in order
  bool needsBoth = false;                 // only a comparison shows it
};

std::vector<Case> cases;

void plant(const char* file, const char* kernel, const Plan& p, std::vector<std::string> words) {
  std::string name = kernel;
  cases.push_back({name, [=] { return run(file, name, p); }, [=] { return run(file, name + "_clean", p); }, std::move(words)});
}

// --- faults of the host -----------------------------------------------------------------------------------------------------------------

struct Blas {
  cublasHandle_t handle = nullptr;
  Blas() { cublasCreate_v2(&handle); }
  ~Blas() { cublasDestroy_v2(handle); }
};

Caught parameterSize(size_t bytes) {
  Buffer a(std::vector<float>(8)), c(32);
  Args args{a.at, 0, c.at, 8};
  uint8_t buffer[64] = {};
  std::memcpy(buffer, &args, sizeof args);
  void* extra[] = {reinterpret_cast<void*>(1), buffer, reinterpret_cast<void*>(2), &bytes, nullptr};
  CUresult r = cuLaunchKernel(kernelOf("hosts", "copy_values"), 1, 1, 1, 32, 1, 1, 0, nullptr, nullptr, extra);
  return said(r == CUDA_SUCCESS ? cuCtxSynchronize() : r);
}

Caught useAfterFree(bool fault) {
  Buffer a(std::vector<float>(8));
  CUdeviceptr c = 0;
  cuMemAlloc_v2(&c, 32);
  if (fault) cuMemFree_v2(c);
  CUresult r = launch(kernelOf("hosts", "copy_values"), 1, 32, 0, {a.at, 0, c, 8});
  if (r == CUDA_SUCCESS) r = cuCtxSynchronize();
  Caught caught = said(r);
  if (!fault) cuMemFree_v2(c);
  return caught;
}

Caught freedInAnotherStream(bool fault) {
  CUstream one = nullptr, two = nullptr;
  CUevent event = nullptr;
  cuStreamCreate(&one, CU_STREAM_NON_BLOCKING);
  cuStreamCreate(&two, CU_STREAM_NON_BLOCKING);
  cuEventCreate(&event, 0);
  Buffer a(std::vector<float>(8));
  CUdeviceptr c = 0;
  cuMemAlloc_v2(&c, 32);
  CUresult r = launch(kernelOf("hosts", "copy_values"), 1, 32, 0, {a.at, 0, c, 8}, one);
  cuEventRecord(event, one);
  if (!fault) cuStreamWaitEvent(two, event, 0);
  cuMemFreeAsync(c, two);
  return said(r == CUDA_SUCCESS ? cuCtxSynchronize() : r);
}

// A copy fills the operand on one stream, a kernel reads it on another.
Caught missingStreamWait(bool fault) {
  CUstream one = nullptr, two = nullptr;
  CUevent event = nullptr;
  cuStreamCreate(&one, CU_STREAM_NON_BLOCKING);
  cuStreamCreate(&two, CU_STREAM_NON_BLOCKING);
  cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
  std::vector<float> values(8, 1.0f);
  Buffer a(32), c(32);
  cuMemcpyHtoDAsync_v2(a.at, values.data(), 32, one);
  cuEventRecord(event, one);
  if (!fault) cuStreamWaitEvent(two, event, 0);
  launch(kernelOf("hosts", "copy_values"), 1, 32, 0, {a.at, 0, c.at, 8}, two);
  return said(cuStreamSynchronize(two));
}

// The event is waited for, but was recorded before the work.
Caught eventRecordedEarly(bool fault) {
  CUstream one = nullptr, two = nullptr;
  CUevent event = nullptr;
  cuStreamCreate(&one, CU_STREAM_NON_BLOCKING);
  cuStreamCreate(&two, CU_STREAM_NON_BLOCKING);
  cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
  Buffer a(std::vector<float>(8)), b(32), c(32);
  if (fault) cuEventRecord(event, one);
  launch(kernelOf("hosts", "copy_values"), 1, 32, 0, {a.at, 0, b.at, 8}, one);
  if (!fault) cuEventRecord(event, one);
  cuStreamWaitEvent(two, event, 0);
  launch(kernelOf("hosts", "copy_values"), 1, 32, 0, {b.at, 0, c.at, 8}, two);
  return said(cuStreamSynchronize(two));
}

// A blocking copy runs on the default stream, which does not wait for non-blocking ones.
Caught blockingCopyDoesNotWait(bool fault) {
  CUstream s = nullptr;
  cuStreamCreate(&s, fault ? 1u : 0u);
  Buffer a(std::vector<float>(8)), b(32);
  launch(kernelOf("hosts", "copy_values"), 1, 32, 0, {a.at, 0, b.at, 8}, s);
  float back[8];
  return said(cuMemcpyDtoH_v2(back, b.at, 32));
}

// cuBLAS works on the default stream, the kernels on their own.
Caught blasOnWrongStream(bool fault) {
  Blas blas;
  CUstream s = nullptr;
  cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
  if (!fault) cublasSetStream_v2(blas.handle, s);
  Buffer a(std::vector<float>(64, 1.0f)), b(256), c(256);
  launch(kernelOf("hosts", "copy_values"), 1, 64, 0, {a.at, 0, b.at, 64}, s);
  float one = 1, zero = 0;
  cublasSgemm_v2(blas.handle, 0, 0, 8, 8, 8, &one, a.at, 8, b.at, 8, &zero, c.at, 8);
  return said(cuCtxSynchronize());
}

Caught graphUsesFreed(bool fault) {
  CUstream s = nullptr;
  cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
  Buffer a(std::vector<float>(8));
  CUdeviceptr b = 0;
  cuMemAlloc_v2(&b, 32);
  CUfunction copy = kernelOf("hosts", "copy_values");
  cuStreamBeginCapture_v2(s, 0);
  launch(copy, 1, 32, 0, {a.at, 0, b, 8}, s);
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  cuStreamEndCapture(s, &graph);
  cuGraphInstantiateWithFlags(&exec, graph, 0);
  cuGraphLaunch(exec, s);
  if (fault) cuMemFree_v2(b);
  cuGraphLaunch(exec, s);
  return said(cuStreamSynchronize(s));
}

// A graph lacks the edge between two branches.
Caught graphLacksEdge(bool fault) {
  CUstream one = nullptr, two = nullptr;
  CUevent fork = nullptr, join = nullptr;
  cuStreamCreate(&one, CU_STREAM_NON_BLOCKING);
  cuStreamCreate(&two, CU_STREAM_NON_BLOCKING);
  cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING);
  cuEventCreate(&join, CU_EVENT_DISABLE_TIMING);
  Buffer a(std::vector<float>(8)), b(32), c(32);
  CUfunction copy = kernelOf("hosts", "copy_values");
  cuStreamBeginCapture_v2(one, 0);
  if (fault) cuEventRecord(fork, one);
  launch(copy, 1, 32, 0, {a.at, 0, b.at, 8}, one);
  if (!fault) cuEventRecord(fork, one);
  cuStreamWaitEvent(two, fork, 0);
  launch(copy, 1, 32, 0, {b.at, 0, c.at, 8}, two);
  cuEventRecord(join, two);
  cuStreamWaitEvent(one, join, 0);
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  CUresult r = cuStreamEndCapture(one, &graph);
  if (r == CUDA_SUCCESS) r = cuGraphInstantiateWithFlags(&exec, graph, 0);
  if (r == CUDA_SUCCESS) r = cuGraphLaunch(exec, one);
  return said(r == CUDA_SUCCESS ? cuStreamSynchronize(one) : r);
}

Caught waitInCapture(bool fault) {
  CUstream s = nullptr;
  cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
  Buffer a(std::vector<float>(8)), b(32);
  cuStreamBeginCapture_v2(s, 0);
  launch(kernelOf("hosts", "copy_values"), 1, 32, 0, {a.at, 0, b.at, 8}, s);
  if (fault) cuStreamSynchronize(s);
  CUgraph graph = nullptr;
  return said(cuStreamEndCapture(s, &graph));
}

// The test's own comparison is the check here: the values are stale.
Caught hostReadsTooEarly(bool fault) {
  void* pinned = nullptr;
  cuMemAllocHost_v2(&pinned, 32);
  auto* values = static_cast<float*>(pinned);
  CUstream s = nullptr;
  cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
  Buffer a(std::vector<float>(8, 3.0f));
  cuMemcpyDtoHAsync_v2(values, a.at, 32, s);
  if (!fault) cuStreamSynchronize(s);
  bool stale = values[7] != 3.0f;
  CUresult r = cuStreamSynchronize(s);
  cuMemFreeHost(pinned);
  if (stale) return "the host sees stale values: the copy had not run";
  return said(r);
}

Caught hostOverwritesTooEarly(bool fault) {
  void* pinned = nullptr;
  cuMemAllocHost_v2(&pinned, 32);
  auto* values = static_cast<float*>(pinned);
  CUstream s = nullptr;
  cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
  Buffer a(32);
  for (int i = 0; i < 8; i++) values[i] = 1;
  cuMemcpyHtoDAsync_v2(a.at, values, 32, s);
  if (!fault) cuStreamSynchronize(s);
  for (int i = 0; i < 8; i++) values[i] = 2;
  cuStreamSynchronize(s);
  bool wrong = a.read()[0] != 1;
  cuMemFreeHost(pinned);
  if (wrong) return "the device has the values of the host's next step";
  return said(CUDA_SUCCESS);
}

Caught pinnedFreedTooEarly(bool fault) {
  void* pinned = nullptr;
  cuMemAllocHost_v2(&pinned, 32);
  std::memset(pinned, 0, 32);
  CUstream s = nullptr;
  cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
  Buffer a(32);
  cuMemcpyHtoDAsync_v2(a.at, pinned, 32, s);
  if (!fault) cuStreamSynchronize(s);
  cuMemFreeHost(pinned);
  return said(cuStreamSynchronize(s));
}

Caught leak(bool fault) {
  CUdeviceptr at = 0;
  cuMemAlloc_v2(&at, 1000);
  if (!fault) cuMemFree_v2(at);
  std::string lines = nlEmulatorLeaks();
  if (lines.empty()) return std::nullopt;
  lines.pop_back();
  return lines;
}

Caught doubleFree(bool fault) {
  CUdeviceptr at = 0;
  cuMemAlloc_v2(&at, 1000);
  CUresult r = cuMemFree_v2(at);
  if (fault) r = cuMemFree_v2(at);
  return said(r);
}

Caught overlappingCopy(bool fault) {
  Buffer a(std::vector<float>(32));
  cuMemcpyDtoD_v2(a.at, a.at + (fault ? 32 : 64), 64);
  return said(cuCtxSynchronize());
}

Caught blas(size_t floatsOfC, int ldc, bool initialised, size_t shift) {
  Blas blas;
  Buffer a(std::vector<float>(64 + 64, 1.0f)), fresh(64 * 4), c(floatsOfC * 4);
  float one = 1, zero = 0;
  cublasSgemm_v2(blas.handle, 0, 0, 8, 8, 8, &one, a.at, 8, initialised ? a.at + 256 : fresh.at, 8, &zero, shift ? a.at + shift : c.at, ldc);
  return said(cuCtxSynchronize());
}

// C is added to, and nobody has written it.
Caught blasAdds(bool fault) {
  Blas blas;
  Buffer a(std::vector<float>(64, 1.0f)), c(64 * 4);
  float one = 1, beta = fault ? 1.0f : 0.0f;
  cublasSgemm_v2(blas.handle, 0, 0, 8, 8, 8, &one, a.at, 8, a.at, 8, &beta, c.at, 8);
  return said(cuCtxSynchronize());
}

// Something of the caller's lies in the workspace that cuBLAS was given.
Caught workspaceShared(bool fault) {
  Blas blas;
  Buffer a(std::vector<float>(64, 1.0f)), c(64 * 4), space(4096), result(32);
  cublasSetWorkspace_v2(blas.handle, space.at, fault ? 4096 : 2048);
  cuMemsetD8_v2(space.at + 2048, 0, 2048);
  float one = 1, zero = 0;
  cublasSgemm_v2(blas.handle, 0, 0, 8, 8, 8, &one, a.at, 8, a.at, 8, &zero, c.at, 8);
  launch(kernelOf("hosts", "copy_values"), 1, 32, 0, {space.at + 2048, 0, result.at, 8});
  return said(cuCtxSynchronize());
}

Caught badText(const char* file) {
  CUmodule module = nullptr;
  CUresult r = cuModuleLoadData(&module, readText(faults + "/" + file + ".ptx").c_str());
  return said(r);
}

void collect() {
  Plan races{2, 64, 0, 128, 128, 0, 160, true};
  plant("races", "race_after_write", races, {" races"});
  plant("races", "race_before_overwrite", races, {" races"});
  plant("races", "race_blocks_write", races, {" races"});
  plant("races", "race_blocks_read", races, {" races"});
  plant("races", "missing_atomic", races, {" races"});
  plant("races", "race_warps_global", races, {" races"});
  plant("races", "race_in_place", races, {" races"});
  plant("races", "order_dependent", races, {"depends on the order"});
  cases.back().needsBoth = true;
  plant("races", "race_wrong_buffer", races, {" races"});
  plant("races", "race_overlap", races, {" races"});
  plant("races", "race_vector_overlap", races, {" races"});
  plant("races", "race_through_global", races, {" races"});
  plant("races", "race_write_after_read", races, {" races"});
  plant("races", "race_lanes_shared", races, {" races"});
  plant("races", "race_lanes_global", races, {" races"});
  plant("races", "race_with_atomic", races, {" races"});

  Plan async{1, 64, 0, 512, 516, 0, 256};
  plant("async", "async_no_wait", async, {"cp.async is under way"});
  plant("async", "async_wrong_count", async, {"cp.async is under way"});
  plant("async", "async_no_barrier", async, {" races"});
  plant("async", "async_overwrite", async, {" races"});
  plant("async", "async_misaligned", async, {"not aligned"});
  plant("async", "async_no_commit", async, {"cp.async is under way"});
  plant("async", "async_some_wait", async, {"cp.async is under way"});
  plant("async", "async_store", async, {"cp.async is under way"});
  Plan tail = async;
  tail.n = 516;
  plant("async", "async_tail", tail, {"out of bounds"});

  Plan bounds{2, 64, 0, 100, 100, 0, 100};
  plant("bounds", "read_past", bounds, {"out of bounds"});
  plant("bounds", "write_past", bounds, {"out of bounds"});
  plant("bounds", "read_before", bounds, {"out of bounds"});
  plant("bounds", "wrong_stride", bounds, {"out of bounds"});
  plant("bounds", "missing_tail", bounds, {"out of bounds"});
  plant("bounds", "misaligned_vector", bounds, {"not aligned"});
  plant("bounds", "misaligned_shared", bounds, {"not aligned"});
  plant("bounds", "shared_past", bounds, {"of shared memory, which has"});
  plant("bounds", "null_operand", bounds, {"null pointer"});
  plant("bounds", "index_overflow", bounds, {"out of bounds"});
  cases.push_back({"dynamic_shared_too_small", [=] { Plan p = bounds; p.shared = 200; return run("bounds", "dynamic_shared", p); },
                   [=] { Plan p = bounds; p.shared = 256; return run("bounds", "dynamic_shared", p); }, {"of shared memory, which has"}});

  plant("bounds", "local_past", bounds, {"of local memory, which has"});
  // 101 values of 16 bits: half a float more than 50.
  Plan odd{2, 64, 0, 101, 100, 0, 100};
  odd.aBytes = 202;
  plant("bounds", "packed_tail", odd, {"out of bounds"});
  plant("bounds", "odd_pitch", odd, {"not aligned"});

  Plan reads{1, 64, 0, 64, 72, 0, 64};
  plant("reads", "uninitialised_shared", reads, {"never written"});
  plant("reads", "uninitialised_local", reads, {"never written"});
  plant("reads", "uninitialised_padding", reads, {"never written"});
  cases.push_back({"uninitialised_global", [=] { return run("reads", "uninitialised_global", reads); },
                   [=] { Plan p = reads; p.clear = true; return run("reads", "uninitialised_global", p); }, {"never written"}});

  plant("barriers", "barrier_divergent", reads, {"not all threads reach"});
  plant("barriers", "barrier_exited", reads, {"not all threads reach"});
  plant("barriers", "barrier_uneven", reads, {"not all threads reach"});

  Plan warp{1, 32, 0, 32, 512, 512, 512};
  plant("warp", "shuffle_inactive", warp, {"lane"});
  plant("warp", "shuffle_unnamed", warp, {"lane"});
  plant("warp", "missing_warp_barrier", warp, {" races"});
  plant("warp", "mma_inactive", warp, {"lane"});
  plant("warp", "ldmatrix_misaligned", warp, {"not aligned"});
  plant("warp", "ldmatrix_uninitialised", warp, {"never written"});
  plant("warp", "ldmatrix_race", warp, {" races"});
  plant("warp", "ldmatrix_past", warp, {"of shared memory, which has"});
  plant("warp", "shuffle_exited", warp, {"lane"});

  auto values = [](unsigned block) { return [=] { return run("hosts", "small_block", {1, block, 0, 8, 8, 0, 8}); }; };
  cases.push_back({"block_too_large_for_maxntid", values(128), values(64), {".maxntid"}});
  cases.push_back({"parameters_too_few", [] { return parameterSize(24); }, [] { return parameterSize(32); }, {"bytes of parameters"}});
  cases.push_back({"parameters_too_many", [] { return parameterSize(40); }, [] { return parameterSize(32); }, {"bytes of parameters"}});
  auto host = [](const char* name, Caught (*what)(bool), std::vector<std::string> words, bool needsDeferred = false) {
    cases.push_back({name, [=] { return what(true); }, [=] { return what(false); }, std::move(words), needsDeferred});
  };
  host("use_after_free", useAfterFree, {"use after free"});
  host("freed_in_another_stream", freedInAnotherStream, {"use after free"}, true);
  host("missing_stream_wait", missingStreamWait, {"never written"}, true);
  host("event_recorded_early", eventRecordedEarly, {"never written"}, true);
  host("blocking_copy_does_not_wait", blockingCopyDoesNotWait, {"never written"}, true);
  host("blas_on_wrong_stream", blasOnWrongStream, {"never written"}, true);
  host("graph_uses_freed", graphUsesFreed, {"use after free"});
  host("graph_lacks_edge", graphLacksEdge, {"never written"}, true);
  host("wait_in_capture", waitInCapture, {"under capture"});
  host("host_reads_too_early", hostReadsTooEarly, {"stale"}, true);
  host("host_overwrites_too_early", hostOverwritesTooEarly, {"next step"}, true);
  host("pinned_freed_too_early", pinnedFreedTooEarly, {"freed before the copy"}, true);
  host("leak", leak, {"was not freed"});
  host("double_free", doubleFree, {"freed before"});
  host("overlapping_copy", overlappingCopy, {"overlaps itself"});
  auto clean = [] { return blas(64, 8, true, 0); };
  cases.push_back({"blas_result_out_of_bounds", [] { return blas(64, 9, true, 0); }, clean, {"out of bounds"}});
  cases.push_back({"blas_operand_uninitialised", [] { return blas(64, 8, false, 0); }, clean, {"never written"}});
  cases.push_back({"blas_result_overlaps_operand", [] { return blas(64, 8, true, 128); }, clean, {"overlaps"}});
  host("blas_adds_to_nothing", blasAdds, {"never written"});
  host("workspace_shared", workspaceShared, {"never written"});

  cases.push_back({"endless_loop", [] { return run("endless", "endless", {1, 32, 0, 1, 1, 0, 1, true}); }, nullptr, {"instructions of one warp"}});
  cases.push_back({"unknown_instruction", [] { return badText("unknown"); }, [] { return badText("hosts"); }, {"frobnicate"}});
  cases.push_back({"unknown_modifier", [] { return badText("modifier"); }, [] { return badText("hosts"); }, {"sideways"}});
}

}  // namespace

void faultTests() {
  collect();
  nlEmulatorSetInstructionLimit(200000);
  std::printf("%-30s %-14s %-14s %s\n", "fault", "at once", "deferred", "caught by");
  for (const Case& c : cases) {
    Caught caught[2];
    for (int schedule : {0, 1}) {
      ready(schedule);
      caught[schedule] = c.faulty();
      if (c.clean) {
        ready(schedule);
        Caught twin = c.clean();
        if (twin) std::printf("%s: the clean twin is refused: %s\n", c.name.c_str(), twin->c_str());
        CHECK(!twin);
      }
    }
    Caught line = caught[1];
    if (c.needsBoth) {
      CHECK(!caught[0] && !caught[1]);
      ready(2);
      line = c.faulty();
      ready(2);
      if (c.clean) CHECK(!c.clean());
    }
    bool named = false;
    for (const std::string& word : c.words) named |= line && contains(*line, word);
    CHECK(named);
    if (c.needsDeferred) CHECK(!caught[0]);
    if (!c.needsBoth && !c.needsDeferred) CHECK(caught[0]);
    std::printf("%-30s %-14s %-14s %s\n", c.name.c_str(), caught[0] ? "caught" : c.needsBoth ? "by comparison" : "in order",
                caught[1] ? "caught" : c.needsBoth ? "by comparison" : "NOT CAUGHT", line ? line->c_str() : "-");
  }
  std::printf("%zu planted faults\n", cases.size());
  nlEmulatorSetInstructionLimit(0);
  ready(1);
}

}  // namespace testing
