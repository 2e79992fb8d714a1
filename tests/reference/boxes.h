// Boxes in any precision, written out as in the definition: the double form is what kernels are compared
// with, the float form is the plain implementation whose error bounds theirs.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace frcnn::reference {

template <class T>
using Box = std::array<T, 4>;  // x1, y1, x2, y2, inclusive

template <class T>
Box<T> decode(const Box<T>& from, T dx, T dy, T dw, T dh) {
  const T w = from[2] - from[0] + 1, h = from[3] - from[1] + 1;
  const T cx = from[0] + w / 2 + dx * w, cy = from[1] + h / 2 + dy * h;
  const T new_w = std::exp(dw) * w, new_h = std::exp(dh) * h;
  return {cx - new_w / 2, cy - new_h / 2, cx + new_w / 2, cy + new_h / 2};
}

template <class T>
Box<T> clip(Box<T> box, T height, T width) {
  for (std::size_t k = 0; k < 4; ++k)
    box[k] = std::max<T>(0, std::min<T>(box[k], (k % 2 ? height : width) - 1));
  return box;
}

template <class T>
T iou(const Box<T>& a, const Box<T>& b) {
  const T w = std::max<T>(0, std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1);
  const T h = std::max<T>(0, std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1);
  const T area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1), area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1);
  return w * h / (area_a + area_b - w * h);
}

}  // namespace frcnn::reference
