// Fully connected layer by its definition.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

// src [R,I] or [R,H,W,C], weight [O,I] with C,H,W columns for the latter, bias [O] -> [R,O], every step in T.
template <class T>
std::vector<T> linear(const Linear& op, const Shape& s, std::span<const float> src, const Shape& w,
                      std::span<const float> weight, std::span<const float> bias) {
  const std::int64_t height = s.rank == 4 ? s[1] : 1, width = s.rank == 4 ? s[2] : 1,
                     channels = s[s.rank - 1];
  std::vector<T> dst;
  for (std::int64_t r = 0; r < s[0]; ++r)
    for (std::int64_t o = 0; o < w[0]; ++o) {
      T sum = static_cast<T>(bias[static_cast<std::size_t>(o)]);
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t y = 0; y < height; ++y)
          for (std::int64_t x = 0; x < width; ++x) {
            const std::int64_t at = ((r * height + y) * width + x) * channels + c;
            const std::int64_t column = (c * height + y) * width + x;
            sum += static_cast<T>(src[static_cast<std::size_t>(at)]) *
                   static_cast<T>(weight[static_cast<std::size_t>(o * w[1] + column)]);
          }
      if (op.epilogue.relu && !(sum > T(0))) sum = T(0);
      dst.push_back(sum * static_cast<T>(op.epilogue.scale));
    }
  return dst;
}

}  // namespace frcnn::reference
