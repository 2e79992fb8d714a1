// Where every value lies: lifetimes and offsets in one arena, fixed before anything runs.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace frcnn {

struct Buffer {
  std::string name;              // the value's, or "layer (workspace)"
  std::size_t offset = 0, bytes = 0;
  int first = 0, last = 0;       // first and last node index at which the content matters; -1: before the first node
};

struct Region {
  std::size_t offset = 0, bytes = 0;
};

struct Plan {
  std::vector<std::size_t> offset;              // by ValueId; npos for weights
  std::vector<std::size_t> workspace_offset;    // by node
  std::vector<Buffer> buffers;                  // everything placed, in the order placed
  // Inputs lie next to each other, and so do kept values that are not inputs: one copy moves them all.
  Region inputs, outputs;
  std::size_t arena_bytes = 0;                  // what the arena must hold
  std::size_t activation_bytes = 0;             // the sum of all values, for comparison
  static constexpr std::size_t npos = static_cast<std::size_t>(-1);
};

// Greedy by size into the first gap among buffers alive at the same time; offsets are multiples of `alignment`.
// Inputs live from before the first node; outputs live to the end. `workspace_bytes` holds one entry per node.
Plan make_plan(const Graph& graph, std::span<const std::size_t> workspace_bytes, std::size_t alignment = 256);

std::string to_string(const Plan& plan);        // a table

}  // namespace frcnn
