// dst = factor * src, by its definition.
#pragma once

#include <span>
#include <vector>

namespace frcnn::reference {

template <class T>
std::vector<T> scale(float factor, std::span<const float> src) {
  std::vector<T> dst;
  for (const float x : src) dst.push_back(static_cast<T>(x) * static_cast<T>(factor));
  return dst;
}

}  // namespace frcnn::reference
