// Overlap and box targets in double, as the release writes them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

namespace frcnn::reference {

using Corners = std::array<double, 4>;  // x1, y1, x2, y2, both corners inside

inline double overlap(const Corners& a, const Corners& b) {
  const auto area = [](const Corners& box) { return (box[2] - box[0] + 1) * (box[3] - box[1] + 1); };
  const double w = std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1,
               h = std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1;
  if (!(w > 0) || !(h > 0)) return 0;
  return w * h / (area(a) + area(b) - w * h);
}

// dx, dy, dw, dh from one box to the other.
inline std::array<double, 4> target(const Corners& from, const Corners& to) {
  const double w = from[2] - from[0] + 1, h = from[3] - from[1] + 1, to_w = to[2] - to[0] + 1,
               to_h = to[3] - to[1] + 1;
  return {(to[0] + to_w / 2 - from[0] - w / 2) / w, (to[1] + to_h / 2 - from[1] - h / 2) / h,
          std::log(to_w / w), std::log(to_h / h)};
}

}  // namespace frcnn::reference
