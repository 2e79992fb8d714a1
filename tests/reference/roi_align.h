#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

// The bilinear surface of one channel: 0 further than a cell outside, the border's value up to there.
template <class T>
T surface(std::span<const float> features, const Shape& shape, std::int64_t image, std::int64_t channel, T y,
          T x) {
  const std::int64_t height = shape[1], width = shape[2];
  if (!(y >= -1 && y <= static_cast<T>(height) && x >= -1 && x <= static_cast<T>(width))) return 0;
  y = std::min(std::max<T>(y, 0), static_cast<T>(height - 1));
  x = std::min(std::max<T>(x, 0), static_cast<T>(width - 1));
  const auto top = static_cast<std::int64_t>(y), left = static_cast<std::int64_t>(x);
  const T fy = y - static_cast<T>(top), fx = x - static_cast<T>(left);
  const auto at = [&](std::int64_t r, std::int64_t c) {
    r = std::min(r, height - 1);
    c = std::min(c, width - 1);
    return static_cast<T>(
        features[static_cast<std::size_t>(((image * height + r) * width + c) * shape[3] + channel)]);
  };
  return (1 - fy) * (1 - fx) * at(top, left) + (1 - fy) * fx * at(top, left + 1) +
         fy * (1 - fx) * at(top + 1, left) + fy * fx * at(top + 1, left + 1);
}

// features NHWC, rois of moderate size.
template <class T>
std::vector<T> roi_align(const RoiAlign& op, const Shape& shape, std::span<const float> features,
                         std::span<const float> rois) {
  std::vector<T> out;
  for (std::size_t r = 0; r + 4 < rois.size(); r += 5) {
    const T shift = op.aligned ? T(0.5) : T(0), scale = op.spatial_scale;
    const T left = rois[r + 1] * scale - shift, top = rois[r + 2] * scale - shift;
    T w = rois[r + 3] * scale - shift - left, h = rois[r + 4] * scale - shift - top;
    if (!op.aligned) {
      w = std::max<T>(w, 1);
      h = std::max<T>(h, 1);
    }
    const T bin_h = h / static_cast<T>(op.pooled_h), bin_w = w / static_cast<T>(op.pooled_w);
    const int rows =
        op.sampling_ratio > 0 ? op.sampling_ratio : std::max(0, static_cast<int>(std::ceil(bin_h)));
    const int columns =
        op.sampling_ratio > 0 ? op.sampling_ratio : std::max(0, static_cast<int>(std::ceil(bin_w)));
    for (int ph = 0; ph < op.pooled_h; ++ph) {
      for (int pw = 0; pw < op.pooled_w; ++pw) {
        for (std::int64_t c = 0; c < shape[3]; ++c) {
          T sum = 0;
          for (int i = 0; i < rows; ++i) {
            for (int j = 0; j < columns; ++j) {
              const T y = top + static_cast<T>(ph) * bin_h +
                          (static_cast<T>(i) + T(0.5)) * bin_h / static_cast<T>(rows);
              const T x = left + static_cast<T>(pw) * bin_w +
                          (static_cast<T>(j) + T(0.5)) * bin_w / static_cast<T>(columns);
              sum += surface<T>(features, shape, static_cast<std::int64_t>(rois[r]), c, y, x);
            }
          }
          out.push_back(sum / static_cast<T>(std::max(1, rows * columns)));
        }
      }
    }
  }
  return out;
}

}  // namespace frcnn::reference
