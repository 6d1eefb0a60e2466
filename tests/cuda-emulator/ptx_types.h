// The decoded form of a kernel: what the parser makes and the executor runs.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "machine.h"

namespace emulator {

constexpr uint32_t kLanes = 32;
constexpr uint32_t kAll = 0xffffffffu;

enum class Type : uint8_t { None, Pred, B8, B16, B32, B64, U8, U16, U32, U64, S8, S16, S32, S64, F16, BF16, F16x2, BF16x2, TF32, F32, F64 };
enum class Space : uint8_t { Generic, Global, Shared, Local, Param, Const };

// Bits of a value of the type in a register; 1 for predicates.
uint32_t bitsOf(Type type);
bool isFloat(Type type);
bool isSigned(Type type);
const char* nameOf(Type type);

// Where generic addresses show the other spaces and the module's own variables. No device allocation may lie here.
constexpr uint64_t kSharedWindow = 1ull << 56, kLocalWindow = 2ull << 56, kConstWindow = 3ull << 56, kVariableWindow = 4ull << 56;
constexpr uint64_t kWindowMask = 0xffull << 56;

struct Warp;
struct Instruction;
using Handler = void (*)(Warp& warp, const Instruction& instruction, uint32_t lanes);

// What the loop of a warp does itself; everything else is a handler's work.
enum class Control : uint8_t {
  None,         // a handler, on the lanes whose guard holds
  Branch,       // to `target`
  UniformBranch,
  IndexedBranch,// targets in extra[target..], index in register a
  Exit,
  Trap,
  Barrier,      // the warp stops
  WarpSync,     // a handler once all lanes of the member mask in register `members` are here
  Aligned,      // a handler once all 32 lanes are here
};

// Register operands are byte offsets into a warp's register file, where a register is 32 lanes of 4 or 8 bytes and a predicate is one word of
// 32 bits. Constants and special registers are registers that nobody writes.
struct Instruction {
  Handler handler = nullptr;
  uint32_t d = 0, a = 0, b = 0, c = 0;
  uint32_t guard = 0, guardInvert = 0;
  int64_t offset = 0;     // of an address; or an immediate of the handler's own
  uint32_t target = 0;    // index of an instruction, or of the first of `extra`
  uint32_t members = 0;   // register of the member mask
  uint32_t extra = 0;     // index of the first of Function::extra, for more operands
  Control control = Control::None;
  uint8_t count = 1;      // elements of a vector access
  uint8_t flags = 0;      // of the handler's own
  uint8_t mode = 0;       // of the handler's own
  uint32_t line = 0;
  uint32_t site = 0;      // number of the access, for caches
};

struct Register {
  uint32_t offset = 0;
  Type type = Type::None;
  uint32_t number = kAll;  // in order of declaration; kAll: not declared by the text
};

// A variable of a module or function in whatever space.
struct Variable {
  std::string name;
  Space space = Space::Global;
  uint64_t bytes = 0, alignment = 1;
  uint64_t address = 0;                // global and const: in its window
  bool dynamic = false;                // extern .shared x[]
  std::vector<uint8_t> data;           // of global and const
  std::vector<uint8_t> initialised;
  Allocation allocation;
};

struct Constant {
  uint32_t offset;
  bool wide;
  uint64_t bits;
};

// Registers that the executor fills.
struct Specials {
  uint32_t tid[3] = {}, ntid[3] = {}, ctaid[3] = {}, nctaid[3] = {};
  uint32_t laneid = 0, warpid = 0, dynamicShared = 0, lanemask[5] = {};
};

class Function {
 public:
  FunctionInfo info;
  std::vector<Instruction> code;
  std::vector<uint32_t> extra;
  std::vector<Constant> constants;
  Specials specials;
  uint32_t registerBytes = 0;
  uint32_t sites = 0;
  uint32_t maxBlock[3] = {0, 0, 0};
  uint32_t alwaysTrue = 0;             // a predicate
  uint32_t carry = 0;                  // a predicate: CC.CF; 0: no instruction uses it
  const std::vector<std::unique_ptr<Variable>>* variables = nullptr;  // the module's, by address
};

[[noreturn]] void faultAt(uint32_t line, const std::string& what);

}  // namespace emulator
