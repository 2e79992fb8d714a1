#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace frcnn::reference {

// Indices of the k best scores (k <= 0: all), equal ones by ascending index; minus infinity and NaN take no
// part.
inline std::vector<std::size_t> top_k(std::span<const float> scores, std::int64_t k) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (!std::isnan(scores[i]) && !(std::isinf(scores[i]) && scores[i] < 0)) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  if (k > 0 && static_cast<std::int64_t>(order.size()) > k) order.resize(static_cast<std::size_t>(k));
  return order;
}

}  // namespace frcnn::reference
