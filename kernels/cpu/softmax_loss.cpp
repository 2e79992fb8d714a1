// Cross-entropy of a softmax and its gradient, by one thread: the maps are small.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>

#include "box_math.h"
#include "kernels.h"
#include "lane_sum.h"

namespace frcnn::cpu {

namespace {

// One group of `count` scores: its loss, and d = softmax - onehot. A label that is no class gives NaN, which
// stops training.
double cross_entropy(const float* score, std::int32_t label, std::int64_t count, std::int64_t step,
                     float* d) {
  float largest = score[0], sum = 0.0f;
  for (std::int64_t i = 1; i < count; ++i) largest = std::max(largest, score[i * step]);
  for (std::int64_t i = 0; i < count; ++i) sum += d[i * step] = exp_f32(score[i * step] - largest);
  for (std::int64_t i = 0; i < count; ++i) d[i * step] /= sum;
  if (label >= count) return std::numeric_limits<double>::quiet_NaN();
  const float p = d[label * step];
  d[label * step] = p - 1.0f;
  return p == p ? -std::log(static_cast<double>(std::max(p, FLT_MIN))) : p;
}

}  // namespace

Prepared prepare(const SoftmaxLoss& op, const KernelSpec& spec, const Settings&) {
  const Shape& shape = spec.in[0].shape;
  const std::int64_t channels = shape[shape.rank - 1], groups = op.groups, classes = channels / groups;
  const std::int64_t rows = channels == 0 ? 0 : shape.elements() / channels;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [=](const KernelArgs& args) {
    const float* score = args.in[0].as<const float>();
    const auto* labels = args.in[1].as<const std::int32_t>();
    float* d_score = args.out[1].as<float>();
    const auto counted =
        std::count_if(labels, labels + rows * groups, [](std::int32_t label) { return label >= 0; });
    const double divisor =
        op.divisor > 0 ? op.divisor : static_cast<double>(std::max<std::int64_t>(counted, 1));
    LaneSum loss;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t g = 0; g < groups; ++g) {
        float* d = d_score + row * channels + g;
        const std::int32_t label = labels[row * groups + g];
        if (label < 0) {
          for (std::int64_t c = 0; c < classes; ++c) d[c * groups] = 0.0f;
          continue;
        }
        loss.add(row * groups + g, cross_entropy(score + row * channels + g, label, classes, groups, d));
        for (std::int64_t c = 0; c < classes; ++c)
          d[c * groups] = static_cast<float>(d[c * groups] / divisor);
      }
    }
    *args.out[0].as<float>() = static_cast<float>(loss.total() / divisor);
  };
  return prepared;
}

}  // namespace frcnn::cpu
