// Gradient of RoI align: every sample gives its share to the cells it was made of.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

// f(row, column, weight) for the four cells that the bilinear surface at (y, x) is made of.
template <class T, class F>
void surface_shares(std::int64_t height, std::int64_t width, T y, T x, const F& f) {
  if (!(y >= -1 && y <= static_cast<T>(height) && x >= -1 && x <= static_cast<T>(width))) return;
  y = std::min(std::max<T>(y, 0), static_cast<T>(height - 1));
  x = std::min(std::max<T>(x, 0), static_cast<T>(width - 1));
  const auto top = static_cast<std::int64_t>(y), left = static_cast<std::int64_t>(x);
  const T fy = y - static_cast<T>(top), fx = x - static_cast<T>(left);
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j)
      f(std::min(top + i, height - 1), std::min(left + j, width - 1), (i ? fy : 1 - fy) * (j ? fx : 1 - fx));
}

// d_features of `s` (NHWC), rois of moderate size that name an image; every step in T.
template <class T>
std::vector<T> roi_align_backward(const RoiAlign& op, const Shape& s, std::span<const float> d_dst,
                                  std::span<const float> rois) {
  std::vector<T> d_features(static_cast<std::size_t>(s.elements()));
  std::size_t bin = 0;
  for (std::size_t r = 0; r + 4 < rois.size(); r += 5) {
    const T shift = op.aligned ? T(0.5) : T(0), scale = op.spatial_scale;
    const T left = rois[r + 1] * scale - shift, top = rois[r + 2] * scale - shift;
    const T least = op.aligned ? -std::numeric_limits<T>::max() : T(1);
    const T bin_w = std::max(rois[r + 3] * scale - shift - left, least) / static_cast<T>(op.pooled_w);
    const T bin_h = std::max(rois[r + 4] * scale - shift - top, least) / static_cast<T>(op.pooled_h);
    const auto samples = [&](T size) {
      return op.sampling_ratio > 0 ? op.sampling_ratio : std::max(0, static_cast<int>(std::ceil(size)));
    };
    const int rows = samples(bin_h), columns = samples(bin_w);
    for (int ph = 0; ph < op.pooled_h; ++ph)
      for (int pw = 0; pw < op.pooled_w; ++pw, bin += static_cast<std::size_t>(s[3]))
        for (int i = 0; i < rows; ++i)
          for (int j = 0; j < columns; ++j) {
            const T y = top + static_cast<T>(ph) * bin_h +
                        (static_cast<T>(i) + T(0.5)) * bin_h / static_cast<T>(rows);
            const T x = left + static_cast<T>(pw) * bin_w +
                        (static_cast<T>(j) + T(0.5)) * bin_w / static_cast<T>(columns);
            surface_shares<T>(s[1], s[2], y, x, [&](std::int64_t cy, std::int64_t cx, T weight) {
              const std::int64_t cell = (static_cast<std::int64_t>(rois[r]) * s[1] + cy) * s[2] + cx;
              for (std::int64_t c = 0; c < s[3]; ++c)
                d_features[static_cast<std::size_t>(cell * s[3] + c)] +=
                    weight * static_cast<T>(d_dst[bin + static_cast<std::size_t>(c)]) /
                    static_cast<T>(std::max(1, rows * columns));
            });
          }
  }
  return d_features;
}

}  // namespace frcnn::reference
