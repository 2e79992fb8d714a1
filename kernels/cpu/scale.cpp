// dst = factor * src.
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

FRCNN_MULTIVERSION void scale(const float* src, float* dst, std::int64_t n, float factor) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = src[i] * factor;
}

}  // namespace

Prepared prepare(const Scale& op, const KernelSpec& spec, const Settings& settings) {
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [n = spec.out[0].shape.elements(), threads = settings.threads,
                  factor = op.factor](const KernelArgs& args) {
    const float* src = args.in[0].as<const float>();
    float* dst = args.out[0].as<float>();
    parallel_for(n, threads, [=](std::int64_t begin, std::int64_t end) {
      scale(src + begin, dst + begin, end - begin, factor);
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
