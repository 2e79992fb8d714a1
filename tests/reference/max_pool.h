// Max pooling by Caffe's rule, its output size included.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

inline std::int64_t max_pool_size(std::int64_t in, const MaxPool& op) {
  const double steps = static_cast<double>(in + 2 * op.pad - op.kernel) / op.stride;
  auto out =
      static_cast<std::int64_t>(op.rounding == Rounding::ceil ? std::ceil(steps) : std::floor(steps)) + 1;
  if (op.pad > 0 && (out - 1) * op.stride >= in + op.pad) --out;
  return out;
}

inline std::vector<float> max_pool(const MaxPool& op, const Shape& s, std::span<const float> src) {
  std::vector<float> dst;
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t y = 0; y < max_pool_size(s[1], op); ++y)
      for (std::int64_t x = 0; x < max_pool_size(s[2], op); ++x)
        for (std::int64_t c = 0; c < s[3]; ++c) {
          float largest = -FLT_MAX;
          for (std::int64_t sy = y * op.stride - op.pad; sy < y * op.stride - op.pad + op.kernel; ++sy)
            for (std::int64_t sx = x * op.stride - op.pad; sx < x * op.stride - op.pad + op.kernel; ++sx) {
              if (sy < 0 || sy >= s[1] || sx < 0 || sx >= s[2]) continue;
              const float v = src[static_cast<std::size_t>(((n * s[1] + sy) * s[2] + sx) * s[3] + c)];
              if (v > largest) largest = v;
            }
          dst.push_back(largest);
        }
  return dst;
}

}  // namespace frcnn::reference
