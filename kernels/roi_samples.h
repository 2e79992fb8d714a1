// Where RoI align samples one direction of a RoI, as torchvision places the points, for every device.
#pragma once

#include <cmath>

#include "box_math.h"

namespace frcnn {

// One direction of a RoI in cells: bin i covers [start + i bin, start + (i+1) bin), sampled at `grid` points.
struct RoiGrid {
  float start, bin;
  int grid;
};

// Samples [begin, end) of one bin. Points that the range leaves out lie outside the map and add nothing.
struct SampleRange {
  int begin, end;
};

// The two cells that a point lies between and its weights for them. Outside the map: `inside` is false.
struct AxisSample {
  bool inside;
  int low, high;
  float weight_low, weight_high;
};

// v as an int within [low, high]; NaN gives low.
FRCNN_HD inline int to_int(float v, int low, int high) {
  if (!(v > static_cast<float>(low))) return low;
  return v < static_cast<float>(high) ? static_cast<int>(v) : high;
}

// sampling_ratio 0 takes ceil(bin) points, none for an inverted (aligned) RoI, at most 2^24.
FRCNN_HD inline RoiGrid roi_grid(float first, float last, float spatial_scale, int pooled, int sampling_ratio,
                                 bool aligned) {
  using namespace ieee;
  const float shift = aligned ? 0.5f : 0.0f;
  const float start = sub(mul(first, spatial_scale), shift), end = sub(mul(last, spatial_scale), shift);
  float size = sub(end, start);
  if (!aligned && size < 1.0f) size = 1.0f;  // NaN stays, and then no point is inside
  const float bin = div(size, static_cast<float>(pooled));
  return {start, bin, sampling_ratio > 0 ? sampling_ratio : to_int(ceilf(bin), 0, 1 << 24)};
}

FRCNN_HD inline float sample_at(const RoiGrid& roi, int bin_index, int sample) {
  using namespace ieee;
  const float bin_start = add(roi.start, mul(static_cast<float>(bin_index), roi.bin));
  return add(bin_start,
             div(mul(add(static_cast<float>(sample), 0.5f), roi.bin), static_cast<float>(roi.grid)));
}

// A RoI may reach far beyond the map and then has many points there; with adaptive sampling they are about a
// cell apart, so the points worth visiting are few and found by division, with two to spare against rounding.
FRCNN_HD inline SampleRange samples_near_map(const RoiGrid& roi, int bin_index, int cells) {
  using namespace ieee;
  if (roi.grid <= 64 || !(roi.bin > 0.0f)) return {0, roi.grid};
  const float bin_start = add(roi.start, mul(static_cast<float>(bin_index), roi.bin));
  const float per_cell = div(static_cast<float>(roi.grid), roi.bin);
  const float first = mul(sub(-1.0f, bin_start), per_cell);
  const float last = mul(sub(static_cast<float>(cells), bin_start), per_cell);
  return {to_int(sub(first, 3.0f), 0, roi.grid), to_int(add(last, 3.0f), 0, roi.grid)};
}

// Points up to one cell outside take the border's value; further out they add nothing.
FRCNN_HD inline AxisSample axis_sample(float at, int cells) {
  if (!(at >= -1.0f && at <= static_cast<float>(cells))) return {false, 0, 0, 0, 0};
  const float v = at <= 0.0f ? 0.0f : at;
  const int low = static_cast<int>(v);
  if (low >= cells - 1) return {true, cells - 1, cells - 1, 1.0f, 0.0f};
  const float high_weight = ieee::sub(v, static_cast<float>(low));
  return {true, low, low + 1, ieee::sub(1.0f, high_weight), high_weight};
}

}  // namespace frcnn
