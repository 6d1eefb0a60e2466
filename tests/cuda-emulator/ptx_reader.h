// Words of the text, one after the other.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ptx_decode.h"
#include "ptx_lexer.h"

namespace emulator {

class TokenReader {
 protected:
  explicit TokenReader(std::string_view ptx) : tokens_(tokenise(ptx)) {}

  std::vector<Token> tokens_;
  size_t at_ = 0;

  uint32_t line() const { return at_ < tokens_.size() ? tokens_[at_].line : tokens_.empty() ? 1 : tokens_.back().line; }
  [[noreturn]] void fail(const std::string& what) const { faultAt(line(), what); }
  std::string_view peek(size_t ahead = 0) const { return at_ + ahead < tokens_.size() ? tokens_[at_ + ahead].text : std::string_view(); }
  std::string_view next() {
    if (at_ >= tokens_.size()) fail("the text ends too early");
    return tokens_[at_++].text;
  }
  bool accept(std::string_view text) {
    if (peek() != text || at_ >= tokens_.size()) return false;
    at_++;
    return true;
  }
  void need(std::string_view text) {
    if (!accept(text)) fail("'" + std::string(text) + "' expected, '" + std::string(peek()) + "' found");
  }
  std::string_view word() {
    if (at_ >= tokens_.size()) fail("the text ends too early");
    if (!tokens_[at_].word) fail("a name expected, '" + std::string(peek()) + "' found");
    return next();
  }
  uint64_t number() {
    Operand o = literal();
    if (o.kind != Operand::Integer) fail("an integer expected");
    return o.bits;
  }
  static bool isNumber(std::string_view text) { return !text.empty() && text[0] >= '0' && text[0] <= '9'; }
  // A number of any kind, with its sign.
  Operand literal();
};

}  // namespace emulator
