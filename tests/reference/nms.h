#pragma once

#include <cstdint>
#include <span>

#include "graph/ops.h"
#include "reference/boxes.h"

namespace frcnn::reference {

// Indices of the survivors among boxes sorted by score: every box, unless an earlier survivor falls on it.
// The overlap is computed in double and rounded to float, which is what float32 gives where areas are exact
// (tests use coordinates on a quarter-pixel grid for that).
inline std::vector<std::size_t> nms(const std::vector<Box<double>>& boxes, float threshold, Suppress rule,
                                    std::size_t max_out) {
  std::vector<char> gone(boxes.size(), 0);
  std::vector<std::size_t> kept;
  for (std::size_t i = 0; i < boxes.size() && kept.size() < max_out; ++i) {
    if (gone[i]) continue;
    kept.push_back(i);
    for (std::size_t j = i + 1; j < boxes.size(); ++j) {
      const auto overlap = static_cast<float>(iou(boxes[i], boxes[j]));
      if (rule == Suppress::above ? overlap > threshold : overlap >= threshold) gone[j] = 1;
    }
  }
  return kept;
}

inline std::vector<Box<double>> boxes_of(std::span<const float> flat) {
  std::vector<Box<double>> boxes;
  for (std::size_t i = 0; i + 3 < flat.size(); i += 4)
    boxes.push_back({flat[i], flat[i + 1], flat[i + 2], flat[i + 3]});
  return boxes;
}

}  // namespace frcnn::reference
