// RPN targets by SPEC section 9, rule after rule over a table of all overlaps.
#pragma once

#include <span>
#include <vector>

#include "graph/ops.h"
#include "reference/box_targets.h"
#include "reference/random_draw.h"

namespace frcnn::reference {

struct AnchorTargetsOf {  // one image
  std::vector<int> labels;
  std::vector<double> targets, inside;
  std::vector<float> outside;
};

// truth: rows of x1,y1,x2,y2,class.
inline AnchorTargetsOf anchor_targets(const AnchorTargets& op, std::span<const float> truth, double height,
                                      double width, const RandomKey& key, std::int64_t image) {
  std::vector<Corners> anchors, boxes;
  for (std::int64_t y = 0; y < op.height; ++y)
    for (std::int64_t x = 0; x < op.width; ++x)
      for (const auto& base : op.base_anchors) {
        const float dx = static_cast<float>(x) * op.feat_stride, dy = static_cast<float>(y) * op.feat_stride;
        anchors.push_back({base[0] + dx, base[1] + dy, base[2] + dx, base[3] + dy});
      }
  for (std::size_t g = 0; g + 4 < truth.size(); g += 5)
    boxes.push_back({truth[g], truth[g + 1], truth[g + 2], truth[g + 3]});
  const std::size_t n = anchors.size();
  AnchorTargetsOf to{std::vector<int>(n, -1), std::vector<double>(4 * n), std::vector<double>(4 * n),
                     std::vector<float>(4 * n)};

  std::vector<std::size_t> inside;
  for (std::size_t i = 0; i < n; ++i) {
    const Corners& a = anchors[i];
    const double border = op.allowed_border;
    if (a[0] >= -border && a[1] >= -border && a[2] < width + border && a[3] < height + border)
      inside.push_back(i);
  }
  std::vector<double> best_of_box(boxes.size());
  std::vector<double> best(n);
  std::vector<std::size_t> owner(n);
  for (const std::size_t i : inside)
    for (std::size_t g = 0; g < boxes.size(); ++g) {
      const double iou = overlap(anchors[i], boxes[g]);
      best_of_box[g] = std::max(best_of_box[g], iou);
      if (iou > best[i]) {
        best[i] = iou;
        owner[i] = g;
      }
    }
  for (const std::size_t i : inside)
    if (best[i] < op.negative_iou) to.labels[i] = 0;
  for (std::size_t g = 0; g < boxes.size(); ++g) {
    if (op.untouched == UntouchedBoxes::ignore && best_of_box[g] == 0) continue;
    if (op.positives == PositiveAnchors::fallback && best_of_box[g] >= op.positive_iou) continue;
    for (const std::size_t i : inside)
      if (overlap(anchors[i], boxes[g]) == best_of_box[g]) to.labels[i] = 1;
  }
  for (const std::size_t i : inside)
    if (!boxes.empty() && best[i] >= op.positive_iou) to.labels[i] = 1;

  const auto keep = [&](int label, std::int64_t most, RandomStream stream) {
    std::vector<std::int64_t> candidates;
    for (std::size_t i = 0; i < n; ++i)
      if (to.labels[i] == label) candidates.push_back(static_cast<std::int64_t>(i));
    const auto drawn = draw(candidates, most, key, image, stream);
    for (const std::int64_t i : candidates)
      if (!drawn.count(i)) to.labels[static_cast<std::size_t>(i)] = -1;
    return static_cast<std::int64_t>(drawn.size());
  };
  const std::int64_t positives =
      keep(1, static_cast<std::int64_t>(op.positive_fraction * static_cast<double>(op.batch)),
           RandomStream::positive_anchors);
  const std::int64_t negatives = keep(0, op.batch - positives, RandomStream::negative_anchors);
  const double weight = op.norm == LossNorm::paper
                            ? op.lambda / static_cast<double>(op.height * op.width)
                            : 1.0 / static_cast<double>(std::max<std::int64_t>(positives + negatives, 1));
  for (const std::size_t i : inside) {
    if (boxes.empty()) break;
    const auto t = target(anchors[i], boxes[owner[i]]);
    for (std::size_t k = 0; k < 4; ++k) to.targets[4 * i + k] = t[k];
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t k = 0; k < 4; ++k) {
      to.inside[4 * i + k] = to.labels[i] == 1 ? 1 : 0;
      to.outside[4 * i + k] = to.labels[i] >= 0 ? static_cast<float>(weight) : 0.0f;
    }
  return to;
}

}  // namespace frcnn::reference
