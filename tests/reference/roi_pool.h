#pragma once

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "graph/tensor.h"

namespace frcnn::reference {

// A rounded cell; huge numbers stay within 2^29 and NaN is 0, as the kernel documents.
inline double cell_of(float coordinate, float scale) {
  const double cell = std::round(static_cast<double>(coordinate * scale));
  return std::isnan(cell) ? 0 : std::min(std::max(cell, -536870912.0), 536870912.0);
}

// First and last + 1 cell of a bin, clipped. The bin's size is a float32 by definition.
inline std::pair<std::int64_t, std::int64_t> bin_of(float first, float last, float scale, int index,
                                                    int pooled, std::int64_t cells) {
  const double start = cell_of(first, scale), size = std::max(cell_of(last, scale) - start + 1, 1.0);
  const float bin = static_cast<float>(size) / static_cast<float>(pooled);
  const double begin = std::floor(static_cast<float>(index) * bin) + start;
  const double end = std::ceil(static_cast<float>(index + 1) * bin) + start;
  const auto limit = [&](double v) {
    return static_cast<std::int64_t>(std::min(std::max(v, 0.0), double(cells)));
  };
  return {limit(begin), limit(end)};
}

// features NHWC; rois whose image index names no image give zeros.
inline std::vector<float> roi_pool(const RoiPool& op, const Shape& shape, std::span<const float> features,
                                   std::span<const float> rois) {
  std::vector<float> out;
  for (std::size_t r = 0; r + 4 < rois.size(); r += 5) {
    const double image = static_cast<double>(rois[r]);
    const bool known = image >= 0 && image < static_cast<double>(shape[0]) && image == std::floor(image);
    for (int ph = 0; ph < op.pooled_h; ++ph) {
      for (int pw = 0; pw < op.pooled_w; ++pw) {
        const auto rows = bin_of(rois[r + 2], rois[r + 4], op.spatial_scale, ph, op.pooled_h, shape[1]);
        const auto columns = bin_of(rois[r + 1], rois[r + 3], op.spatial_scale, pw, op.pooled_w, shape[2]);
        for (std::int64_t c = 0; c < shape[3]; ++c) {
          const bool empty = !known || rows.first >= rows.second || columns.first >= columns.second;
          float best = empty ? 0 : -std::numeric_limits<float>::max();
          for (std::int64_t y = rows.first; !empty && y < rows.second; ++y) {
            for (std::int64_t x = columns.first; x < columns.second; ++x) {
              const auto at =
                  ((static_cast<std::int64_t>(image) * shape[1] + y) * shape[2] + x) * shape[3] + c;
              if (features[static_cast<std::size_t>(at)] > best)
                best = features[static_cast<std::size_t>(at)];
            }
          }
          out.push_back(best);
        }
      }
    }
  }
  return out;
}

}  // namespace frcnn::reference
