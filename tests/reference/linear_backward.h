// Gradients of the fully connected layer by its definition.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/tensor.h"

namespace frcnn::reference {

template <class T>
struct LinearGradients {
  std::vector<T> src, weight, bias;
};

// src [R,I] or [R,H,W,C], weight [O,I] with C,H,W columns for the latter, d_dst [R,O]; every step in T.
template <class T>
LinearGradients<T> linear_backward(const Shape& s, std::span<const float> src, const Shape& w,
                                   std::span<const float> weight, std::span<const float> d_dst) {
  const std::int64_t cells = s.rank == 4 ? s[1] * s[2] : 1, channels = s[s.rank - 1];
  LinearGradients<T> g;
  g.src.resize(static_cast<std::size_t>(s.elements()));
  g.weight.resize(static_cast<std::size_t>(w.elements()));
  g.bias.resize(static_cast<std::size_t>(w[0]));
  for (std::int64_t r = 0; r < s[0]; ++r)
    for (std::int64_t o = 0; o < w[0]; ++o) {
      const T top = static_cast<T>(d_dst[static_cast<std::size_t>(r * w[0] + o)]);
      g.bias[static_cast<std::size_t>(o)] += top;
      for (std::int64_t cell = 0; cell < cells; ++cell)
        for (std::int64_t c = 0; c < channels; ++c) {
          const auto at = static_cast<std::size_t>(r * s.row() + cell * channels + c);
          const auto column = static_cast<std::size_t>(o * w[1] + c * cells + cell);
          g.src[at] += top * static_cast<T>(weight[column]);
          g.weight[column] += top * static_cast<T>(src[at]);
        }
    }
  return g;
}

}  // namespace frcnn::reference
