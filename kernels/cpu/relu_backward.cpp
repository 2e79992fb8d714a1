// d_src = d_dst where the result was positive. A NaN result cannot be: the forward pass made it 0.
#include "cpu/multiversion.h"
#include "cpu/parallel.h"
#include "kernels.h"

namespace frcnn::cpu {

namespace {

FRCNN_MULTIVERSION void relu_backward(const float* d_dst, const float* dst, float* d_src, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) d_src[i] = dst[i] > 0.0f ? d_dst[i] : 0.0f;
}

}  // namespace

Prepared prepare(const ReluBackward&, const KernelSpec& spec, const Settings& settings) {
  Prepared prepared;
  prepared.implementation = "plain";
  prepared.run = [n = spec.out[0].shape.elements(), threads = settings.threads](const KernelArgs& args) {
    const float *d_dst = args.in[0].as<const float>(), *dst = args.in[1].as<const float>();
    float* d_src = args.out[0].as<float>();
    parallel_for(n, threads, [=](std::int64_t begin, std::int64_t end) {
      relu_backward(d_dst + begin, dst + begin, d_src + begin, end - begin);
    });
  };
  return prepared;
}

}  // namespace frcnn::cpu
