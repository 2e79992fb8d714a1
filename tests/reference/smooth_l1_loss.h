// Smooth L1 with inside and outside weights.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "graph/ops.h"
#include "reference/softmax_loss.h"

namespace frcnn::reference {

// All of one length; every step in T.
template <class T>
Loss<T> smooth_l1_loss(const SmoothL1Loss& op, std::span<const float> pred, std::span<const float> target,
                       std::span<const float> inside, std::span<const float> outside, T divisor) {
  Loss<T> to{0, std::vector<T>(pred.size())};
  const T s2 = static_cast<T>(op.sigma * op.sigma);
  for (std::size_t i = 0; i < pred.size(); ++i) {
    const T in = static_cast<T>(inside[i]), out = static_cast<T>(outside[i]);
    const T x = in * (static_cast<T>(pred[i]) - static_cast<T>(target[i]));
    const bool near = std::abs(x) < 1 / s2;
    to.loss += out * (near ? s2 * x * x / 2 : std::abs(x) - T(0.5) / s2) / divisor;
    to.gradient[i] = out * in * (near ? s2 * x : std::copysign(T(1), x)) / divisor;
  }
  return to;
}

}  // namespace frcnn::reference
