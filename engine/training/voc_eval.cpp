#include "training/voc_eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <numeric>

#include "frcnn/error.h"

namespace frcnn {
namespace {

using Box = std::array<double, 4>;

double area_of(const Box& box) { return (box[2] - box[0] + 1) * (box[3] - box[1] + 1); }

double iou_of(const Box& a, const Box& b) {
  const double width = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1, 0.0);
  const double height = std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1, 0.0);
  const double inter = width * height;
  return inter / (area_of(a) + area_of(b) - inter);
}

enum class Verdict : std::uint8_t { right, wrong, ignored };

Verdict judge(const VocDetection& detection, const VocTruth& truth, std::vector<bool>& taken,
              double iou_threshold) {
  double best = -std::numeric_limits<double>::infinity();
  std::size_t object = 0;
  for (std::size_t i = 0; i < truth.boxes.size(); ++i) {
    const double iou = iou_of(truth.boxes[i], detection.box);
    if (iou > best) {  // the first of equals, and never a NaN of a degenerate box
      best = iou;
      object = i;
    }
  }
  if (!(best > iou_threshold)) return Verdict::wrong;
  if (truth.difficult[object]) return Verdict::ignored;
  if (taken[object]) return Verdict::wrong;
  taken[object] = true;
  return Verdict::right;
}

double eleven_point(const VocCurve& curve) {
  double sum = 0;
  for (int i = 0; i <= 10; ++i) {
    const double least_recall = i * 0.1;  // 0.30000000000000004 and the like: a recall of just 0.3 misses it
    double best = 0;
    for (std::size_t k = 0; k < curve.recall.size(); ++k) {
      if (curve.recall[k] >= least_recall) best = std::max(best, curve.precision[k]);
    }
    sum += best / 11.0;
  }
  return sum;
}

// The area under the precision made monotone from the right.
double envelope_area(const VocCurve& curve) {
  double area = 0, precision = 0, right = 1;  // of the step being looked at
  for (std::size_t k = curve.recall.size(); k-- > 0;) {
    area += (right - curve.recall[k]) * precision;
    precision = std::max(precision, curve.precision[k]);
    right = curve.recall[k];
  }
  return area + right * precision;
}

double rounded(double value, const char* format) {
  char text[400];  // a double in %.1f has at most 311 characters
  std::snprintf(text, sizeof text, format, value);
  return std::strtod(text, nullptr);
}

std::vector<VocTruth> truth_of(const VocDataset& dataset, const ClassNames& names, std::size_t class_index) {
  std::vector<VocTruth> truth(dataset.images.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    for (const VocObject& object : dataset.images[i].objects) {
      if (names.find(object.name) != class_index) continue;
      truth[i].boxes.push_back(object.box);
      truth[i].difficult.push_back(object.difficult);
    }
  }
  return truth;
}

std::optional<double> mean(const std::vector<VocClassScore>& classes,
                           std::optional<double> VocClassScore::*ap) {
  double sum = 0;
  int count = 0;
  for (const VocClassScore& score : classes) {
    if (score.*ap) {
      sum += *(score.*ap);
      ++count;
    }
  }
  return count ? std::optional(sum / count) : std::nullopt;
}

// Appends, for each object of one image, the IoU that the greedy pairing gives it.
void append_coverage(const std::vector<Box>& objects, std::span<const std::array<float, 4>> proposals,
                     std::vector<double>& coverage) {
  const std::size_t columns = objects.size();
  std::vector<double> iou(proposals.size() * columns);
  for (std::size_t p = 0; p < proposals.size(); ++p) {
    const Box box{proposals[p][0], proposals[p][1], proposals[p][2], proposals[p][3]};
    for (std::size_t o = 0; o < columns; ++o) iou[p * columns + o] = iou_of(box, objects[o]);
  }
  std::vector<bool> used(proposals.size()), covered(columns);
  for (std::size_t round = 0; round < columns; ++round) {
    double best = -1;
    std::size_t best_object = 0, best_proposal = 0;
    for (std::size_t o = 0; o < columns; ++o) {
      if (covered[o]) continue;
      for (std::size_t p = 0; p < proposals.size(); ++p) {
        if (used[p] || !(iou[p * columns + o] > best)) continue;
        best = iou[p * columns + o];
        best_object = o;
        best_proposal = p;
      }
    }
    if (best < 0) {  // fewer proposals than objects: the rest is not covered at all
      coverage.insert(coverage.end(), columns - round, 0.0);
      return;
    }
    covered[best_object] = used[best_proposal] = true;
    coverage.push_back(best);
  }
}

}  // namespace

VocCurve voc_curve(std::span<const VocTruth> truth, std::span<const VocDetection> detections,
                   double iou_threshold) {
  VocCurve curve;
  std::vector<std::vector<bool>> taken(truth.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    taken[i].resize(truth[i].boxes.size());
    curve.positives += std::count(truth[i].difficult.begin(), truth[i].difficult.end(), false);
  }
  std::vector<std::size_t> order(detections.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return detections[a].score > detections[b].score; });
  double right = 0, wrong = 0;
  for (const std::size_t index : order) {
    const VocDetection& detection = detections[index];
    if (detection.image >= truth.size()) {
      throw Error(ErrorCode::invalid_argument, fmt::format("a detection in image {}, but there are {} images",
                                                           detection.image, truth.size()));
    }
    switch (judge(detection, truth[detection.image], taken[detection.image], iou_threshold)) {
      case Verdict::right:
        ++right;
        break;
      case Verdict::wrong:
        ++wrong;
        break;
      case Verdict::ignored:
        break;
    }
    curve.recall.push_back(curve.positives ? right / static_cast<double>(curve.positives) : 0.0);
    curve.precision.push_back(right / std::max(right + wrong, std::numeric_limits<double>::epsilon()));
  }
  return curve;
}

double average_precision(const VocCurve& curve, VocMetric metric) {
  return metric == VocMetric::eleven_point ? eleven_point(curve) : envelope_area(curve);
}

VocDetection rounded_as_text(const VocDetection& detection) {
  VocDetection result = detection;
  result.score = rounded(detection.score, "%.3f");
  for (double& side : result.box) side = rounded(side, "%.1f");
  return result;
}

VocScore voc_score(const VocDataset& dataset, std::span<const std::string> classes,
                   std::span<const std::vector<NamedDetection>> detections, VocMetric metric,
                   double iou_threshold) {
  if (detections.size() != dataset.images.size()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("detections of {} images for a dataset of {}",
                                                         detections.size(), dataset.images.size()));
  }
  const ClassNames names(classes);
  std::vector<std::vector<VocDetection>> by_class(classes.size());
  for (std::size_t i = 0; i < detections.size(); ++i) {
    for (const NamedDetection& found : detections[i]) {
      const auto index = names.find(std::string(found.name));
      if (!index) continue;
      VocDetection detection{i, found.score, {}};
      for (std::size_t k = 0; k < 4; ++k) detection.box[k] = static_cast<double>(found.box[k]) + 1;
      by_class[*index].push_back(detection);
    }
  }
  VocScore score;
  for (std::size_t index = 0; index < classes.size(); ++index) {
    const std::vector<VocDetection>& exact = by_class[index];
    std::vector<VocDetection> text;
    std::transform(exact.begin(), exact.end(), std::back_inserter(text), rounded_as_text);
    const std::vector<VocTruth> truth = truth_of(dataset, names, index);
    const VocCurve curve = voc_curve(truth, exact, iou_threshold);
    VocClassScore of_class{
        classes[index], {}, {}, curve.positives, static_cast<std::int64_t>(exact.size()), 0};
    if (!curve.recall.empty()) of_class.max_recall = curve.recall.back();
    if (curve.positives > 0) {
      of_class.ap = average_precision(curve, metric);
      of_class.ap_rounded = average_precision(voc_curve(truth, text, iou_threshold), metric);
    }
    score.classes.push_back(std::move(of_class));
  }
  score.map = mean(score.classes, &VocClassScore::ap);
  score.map_rounded = mean(score.classes, &VocClassScore::ap_rounded);
  return score;
}

std::optional<ProposalRecall> proposal_recall(const VocDataset& dataset,
                                              std::span<const std::vector<std::array<float, 4>>> proposals,
                                              AreaRange range) {
  if (proposals.size() != dataset.images.size()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("proposals of {} images for a dataset of {}",
                                                         proposals.size(), dataset.images.size()));
  }
  std::vector<double> coverage;
  for (std::size_t i = 0; i < proposals.size(); ++i) {
    std::vector<Box> objects;
    for (const VocObject& object : dataset.images[i].objects) {
      const double area = area_of(object.box);
      if (object.difficult || area < range.least || area > range.most) continue;
      objects.push_back({object.box[0] - 1, object.box[1] - 1, object.box[2] - 1, object.box[3] - 1});
    }
    append_coverage(objects, proposals[i], coverage);
  }
  if (coverage.empty()) return std::nullopt;
  ProposalRecall result;
  result.objects = static_cast<std::int64_t>(coverage.size());
  for (std::size_t t = 0; t < result.recall.size(); ++t) {
    const auto found = std::count_if(coverage.begin(), coverage.end(),
                                     [&](double iou) { return iou >= ProposalRecall::thresholds[t]; });
    result.recall[t] = static_cast<double>(found) / static_cast<double>(coverage.size());
  }
  result.average = std::accumulate(result.recall.begin(), result.recall.end(), 0.0) /
                   static_cast<double>(result.recall.size());
  return result;
}

}  // namespace frcnn
