// Random but legal graphs, for tests of lowering, planning and execution.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace frcnn::test {

// A graph of `nodes` convolutions, ReLUs, scalings, poolings and LRNs over maps of one image; values may have several
// readers, some are kept. Weights are named "wN" and "bN".
inline Graph random_graph(unsigned seed, int nodes) {
  std::mt19937 rng(seed);
  const auto pick = [&](int n) { return static_cast<int>(rng() % static_cast<unsigned>(n)); };
  Graph graph;
  const std::int64_t channels = 1 + pick(5);
  const std::int64_t height = 4 + pick(12), width = 4 + pick(12);
  std::vector<ValueId> maps{graph.input("in", {Shape{1, height, width, channels}})};
  for (int n = 0; n < nodes; ++n) {
    // Mostly the newest value, sometimes an old one, so that lifetimes differ.
    const ValueId src = pick(3) ? maps.back() : maps[static_cast<std::size_t>(pick(static_cast<int>(maps.size())))];
    const Shape shape = graph.value(src).spec.shape;
    const std::string name = "v" + std::to_string(n);
    Op op = Relu{};
    std::vector<ValueId> in{src};
    switch (pick(5)) {
      case 0: {
        const std::int64_t out = 1 + pick(7);
        in.push_back(graph.weight("w" + std::to_string(n), Shape{out, shape[3], 3, 3}));
        in.push_back(graph.weight("b" + std::to_string(n), Shape{out}));
        op = Conv2d{1, 1, {}};
        break;
      }
      case 1: break;
      case 2: op = Scale{0.5f}; break;
      case 3: op = MaxPool{2, 2, 0, Rounding::ceil}; break;
      case 4: op = Lrn{}; break;
    }
    maps.push_back(graph.add1(std::move(op), name, Stage::backbone, std::move(in), name));
    if (pick(8) == 0) graph.keep(maps.back());
  }
  graph.keep(maps.back());
  return graph;
}

}  // namespace frcnn::test
