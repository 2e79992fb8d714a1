// The VOC evaluation as py-faster-rcnn's voc_eval.py does it (SPEC section 8), and its proposal recall.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "training/voc_dataset.h"

namespace frcnn {

enum class VocMetric : std::uint8_t { eleven_point, area };  // VOC2007; VOC2010 and later

// A detection of one class. Boxes of both sides of a match are inclusive and counted from 1, as the XML has
// them.
struct VocDetection {
  std::size_t image = 0;  // index into the truth
  double score = 0;
  std::array<double, 4> box{};
};

struct VocTruth {  // objects of one class in one image
  std::vector<std::array<double, 4>> boxes;
  std::vector<bool> difficult;  // as many
};

// Recall and precision after each detection, in descending score (equal scores in input order).
struct VocCurve {
  std::vector<double> recall, precision;
  std::int64_t positives = 0;  // objects that are not difficult
};

// A detection is matched to the object that it overlaps most and to no other: right when their IoU is above
// `iou_threshold` and the object was not found before, out of the count when that object is difficult. With
// no positives recall is not defined and stays 0. Throws Error(invalid_argument) for an image index beyond
// the truth.
VocCurve voc_curve(std::span<const VocTruth> truth, std::span<const VocDetection> detections,
                   double iou_threshold);

double average_precision(const VocCurve& curve, VocMetric metric);

// What the release's text files keep of a detection: score as "%.3f", coordinates as "%.1f".
VocDetection rounded_as_text(const VocDetection& detection);

struct VocClassScore {
  std::string name;
  std::optional<double> ap, ap_rounded;  // none without positives
  std::int64_t positives = 0, detections = 0;
  double max_recall = 0;  // unrounded
};

struct VocScore {
  std::vector<VocClassScore> classes;      // in the order asked for
  std::optional<double> map, map_rounded;  // over the classes that have positives
};

// One detection as a detector gives it: counted from 0.
struct NamedDetection {
  std::string_view name;
  float score = 0;
  std::array<float, 4> box{};
};

// `detections` holds one list per image of the dataset. Names are looked up by ClassNames; detections
// and objects of other classes play no part.
VocScore voc_score(const VocDataset& dataset, std::span<const std::string> classes,
                   std::span<const std::vector<NamedDetection>> detections, VocMetric metric,
                   double iou_threshold = 0.5);

// Recall of class-blind boxes at IoU 0.50, 0.55 ... 0.95. Objects and proposals are paired one to one,
// greedily: the object that is covered best first. Difficult objects play no part. A range counts objects by
// their area alone.
struct ProposalRecall {
  static constexpr std::array<double, 10> thresholds{0.50, 0.55, 0.60, 0.65, 0.70,
                                                     0.75, 0.80, 0.85, 0.90, 0.95};
  std::array<double, 10> recall{};
  double average = 0;  // the mean of `recall`
  std::int64_t objects = 0;
};

struct AreaRange {  // square pixels, both ends included
  double least = 0, most = 1e10;
};

// Boxes of `proposals` are counted from 0, one list per image. Nothing when no object lies in the range.
std::optional<ProposalRecall> proposal_recall(const VocDataset& dataset,
                                              std::span<const std::vector<std::array<float, 4>>> proposals,
                                              AreaRange range = {});

}  // namespace frcnn
