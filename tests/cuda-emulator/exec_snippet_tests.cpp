#include <cmath>
#include <map>

#include "exec_tests.h"

namespace testing {

std::vector<uint8_t> runSnippet(const std::string& file, const std::string& kernel, uint32_t grid, uint32_t block, const std::vector<std::vector<uint8_t>>& inputs,
                                size_t bytes, int64_t n, emulator::Schedule schedule, uint32_t dynamicShared) {
  static std::map<std::string, std::unique_ptr<emulator::Module>> modules;
  std::vector<uint8_t> out(bytes);
  try {
    auto& module = modules[file];
    if (!module) module = emulator::parse(readText(std::string(EMULATOR_SNIPPETS) + "/" + file + ".ptx"));
    const emulator::Function* function = module->find(kernel);
    CHECK(function != nullptr);
    if (!function) return out;
    emulator::DeviceMemory memory(1ull << 30);
    uint64_t args[5] = {};
    for (size_t i = 0; i < inputs.size(); i++) {
      args[i] = memory.allocate(inputs[i].size());
      memory.copyIn(args[i], inputs[i].data(), inputs[i].size());
    }
    args[3] = memory.allocate(bytes);
    memory.copyIn(args[3], out.data(), bytes);
    args[4] = uint64_t(n);
    emulator::Launch launch;
    launch.grid.x = grid;
    launch.block.x = block;
    launch.dynamicSharedBytes = dynamicShared;
    launch.parameters = reinterpret_cast<const uint8_t*>(args);
    launch.parameterBytes = sizeof args;
    launch.schedule = schedule;
    launch.workers = schedule == emulator::Schedule::Eager ? 1 : 2;
    emulator::execute(*function, launch, memory);
    memory.copyOut(out.data(), args[3], bytes, true);
  } catch (const emulator::Fault& fault) {
    failures++;
    std::printf("%s: %s\n", kernel.c_str(), fault.what());
  }
  return out;
}

namespace {
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
}  // namespace

std::vector<uint32_t> words(size_t count, uint32_t seed) {
  const uint32_t corners[] = {0, 1, 0xffffffffu, 0x80000000u, 0x7fffffffu, 2, 31, 0xff00ff00u};
  std::vector<uint32_t> r(count);
  for (size_t i = 0; i < count; i++) r[i] = i < 24 ? corners[(i + seed * (i / 8 + 1)) % 8] : uint32_t(mix(i * 64 + seed)) >> (mix(i + seed) % 3 * 10);
  return r;
}
std::vector<uint64_t> longs(size_t count, uint32_t seed) {
  const uint64_t corners[] = {0, 1, ~0ull, 1ull << 63, ~0ull >> 1, 3, 0x100000000ull, 0xffffffffull};
  std::vector<uint64_t> r(count);
  for (size_t i = 0; i < count; i++) r[i] = i < 24 ? corners[(i + seed * (i / 8 + 1)) % 8] : mix(i * 64 + seed) >> (mix(i + seed) % 4 * 15);
  return r;
}
std::vector<float> floats(size_t count, uint32_t seed) {
  const float corners[] = {0.0f, -0.0f, 1.0f, INFINITY, -INFINITY, NAN, 1e-40f, 3.4e38f, -1e-44f, 1.1754944e-38f, 0.1f, -2.5f, 0.5f, 1.5f, 16777217.0f, -3.0f};
  std::vector<float> r(count);
  for (size_t i = 0; i < count; i++) {
    float mantissa = 1 + float(mix(i * 64 + seed) >> 40) * 0x1p-24f;
    int exponent = int(mix(i + seed * 977) % (i % 3 == 0 ? 200 : 12)) - (i % 3 == 0 ? 100 : 6);
    r[i] = i < 32 ? corners[(i + seed * (i / 16 + 1)) % 16] : (i & 1 ? -1.0f : 1.0f) * std::ldexp(mantissa, exponent);
  }
  return r;
}
std::vector<double> doubles(size_t count, uint32_t seed) {
  auto f = floats(count, seed);
  std::vector<double> r(count);
  for (size_t i = 0; i < count; i++) r[i] = i < 32 ? double(f[i]) : double(f[i]) * (1 + double(mix(i + seed * 31) >> 30) * 0x1p-40);
  return r;
}

}  // namespace testing
