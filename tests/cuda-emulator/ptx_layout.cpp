#include "ptx_layout.h"

#include <string>

#include "ptx_graph.h"

namespace emulator {

void layOut(Function& function) {
  Graph g(function);
  // What leaves a loop comes behind it.
  std::vector<uint32_t> order = g.order([&](uint32_t a, uint32_t b) { return g.depth[a] < g.depth[b]; });
  std::vector<Instruction> code;
  std::vector<uint32_t> to(g.next.size(), 0);
  for (size_t i = 0; i < order.size(); i++) {
    uint32_t b = order[i];
    to[b] = uint32_t(code.size());
    code.insert(code.end(), function.code.begin() + g.begin[b], function.code.begin() + g.begin[b + 1]);
    bool follows = i + 1 < order.size() && order[i + 1] == b + 1;
    if (!ends(function, code.back()) && !follows) {
      Instruction jump;
      jump.control = Control::Branch;
      jump.guard = function.alwaysTrue;
      jump.line = code.back().line;
      jump.target = g.begin[b + 1];
      code.push_back(jump);
    }
  }
  auto moved = [&](uint32_t target) { return to[g.blockAt[target]]; };
  for (Instruction& in : code) {
    if (in.control == Control::IndexedBranch) {
      for (uint32_t i = in.target; i < in.target + in.offset; i++) function.extra[i] = moved(function.extra[i]);
    } else if (isJump(in.control)) {
      in.target = moved(in.target);
    }
  }
  function.code.swap(code);
  for (Instruction& in : function.code) in.site = function.sites++;
}

}  // namespace emulator
