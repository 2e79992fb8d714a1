// Two files of tensors, compared tensor by tensor in the order of the network that made them: for porting a detector.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model_io/safetensors.h"

namespace frcnn {

// Elements a and b agree when |a - b| <= absolute + relative * max|b|, the maximum over the finite elements of b's whole
// tensor: an error is measured against the size of the map, not of one small element. NaN agrees with NaN and an
// infinity with the same infinity. Two tensors of integers must be equal. Rows of `detections` that follow each other with
// equal class and score, in both files, are a set: they are paired by their boxes. Where a's box is not b's, but that of
// another RoI to which b gave just the same score (b's `cls_prob` and `pred_boxes`), suppression kept the other of two
// equals, which agrees, too.
struct Tolerance {
  double relative = 1e-4, absolute = 0;
};

enum class Verdict : std::uint8_t { same, differs, shape_differs };

struct TensorDifference {
  std::string name;
  Verdict verdict = Verdict::same;
  DType dtype_a = DType::f32, dtype_b = DType::f32;
  std::vector<std::int64_t> shape_a, shape_b;
  // The rest means nothing where the shapes differ.
  std::uint64_t elements = 0, beyond = 0;      // compared, and not in agreement
  std::uint64_t nonfinite = 0;                 // of those: NaN or infinity against something else
  std::uint64_t reordered = 0;                 // rows of `detections` that stood elsewhere among their equals
  std::uint64_t other_of_tie = 0;              // rows of `detections` from another RoI with just the same score
  double allowed = 0;                          // absolute + relative * max|b|
  double max_abs = 0;                          // of a - b, over the pairs that are both finite
  double relative_l2 = 0;                      // |a - b| / |b| over the same pairs; infinite where b is 0 and a is not
  // Where the first non-finite disagreement is, or else the largest difference; empty where there is none.
  std::vector<std::int64_t> worst;
  double worst_a = 0, worst_b = 0;
};

struct Comparison {
  std::vector<TensorDifference> tensors;       // in both files, in network order
  std::vector<std::string> only_a, only_b;
  std::string first_difference;                // the first tensor in network order that differs; empty: none
  std::uint64_t elements = 0;
  // Every common tensor agrees, and there is one.
  bool same() const { return first_difference.empty() && !tensors.empty(); }
};

// Network order is a's metadata entry "order" (a JSON list of tensor names), or else b's, or else a's file order; tensors
// that the list leaves out follow in file order. Throws Error(bad_file) for an "order" that is not such a list.
Comparison compare_tensors(const SafetensorsFile& a, const SafetensorsFile& b, const Tolerance& tolerance);

// The value of "order" for these names.
std::string order_to_json(const std::vector<std::string>& names);

}  // namespace frcnn
