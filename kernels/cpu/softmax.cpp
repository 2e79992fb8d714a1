// Softmax over channels that lie `groups` apart. The maps are small (RPN scores, class scores): plain loops.
// The exponential is the shared one, so that every device gets the same scores from the same sums.
#include "box_math.h"
#include "cpu/parallel.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

// One group of `count` values. A NaN or a plus infinity among them makes all of them NaN, so that it is
// noticed.
void softmax(const float* src, float* dst, std::int64_t count, std::int64_t step) {
  float largest = src[0];
  for (std::int64_t i = 1; i < count; ++i) {
    if (src[i * step] > largest) largest = src[i * step];
  }
  float sum = 0.0f;
  for (std::int64_t i = 0; i < count; ++i) {
    dst[i * step] = exp_f32(src[i * step] - largest);
    sum += dst[i * step];
  }
  for (std::int64_t i = 0; i < count; ++i) dst[i * step] /= sum;
}

}  // namespace

Prepared prepare(const Softmax& op, const KernelSpec& spec, const Settings& settings) {
  const Shape& shape = spec.in[0].shape;
  const std::int64_t channels = shape[shape.rank - 1], groups = op.groups;
  const std::int64_t rows = channels == 0 ? 0 : shape.elements() / channels;
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [=, threads = settings.threads](const KernelArgs& args) {
    const float* src = args.in[0].as<const float>();
    float* dst = args.out[0].as<float>();
    parallel_for(rows, threads, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        for (std::int64_t g = 0; g < groups; ++g) {
          softmax(src + row * channels + g, dst + row * channels + g, channels / groups, groups);
        }
      }
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
