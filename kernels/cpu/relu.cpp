// dst = max(src, 0). A NaN gives 0, as in the fused form of the matrix products.
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

FRCNN_MULTIVERSION void relu(const float* src, float* dst, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = src[i] > 0.0f ? src[i] : 0.0f;
}

}  // namespace

Prepared prepare(const Relu&, const KernelSpec& spec, const Settings& settings) {
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [n = spec.out[0].shape.elements(), threads = settings.threads](const KernelArgs& args) {
    const float* src = args.in[0].as<const float>();
    float* dst = args.out[0].as<float>();
    parallel_for(n, threads,
                 [=](std::int64_t begin, std::int64_t end) { relu(src + begin, dst + begin, end - begin); });
  };
  return prepared;
}

}  // namespace frcnn::cpu
