// The one order of scores: descending, equal scores by ascending index. Shared by every device.
#pragma once

#include <cstdint>

#include "box_math.h"

namespace frcnn {

// Whether an entry takes part at all: not filtered out (minus infinity) and not NaN.
FRCNN_HD inline bool takes_part(float score) { return score > ieee::from_bits(0xFF800000u); }

// Keys in ascending order are scores in descending order, equal scores by ascending index. -0 equals +0. The
// score must not be NaN. index_of() gets the index back.
FRCNN_HD inline std::uint64_t rank_key(float score, std::uint32_t index) {
  const std::uint32_t bits = ieee::bits(ieee::add(score, 0.0f));  // -0 + 0 is +0
  // Floats order like sign-magnitude integers; this makes them order like unsigned ones, largest first.
  const std::uint32_t descending = (bits & 0x80000000u) ? bits : ~(bits | 0x80000000u);
  return (static_cast<std::uint64_t>(descending) << 32) | index;
}

FRCNN_HD inline std::uint32_t index_of(std::uint64_t key) { return static_cast<std::uint32_t>(key); }

}  // namespace frcnn
