// From a RoI in pixels to the feature cells of its bins, by Caffe's rule, for every device.
#pragma once

#include <cmath>
#include <cstdint>

#include "box_math.h"

namespace frcnn {

// One direction of a RoI: the first cell and the size of a bin in cells.
struct RoiBins {
  int start;
  float bin;
};

// Cells [begin, end) of one bin; empty when begin >= end.
struct CellRange {
  int begin, end;
};

// round(v * spatial_scale), half away from zero. Coordinates are limited to 2^29 cells either way so that no
// later sum leaves an int; NaN counts as 0. No map is that large, so only malformed RoIs are touched.
FRCNN_HD inline int roi_cell(float v, float spatial_scale) {
  constexpr float limit = 536870912.0f;
  const float cell = roundf(ieee::mul(v, spatial_scale));
  if (cell != cell) return 0;
  return static_cast<int>(cell < -limit ? -limit : cell > limit ? limit : cell);
}

// Both corners belong to the RoI, which is at least one cell large even when they are the wrong way round.
FRCNN_HD inline RoiBins roi_bins(float first, float last, float spatial_scale, int pooled) {
  const int start = roi_cell(first, spatial_scale), end = roi_cell(last, spatial_scale);
  const int size = end - start + 1 > 1 ? end - start + 1 : 1;
  return {start, ieee::div(static_cast<float>(size), static_cast<float>(pooled))};
}

// Bin number `index` clipped to the map's `cells`.
FRCNN_HD inline CellRange roi_bin(const RoiBins& bins, int index, int cells) {
  const int begin = static_cast<int>(floorf(ieee::mul(static_cast<float>(index), bins.bin))) + bins.start;
  const int end = static_cast<int>(ceilf(ieee::mul(static_cast<float>(index + 1), bins.bin))) + bins.start;
  return {begin < 0 ? 0 : begin > cells ? cells : begin, end < 0 ? 0 : end > cells ? cells : end};
}

// The image a RoI names, or -1 when it names none of the batch (fractions, NaN and huge numbers included).
FRCNN_HD inline std::int64_t roi_image(float image, std::int64_t batch) {
  if (!(image >= 0.0f) || !(image < static_cast<float>(batch))) return -1;
  const auto index = static_cast<std::int64_t>(image);
  return static_cast<float>(index) == image ? index : -1;
}

}  // namespace frcnn
