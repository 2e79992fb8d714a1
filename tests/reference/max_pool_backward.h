// Where max pooling found its maxima, and the gradient that goes back there.
#pragma once

#include <cfloat>
#include <cstdint>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"
#include "reference/max_pool.h"

namespace frcnn::reference {

// row * kernel + column of each window's maximum; the window's first cell where nothing is larger than
// -FLT_MAX.
inline std::vector<std::uint8_t> max_pool_argmax(const MaxPool& op, const Shape& s,
                                                 std::span<const float> src) {
  std::vector<std::uint8_t> argmax;
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t y = 0; y < max_pool_size(s[1], op); ++y)
      for (std::int64_t x = 0; x < max_pool_size(s[2], op); ++x)
        for (std::int64_t c = 0; c < s[3]; ++c) {
          float largest = -FLT_MAX;
          int place = -1;
          for (int ky = 0; ky < op.kernel; ++ky)
            for (int kx = 0; kx < op.kernel; ++kx) {
              const std::int64_t sy = y * op.stride - op.pad + ky, sx = x * op.stride - op.pad + kx;
              if (sy < 0 || sy >= s[1] || sx < 0 || sx >= s[2]) continue;
              const float v = src[static_cast<std::size_t>(((n * s[1] + sy) * s[2] + sx) * s[3] + c)];
              if (place >= 0 && !(v > largest)) continue;
              place = ky * op.kernel + kx;
              if (v > largest) largest = v;
            }
          argmax.push_back(static_cast<std::uint8_t>(place));
        }
  return argmax;
}

// d_src of `s`, summed in the order of the windows.
inline std::vector<float> max_pool_backward(const MaxPool& op, const Shape& s, std::span<const float> d_dst,
                                            std::span<const std::uint8_t> argmax) {
  std::vector<float> d_src(static_cast<std::size_t>(s.elements()));
  std::size_t i = 0;
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t y = 0; y < max_pool_size(s[1], op); ++y)
      for (std::int64_t x = 0; x < max_pool_size(s[2], op); ++x)
        for (std::int64_t c = 0; c < s[3]; ++c, ++i) {
          const std::int64_t sy = y * op.stride - op.pad + argmax[i] / op.kernel;
          const std::int64_t sx = x * op.stride - op.pad + argmax[i] % op.kernel;
          d_src[static_cast<std::size_t>(((n * s[1] + sy) * s[2] + sx) * s[3] + c)] += d_dst[i];
        }
  return d_src;
}

}  // namespace frcnn::reference
