// PTX text as words and punctuation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace emulator {

struct Token {
  std::string_view text;  // a word, a "string" with its quotes, or one character of punctuation
  uint32_t line = 0;
  bool word = false;
};

// The text must outlive the tokens.
std::vector<Token> tokenise(std::string_view ptx);

}  // namespace emulator
