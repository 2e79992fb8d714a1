// What the tests of RoI pooling and RoI align share, forward and backward.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "ops/op_runner.h"

namespace frcnn::test {

// Rows of image, x1, y1, x2, y2 in [low, high); corners are unordered, so half of the RoIs are inverted.
inline std::vector<float> random_rois(std::size_t count, std::int64_t batch, float low, float high,
                                      unsigned salt) {
  const auto random = uniform({static_cast<std::int64_t>(count), 5}, 0, 1, salt);
  std::vector<float> rois;
  for (std::size_t i = 0; i < count * 5; ++i) {
    const float u = random.as<float>()[i];
    rois.push_back(i % 5 == 0 ? std::floor(u * static_cast<float>(batch)) : low + u * (high - low));
  }
  return rois;
}

inline bool all_zero(const Tensor& t) {
  for (const float v : t.as<float>())
    if (v != 0) return false;
  return true;
}

}  // namespace frcnn::test
