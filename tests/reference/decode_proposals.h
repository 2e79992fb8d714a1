#pragma once

#include <limits>
#include <span>

#include "graph/ops.h"
#include "reference/boxes.h"

namespace frcnn::reference {

template <class T>
struct Candidates {
  std::vector<T> boxes, scores;
  std::vector<T> shortest;  // of each box's sides: tells how near the filter was
};

// One image without padding. prob [H,W,2A], deltas [H,W,4A], im_info [3].
template <class T>
Candidates<T> decode_proposals(const DecodeProposals& op, std::int64_t height, std::int64_t width,
                               std::span<const float> prob, std::span<const float> deltas,
                               std::span<const float> im_info) {
  Candidates<T> out;
  const std::size_t anchors = op.base_anchors.size();
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (std::size_t a = 0; a < anchors; ++a) {
        const std::size_t cell = static_cast<std::size_t>(y * width + x);
        Box<T> anchor;
        for (std::size_t k = 0; k < 4; ++k) {
          anchor[k] = static_cast<T>(op.base_anchors[a][k]) +
                      static_cast<T>(op.feat_stride) * static_cast<T>(k % 2 ? y : x);
        }
        const float* d = &deltas[(cell * anchors + a) * 4];
        const Box<T> box = clip<T>(decode<T>(anchor, d[0], d[1], d[2], d[3]), im_info[0], im_info[1]);
        const T side = std::min(box[2] - box[0], box[3] - box[1]) + 1;
        out.boxes.insert(out.boxes.end(), box.begin(), box.end());
        out.shortest.push_back(side);
        out.scores.push_back(side >= static_cast<T>(op.min_size) * static_cast<T>(im_info[2])
                                 ? static_cast<T>(prob[cell * 2 * anchors + anchors + a])
                                 : -std::numeric_limits<T>::infinity());
      }
    }
  }
  return out;
}

}  // namespace frcnn::reference
