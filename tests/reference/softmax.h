// Softmax over the channels {g, g + groups, ...}, by its definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace frcnn::reference {

// src: rows of `channels` values; every step in T.
template <class T>
std::vector<T> softmax(std::size_t channels, std::size_t groups, std::span<const float> src) {
  std::vector<T> dst(src.size());
  for (std::size_t row = 0; row < src.size(); row += channels) {
    for (std::size_t g = 0; g < groups; ++g) {
      T largest = static_cast<T>(src[row + g]), sum = 0;
      for (std::size_t c = g; c < channels; c += groups)
        largest = std::max(largest, static_cast<T>(src[row + c]));
      for (std::size_t c = g; c < channels; c += groups)
        sum += std::exp(static_cast<T>(src[row + c]) - largest);
      for (std::size_t c = g; c < channels; c += groups) {
        dst[row + c] = std::exp(static_cast<T>(src[row + c]) - largest) / sum;
      }
    }
  }
  return dst;
}

}  // namespace frcnn::reference
