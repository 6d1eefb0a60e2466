#include "ptx_lexer.h"

#include "ptx_types.h"

namespace emulator {

namespace {
bool isWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || c == '%' || c == '.';
}
}  // namespace

std::vector<Token> tokenise(std::string_view ptx) {
  std::vector<Token> tokens;
  uint32_t line = 1;
  size_t i = 0, n = ptx.size();
  while (i < n) {
    char c = ptx[i];
    if (c == '\n') {
      line++;
      i++;
    } else if (c == ' ' || c == '\t' || c == '\r' || (c == '\0' && i + 1 == n)) {
      i++;
    } else if (c == '/' && i + 1 < n && ptx[i + 1] == '/') {
      while (i < n && ptx[i] != '\n') i++;
    } else if (c == '/' && i + 1 < n && ptx[i + 1] == '*') {
      size_t end = ptx.find("*/", i + 2);
      if (end == std::string_view::npos) faultAt(line, "a comment that does not end");
      for (; i < end + 2; i++) line += ptx[i] == '\n';
    } else if (isWord(c)) {
      size_t begin = i;
      while (i < n && isWord(ptx[i])) i++;
      // `%r1.x` does not occur; `::` does: `.shared::cta`.
      tokens.push_back({ptx.substr(begin, i - begin), line, true});
    } else if (c == '"') {
      size_t end = ptx.find('"', i + 1);
      if (end == std::string_view::npos) faultAt(line, "a string that does not end");
      tokens.push_back({ptx.substr(i, end + 1 - i), line, false});
      i = end + 1;
    } else if (std::string_view(",;{}[]():|!@+-<>=").find(c) != std::string_view::npos) {
      tokens.push_back({ptx.substr(i, 1), line, false});
      i++;
    } else {
      faultAt(line, std::string("a character that PTX does not have: '") + c + "'");
    }
  }
  return tokens;
}

}  // namespace emulator
