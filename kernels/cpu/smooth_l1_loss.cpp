// Smooth L1 with inside and outside weights, and its gradient, by one thread.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels.h"
#include "lane_sum.h"

namespace frcnn::cpu {

Prepared prepare(const SmoothL1Loss& op, const KernelSpec& spec, const Settings&) {
  const Shape& shape = spec.in[0].shape;
  const std::int64_t counts = spec.in.size() == 5 ? spec.in[4].shape[0] : -1;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [n = shape.elements(), first = shape[0], counts,
                  sigma2 = op.sigma * op.sigma](const KernelArgs& args) {
    const float *pred = args.in[0].as<const float>(), *target = args.in[1].as<const float>();
    const float *inside = args.in[2].as<const float>(), *outside = args.in[3].as<const float>();
    float* d_pred = args.out[1].as<float>();
    double divisor = static_cast<double>(std::max<std::int64_t>(first, 1));
    if (counts >= 0) {
      std::int64_t sum = 0;
      for (std::int64_t i = 0; i < counts; ++i) sum += args.in[4].as<const std::int32_t>()[i];
      divisor = static_cast<double>(std::max<std::int64_t>(sum, 1));
    }
    LaneSum loss;
    for (std::int64_t i = 0; i < n; ++i) {
      d_pred[i] = 0.0f;
      // What takes no part may hold anything, also the NaN of a target without a size.
      if (inside[i] == 0.0f || outside[i] == 0.0f) continue;
      const double x = static_cast<double>(inside[i]) * (static_cast<double>(pred[i]) - target[i]);
      const bool near = std::abs(x) < 1.0 / sigma2;
      const double slope = near ? sigma2 * x : x > 0 ? 1.0 : x < 0 ? -1.0 : x;  // NaN stays
      loss.add(i, outside[i] * (near ? 0.5 * sigma2 * x * x : std::abs(x) - 0.5 / sigma2));
      d_pred[i] = static_cast<float>(outside[i] * inside[i] * slope / divisor);
    }
    *args.out[0].as<float>() = static_cast<float>(loss.total() / divisor);
  };
  return prepared;
}

}  // namespace frcnn::cpu
