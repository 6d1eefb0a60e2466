#include "exec_tests.h"

#include <map>

namespace testing {

int checks = 0, failures = 0;
std::string faults = EMULATOR_FAULTS;

void ready(int schedule) {
  nlEmulatorReset();
  nlEmulatorSetSchedule(schedule);
  nlEmulatorSetChecks(1);
  nlEmulatorSetMemory(1ull << 31);
  cuInit(0);
  CUcontext context = nullptr;
  cuDevicePrimaryCtxRetain(&context, 0);
  cuCtxSetCurrent(context);
}

std::string readText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Buffer::Buffer(size_t size) : bytes(size) { cuMemAlloc_v2(&at, size); }

Buffer::Buffer(const std::vector<float>& values) : Buffer(values.size() * 4) { cuMemcpyHtoD_v2(at, values.data(), bytes); }

std::vector<float> Buffer::read() const {
  std::vector<float> values(bytes / 4);
  cuMemcpyDtoH_v2(values.data(), at, bytes);
  return values;
}

CUfunction kernelOf(const std::string& file, const std::string& kernel) {
  static std::map<std::string, CUmodule> modules;
  CUmodule& module = modules[file];
  if (module == nullptr && cuModuleLoadData(&module, readText(faults + "/" + file + ".ptx").c_str()) != CUDA_SUCCESS) return nullptr;
  CUfunction function = nullptr;
  return cuModuleGetFunction(&function, module, kernel.c_str()) == CUDA_SUCCESS ? function : nullptr;
}

CUresult launch(CUfunction kernel, unsigned grid, unsigned block, unsigned shared, const Args& args, CUstream stream) {
  Args copy = args;
  void* parameters[] = {&copy};
  return cuLaunchKernel(kernel, grid, 1, 1, block, 1, 1, shared, stream, parameters, nullptr);
}

}  // namespace testing

int main() {
  using namespace testing;
  for (int schedule : {0, 1}) {  // at once, and as late as allowed
    driverTests(schedule);
    blasTests(schedule);
  }
  queueTests();
  parseTests();
  integerTests();
  floatTests();
  convertTests();
  flowTests();
  matrixTests();
  faultTests();
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
