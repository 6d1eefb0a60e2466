#include <algorithm>
#include <optional>
#include <set>

#include "ptx_decode.h"
#include "ptx_graph.h"
#include "ptx_layout.h"
#include "ptx_reader.h"
#include "ptx_registers.h"

namespace emulator {

namespace {

std::optional<Type> typeWord(std::string_view word) {
  for (Type t : {Type::Pred, Type::B8, Type::B16, Type::B32, Type::B64, Type::U8, Type::U16, Type::U32, Type::U64, Type::S8, Type::S16,
                 Type::S32, Type::S64, Type::F16, Type::F16x2, Type::F32, Type::F64})
    if (word.size() > 1 && word[0] == '.' && word.substr(1) == nameOf(t)) return t;
  return std::nullopt;
}

uint64_t align(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

class ParsedModule : public Module {
 public:
  const Function* find(std::string_view kernel) const override {
    for (const auto& f : functions)
      if (f->info.name == kernel) return f.get();
    return nullptr;
  }
  std::vector<std::string> kernels() const override {
    std::vector<std::string> names;
    for (const auto& f : functions) names.push_back(f->info.name);
    return names;
  }

  std::vector<std::unique_ptr<Function>> functions;
  std::vector<std::unique_ptr<Variable>> variables;
};

class Parser : TokenReader, Names {
 public:
  explicit Parser(std::string_view ptx) : TokenReader(ptx), module_(std::make_unique<ParsedModule>()) {}

  std::unique_ptr<Module> parse() {
    header(".version", "7.0");
    header(".target", "sm_80");
    header(".address_size", "64");
    while (at_ < tokens_.size()) declaration();
    return std::move(module_);
  }

 private:
  struct Scope {
    std::map<std::string, Register, std::less<>> registers;
    std::map<std::string, uint32_t, std::less<>> labels;
  };
  struct Pending {
    uint32_t instruction;  // or, of `extra`, its index
    bool inExtra;
    std::string label;
    uint32_t line;
  };

  std::unique_ptr<ParsedModule> module_;
  uint64_t nextVariable_ = kVariableWindow + 256, nextConst_ = kConstWindow + 256;
  // Of the function at hand.
  Function* function_ = nullptr;
  std::vector<Scope> scopes_;
  std::map<std::string, Variable, std::less<>> locals_;  // params, local and shared variables of the function
  std::map<std::string, uint64_t, std::less<>> shared_;  // offsets of the shared variables that the function uses
  std::map<std::pair<uint64_t, bool>, uint32_t> constants_;
  std::vector<Pending> pending_;
  std::map<std::string, std::vector<std::string>, std::less<>> branchTargets_;
  std::vector<Type> registerTypes_;                     // by number
  std::vector<RegisterUse> uses_;
  const std::vector<uint32_t>* places_ = nullptr;       // of the registers; null: not known yet
  uint32_t placesEnd_ = 0;
  bool guarded_ = false;                                // the instruction at hand

  // --- module ---
  void header(std::string_view directive, std::string_view value) {
    need(directive);
    std::string found(word());
    while (accept(",")) found += "," + std::string(word());
    if (found != value) fail(std::string(directive) + " " + std::string(value) + " expected, " + found + " found");
  }

  bool skippedDirective() {
    if (peek() == ".pragma") {
      at_++;
      std::string_view text = next();
      if (text != "\"nounroll\"") fail(".pragma " + std::string(text) + " is not known");
      need(";");
      return true;
    }
    if (peek() == ".loc" || peek() == ".file") {
      uint32_t on = line();
      while (at_ < tokens_.size() && line() == on) at_++;
      return true;
    }
    return false;
  }

  void declaration() {
    if (skippedDirective()) return;
    bool external = false;
    while (peek() == ".visible" || peek() == ".weak" || peek() == ".extern" || peek() == ".internal" || peek() == ".common") external |= next() == ".extern";
    if (accept(".entry")) {
      if (external) fail("an .entry cannot be .extern");
      entry();
    } else if (peek() == ".global" || peek() == ".const" || peek() == ".shared") {
      variable(external);
    } else {
      fail("'" + std::string(peek()) + "' is not known here");
    }
  }

  Variable declared(Space space) {
    Variable v;
    v.space = space;
    uint64_t alignment = 0;
    Type type = Type::None;
    for (;;) {
      if (accept(".align")) {
        alignment = number();
      } else if (auto t = typeWord(peek())) {
        type = *t;
        at_++;
        break;
      } else {
        fail("'" + std::string(peek()) + "' is not known in a declaration");
      }
    }
    uint64_t size = bitsOf(type) / 8;
    if (type == Type::Pred) fail("a predicate lies in no memory");
    v.name = word();
    v.bytes = size;
    while (accept("[")) {
      if (accept("]")) {
        v.dynamic = true;
        v.bytes = 0;
      } else {
        v.bytes *= number();
        need("]");
      }
    }
    v.alignment = std::max(alignment, size);
    if (v.alignment == 0 || (v.alignment & (v.alignment - 1))) fail("an alignment is a power of two");
    elementSize_ = size;
    return v;
  }
  uint64_t elementSize_ = 1;

  void variable(bool external) {
    std::string_view directive = next();
    Space space = directive == ".shared" ? Space::Shared : directive == ".const" ? Space::Const : Space::Global;
    auto v = std::make_unique<Variable>(declared(space));
    uint64_t element = elementSize_;
    if (v->dynamic && !(external && space == Space::Shared)) fail("only extern .shared has no size");
    if (external && !v->dynamic) fail("nothing resolves an .extern variable");
    for (const auto& other : module_->variables)
      if (other->name == v->name) fail("'" + v->name + "' is declared twice");
    if (space != Space::Shared) {
      uint64_t& place = space == Space::Const ? nextConst_ : nextVariable_;
      v->address = align(place, std::max<uint64_t>(v->alignment, 256));
      place = v->address + v->bytes + 256;
      v->data.assign(v->bytes, 0);
      v->initialised.assign(v->bytes, 1);
      if (accept("=")) initialise(*v, element);
      v->allocation.base = v->address;
      v->allocation.bytes = v->bytes;
      v->allocation.data = v->data.data();
      v->allocation.initialised = v->initialised.data();
    }
    need(";");
    module_->variables.push_back(std::move(v));
  }

  void initialise(Variable& v, uint64_t element) {
    uint64_t to = 0;
    bool list = accept("{");
    do {
      uint64_t bits;
      if (peek() == "-" || isNumber(peek())) {
        Operand o = literal();
        bits = o.bits;
      } else {
        bool generic = accept("generic");
        if (generic) need("(");
        std::string_view name = word();
        const Variable* other = moduleVariable(name);
        if (!other || other->space == Space::Shared) fail("'" + std::string(name) + "' is not declared");
        bits = other->address;
        if (generic) need(")");
        if (accept("+")) bits += number();
      }
      if (to + element > v.bytes) fail("more values than '" + v.name + "' holds");
      memcpy(&v.data[to], &bits, element);
      to += element;
    } while (list && accept(","));
    if (list) need("}");
  }

  Variable* moduleVariable(std::string_view name) {
    for (const auto& v : module_->variables)
      if (v->name == name) return v.get();
    return nullptr;
  }

  // --- functions ---
  void entry() {
    module_->functions.push_back(std::make_unique<Function>());
    function_ = module_->functions.back().get();
    function_->variables = &module_->variables;
    scopes_.clear();
    locals_.clear();
    shared_.clear();
    function_->info.name = word();
    if (module_->find(function_->info.name) != function_) fail("'" + function_->info.name + "' is declared twice");
    need("(");
    uint64_t parameters = 0;
    if (!accept(")")) {
      do {
        need(".param");
        Variable v = declared(Space::Param);
        if (v.dynamic) fail("a parameter has a size");
        v.address = align(parameters, v.alignment);
        parameters = v.address + v.bytes;
        locals_.emplace(v.name, v);
      } while (accept(","));
      need(")");
    }
    if (parameters > 4096) fail("more than 4096 bytes of parameters");
    function_->info.parameterBytes = uint32_t(parameters);
    for (;;) {
      if (accept(".maxntid") ) {
        uint64_t all = 1;
        for (int i = 0; i < 3; i++) {
          if (i && !accept(",")) break;
          all *= number();
        }
        function_->info.maxThreads = uint32_t(all);
      } else if (accept(".reqntid")) {
        for (int i = 0; i < 3; i++) {
          function_->maxBlock[i] = 1;
          if (i == 0 || accept(",")) function_->maxBlock[i] = uint32_t(number());
        }
      } else if (accept(".minnctapersm") || accept(".maxnreg")) {
        number();
      } else {
        break;
      }
    }
    need("{");
    layShared();
    // Once to see when which register is used, once more with their places.
    size_t start = at_;
    auto variables = locals_;
    uses_.clear();
    places_ = nullptr;
    body();
    const Instruction& last = function_->code.back();
    if (!ends(*function_, last)) faultAt(last.line, "the kernel runs on behind its last instruction");
    uint32_t end = 0;
    std::vector<uint32_t> places = placeRegisters(*function_, registerTypes_, uses_, 64, end);
    places_ = &places;
    placesEnd_ = end;
    Function clean;
    clean.info = function_->info;
    clean.info.localBytes = 0;
    clean.variables = function_->variables;
    std::copy(std::begin(function_->maxBlock), std::end(function_->maxBlock), clean.maxBlock);
    *function_ = std::move(clean);
    locals_ = variables;
    at_ = start;
    body();
    places_ = nullptr;
    layOut(*function_);
  }

  void body() {
    constants_.clear();
    pending_.clear();
    branchTargets_.clear();
    registerTypes_.clear();
    if (places_) function_->registerBytes = placesEnd_;
    function_->alwaysTrue = constant(kAll, false);
    scopes_.emplace_back();
    while (!scopes_.empty()) bodyItem();
    for (const Pending& p : pending_) faultAt(p.line, "the label '" + p.label + "' is not there");
    if (function_->code.empty()) fail("a kernel without instructions");
  }

  // Shared variables of the module that this function names, in their order of declaration; what has no size comes behind all others.
  void layShared() {
    std::set<std::string_view> used;
    int depth = 1;
    for (size_t i = at_; i < tokens_.size() && depth > 0; i++) {
      if (tokens_[i].text == "{") depth++;
      if (tokens_[i].text == "}") depth--;
      if (tokens_[i].word) used.insert(tokens_[i].text);
    }
    uint64_t end = 0, dynamicAlignment = 1;
    for (const auto& v : module_->variables) {
      if (v->space != Space::Shared || !used.count(v->name)) continue;
      if (v->dynamic) {
        dynamicAlignment = std::max(dynamicAlignment, v->alignment);
        continue;
      }
      shared_[v->name] = align(end, v->alignment);
      end = shared_[v->name] + v->bytes;
    }
    // Variables that only this function uses may be declared in it.
    size_t body = at_;
    depth = 1;
    for (size_t i = body; i < tokens_.size() && depth > 0; i++) {
      if (tokens_[i].text == "{") depth++;
      if (tokens_[i].text == "}") depth--;
      if (tokens_[i].text != ".shared") continue;
      at_ = i + 1;
      Variable v = declared(Space::Shared);
      need(";");
      if (v.dynamic) fail("only extern .shared has no size");
      v.address = align(end, v.alignment);
      end = v.address + v.bytes;
      std::string name = v.name;
      if (!locals_.emplace(name, std::move(v)).second) fail("'" + name + "' is declared twice");
    }
    at_ = body;
    for (const auto& v : module_->variables)
      if (v->space == Space::Shared && v->dynamic && used.count(v->name)) shared_[v->name] = align(end, dynamicAlignment);
    if (dynamicAlignment > 1) end = align(end, dynamicAlignment);
    if (end > 48 * 1024) fail(std::to_string(end) + " bytes of static shared memory: more than 48 KiB");
    function_->info.staticSharedBytes = uint32_t(end);
  }

  void bodyItem() {
    if (skippedDirective()) return;
    if (accept("{")) {
      scopes_.emplace_back();
    } else if (accept("}")) {
      leaveScope();
    } else if (accept(".reg")) {
      registers();
    } else if (accept(".local")) {
      Variable v = declared(Space::Local);
      v.address = align(function_->info.localBytes, v.alignment);
      function_->info.localBytes = uint32_t(v.address + v.bytes);
      if (!locals_.emplace(v.name, v).second) fail("'" + v.name + "' is declared twice");
      need(";");
    } else if (peek() == ".shared") {
      while (!accept(";")) at_++;  // laid out by layShared()
    } else if (peek(1) == ":") {
      std::string name(word());
      need(":");
      if (accept(".branchtargets")) {
        auto& list = branchTargets_[name];
        do list.emplace_back(word());
        while (accept(","));
        need(";");
      } else if (!scopes_.back().labels.emplace(name, uint32_t(function_->code.size())).second) {
        fail("the label '" + name + "' is there twice");
      }
    } else if (!peek().empty() && peek()[0] == '.') {
      fail("the directive '" + std::string(peek()) + "' is not known");
    } else {
      instruction();
    }
  }

  void leaveScope() {
    const Scope& scope = scopes_.back();
    std::vector<Pending> left;
    for (const Pending& p : pending_) {
      auto found = scope.labels.find(p.label);
      if (found == scope.labels.end())
        left.push_back(p);
      else if (p.inExtra)
        function_->extra[p.instruction] = found->second;
      else
        function_->code[p.instruction].target = found->second;
    }
    pending_ = left;
    scopes_.pop_back();
  }

  void registers() {
    auto type = typeWord(word());
    if (!type || bitsOf(*type) == 8) fail("a register of a type that is not known");
    do {
      std::string name(word());
      auto declare = [&](const std::string& n) {
        uint32_t number = uint32_t(registerTypes_.size());
        registerTypes_.push_back(*type);
        if (!scopes_.back().registers.emplace(n, Register{places_ ? (*places_)[number] : kAll, *type, number}).second) fail("'" + n + "' is declared twice");
      };
      if (accept("<")) {
        uint64_t count = number();
        need(">");
        if (count > 1000000) fail("too many registers");
        for (uint64_t i = 0; i < count; i++) declare(name + std::to_string(i));
      } else {
        declare(name);
      }
    } while (accept(","));
    need(";");
  }

  Operand parseOperand() {
    Operand o;
    if (accept("!")) {
      o = parseOperand();
      o.negated = true;
      return o;
    }
    if (accept("{")) {
      o.kind = Operand::List;
      do o.list.push_back(parseOperand());
      while (accept(","));
      need("}");
      return o;
    }
    if (accept("[")) {
      o.kind = Operand::Address;
      if (peek() == "-" || isNumber(peek())) {
        o.offset = int64_t(number());
      } else {
        o.name = word();
        if (accept("+")) o.offset = int64_t(number());
        else if (peek() == "-") o.offset = int64_t(number());
      }
      need("]");
      return o;
    }
    if (peek() == "-" || isNumber(peek())) return literal();
    o.name = word();
    if (accept("|")) o.second = word();
    if (accept("+")) o.offset = int64_t(number());
    return o;
  }

  void instruction() {
    Instruction in;
    in.guard = function_->alwaysTrue;
    in.line = line();
    guarded_ = peek() == "@";
    if (accept("@")) {
      bool invert = accept("!");
      std::string_view name = word();
      const Register* r = reg(name);
      if (!r || r->type != Type::Pred) fail("'" + std::string(name) + "' is no predicate");
      in.guard = r->offset;
      touch(*r, false);
      in.guardInvert = invert ? kAll : 0;
    }
    Statement s;
    s.line = in.line;
    s.opcode = word();
    if (!accept(";")) {
      do s.operands.push_back(parseOperand());
      while (accept(","));
      need(";");
    }
    Decoder d(*function_, *this, s, in);
    if (d.base == "bra") {
      branch(d);
    } else if (d.base == "brx") {
      indexedBranch(d);
    } else {
      Decode decode = decoderOf(d.base);
      if (!decode) d.fail("the instruction is not known");
      size_t before = function_->code.size();
      decode(d);
      d.done();
      if (before != function_->code.size()) d.fail("decoding went wrong");
      if (!in.handler && in.control == Control::None) return;  // nothing to do
      function_->code.push_back(in);
    }
  }

  void branch(Decoder& d) {
    bool uniform = d.take("uni");
    d.done();
    d.expect(1);
    d.in.control = uniform ? Control::UniformBranch : Control::Branch;
    pending_.push_back({uint32_t(function_->code.size()), false, std::string(d.operand(0).name), d.in.line});
    function_->code.push_back(d.in);
  }

  void indexedBranch(Decoder& d) {
    d.need("idx");
    d.take("uni");
    d.done();
    d.expect(2);
    d.in.control = Control::IndexedBranch;
    d.in.a = d.source(0, Type::U32);
    auto list = branchTargets_.find(d.operand(1).name);
    if (list == branchTargets_.end()) d.fail("its .branchtargets are not there");
    d.in.target = uint32_t(function_->extra.size());
    d.in.offset = int64_t(list->second.size());
    for (const std::string& label : list->second) {
      pending_.push_back({uint32_t(function_->extra.size()), true, label, d.in.line});
      function_->extra.push_back(0);
    }
    function_->code.push_back(d.in);
  }

  // --- names ---
  const Register* reg(std::string_view name) override {
    for (size_t i = scopes_.size(); i-- > 0;) {
      auto found = scopes_[i].registers.find(name);
      if (found != scopes_[i].registers.end()) return &found->second;
    }
    return special(name);
  }

  void touch(const Register& r, bool defines) override {
    if (!places_ && r.number != kAll) uses_.push_back({uint32_t(function_->code.size()), r.number, defines, guarded_});
  }

  const Register* special(std::string_view name) {
    if (name.empty() || name[0] != '%' || scopes_.empty()) return nullptr;
    Specials& s = function_->specials;
    uint32_t* slot = nullptr;
    auto axis = [&](std::string_view prefix, uint32_t* slots) {
      if (name.size() == prefix.size() + 2 && name.substr(0, prefix.size()) == prefix && name[prefix.size()] == '.') {
        char c = name.back();
        if (c >= 'x' && c <= 'z') slot = &slots[c - 'x'];
      }
    };
    axis("%tid", s.tid);
    axis("%ntid", s.ntid);
    axis("%ctaid", s.ctaid);
    axis("%nctaid", s.nctaid);
    if (name == "%laneid") slot = &s.laneid;
    if (name == "%warpid") slot = &s.warpid;
    if (name == "%dynamic_smem_size") slot = &s.dynamicShared;
    const char* masks[] = {"%lanemask_eq", "%lanemask_lt", "%lanemask_le", "%lanemask_gt", "%lanemask_ge"};
    for (int i = 0; i < 5; i++)
      if (name == masks[i]) slot = &s.lanemask[i];
    if (!slot) return nullptr;
    if (!*slot) *slot = allocate(Type::U32);
    auto& names = scopes_.front().registers;
    return &names.emplace(std::string(name), Register{*slot, Type::U32}).first->second;
  }

  bool variable(std::string_view name, Space& space, uint64_t& address) override {
    auto own = locals_.find(name);
    if (own != locals_.end()) {
      space = own->second.space;
      address = own->second.address;
      return true;
    }
    Variable* v = moduleVariable(name);
    if (!v) return false;
    space = v->space;
    address = space == Space::Shared ? shared_.find(name)->second : v->address;
    return true;
  }

  uint32_t allocate(Type type) override {
    uint32_t bits = bitsOf(type), size = bits == 1 ? 64 : bits == 64 ? 256 : 128;
    // Offset 0 means "none" for special registers.
    if (function_->registerBytes == 0) function_->registerBytes = 64;
    uint32_t at = function_->registerBytes;
    function_->registerBytes += size;
    return at;
  }

  uint32_t constant(uint64_t bits, bool wide) override {
    auto [found, added] = constants_.emplace(std::make_pair(bits, wide), 0u);
    if (added) {
      found->second = allocate(wide ? Type::B64 : Type::B32);
      function_->constants.push_back({found->second, wide, bits});
    }
    return found->second;
  }
};

}  // namespace

std::unique_ptr<Module> parse(std::string_view ptx) { return Parser(ptx).parse(); }
const FunctionInfo& describe(const Function& function) { return function.info; }

}  // namespace emulator
