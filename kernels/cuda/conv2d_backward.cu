// Gradients of the convolution. With respect to the source: an implicit GEMM of the result's gradient with
// the mirrored filter, its channels exchanged; a stride spreads the cells of the gradient. With respect to
// weight and bias: weight_gradient.h.
#include "f32_only.h"
#include "implicit_gemm.h"
#include "weight_gradient.h"

namespace frcnn::cuda {

Prepared prepare(const Conv2dBackwardData& op, const KernelSpec& spec, const Settings& settings) {
  require_f32(spec, "conv2d_backward_data");
  require_f32_operands(op.operands, "conv2d_backward_data");
  const Shape &d = spec.in[0].shape, &w = spec.in[1].shape;
  ImplicitGemm gemm;
  gemm.batch = static_cast<int>(d[0]);
  gemm.height = static_cast<int>(d[1]);
  gemm.width = static_cast<int>(d[2]);
  gemm.channels = static_cast<int>(d[3]);
  gemm.spread = op.stride;
  gemm.kernel_h = static_cast<int>(w[2]);
  gemm.kernel_w = static_cast<int>(w[3]);
  gemm.pad_h = gemm.kernel_h - 1 - op.pad;
  gemm.pad_w = gemm.kernel_w - 1 - op.pad;
  gemm.out_height = static_cast<int>(op.height);
  gemm.out_width = static_cast<int>(op.width);
  gemm.outputs = static_cast<int>(w[1]);
  const std::int64_t taps = w[2] * w[3];
  PublishedLayout published;
  published.output.stride = taps;
  published.channel.stride = w.row();
  published.first = taps - 1;
  published.tap_stride = -1;
  return prepare_implicit_gemm(gemm, spec, for_gradients(settings), published, ":mirrored");
}

Prepared prepare(const Conv2dBackwardWeight& op, const KernelSpec& spec, const Settings& settings) {
  require_f32(spec, "conv2d_backward_weight");
  require_f32_operands(op.operands, "conv2d_backward_weight");
  const Shape &s = spec.in[0].shape, &d = spec.in[1].shape;
  WeightGradient gradient;
  gradient.batch = static_cast<int>(s[0]);
  gradient.height = static_cast<int>(s[1]);
  gradient.width = static_cast<int>(s[2]);
  gradient.channels = static_cast<int>(s[3]);
  gradient.kernel_h = static_cast<int>(op.kernel_h);
  gradient.kernel_w = static_cast<int>(op.kernel_w);
  gradient.stride = op.stride;
  gradient.pad = op.pad;
  gradient.out_height = static_cast<int>(d[1]);
  gradient.out_width = static_cast<int>(d[2]);
  gradient.outputs = static_cast<int>(d[3]);
  gradient.inner = gradient.channels;
  gradient.accumulate = op.accumulate;
  return prepare_weight_gradient(gradient, spec, settings);
}

}  // namespace frcnn::cuda
