// From the graph as published to the graph as run: fusion, storage types, and the removal of what nobody asks for.
#pragma once

#include <span>

#include "graph/graph.h"

namespace frcnn {

// Which epilogues a device's kernels can take in. A device that lacks one gets the separate nodes.
struct FusionSupport {
  bool relu = false;             // into conv2d and linear
  bool scale = false;            // into linear, after its ReLU
  bool max_pool_2x2 = false;     // into conv2d, after its ReLU
};

// Fuses, and drops nodes that lead to no output and no kept value. `keep` names values that must exist when the
// program has run (dump, diff, training): fusion stops at them. Throws Error(invalid_argument) for an unknown name.
// With a 16-bit `storage`, values that only layers of the trunk and head read (convolution, pooling, ...) are stored so;
// whatever reaches scores, deltas and boxes stays f32. A graph with states, which trains, stores everything in f32.
Graph lower(const Graph& graph, const FusionSupport& fusions, std::span<const std::string> keep,
            DType storage = DType::f32);

}  // namespace frcnn
