// Convolution: an implicit GEMM over the published O,I,H,W weights.
#include "implicit_gemm.h"

namespace frcnn::cuda {

Prepared prepare(const Conv2d& op, const KernelSpec& spec, const Settings& settings) {
  const Shape &s = spec.in[0].shape, &w = spec.in[1].shape;
  ImplicitGemm gemm;
  gemm.batch = static_cast<int>(s[0]);
  gemm.height = static_cast<int>(s[1]);
  gemm.width = static_cast<int>(s[2]);
  gemm.channels = static_cast<int>(s[3]);
  gemm.kernel_h = static_cast<int>(w[2]);
  gemm.kernel_w = static_cast<int>(w[3]);
  gemm.stride = op.stride;
  gemm.pad = op.pad;
  gemm.out_height = (gemm.height + 2 * op.pad - gemm.kernel_h) / op.stride + 1;
  gemm.out_width = (gemm.width + 2 * op.pad - gemm.kernel_w) / op.stride + 1;
  gemm.outputs = static_cast<int>(w[0]);
  gemm.epilogue = op.epilogue;
  const std::int64_t taps = w[2] * w[3];
  return prepare_implicit_gemm(gemm, spec, settings,
                               [taps, channels = w[1]](std::int64_t o, std::int64_t tap, std::int64_t c) {
                                 return (o * channels + c) * taps + tap;
                               });
}

}  // namespace frcnn::cuda
