// Convolution by its definition.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

// src [N,H,W,I], weight [O,I,KH,KW], bias [O] -> [N,H',W',O], every step in T: double for the truth, float
// for what a plain implementation makes of it.
template <class T>
std::vector<T> conv2d(const Conv2d& op, const Shape& s, std::span<const float> src, const Shape& w,
                      std::span<const float> weight, std::span<const float> bias) {
  const std::int64_t out_h = (s[1] + 2 * op.pad - w[2]) / op.stride + 1;
  const std::int64_t out_w = (s[2] + 2 * op.pad - w[3]) / op.stride + 1;
  std::vector<T> dst;
  dst.reserve(static_cast<std::size_t>(s[0] * out_h * out_w * w[0]));
  const auto value = [](std::span<const float> values, std::int64_t i) {
    return static_cast<T>(values[static_cast<std::size_t>(i)]);
  };
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t y = 0; y < out_h; ++y)
      for (std::int64_t x = 0; x < out_w; ++x)
        for (std::int64_t o = 0; o < w[0]; ++o) {
          T sum = value(bias, o);
          for (std::int64_t i = 0; i < w[1]; ++i)
            for (std::int64_t ky = 0; ky < w[2]; ++ky)
              for (std::int64_t kx = 0; kx < w[3]; ++kx) {
                const std::int64_t sy = y * op.stride - op.pad + ky, sx = x * op.stride - op.pad + kx;
                if (sy < 0 || sy >= s[1] || sx < 0 || sx >= s[2]) continue;
                sum += value(src, ((n * s[1] + sy) * s[2] + sx) * s[3] + i) *
                       value(weight, ((o * w[1] + i) * w[2] + ky) * w[3] + kx);
              }
          if (op.epilogue.relu && !(sum > T(0))) sum = T(0);
          dst.push_back(sum * static_cast<T>(op.epilogue.scale));
        }
  return dst;
}

}  // namespace frcnn::reference
