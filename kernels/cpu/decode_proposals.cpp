// Anchors -> clipped, filtered candidate boxes (SPEC section 5, steps 1 to 3). One pass over the two RPN
// maps.
#include <algorithm>
#include <limits>

#include "box_math.h"
#include "carve.h"
#include "kernels.h"
#include "own_map.h"
#include "parallel.h"

namespace frcnn::cpu {
namespace {

struct Sizes {
  std::int64_t batch, height, width, anchors;
};

// An image's own size, and how many cells of a row of the map are its own; the others are padding.
struct ImageLimits {
  float height, width, min_side;
  std::int64_t own_cells;
};

// One row of cells. Returns whether a foreground score or a delta is not finite.
bool decode_row(const DecodeProposals& op, const ImageLimits& limits, std::int64_t y, std::int64_t width,
                const float* prob, const float* deltas, Box* boxes, float* scores) {
  const auto anchors = static_cast<std::int64_t>(op.base_anchors.size());
  const float shift_y = ieee::mul(op.feat_stride, static_cast<float>(y));
  bool nonfinite = false;
  for (std::int64_t x = 0; x < width; ++x) {
    const float shift_x = ieee::mul(op.feat_stride, static_cast<float>(x));
    for (std::int64_t a = 0; a < anchors; ++a) {
      const auto& base = op.base_anchors[static_cast<std::size_t>(a)];
      const Box anchor{base[0] + shift_x, base[1] + shift_y, base[2] + shift_x, base[3] + shift_y};
      const float* d = deltas + (x * anchors + a) * 4;
      const float score = prob[x * 2 * anchors + anchors + a];
      const bool finite =
          is_finite(score) && is_finite(d[0]) && is_finite(d[1]) && is_finite(d[2]) && is_finite(d[3]);
      nonfinite |= !finite;
      const Box box = clip(decode(anchor, d[0], d[1], d[2], d[3]), limits.height, limits.width);
      boxes[x * anchors + a] = box;
      scores[x * anchors + a] = finite && x < limits.own_cells && is_at_least(box, limits.min_side)
                                    ? score
                                    : -std::numeric_limits<float>::infinity();
    }
  }
  return nonfinite;
}

}  // namespace

Prepared prepare(const DecodeProposals& op, const KernelSpec& spec, const Settings& settings) {
  const Shape& prob = spec.in[0].shape;
  const Sizes s{prob[0], prob[1], prob[2], static_cast<std::int64_t>(op.base_anchors.size())};
  const int threads = std::max(1, settings.threads);
  Carver carver;
  carver.take<std::int32_t>(threads);
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.workspace_bytes = carver.used();
  prepared.run = [op, s, threads](const KernelArgs& args) {
    auto* chunk_nonfinite = Carver(args.workspace).take<std::int32_t>(threads);
    std::fill_n(chunk_nonfinite, threads, 0);
    const float *probs = args.in[0].as<const float>(), *deltas = args.in[1].as<const float>();
    const float* im_info = args.in[2].as<const float>();
    const auto* map_sizes = args.in.size() > 3 ? args.in[3].as<const std::int32_t>() : nullptr;
    auto* boxes = args.out[0].as<Box>();
    auto* scores = args.out[1].as<float>();
    const std::int64_t row = s.width * s.anchors;  // anchors in one row of cells
    parallel_for(s.batch * s.height, threads, [&](std::int64_t begin, std::int64_t end, int chunk) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t image = i / s.height;
        const float* const info = im_info + image * 3;
        const OwnMap own =
            own_map(rpn_sizes(map_sizes, image), static_cast<int>(s.height), static_cast<int>(s.width));
        const ImageLimits limits{info[0], info[1], ieee::mul(op.min_size, info[2]),
                                 i % s.height < own.rows ? own.columns : 0};
        chunk_nonfinite[chunk] |= decode_row(op, limits, i % s.height, s.width, probs + i * row * 2,
                                             deltas + i * row * 4, boxes + i * row, scores + i * row);
      }
    });
    *args.out[2].as<std::int32_t>() = *std::max_element(chunk_nonfinite, chunk_nonfinite + threads);
  };
  return prepared;
}

}  // namespace frcnn::cpu
