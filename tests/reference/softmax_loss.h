// Cross-entropy of a softmax, its gradient aside.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <span>
#include <vector>

#include "graph/ops.h"

namespace frcnn::reference {

template <class T>
struct Loss {
  T loss = 0;
  std::vector<T> gradient;
};

// score rows of channels = classes * groups, labels rows of groups; every step in T.
template <class T>
Loss<T> softmax_loss(const SoftmaxLoss& op, std::size_t channels, std::span<const float> score,
                     std::span<const std::int32_t> labels) {
  Loss<T> to{0, std::vector<T>(score.size())};
  const auto groups = static_cast<std::size_t>(op.groups), classes = channels / groups;
  const auto counted =
      std::count_if(labels.begin(), labels.end(), [](std::int32_t label) { return label >= 0; });
  const T divisor =
      op.divisor > 0 ? static_cast<T>(op.divisor) : static_cast<T>(std::max<std::ptrdiff_t>(counted, 1));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) continue;
    const std::size_t first = i / groups * channels + i % groups;
    T largest = static_cast<T>(score[first]), sum = 0;
    for (std::size_t c = 0; c < classes; ++c)
      largest = std::max(largest, static_cast<T>(score[first + c * groups]));
    for (std::size_t c = 0; c < classes; ++c)
      sum += std::exp(static_cast<T>(score[first + c * groups]) - largest);
    for (std::size_t c = 0; c < classes; ++c) {
      const T p = std::exp(static_cast<T>(score[first + c * groups]) - largest) / sum;
      const bool own = c == static_cast<std::size_t>(labels[i]);
      to.gradient[first + c * groups] = (p - (own ? T(1) : T(0))) / divisor;
      if (own) to.loss -= std::log(std::max(p, static_cast<T>(FLT_MIN))) / divisor;
    }
  }
  return to;
}

}  // namespace frcnn::reference
