// Gradient of local response normalisation, term by term from its definition.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

// src, d_dst [N,H,W,C]; every step in T. With t_i = shift + factor sum_{j in window(i)} x_j^2 and y_i = x_i
// t_i^-beta: d y_i / d x_j = [i = j] t_i^-beta - 2 beta factor x_i x_j t_i^(-beta-1) for every j in
// window(i).
template <class T>
std::vector<T> lrn_backward(const Lrn& op, const Shape& s, std::span<const float> src,
                            std::span<const float> d_dst) {
  const bool within = op.region == LrnRegion::within_channel;
  const std::int64_t reach = (op.size - 1) / 2, across = within ? 0 : reach, around = within ? reach : 0;
  const T factor = static_cast<T>(op.alpha) / static_cast<T>(within ? op.size * op.size : op.size);
  const T shift = within ? T(1) : static_cast<T>(op.k), beta = static_cast<T>(op.beta);
  std::vector<T> d_src(src.size());
  const auto window = [&](std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t c, const auto& visit) {
    for (std::int64_t sy = y - around; sy <= y + around; ++sy)
      for (std::int64_t sx = x - around; sx <= x + around; ++sx)
        for (std::int64_t sc = c - across; sc <= c + across; ++sc) {
          if (sy < 0 || sy >= s[1] || sx < 0 || sx >= s[2] || sc < 0 || sc >= s[3]) continue;
          visit(static_cast<std::size_t>(((n * s[1] + sy) * s[2] + sx) * s[3] + sc));
        }
  };
  std::size_t i = 0;
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t y = 0; y < s[1]; ++y)
      for (std::int64_t x = 0; x < s[2]; ++x)
        for (std::int64_t c = 0; c < s[3]; ++c, ++i) {
          T t = 0;
          window(n, y, x, c, [&](std::size_t j) { t += static_cast<T>(src[j]) * static_cast<T>(src[j]); });
          t = shift + factor * t;
          const T top = static_cast<T>(d_dst[i]), power = std::pow(t, -beta);
          d_src[i] += top * power;
          const T common = 2 * beta * factor * top * static_cast<T>(src[i]) * power / t;
          window(n, y, x, c, [&](std::size_t j) { d_src[j] -= common * static_cast<T>(src[j]); });
        }
  return d_src;
}

}  // namespace frcnn::reference
