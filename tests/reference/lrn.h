// Local response normalisation by its definition.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

// src [N,H,W,C]; every step in T.
template <class T>
std::vector<T> lrn(const Lrn& op, const Shape& s, std::span<const float> src) {
  const bool within = op.region == LrnRegion::within_channel;
  const std::int64_t before = (op.size - 1) / 2;
  const T cells = static_cast<T>(within ? op.size * op.size : op.size);
  std::vector<T> dst;
  const auto square = [&](std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t c) {
    if (y < 0 || y >= s[1] || x < 0 || x >= s[2] || c < 0 || c >= s[3]) return T(0);
    const T v = static_cast<T>(src[static_cast<std::size_t>(((n * s[1] + y) * s[2] + x) * s[3] + c)]);
    return v * v;
  };
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t y = 0; y < s[1]; ++y)
      for (std::int64_t x = 0; x < s[2]; ++x)
        for (std::int64_t c = 0; c < s[3]; ++c) {
          T sum = 0;
          for (std::int64_t i = 0; i < op.size; ++i) {
            if (!within) {
              sum += square(n, y, x, c - before + i);
              continue;
            }
            for (std::int64_t j = 0; j < op.size; ++j) sum += square(n, y - before + i, x - before + j, c);
          }
          const T base = (within ? T(1) : static_cast<T>(op.k)) + static_cast<T>(op.alpha) / cells * sum;
          const T v = static_cast<T>(src[static_cast<std::size_t>(((n * s[1] + y) * s[2] + x) * s[3] + c)]);
          dst.push_back(v * std::pow(base, -static_cast<T>(op.beta)));
        }
  return dst;
}

}  // namespace frcnn::reference
