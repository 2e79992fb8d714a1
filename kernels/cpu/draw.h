// Random choices among candidates, the same on every device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "philox.h"
#include "target_math.h"

namespace frcnn::cpu {

// Leaves at most `most` of the candidates whose label is `label`, the others become `rejected`; returns how
// many there are then. `order` has room for `size` numbers.
template <class Label>
std::int64_t draw(Label label, Label rejected, std::int64_t most, const RandomKey& key, std::int64_t image,
                  RandomStream stream, std::int64_t size, std::uint64_t* order, Label* labels) {
  std::int64_t found = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    if (labels[i] != label) continue;
    const auto index = static_cast<std::uint32_t>(i);
    order[found++] = draw_order(key.of(static_cast<std::uint32_t>(image), index, stream), index);
  }
  if (found <= most) return found;
  std::nth_element(order, order + most, order + found);
  for (std::int64_t k = most; k < found; ++k) labels[order[k] & 0xFFFFFFFFu] = rejected;
  return most;
}

}  // namespace frcnn::cpu
