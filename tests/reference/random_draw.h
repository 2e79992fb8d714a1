// The k candidates with the smallest keys (equal keys: the smaller index), by sorting all of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "philox.h"

namespace frcnn::reference {

inline std::set<std::int64_t> draw(const std::vector<std::int64_t>& candidates, std::int64_t k,
                                   const RandomKey& key, std::int64_t image, RandomStream stream) {
  std::vector<std::pair<std::uint32_t, std::int64_t>> order;
  for (const std::int64_t c : candidates)
    order.emplace_back(philox({{key.step, key.image + static_cast<std::uint32_t>(image),
                                static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(stream)}},
                              std::uint64_t{key.seed_high} << 32 | key.seed_low)
                           .word[0],
                       c);
  std::sort(order.begin(), order.end());
  std::set<std::int64_t> drawn;
  for (std::int64_t i = 0; i < std::min<std::int64_t>(k, static_cast<std::int64_t>(order.size())); ++i)
    drawn.insert(order[static_cast<std::size_t>(i)].second);
  return drawn;
}

}  // namespace frcnn::reference
