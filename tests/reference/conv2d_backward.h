// Gradients of the convolution by its definition: every product of the forward pass gives its share.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/tensor.h"

namespace frcnn::reference {

template <class T>
struct Conv2dGradients {
  std::vector<T> src, weight, bias;
};

// src [N,H,W,I], weight [O,I,KH,KW], d_dst [N,H',W',O]; every step in T.
template <class T>
Conv2dGradients<T> conv2d_backward(int stride, int pad, const Shape& s, std::span<const float> src,
                                   const Shape& w, std::span<const float> weight, const Shape& d,
                                   std::span<const float> d_dst) {
  Conv2dGradients<T> g;
  g.src.resize(static_cast<std::size_t>(s.elements()));
  g.weight.resize(static_cast<std::size_t>(w.elements()));
  g.bias.resize(static_cast<std::size_t>(w[0]));
  for (std::int64_t n = 0; n < d[0]; ++n)
    for (std::int64_t y = 0; y < d[1]; ++y)
      for (std::int64_t x = 0; x < d[2]; ++x)
        for (std::int64_t o = 0; o < d[3]; ++o) {
          const T top =
              static_cast<T>(d_dst[static_cast<std::size_t>(((n * d[1] + y) * d[2] + x) * d[3] + o)]);
          g.bias[static_cast<std::size_t>(o)] += top;
          for (std::int64_t ky = 0; ky < w[2]; ++ky)
            for (std::int64_t kx = 0; kx < w[3]; ++kx) {
              const std::int64_t sy = y * stride - pad + ky, sx = x * stride - pad + kx;
              if (sy < 0 || sy >= s[1] || sx < 0 || sx >= s[2]) continue;
              for (std::int64_t i = 0; i < w[1]; ++i) {
                const auto at = static_cast<std::size_t>(((n * s[1] + sy) * s[2] + sx) * s[3] + i);
                const auto tap = static_cast<std::size_t>(((o * w[1] + i) * w[2] + ky) * w[3] + kx);
                g.src[at] += top * static_cast<T>(weight[tap]);
                g.weight[tap] += top * static_cast<T>(src[at]);
              }
            }
        }
  return g;
}

}  // namespace frcnn::reference
