// What the golden tests of the box ops share: running a kernel on golden tensors, and small lists of boxes.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "golden/golden.h"
#include "kernels.h"
#include "ops/op_runner.h"

namespace frcnn::golden {

inline test::Tensor f32(const Shape& shape, const std::vector<float>& data) { return test::f32(shape, data); }

inline std::vector<float> floats(const test::Tensor& t) {
  return {t.as<float>().begin(), t.as<float>().end()};
}
inline std::vector<std::int32_t> ints(const test::Tensor& t) {
  return {t.as<std::int32_t>().begin(), t.as<std::int32_t>().end()};
}

// The first `rows` rows of `width` elements.
template <typename T>
std::vector<T> head(const std::vector<T>& v, std::int64_t rows, std::int64_t width) {
  return {v.begin(), v.begin() + static_cast<std::ptrdiff_t>(rows * width)};
}

// NMS as a detector does it: order by score (TopK), then suppress. Returns the input indices of the
// survivors. The boxes come back by position, so an index is found through a map from each sorted row to its
// source.
inline std::vector<std::int64_t> nms(const std::vector<float>& boxes, const std::vector<float>& scores,
                                     float threshold, Suppress rule) {
  const auto n = static_cast<std::int64_t>(scores.size());
  std::vector<std::int64_t> order(scores.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  const auto sorted = test::run_op(TopK{0}, {f32({1, n, 4}, boxes), f32({1, n}, scores)});
  // The scores of the Nms op only travel along; ranks in their place tell which rows survived.
  std::vector<float> ranks(scores.size());
  for (std::size_t i = 0; i < ranks.size(); ++i) ranks[i] = static_cast<float>(i);
  const auto kept = test::run_op(Nms{threshold, rule, n}, {sorted[0], f32({1, n}, ranks), sorted[2]});
  std::vector<std::int64_t> keep;
  for (std::int32_t i = 0; i < ints(kept[2])[0]; ++i) {
    keep.push_back(order[static_cast<std::size_t>(floats(kept[1])[static_cast<std::size_t>(i)])]);
  }
  return keep;
}

}  // namespace frcnn::golden
