// RoIs for the head by SPEC section 10.
#pragma once

#include <span>
#include <vector>

#include "graph/ops.h"
#include "reference/box_targets.h"
#include "reference/random_draw.h"

namespace frcnn::reference {

struct RoiTargetsOf {  // one image, `batch` rows
  std::vector<float> rois;
  std::vector<int> labels;
  std::vector<double> targets, inside;  // the outside weights equal the inside ones
  std::int64_t count = 0;
};

// rois: rows of image,x1,y1,x2,y2; truth: rows of x1,y1,x2,y2,class.
inline RoiTargetsOf roi_targets(const RoiTargets& op, std::span<const float> rois,
                                std::span<const float> truth, const RandomKey& key, std::int64_t image) {
  std::vector<std::array<float, 4>> candidates;
  for (std::size_t r = 0; r + 4 < rois.size(); r += 5)
    candidates.push_back({rois[r + 1], rois[r + 2], rois[r + 3], rois[r + 4]});
  for (std::size_t g = 0; g + 4 < truth.size(); g += 5)
    candidates.push_back({truth[g], truth[g + 1], truth[g + 2], truth[g + 3]});
  const auto wide = [](std::span<const float> b) { return Corners{b[0], b[1], b[2], b[3]}; };
  std::vector<std::int64_t> foreground, background;
  std::vector<std::size_t> owner(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    double best = 0;
    for (std::size_t g = 0; 5 * g < truth.size(); ++g) {
      const double iou = overlap(wide(candidates[i]), wide(truth.subspan(5 * g, 4)));
      if (iou > best) {
        best = iou;
        owner[i] = g;
      }
    }
    if (!truth.empty() && best >= op.foreground_iou) {
      foreground.push_back(static_cast<std::int64_t>(i));
    } else if (best < op.background_iou_high && best >= op.background_iou_low) {
      background.push_back(static_cast<std::int64_t>(i));
    }
  }
  const auto taken =
      draw(foreground,
           static_cast<std::int64_t>(std::nearbyint(op.foreground_fraction * static_cast<double>(op.batch))),
           key, image, RandomStream::foreground_rois);
  const auto rest = draw(background, op.batch - static_cast<std::int64_t>(taken.size()), key, image,
                         RandomStream::background_rois);
  const auto rows = static_cast<std::size_t>(op.batch), columns = static_cast<std::size_t>(4 * op.classes);
  RoiTargetsOf to{std::vector<float>(5 * rows), std::vector<int>(rows, -1),
                  std::vector<double>(rows * columns), std::vector<double>(rows * columns),
                  static_cast<std::int64_t>(taken.size() + rest.size())};
  for (std::size_t r = 0; r < rows; ++r) to.rois[5 * r] = static_cast<float>(image);
  std::size_t row = 0;
  for (const auto* part : {&taken, &rest}) {
    for (const std::int64_t candidate : *part) {
      const auto& box = candidates[static_cast<std::size_t>(candidate)];
      std::copy(box.begin(), box.end(), to.rois.begin() + static_cast<std::ptrdiff_t>(5 * row + 1));
      to.labels[row] = 0;
      if (part == &taken) {
        const std::size_t g = owner[static_cast<std::size_t>(candidate)];
        const int label = to.labels[row] = static_cast<int>(truth[5 * g + 4]);
        const auto delta = target(wide(box), wide(truth.subspan(5 * g, 4)));
        for (std::size_t k = 0; label >= 0 && label < op.classes && k < 4; ++k) {
          const std::size_t at = row * columns + 4 * static_cast<std::size_t>(label) + k;
          to.targets[at] = (delta[k] - static_cast<double>(op.means[k])) / static_cast<double>(op.stds[k]);
          to.inside[at] = 1;
        }
      }
      ++row;
    }
  }
  return to;
}

}  // namespace frcnn::reference
