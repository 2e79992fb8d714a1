// Where RoI pooling found its maxima, and the gradient that goes back there by the release's rule.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "reference/roi_pool.h"

namespace frcnn::reference {

// The image of a RoI, or -1.
inline std::int64_t image_of(float image, std::int64_t batch) {
  const double v = static_cast<double>(image);
  return v >= 0 && v < static_cast<double>(batch) && v == std::floor(v) ? static_cast<std::int64_t>(v) : -1;
}

// row * W + column of each bin's maximum; -1 where there is none.
inline std::vector<std::int32_t> roi_pool_argmax(const RoiPool& op, const Shape& s,
                                                 std::span<const float> features,
                                                 std::span<const float> rois) {
  std::vector<std::int32_t> argmax;
  for (std::size_t r = 0; r + 4 < rois.size(); r += 5) {
    const std::int64_t image = image_of(rois[r], s[0]);
    for (int ph = 0; ph < op.pooled_h; ++ph) {
      for (int pw = 0; pw < op.pooled_w; ++pw) {
        const auto rows = bin_of(rois[r + 2], rois[r + 4], op.spatial_scale, ph, op.pooled_h, s[1]);
        const auto columns = bin_of(rois[r + 1], rois[r + 3], op.spatial_scale, pw, op.pooled_w, s[2]);
        for (std::int64_t c = 0; c < s[3]; ++c) {
          float best = -std::numeric_limits<float>::max();
          std::int32_t place = -1;
          for (std::int64_t y = rows.first; image >= 0 && y < rows.second; ++y)
            for (std::int64_t x = columns.first; x < columns.second; ++x) {
              const float v = features[static_cast<std::size_t>(((image * s[1] + y) * s[2] + x) * s[3] + c)];
              if (!(v > best)) continue;
              best = v;
              place = static_cast<std::int32_t>(y * s[2] + x);
            }
          argmax.push_back(place);
        }
      }
    }
  }
  return argmax;
}

// d_features of `s`, summed in float in the order of RoIs and bins; nothing for cells outside the rounded
// RoI.
inline std::vector<float> roi_pool_backward(const RoiPool& op, const Shape& s, std::span<const float> d_dst,
                                            std::span<const std::int32_t> argmax,
                                            std::span<const float> rois) {
  std::vector<float> d_features(static_cast<std::size_t>(s.elements()));
  std::size_t i = 0;
  for (std::size_t r = 0; r + 4 < rois.size(); r += 5) {
    const std::int64_t image = image_of(rois[r], s[0]);
    const auto inside = [&](std::int64_t cell, float first, float last) {
      return static_cast<double>(cell) >= cell_of(first, op.spatial_scale) &&
             static_cast<double>(cell) <= cell_of(last, op.spatial_scale);
    };
    for (int bin = 0; bin < op.pooled_h * op.pooled_w; ++bin)
      for (std::int64_t c = 0; c < s[3]; ++c, ++i) {
        if (image < 0 || argmax[i] < 0) continue;
        const std::int64_t y = argmax[i] / s[2], x = argmax[i] % s[2];
        if (!inside(y, rois[r + 2], rois[r + 4]) || !inside(x, rois[r + 1], rois[r + 3])) continue;
        d_features[static_cast<std::size_t>((image * s[1] * s[2] + argmax[i]) * s[3] + c)] += d_dst[i];
      }
  }
  return d_features;
}

}  // namespace frcnn::reference
