// dst = max(src, 0), by its definition.
#pragma once

#include <span>
#include <vector>

namespace frcnn::reference {

template <class T>
std::vector<T> relu(std::span<const float> src) {
  std::vector<T> dst;
  for (const float x : src) dst.push_back(x > 0.0f ? static_cast<T>(x) : T(0));
  return dst;
}

}  // namespace frcnn::reference
