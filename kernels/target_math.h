// Overlaps, box targets and draws of the training targets, for every device. Overlaps decide labels by exact
// equality and are computed in double, as the release does (SPEC sections 9 and 10).
#pragma once

#include <cmath>
#include <cstdint>

#include "box_math.h"

namespace frcnn {

// A double's sum or product, never contracted.
namespace ieee {
#ifdef __CUDA_ARCH__
__device__ inline double add(double a, double b) { return __dadd_rn(a, b); }
__device__ inline double sub(double a, double b) { return __dsub_rn(a, b); }
__device__ inline double mul(double a, double b) { return __dmul_rn(a, b); }
__device__ inline double div(double a, double b) { return __ddiv_rn(a, b); }
#else
FRCNN_HD inline double add(double a, double b) { return a + b; }
FRCNN_HD inline double sub(double a, double b) { return a - b; }
FRCNN_HD inline double mul(double a, double b) { return a * b; }
FRCNN_HD inline double div(double a, double b) { return a / b; }
#endif
}  // namespace ieee

FRCNN_HD inline double side(float first, float last) {
  return ieee::add(ieee::sub(static_cast<double>(last), static_cast<double>(first)), 1.0);
}

// Overlap of two boxes, 0 where they do not meet.
FRCNN_HD inline double overlap(const Box& a, const Box& b) {
  using namespace ieee;
  const double w = side(a.x1 > b.x1 ? a.x1 : b.x1, a.x2 < b.x2 ? a.x2 : b.x2);
  if (!(w > 0)) return 0;
  const double h = side(a.y1 > b.y1 ? a.y1 : b.y1, a.y2 < b.y2 ? a.y2 : b.y2);
  if (!(h > 0)) return 0;
  const double inter = mul(w, h);
  const double areas = add(mul(side(a.x1, a.x2), side(a.y1, a.y2)), mul(side(b.x1, b.x2), side(b.y1, b.y2)));
  return div(inter, sub(areas, inter));
}

// A row of gt_boxes.
struct GroundTruth {
  Box box;
  float class_id;
};
static_assert(sizeof(GroundTruth) == 5 * sizeof(float));

struct BoxDelta {
  float value[4];  // dx, dy, dw, dh
};

// What decode() of box_math.h must be given to make `to` out of `from`; infinite or NaN for boxes without a
// size.
FRCNN_HD inline BoxDelta encode(const Box& from, const Box& to) {
  const double w = side(from.x1, from.x2), h = side(from.y1, from.y2);
  const double to_w = side(to.x1, to.x2), to_h = side(to.y1, to.y2);
  const double dx = (to.x1 + 0.5 * to_w - (from.x1 + 0.5 * w)) / w,
               dy = (to.y1 + 0.5 * to_h - (from.y1 + 0.5 * h)) / h;
  return {{static_cast<float>(dx), static_cast<float>(dy), static_cast<float>(log(to_w / w)),
           static_cast<float>(log(to_h / h))}};
}

// A candidate in a draw: the smallest are taken. Keys in the high half, so that equal keys go by index.
FRCNN_HD inline std::uint64_t draw_order(std::uint32_t key, std::uint32_t index) {
  return std::uint64_t{key} << 32 | index;
}

}  // namespace frcnn
