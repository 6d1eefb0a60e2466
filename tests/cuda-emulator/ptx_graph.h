// The control flow of a decoded function.
#pragma once

#include <algorithm>
#include <vector>

#include "ptx_types.h"

namespace emulator {

bool isJump(Control control);
// Whether nothing runs on behind the instruction.
bool ends(const Function& function, const Instruction& in);
std::vector<uint32_t> targetsOf(const Function& function, const Instruction& in);

// Blocks are numbered as they stand in the text.
struct Graph {
  std::vector<uint32_t> begin;                     // of each block, and the end of the last
  std::vector<uint32_t> blockAt;                   // by instruction
  std::vector<std::vector<uint32_t>> next, before;
  std::vector<uint32_t> depth;                     // of loops

  explicit Graph(const Function& function);

  // Blocks in reverse postorder; successors that `first` puts first come last.
  template <class Less> std::vector<uint32_t> order(Less first) const {
    std::vector<uint32_t> post;
    std::vector<bool> seen(next.size(), false);
    struct Visit { uint32_t block; std::vector<uint32_t> successors; size_t at; };
    std::vector<Visit> stack;
    auto enter = [&](uint32_t b) {
      seen[b] = true;
      // The one that follows in the text is visited last and so comes right behind.
      std::vector<uint32_t> successors(next[b].rbegin(), next[b].rend());
      for (size_t i = 1; i < successors.size(); i++)
        for (size_t k = i; k > 0 && first(successors[k], successors[k - 1]); k--) std::swap(successors[k], successors[k - 1]);
      stack.push_back({b, std::move(successors), 0});
    };
    enter(0);
    while (!stack.empty()) {
      Visit& v = stack.back();
      if (v.at == v.successors.size()) {
        post.push_back(v.block);
        stack.pop_back();
        continue;
      }
      uint32_t to = v.successors[v.at++];
      if (!seen[to]) enter(to);
    }
    std::reverse(post.begin(), post.end());
    return post;
  }

 private:
  void findLoops();
};

}  // namespace emulator
