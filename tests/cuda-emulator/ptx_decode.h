// One instruction of the text, and what its decoding needs.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ptx_types.h"

namespace emulator {

struct Operand {
  enum Kind { Name, Integer, Float32, Float64, Address, List } kind = Name;
  std::string_view name;              // register, variable or label; of an address: its base, empty for a number
  std::string_view second;            // d|p
  bool negated = false;               // !p
  int64_t offset = 0;                 // of an address, name+offset
  uint64_t bits = 0;
  std::vector<Operand> list;
};

struct Statement {
  uint32_t line = 0;
  std::string_view opcode;            // with all modifiers
  std::vector<Operand> operands;
};

// Where names of a function are looked up.
class Names {
 public:
  virtual ~Names() = default;
  virtual const Register* reg(std::string_view name) = 0;                       // null: no register of that name
  virtual bool variable(std::string_view name, Space& space, uint64_t& address) = 0;
  virtual void touch(const Register& r, bool defines) = 0;                      // the instruction at hand reads or writes it
  virtual uint32_t allocate(Type type) = 0;                                     // a register of our own
  virtual uint32_t constant(uint64_t bits, bool wide) = 0;
};

class Decoder {
 public:
  Decoder(Function& function, Names& names, const Statement& statement, Instruction& instruction);

  Function& function;
  Names& names;
  const Statement& statement;
  Instruction& in;

  std::string_view base;               // the opcode's first word
  // Modifiers, taken in turn from the front.
  bool take(std::string_view modifier);
  void need(std::string_view modifier);
  void back() { taken_--; }             // the last taken is next again
  Type takeType();                     // a Fault where none is next
  Type peekType() const;
  std::string_view peek() const;
  std::string_view next();
  void done();                         // a Fault where a modifier is left
  [[noreturn]] void fail(const std::string& what) const;

  size_t operands() const { return statement.operands.size(); }
  void expect(size_t count) const;
  const Operand& operand(size_t i) const;
  // Registers. A source may be an immediate, a special register or the address of a variable.
  uint32_t source(size_t i, Type type);
  uint32_t source(const Operand& o, Type type);
  uint32_t destination(size_t i, Type type);
  uint32_t destination(const Operand& o, Type type);
  // Where the register may be wider than the type (ld, st, cvt): its own width.
  uint32_t sourceWide(const Operand& o, Type type, bool& wide);
  uint32_t destinationWide(const Operand& o, Type type, bool& wide);
  // A predicate as source, negation allowed: `invert` is xored to its word.
  uint32_t predicate(const Operand& o, uint32_t& invert);
  bool isRegister(const Operand& o) { return o.kind == Operand::Name && names.reg(o.name) != nullptr; }
  Type registerType(const Operand& o);
  int64_t integer(size_t i) const;     // an immediate
  // [base + offset] into in.a, in.offset; the register's width into `wide`.
  void address(size_t i, Space space, bool& wide);
  uint32_t extra(std::initializer_list<uint32_t> values);

 private:
  std::vector<std::string_view> modifiers_;
  size_t taken_ = 0;
  uint32_t immediate(const Operand& o, Type type);
  void fits(const Register& r, Type type, bool exact, std::string_view name) const;
};

using Decode = void (*)(Decoder&);
// What decodes an opcode (its first word); null: unknown.
Decode decoderOf(std::string_view base);

struct Opcode {
  std::string_view name;
  Decode decode;
};
// add, sub, mul, mad, div, min, max, abs and neg of floating-point types.
void decodeFloatArithmetic(Decoder& decoder);
// Of the exec_*.cpp, each a family.
std::vector<Opcode> integerOpcodes();
std::vector<Opcode> logicOpcodes();
std::vector<Opcode> floatOpcodes();
std::vector<Opcode> compareOpcodes();
std::vector<Opcode> convertOpcodes();
std::vector<Opcode> moveOpcodes();
std::vector<Opcode> memoryOpcodes();
std::vector<Opcode> atomicOpcodes();
std::vector<Opcode> laneOpcodes();
std::vector<Opcode> matrixOpcodes();
std::vector<Opcode> asyncOpcodes();
std::vector<Opcode> controlOpcodes();

}  // namespace emulator
