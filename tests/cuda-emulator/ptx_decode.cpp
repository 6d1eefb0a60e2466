#include "ptx_decode.h"

#include <string>

namespace emulator {

void faultAt(uint32_t line, const std::string& what) { throw Fault("PTX line " + std::to_string(line) + ": " + what); }

uint32_t bitsOf(Type type) {
  switch (type) {
    case Type::None: return 0;
    case Type::Pred: return 1;
    case Type::B8: case Type::U8: case Type::S8: return 8;
    case Type::B16: case Type::U16: case Type::S16: case Type::F16: case Type::BF16: return 16;
    case Type::B64: case Type::U64: case Type::S64: case Type::F64: return 64;
    default: return 32;
  }
}
bool isFloat(Type type) { return type >= Type::F16; }
bool isSigned(Type type) { return type >= Type::S8 && type <= Type::S64; }

namespace {
struct TypeName {
  const char* name;
  Type type;
};
constexpr TypeName kTypes[] = {{"pred", Type::Pred}, {"b8", Type::B8}, {"b16", Type::B16}, {"b32", Type::B32}, {"b64", Type::B64},
                               {"u8", Type::U8}, {"u16", Type::U16}, {"u32", Type::U32}, {"u64", Type::U64}, {"s8", Type::S8},
                               {"s16", Type::S16}, {"s32", Type::S32}, {"s64", Type::S64}, {"f16", Type::F16}, {"bf16", Type::BF16},
                               {"f16x2", Type::F16x2}, {"bf16x2", Type::BF16x2}, {"tf32", Type::TF32}, {"f32", Type::F32}, {"f64", Type::F64}};
Type typeOf(std::string_view name) {
  for (const TypeName& t : kTypes)
    if (name == t.name) return t.type;
  return Type::None;
}
}  // namespace

const char* nameOf(Type type) {
  for (const TypeName& t : kTypes)
    if (type == t.type) return t.name;
  return "none";
}

Decoder::Decoder(Function& f, Names& n, const Statement& s, Instruction& i) : function(f), names(n), statement(s), in(i) {
  std::string_view rest = s.opcode;
  size_t dot = rest.find('.');
  base = rest.substr(0, dot);
  while (dot != std::string_view::npos) {
    rest.remove_prefix(dot + 1);
    dot = rest.find('.');
    modifiers_.push_back(rest.substr(0, dot));
  }
}

bool Decoder::take(std::string_view modifier) {
  if (peek() != modifier) return false;
  taken_++;
  return true;
}
void Decoder::need(std::string_view modifier) {
  if (!take(modifier)) fail("." + std::string(modifier) + " expected");
}
std::string_view Decoder::peek() const { return taken_ < modifiers_.size() ? modifiers_[taken_] : std::string_view(); }
std::string_view Decoder::next() {
  if (taken_ == modifiers_.size()) fail("a modifier is missing");
  return modifiers_[taken_++];
}
Type Decoder::peekType() const { return typeOf(peek()); }
Type Decoder::takeType() {
  Type type = peekType();
  if (type == Type::None) fail(peek().empty() ? "its type is missing" : "the modifier ." + std::string(peek()) + " is not known here");
  taken_++;
  return type;
}
void Decoder::done() {
  if (taken_ < modifiers_.size()) fail("the modifier ." + std::string(peek()) + " is not known here");
}
void Decoder::fail(const std::string& what) const { faultAt(statement.line, "'" + std::string(statement.opcode) + "': " + what); }

void Decoder::expect(size_t count) const {
  if (operands() != count) fail(std::to_string(count) + " operands expected, " + std::to_string(operands()) + " found");
}
const Operand& Decoder::operand(size_t i) const {
  if (i >= operands()) fail("an operand is missing");
  return statement.operands[i];
}

void Decoder::fits(const Register& r, Type type, bool exact, std::string_view name) const {
  uint32_t have = bitsOf(r.type), want = bitsOf(type);
  bool integers = (r.type >= Type::U8 && r.type <= Type::S64), floats = isFloat(r.type);
  bool typeInteger = (type >= Type::U8 && type <= Type::S64), typeFloat = isFloat(type) && type < Type::F16x2;
  bool predicates = (r.type == Type::Pred) == (type == Type::Pred);
  if (type >= Type::F32) typeFloat = true;
  if (!predicates || (exact ? have != want : have < want) || (integers && typeFloat) || (floats && typeInteger))
    fail("register " + std::string(name) + " of type ." + nameOf(r.type) + " does not serve as ." + nameOf(type));
}

uint32_t Decoder::immediate(const Operand& o, Type type) {
  uint32_t bits = bitsOf(type);
  if (type == Type::Pred) {
    if (o.kind != Operand::Integer) fail("a predicate is 0 or 1");
    return o.bits ? function.alwaysTrue : names.constant(0, false);
  }
  uint64_t value = o.bits;
  if (o.kind == Operand::Float32) {
    if (type == Type::F64) {
      float f;
      uint32_t low = uint32_t(o.bits);
      memcpy(&f, &low, 4);
      double d = f;
      memcpy(&value, &d, 8);
    } else if (bits != 32) {
      fail("a float is no immediate of this type");
    }
  } else if (o.kind == Operand::Float64) {
    if (type == Type::F32) {
      double d;
      memcpy(&d, &o.bits, 8);
      float f = float(d);
      uint32_t low;
      memcpy(&low, &f, 4);
      value = low;
    } else if (bits != 64) {
      fail("a double is no immediate of this type");
    }
  } else if (o.kind == Operand::Integer && isFloat(type) && bits >= 32 && type != Type::F16x2 && type != Type::BF16x2 && type != Type::TF32) {
    fail("an integer is no immediate of a floating-point type");
  }
  if (bits < 32) value &= (1ull << bits) - 1;
  if (bits == 32) value &= kAll;
  return names.constant(value, bits == 64);
}

uint32_t Decoder::source(const Operand& o, Type type) {
  if (o.negated && type != Type::Pred) fail("only a predicate is negated");
  if (o.kind == Operand::Integer || o.kind == Operand::Float32 || o.kind == Operand::Float64) return immediate(o, type);
  if (o.kind != Operand::Name || !o.second.empty()) fail("a register or an immediate expected");
  if (o.negated) fail("a negated predicate is not expected here");
  if (const Register* r = names.reg(o.name)) {
    if (o.offset) fail("a register has no offset here");
    fits(*r, type, true, o.name);
    names.touch(*r, false);
    return r->offset;
  }
  Space space;
  uint64_t address;
  if (names.variable(o.name, space, address)) {
    if (bitsOf(type) < 32 || isFloat(type)) fail("an address does not fit");
    return names.constant((address + uint64_t(o.offset)) & (bitsOf(type) == 32 ? kAll : ~0ull), bitsOf(type) == 64);
  }
  fail("'" + std::string(o.name) + "' is not declared");
}
uint32_t Decoder::source(size_t i, Type type) { return source(operand(i), type); }

uint32_t Decoder::destination(const Operand& o, Type type) {
  const Register* r = o.kind == Operand::Name ? names.reg(o.name) : nullptr;
  if (!r || o.negated || !o.second.empty()) fail("a register expected as destination");
  fits(*r, type, true, o.name);
  names.touch(*r, true);
  return r->offset;
}
uint32_t Decoder::destination(size_t i, Type type) { return destination(operand(i), type); }

uint32_t Decoder::sourceWide(const Operand& o, Type type, bool& wide) {
  const Register* r = o.kind == Operand::Name ? names.reg(o.name) : nullptr;
  if (!r) {
    wide = bitsOf(type) == 64;
    return source(o, type);
  }
  fits(*r, type, false, o.name);
  names.touch(*r, false);
  wide = bitsOf(r->type) == 64;
  return r->offset;
}
uint32_t Decoder::destinationWide(const Operand& o, Type type, bool& wide) {
  const Register* r = o.kind == Operand::Name ? names.reg(o.name) : nullptr;
  if (!r || o.negated || !o.second.empty()) fail("a register expected as destination");
  fits(*r, type, false, o.name);
  names.touch(*r, true);
  wide = bitsOf(r->type) == 64;
  return r->offset;
}

uint32_t Decoder::predicate(const Operand& o, uint32_t& invert) {
  Operand plain = o;
  plain.negated = false;
  invert = o.negated ? kAll : 0;
  return source(plain, Type::Pred);
}

Type Decoder::registerType(const Operand& o) {
  const Register* r = o.kind == Operand::Name ? names.reg(o.name) : nullptr;
  if (!r) fail("a register expected");
  return r->type;
}

int64_t Decoder::integer(size_t i) const {
  const Operand& o = operand(i);
  if (o.kind != Operand::Integer) fail("operand " + std::to_string(i + 1) + " must be an integer");
  return int64_t(o.bits);
}

void Decoder::address(size_t i, Space space, bool& wide) {
  const Operand& o = operand(i);
  if (o.kind != Operand::Address) fail("an address in [ ] expected");
  in.offset = o.offset;
  wide = true;
  if (o.name.empty()) {
    in.a = names.constant(0, true);
    return;
  }
  if (const Register* r = names.reg(o.name)) {
    if (bitsOf(r->type) < 32 || isFloat(r->type)) fail("register " + std::string(o.name) + " holds no address");
    names.touch(*r, false);
    wide = bitsOf(r->type) == 64;
    in.a = r->offset;
    return;
  }
  Space found;
  uint64_t base;
  if (!names.variable(o.name, found, base)) fail("'" + std::string(o.name) + "' is not declared");
  if (space != found) {
    bool module = found == Space::Global && space == Space::Generic;
    if (!module) fail("'" + std::string(o.name) + "' lies in another space");
  }
  in.a = names.constant(0, true);
  in.offset += int64_t(base);
}

uint32_t Decoder::extra(std::initializer_list<uint32_t> values) {
  uint32_t at = uint32_t(function.extra.size());
  function.extra.insert(function.extra.end(), values);
  return at;
}

Decode decoderOf(std::string_view base) {
  static const std::unordered_map<std::string_view, Decode> table = [] {
    std::unordered_map<std::string_view, Decode> all;
    for (auto family : {integerOpcodes, logicOpcodes, floatOpcodes, compareOpcodes, convertOpcodes, moveOpcodes, memoryOpcodes, atomicOpcodes,
                        laneOpcodes, matrixOpcodes, asyncOpcodes, controlOpcodes})
      for (const Opcode& o : family()) all.emplace(o.name, o.decode);
    return all;
  }();
  auto found = table.find(base);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace emulator
