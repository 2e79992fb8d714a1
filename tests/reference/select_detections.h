#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "reference/nms.h"
#include "reference/top_k.h"

namespace frcnn::reference {

struct Detection {
  std::size_t label, roi;
  float score;
};

// One image: prob [R,C], boxes [R,4C] or [R,4].
inline std::vector<Detection> select_detections(const SelectDetections& op, std::size_t classes,
                                                std::span<const float> prob, std::span<const float> boxes) {
  const std::size_t rois = prob.size() / classes, box_columns = rois ? boxes.size() / rois : 0;
  std::vector<Detection> found;
  for (std::size_t label = 1; label < classes; ++label) {
    std::vector<std::size_t> above;
    std::vector<float> scores;
    for (std::size_t r = 0; r < rois; ++r) {
      if (prob[r * classes + label] > op.score_threshold) above.push_back(r);
    }
    for (std::size_t r : above) scores.push_back(prob[r * classes + label]);
    std::vector<std::size_t> sorted;
    std::vector<Box<double>> sorted_boxes;
    for (std::size_t i : top_k(scores, 0)) {
      sorted.push_back(above[i]);
      const float* b = &boxes[above[i] * box_columns + (box_columns == 4 ? 0 : 4 * label)];
      sorted_boxes.push_back({b[0], b[1], b[2], b[3]});
    }
    for (std::size_t i : nms(sorted_boxes, op.nms_threshold, op.suppress, sorted.size())) {
      found.push_back({label, sorted[i], prob[sorted[i] * classes + label]});
    }
  }
  if (op.max_detections <= 0 || static_cast<std::int64_t>(found.size()) <= op.max_detections) return found;
  // The cap, said the other way round: sort everything, cut, and put what is left back into the order of the
  // output.
  const auto better = [](const Detection& a, const Detection& b) { return a.score > b.score; };
  std::vector<Detection> ranked = found;
  std::stable_sort(ranked.begin(), ranked.end(), better);
  auto last = ranked.begin() + op.max_detections;
  if (op.keep_ties) {
    while (last != ranked.end() && last->score == (last - 1)->score) ++last;
  }
  ranked.erase(last, ranked.end());
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.label < b.label; });
  return ranked;
}

}  // namespace frcnn::reference
