// What it means that two devices find the same, and how far a tensor is from an exact one.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "catch.h"
#include "detector/detector.h"

namespace frcnn::simt_test {

// Of the reference data: of a top's largest value, of scores, and in pixels.
inline constexpr double top_tolerance = 1e-4, score_tolerance = 1e-4, box_tolerance = 5e-2;

inline const NamedTensor* find(const DetectResult& result, const std::string& name) {
  for (const NamedTensor& tensor : result.tensors)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

inline bool same_bits(const DetectResult& a, const DetectResult& b) {
  return a.proposal_count == b.proposal_count &&
         std::equal(a.detections.begin(), a.detections.end(), b.detections.begin(), b.detections.end(),
                    [](const Detection& x, const Detection& y) {
                      return x.class_id == y.class_id && x.score == y.score && x.box == y.box;
                    });
}

// The proposals and tensors that were asked for as well.
inline bool same_bits_throughout(const DetectResult& a, const DetectResult& b) {
  return same_bits(a, b) &&
         std::equal(
             a.proposals.begin(), a.proposals.end(), b.proposals.begin(), b.proposals.end(),
             [](const Proposal& x, const Proposal& y) { return x.score == y.score && x.box == y.box; }) &&
         std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), b.tensors.end(),
                    [](const NamedTensor& x, const NamedTensor& y) {
                      return x.name == y.name && x.data.size() == y.data.size() &&
                             std::memcmp(x.data.data(), y.data.data(), x.data.size() * sizeof(float)) == 0;
                    });
}

// The larger of the two; what is not a number is larger than any.
inline double larger(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? std::numeric_limits<double>::infinity() : std::max(a, b);
}

inline double box_distance(const std::array<float, 4>& a, const float* b) {
  double most = 0;
  for (std::size_t k = 0; k < 4; ++k) most = larger(most, std::abs(static_cast<double>(a[k]) - b[k]));
  return most;
}

// Two RoIs that pool the same cells have equal scores, and suppression may keep either: true if `got` is the
// box of an RoI to which the CPU gives the very score of `want`.
inline bool is_twin(const Detection& want, const Detection& got, const DetectResult& cpu) {
  const NamedTensor *prob = find(cpu, "cls_prob"), *boxes = find(cpu, "pred_boxes");
  REQUIRE((prob && boxes));
  const auto classes = static_cast<std::size_t>(prob->shape[1]),
             columns = static_cast<std::size_t>(boxes->shape[1]);
  const auto c = static_cast<std::size_t>(want.class_id);
  for (std::size_t r = 0; r < static_cast<std::size_t>(prob->shape[0]); ++r) {
    if (std::abs(static_cast<double>(prob->data[r * classes + c]) - want.score) > 1e-6) continue;
    if (box_distance(got.box, &boxes->data[r * columns + (columns == 4 ? 0 : 4 * c)]) <= box_tolerance)
      return true;
  }
  return false;
}

// One to one: same class, score and box within the tolerances. Returns how many.
inline std::size_t compare_detections(const DetectResult& got, const DetectResult& want) {
  CHECK(got.detections.size() == want.detections.size());
  std::vector<bool> used(got.detections.size());
  const auto take = [&](const Detection& row, auto fits) {
    for (std::size_t i = 0; i < used.size(); ++i) {
      const Detection& g = got.detections[i];
      if (used[i] || g.class_id != row.class_id || std::abs(g.score - row.score) > score_tolerance ||
          !fits(g))
        continue;
      used[i] = true;
      return true;
    }
    return false;
  };
  std::vector<const Detection*> unmatched;
  for (const Detection& row : want.detections)
    if (!take(row, [&](const Detection& g) { return box_distance(row.box, g.box.data()) <= box_tolerance; }))
      unmatched.push_back(&row);
  for (const Detection* row : unmatched) {
    INFO("class " << row->class_id << " score " << row->score << " box " << row->box[0] << " " << row->box[1]
                  << " " << row->box[2] << " " << row->box[3]);
    CHECK(take(*row, [&](const Detection& g) { return is_twin(*row, g, want); }));
  }
  return want.detections.size();
}

inline double relative_error(const NamedTensor& got, const NamedTensor& exact) {
  REQUIRE(got.data.size() == exact.data.size());
  double difference = 0, square = 0;
  for (std::size_t i = 0; i < exact.data.size(); ++i) {
    difference += std::pow(static_cast<double>(got.data[i]) - exact.data[i], 2);
    square += std::pow(static_cast<double>(exact.data[i]), 2);
  }
  return square > 0 ? std::sqrt(difference / square) : std::sqrt(difference);
}

// The largest difference in units of the exact tensor's largest value.
inline double largest_error(const NamedTensor& got, const NamedTensor& exact) {
  REQUIRE(got.data.size() == exact.data.size());
  double most = 0, difference = 0;
  for (std::size_t i = 0; i < exact.data.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(exact.data[i])));
    difference = larger(difference, std::abs(static_cast<double>(exact.data[i]) - got.data[i]));
  }
  return most > 0 ? difference / most : difference;
}

}  // namespace frcnn::simt_test
