// What the parser refuses, with the line; what a launch is refused for.
#include "exec_tests.h"

namespace testing {

namespace {

const char* const kHead = ".version 7.0\n.target sm_80\n.address_size 64\n";

std::string refused(const std::string& text) {
  try {
    emulator::parse(text);
    return "";
  } catch (const emulator::Fault& fault) {
    return fault.what();
  }
}
// Of a body whose first line is line 7.
std::string body(const std::string& text) {
  return refused(std::string(kHead) + ".visible .entry k(.param .b64 p)\n{\n.reg .pred %p<3>; .reg .b32 %r<4>; .reg .f32 %f<4>; .reg .b64 %rd<4>; .reg .b16 %rs<4>; .reg .u32 %u<2>;\n" + text + "\n}\n");
}
void says(const std::string& fault, const std::string& part) {
  checks++;
  if (contains(fault, part)) return;
  failures++;
  std::printf("'%s' does not say '%s'\n", fault.c_str(), part.c_str());
}

void refusals() {
  CHECK(body("ret;").empty());
  says(refused(".version 6.0\n"), "line 1: .version 7.0 expected");
  says(refused(std::string(kHead) + ".func f() { ret; }\n"), "line 4: '.func' is not known");
  says(refused(std::string(kHead) + ".extern .global .b32 x;\n"), "nothing resolves");
  says(body("call f;\nret;"), "line 7: 'call': the instruction is not known");
  says(body("ret;\nadd.s32 %r1, %r2, %f1;\nret;"), "line 8: 'add.s32': register %f1 of type .f32 does not serve as .s32");
  says(body("add.s64 %rd1, %rd2, %r1;\nret;"), "register %r1 of type .b32 does not serve as .s64");
  says(body("mul.f32 %f1, %u1, %f2;\nret;"), "register %u1 of type .u32");
  says(body("add.s32 %r1, %r9, 1;\nret;"), "'%r9' is not declared");
  says(body("add.s32 %r1, %r2;\nret;"), "3 operands expected, 2 found");
  says(body("mul.s32 %r1, %r2, %r3;\nret;"), "no such type");
  says(body("cvt.s32.f32 %r1, %f1;\nret;"), "a rounding to an integer is missing");
  says(body("cvt.f32.s32 %f1, %r1;\nret;"), "a rounding is missing");
  says(body("div.f32 %f1, %f2, %f3;\nret;"), "a rounding is missing");
  says(body("setp.ltu.s32 %p1, %r1, %r2;\nret;"), "for floating-point types");
  says(body("ld.global.v2.f32 %f1, [%rd1];\nret;"), "as many registers as elements");
  says(body("ld.param.b64 %rd1, [p+4];\nret;"), "outside of the parameters");
  says(body("st.param.b64 [p], %rd1;\nret;"), "only read");
  says(body("bra $L1;\nret;"), "line 7: the label '$L1' is not there");
  says(body("add.s32 %r1, %r2, 1;"), "runs on behind its last instruction");
  says(body("@%p1 ret;"), "runs on behind its last instruction");
  says(body("@%r1 ret;\nret;"), "'%r1' is no predicate");
  says(body("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0,%f1,%f2,%f3}, {%r0,%r1,%r2,%r3}, {%r0}, {%f0,%f1,%f2,%f3};\nret;"), "operand 3 has 2 registers");
  says(body("cp.async.cg.shared.global [%r1], [%rd1], 8;\nret;"), "with .cg 16");
  says(body("shfl.sync.bfly.b64 %rd1, %rd2, 1, 31, -1;\nret;"), ".b32 expected");
  says(body("mov.u32 %r1, %clock;\nret;"), "'%clock' is not declared");
  says(body("ret;\n.weird;"), "the directive '.weird' is not known");
  says(body("add.s32 %r1, %r2, #;"), "a character that PTX does not have");
  says(body("mov.u32 %r1, 12x;\nret;"), "is no number");
  says(refused(std::string(kHead) + ".shared .align 4 .b8 s[50000];\n.visible .entry k()\n{\n.reg .b32 %r1;\nmov.u32 %r1, s;\nret;\n}\n"), "more than 48 KiB");
  says(refused(std::string(kHead) + ".visible .entry k()\n{\nret;"), "the text ends too early");
}

void launches() {
  auto module = emulator::parse(std::string(kHead) + ".extern .shared .align 16 .b8 d[];\n.visible .entry k(.param .b64 p)\n.maxntid 128, 1, 1\n{\n.reg .b32 %r1;\nmov.u32 %r1, d;\nret;\n}\n");
  const emulator::Function* function = module->find("k");
  CHECK(function != nullptr && module->find("other") == nullptr);
  CHECK_IS(emulator::describe(*function).parameterBytes, 8u);
  CHECK_IS(emulator::describe(*function).maxThreads, 128u);
  emulator::DeviceMemory memory(1 << 20);
  uint8_t parameters[8] = {};
  auto launched = [&](emulator::Dim3 grid, emulator::Dim3 block, uint32_t shared, uint32_t bytes) -> std::string {
    emulator::Launch launch;
    launch.grid = grid;
    launch.block = block;
    launch.dynamicSharedBytes = shared;
    launch.parameters = parameters;
    launch.parameterBytes = bytes;
    try {
      emulator::execute(*function, launch, memory);
      return "";
    } catch (const emulator::Fault& fault) {
      return fault.what();
    }
  };
  CHECK(launched({3, 2, 2}, {128, 1, 1}, 163 * 1024, 8).empty());
  says(launched({1, 1, 1}, {129, 1, 1}, 0, 8), ".maxntid is 128");
  says(launched({1, 1, 1}, {32, 33, 1}, 0, 8), "at most 1024");
  says(launched({0, 1, 1}, {32, 1, 1}, 0, 8), "no blocks");
  says(launched({1, 1, 1}, {32, 0, 1}, 0, 8), "no threads");
  says(launched({1, 65536, 1}, {32, 1, 1}, 0, 8), "a grid larger");
  says(launched({1, 1, 1}, {32, 1, 1}, 163 * 1024 + 1, 8), "bytes of shared memory");
  says(launched({1, 1, 1}, {32, 1, 1}, 0, 12), "12 bytes of parameters, the kernel takes 8");
}

}  // namespace

void parseTests() {
  refusals();
  launches();
}

}  // namespace testing
