#include "ptx_reader.h"

#include <stdexcept>

namespace emulator {

Operand TokenReader::literal() {
  bool minus = accept("-");
  std::string text(word());
  Operand o;
  if (!isNumber(text)) fail("a number expected, '" + text + "' found");
  try {
    size_t used = 0;
    if (text.size() > 2 && text[0] == '0' && (text[1] == 'f' || text[1] == 'F')) {
      if (text.size() != 10) fail("a float has 8 hexadecimal digits");
      o.kind = Operand::Float32;
      o.bits = std::stoull(text.substr(2), &used, 16);
      used += 2;
      if (minus) o.bits ^= 0x80000000u;
    } else if (text.size() > 2 && text[0] == '0' && (text[1] == 'd' || text[1] == 'D')) {
      if (text.size() != 18) fail("a double has 16 hexadecimal digits");
      o.kind = Operand::Float64;
      o.bits = std::stoull(text.substr(2), &used, 16);
      used += 2;
      if (minus) o.bits ^= 1ull << 63;
    } else if (text.find('.') != std::string::npos) {
      o.kind = Operand::Float64;
      double d = std::stod(text, &used);
      if (minus) d = -d;
      memcpy(&o.bits, &d, 8);
    } else {
      o.kind = Operand::Integer;
      std::string digits = text;
      if (digits.back() == 'U') digits.pop_back();
      bool binary = digits.size() > 2 && digits[0] == '0' && (digits[1] == 'b' || digits[1] == 'B');
      o.bits = binary ? std::stoull(digits.substr(2), &used, 2) : std::stoull(digits, &used, 0);
      used += (binary ? 2 : 0) + (text.size() - digits.size());
      if (minus) o.bits = 0 - o.bits;
    }
    if (used != text.size()) fail("'" + text + "' is no number");
  } catch (const std::logic_error&) {
    fail("'" + text + "' is no number");
  }
  return o;
}

}  // namespace emulator
